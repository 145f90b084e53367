"""Errors that a user sees: one sentence saying what is wrong and what to do about it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent


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


def how_to_add(extra: str) -> str:
    """For a sentence, what installs one of lampe-gguf's extras: "run ... -m pip install ..."."""
    from importlib import metadata

    # what is installed satisfies its own name, so that pip looks for what the extra adds alone
    wanted = f"lampe-gguf[{extra}]"
    if is_checkout() and not any(metadata.distributions(name="lampe-gguf")):
        return f'run {pip()} install --editable "{PACKAGE.parent}[{extra}]"'
    return f'run {pip()} install "{wanted}"'


def pip() -> str:
    """The pip of the Python that runs this, as a command.

    A system has several, and the one called `pip` may belong to another Python, or refuse.
    """
    if not sys.executable or getattr(sys, "frozen", False):  # an app of somebody's, its own Python
        return "pip"
    words = [sys.executable, "-m", "pip"]
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def is_checkout(package: Path = PACKAGE) -> bool:
    """Whether this package lies beside the tools that build the backend."""
    return (package.parent / "tools" / "bootstrap.py").is_file()
