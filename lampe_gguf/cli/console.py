"""Standard streams that are always there and never raise for what they cannot show."""

from __future__ import annotations

import contextlib
import io
import os
import select
import stat
import sys
from typing import Any, TextIO

from ..errors import LampeError
from ..shown import MESSAGE_LIMIT, shown


class OutputError(LampeError):
    """Standard output takes no more; `reader_is_gone` where nobody reads it (| head)."""

    def __init__(self, error: OSError) -> None:
        super().__init__(
            f"cannot write to standard output: {error.strerror}; give it a place that can hold it"
        )
        self.reader_is_gone = isinstance(error, BrokenPipeError)


class _Raw(io.FileIO):
    """All of what is written or an exception: nothing stays behind to be written at exit."""

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        written = 0
        try:
            while written < len(view):
                count = super().write(view[written:])
                if count is None:  # whoever started us made it non-blocking
                    select.select([], [self.fileno()], [])
                written += count or 0
        except OSError as error:
            self.fail(error)
        return len(view)

    def fail(self, error: OSError) -> None:
        raise OutputError(error) from None


class _Silent(_Raw):
    """For standard error: what cannot be said is not worth stopping for."""

    def fail(self, error: OSError) -> None:
        pass


def prepare() -> None:
    """Make the standard streams safe; to be called once, before anything else is opened.

    A closed descriptor 0, 1 or 2 would be given to the next file that is opened, and messages
    would go into it: it is opened on the null device, 1 only for reading, so that writing fails.
    Streams that Python left None are made anew. What an encoding lacks is replaced; failures are
    OutputError on standard output and nothing on standard error.
    """
    for number in (0, 1, 2):
        _occupy(number)
    sys.stdin = _input(sys.stdin)
    sys.stdout = _output(sys.stdout, 1, _Raw, "replace")
    sys.stderr = _output(sys.stderr, 2, _Silent, "backslashreplace")


def _occupy(number: int) -> None:
    try:
        os.fstat(number)
    except OSError:
        # where an output was closed, what it is to hold is lost: writing there must fail
        descriptor = os.open(os.devnull, os.O_RDONLY if number == 1 else os.O_RDWR)
        if descriptor != number:
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.set_inheritable(number, True)


def _input(stream: TextIO | None) -> TextIO:
    if stream is None:
        return open(os.devnull, encoding="utf-8")
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")  # a byte that is no text costs itself alone
    return stream


def _output(stream: TextIO | None, number: int, kind: type[_Raw], errors: str) -> TextIO:
    if stream is None:
        return _text(kind, number, "utf-8", errors)
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    raw = getattr(stream.buffer, "raw", stream.buffer)
    if not isinstance(raw, io.FileIO):  # a Windows console: it knows better how to write
        stream.reconfigure(errors=errors)
        return stream
    with contextlib.suppress(OSError):
        stream.flush()
    return _text(kind, raw.fileno(), stream.encoding, errors)


def _text(kind: type[_Raw], number: int, encoding: str, errors: str) -> TextIO:
    raw: Any = kind(number, "w", closefd=False)
    return io.TextIOWrapper(raw, encoding, errors, write_through=True)


def out(text: str = "", end: str = "\n") -> None:
    """Text for standard output as it is; OutputError where it cannot be written.

    Text of a file must have gone through shown() or visible().
    """
    try:
        sys.stdout.write(text + end)
        sys.stdout.flush()
    except OSError as error:
        raise OutputError(error) from None


def say(sentence: object, new_line: bool = False, keep: str = "") -> None:
    """A line on standard error, made safe to show; silent where there is none.

    new_line  begin a new one: Ctrl-C leaves its mark on the line that it was typed in
    keep      as shown() has it
    """
    if sys.stderr is None:
        return
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write("\n" * new_line + shown(sentence, MESSAGE_LIMIT, keep) + "\n")
        sys.stderr.flush()


def input_waits() -> bool:
    """Whether standard input is a pipe, a socket or a file with something in it; never waits.

    What is in it stays there. False where that cannot be told: of pipes on Windows.
    """
    try:
        descriptor = sys.stdin.fileno()
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode):
            return status.st_size > os.lseek(descriptor, 0, os.SEEK_CUR)
        if not (stat.S_ISFIFO(status.st_mode) or stat.S_ISSOCK(status.st_mode)):
            return False
        # select says "readable" of a pipe that was closed, too
        import fcntl
        import termios

        count = fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4))
        return int.from_bytes(count, sys.byteorder) > 0
    except (AttributeError, ImportError, OSError, ValueError):
        return False


def discard_output() -> None:
    """Send what is still to be written to standard output nowhere."""
    with contextlib.suppress(OSError, ValueError):
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, sys.stdout.fileno())
        os.close(descriptor)
