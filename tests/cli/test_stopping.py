"""Signals while a command writes: with real ones."""

from __future__ import annotations

import os
import signal

import pytest

from lampe_gguf.cli.stopping import SIGNALS, stopping


def send(number: int) -> None:
    os.kill(os.getpid(), number)
    signal.sigpending()  # a call into Python's signal module, before which handlers have run


@pytest.fixture(autouse=True)
def usual_handlers() -> None:
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGHUP) is signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_unwinds_and_others_let_it(number: int) -> None:
    cleaned = []
    with pytest.raises((KeyboardInterrupt, SystemExit)) as caught, stopping():
        try:
            send(number)
        finally:
            for other in SIGNALS:
                send(other)
            cleaned.append(True)
    assert cleaned
    if number == signal.SIGINT:
        assert caught.type is KeyboardInterrupt
    else:
        assert isinstance(caught.value, SystemExit) and caught.value.code == 128 + number
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGHUP) is signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_handlers_of_others_stay() -> None:
    seen: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with stopping():
            send(signal.SIGTERM)
            send(signal.SIGHUP)
        assert seen == [signal.SIGTERM] and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
