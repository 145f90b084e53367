"""Fifty windows, one after the other: nothing of them stays."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from desktop_window import opened_window

ROUNDS = 50
WARM = 10  # rounds after which what is loaded once is loaded
MOST = 30e6  # bytes that forty rounds may leave: a window with its session takes more


def used() -> int:
    """Bytes of memory that this process has."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def ours() -> int:
    """How many threads of this program there are."""
    return sum(each.name.startswith("lampe-gguf") for each in threading.enumerate())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's /proc")
def test_fifty_rounds_leave_nothing(
    tmp_path: Path, tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAMPE_GGUF_CHATS", str(tmp_path / "chats"))
    model = tiny(n_layer=1)
    document = tmp_path / "a.txt"
    document.write_text("words that stand there " * 5, encoding="utf-8")
    memory: list[int] = []
    threads: list[int] = []
    before = ours()  # what other tests of this process began stays
    for number in range(ROUNDS):
        with opened_window(tmp_path / f"settings-{number}.ini", max_tokens=4) as driver:
            driver.open(model)
            driver.add(document)
            if number % 2:
                driver.answered("Who?")
            else:  # closed in the midst of it
                driver.say("Who?")
        del driver
        gc.collect()
        memory.append(used())
        end = time.monotonic() + 5  # one that stopped a request may be on its way out
        while ours() > before and time.monotonic() < end:
            time.sleep(0.01)
        threads.append(ours())
    assert max(threads) <= before
    grown = memory[-1] - memory[WARM]
    assert grown < MOST, [each // 10**6 for each in memory[::5]]
