"""Errors that a user sees: one sentence saying what is wrong and what to do about it."""

from __future__ import annotations


class LampeError(Exception):
    """A failure with its reason; the command line prints it and exits with `exit_code`."""

    exit_code = 1


class UsageError(LampeError):
    """What was asked for makes no sense: a wrong option, an unknown name; exit code 2."""

    exit_code = 2
