"""Errors that a user sees: one sentence saying what is wrong and what to do about it."""

from __future__ import annotations


class LampeError(Exception):
    """A failure with its reason; the command line prints it and exits with `exit_code`.

    >>> from lampe_gguf import LampeError, inspect_gguf
    >>> try:
    ...     inspect_gguf("book.txt")
    ... except LampeError as error:
    ...     print(error)
    book.txt is not a GGUF file; give the path of one
    """

    exit_code = 1


class UsageError(LampeError):
    """What was asked for makes no sense: a wrong option, an unknown name; exit code 2.

    >>> from lampe_gguf import LampeError, UsageError, preset
    >>> issubclass(UsageError, LampeError)
    True
    >>> preset("nobody's")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    lampe_gguf.errors.UsageError: there is no preset "nobody's"; there are llama2, ...
    """

    exit_code = 2


class FieldError(LampeError):
    """A value of LampeConfig that is out of its range.

    field    its name
    allowed  what it may be, in words

    >>> import dataclasses
    >>> from lampe_gguf import FieldError, default_config
    >>> try:
    ...     dataclasses.replace(default_config(8192), local_window=0).validate()
    ... except FieldError as error:
    ...     print(error.field, error.value)
    local_window 0
    """

    def __init__(self, field: str, value: object, allowed: str) -> None:
        super().__init__(f"LaMPE's {field} is {value!r:.80}; it must be {allowed}")
        self.field = field
        self.value = value
        self.allowed = allowed
