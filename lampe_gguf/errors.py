"""Errors that a user sees: one sentence saying what is wrong and what to do about it."""

from __future__ import annotations


class LampeError(Exception):
    """A failure with its reason; the command line prints it and exits with `exit_code`."""

    exit_code = 1


class UsageError(LampeError):
    """What was asked for makes no sense: a wrong option, an unknown name; exit code 2."""

    exit_code = 2


class FieldError(LampeError):
    """A value of LampeConfig that is out of its range.

    field    its name
    allowed  what it may be, in words
    """

    def __init__(self, field: str, value: object, allowed: str) -> None:
        super().__init__(f"LaMPE's {field} is {value!r:.80}; it must be {allowed}")
        self.field = field
        self.value = value
        self.allowed = allowed
