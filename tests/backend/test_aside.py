"""Computing in one thread: always the same, and one more after a fork."""

from __future__ import annotations

import os
import threading

import pytest

from lampe_gguf.backend import worker
from lampe_gguf.backend.worker import run_aside
from lampe_gguf.errors import LampeError


def thread() -> int:
    found: list[int] = []
    run_aside(lambda: found.append(threading.get_ident()), lambda: None)
    return found[0]


def test_always_the_same_thread() -> None:
    assert thread() == thread() != threading.get_ident()


def test_errors_come_out_and_the_thread_goes_on() -> None:
    before = thread()

    def fail() -> None:
        raise ZeroDivisionError("inside")

    with pytest.raises(ZeroDivisionError, match="inside"):
        run_aside(fail, lambda: None)
    assert thread() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_its_own() -> None:
    thread()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            threading.Timer(20, lambda: os._exit(2)).start()
            code = 0 if thread() else 1
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


def test_a_system_that_gives_no_thread_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_worker", None)

    def none(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none)
    with pytest.raises(LampeError, match="gives no thread to compute in"):
        run_aside(lambda: None, lambda: None)
