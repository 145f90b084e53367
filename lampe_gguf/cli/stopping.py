"""What the signals that end a program do to a command that is writing files."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP")
           if hasattr(signal, name)]


BURST = 1.0  # seconds of quiet after which Ctrl-C counts anew: an interruption may have been lost
_pressed = -BURST  # when Ctrl-C was pressed last


def interrupt(number: int, frame: FrameType | None) -> None:
    """The handler of SIGINT for a command: Ctrl-C again and again is KeyboardInterrupt once.

    The next ones would hit what unwinds, where Python prints them or dies of them.
    """
    global _pressed
    now = time.monotonic()
    is_first = now - _pressed >= BURST
    _pressed = now
    if is_first:
        raise KeyboardInterrupt


def interruptible() -> None:
    """From here on Ctrl-C is `interrupt`, unless it is ignored (nohup) or someone else's."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)


def leaving() -> None:
    """The program is done: Ctrl-C while the interpreter clears up would end it by the signal."""
    if signal.getsignal(signal.SIGINT) is interrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def answering() -> Iterator[None]:
    """For a chat: each Ctrl-C counts, however soon after the last one it comes."""
    before = signal.getsignal(signal.SIGINT)
    if before is interrupt:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """The first signal unwinds the stack, so that clean-up runs; further ones do not disturb it.

    Ctrl-C is KeyboardInterrupt as always, SIGTERM and SIGHUP are SystemExit(128 + number). Signals
    that are ignored (nohup) or someone else's stay so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python lets the main thread alone change handlers
        return
    usual = (signal.SIG_DFL, signal.default_int_handler, interrupt)
    before = {number: signal.getsignal(number) for number in SIGNALS}
    mine = [number for number in SIGNALS if before[number] in usual]
    stopped = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        if stopped:
            return
        stopped = True
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    for number in mine:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, before[number])
