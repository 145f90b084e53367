"""Cores are counted once, whatever threads they run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lampe_gguf.backend.cores import usable_cores


def processors(folder: Path, siblings: list[str]) -> Path:
    for cpu, names in enumerate(siblings):
        topology = folder / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(names + "\n")
    return folder


@pytest.mark.parametrize("siblings, allowed, cores", [
    (["0", "1"], {0, 1}, 2),  # no threads
    (["0,2", "1,3", "0,2", "1,3"], {0, 1, 2, 3}, 2),  # two in each core
    (["0-1", "0-1", "2-3", "2-3"], {0, 1, 2}, 2),
    (["0", "1", "2", "3"], {3}, 1),  # the others are not for this process
])
def test_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, siblings: list[str],
               allowed: set[int], cores: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: allowed, raising=False)
    assert usable_cores(processors(tmp_path, siblings)) == cores


def test_a_system_that_does_not_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert usable_cores(tmp_path) is None
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert usable_cores() is None
