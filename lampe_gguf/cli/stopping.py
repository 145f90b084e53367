"""What the signals that end a program do to a command that is writing files."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP")
           if hasattr(signal, name)]


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """The first signal unwinds the stack, so that clean-up runs; further ones do not disturb it.

    Ctrl-C is KeyboardInterrupt as always, SIGTERM and SIGHUP are SystemExit(128 + number). Signals
    that are ignored (nohup) or someone else's stay so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python lets the main thread alone change handlers
        return
    usual = (signal.SIG_DFL, signal.default_int_handler)
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
