"""Signals while a command writes: with real ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import lampe_gguf.cli
from lampe_gguf.cli import stopping as module
from lampe_gguf.cli.stopping import SIGNALS, answering, interrupt, stopping


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


def times_interrupted(n: int, pause: float = 0.0) -> int:
    found = 0
    for _ in range(n):
        try:
            send(signal.SIGINT)
        except KeyboardInterrupt:
            found += 1
        time.sleep(pause)
    return found


@pytest.mark.alone
def test_a_burst_of_ctrl_c_counts_once_and_a_lost_one_is_not_the_last(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BURST", 0.2)
    module.interruptible()
    try:
        assert signal.getsignal(signal.SIGINT) is interrupt
        assert times_interrupted(20, 0.03) == 1  # longer than a burst, and without a pause
        time.sleep(0.3)
        assert times_interrupted(2) == 1
        with answering():
            assert times_interrupted(3) == 3
        assert signal.getsignal(signal.SIGINT) is interrupt
        time.sleep(0.3)
        with pytest.raises(KeyboardInterrupt), stopping():
            send(signal.SIGINT)
        module.leaving()
        assert times_interrupted(2) == 0
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as nohup does, and shells in the background
    try:
        module.interruptible()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


# a model in use, as ask has it: the command says when to press
IN_USE = """
import sys, time
from lampe_gguf.cli import ask, main
from lampe_gguf.backend.llama import LampeLlama

def command(model, **options):
    llm = LampeLlama(model, n_ctx=64)
    close = llm._calls.close
    def slow():  # what Ctrl-C hits while it unwinds
        time.sleep(0.5)
        return close()
    llm._calls.close = slow
    print("now", flush=True)
    time.sleep(60)

ask.command.callback = command
sys.argv[1:] = ["ask", sys.argv[1], "?"]
main.run()
"""


@pytest.mark.alone
@pytest.mark.parametrize("n,pause", [(1, 0.0), (2, 0.03), (25, 0.04)])
def test_however_often_ctrl_c_is_pressed_it_stops_once(
    tiny: Callable[..., Path], n: int, pause: float
) -> None:
    process = subprocess.Popen([sys.executable, "-c", IN_USE, str(tiny())], text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == "now\n"
    for _ in range(n):
        process.send_signal(signal.SIGINT)  # nothing where it has ended
        time.sleep(pause)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said.strip()) == (130, "stopped")


def test_ctrl_c_while_python_still_loads_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    class Loading:
        def __getattr__(self, name: str) -> object:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "lampe_gguf.cli.main", Loading())
    with pytest.raises(SystemExit) as ended:
        lampe_gguf.cli.run()
    assert ended.value.code == 130
