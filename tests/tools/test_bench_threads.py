"""The comparison of how threads wait: medians, ratios pair by pair, and what is good enough."""

from __future__ import annotations

import sys

import pytest
from patched.places import CHECKOUT

sys.path.insert(0, str(CHECKOUT / "tools" / "measure"))

import bench_threads


def speeds(kept: float, alone: float) -> bench_threads.Speeds:
    """Of OpenMP, which keeps a tenth, and of a pool, at two lengths."""
    found: bench_threads.Speeds = {}
    for what in ("reading at 1,024", "writing at 1,024"):
        found["openmp", False, what] = [100.0, 50.0, 200.0]
        found["openmp", True, what] = [10.0, 5.0, 20.0]
        found["pool", False, what] = [100 * alone, 50 * alone, 200 * alone]
        found["pool", True, what] = [100 * alone * kept, 50 * alone * kept, 200 * alone * kept]
    return found


def test_ratios_are_of_the_same_round() -> None:
    rows = bench_threads.summary(speeds(0.5, 0.9), "openmp")
    assert [row["way"] for row in rows] == ["openmp", "pool", "openmp", "pool"]
    first, second = rows[:2]
    assert first["speed"] == 100 and first["kept"] == pytest.approx(0.1) and first["alone"] == 1
    assert second["kept"] == pytest.approx(0.5) and second["alone"] == pytest.approx(0.9)
    assert "| pool | reading at 1,024 | 90.0 | 45.0 | 0.50 | 0.900 |" in bench_threads.show(rows)


@pytest.mark.parametrize("kept, alone, good", [
    (0.5, 0.99, ["pool"]), (0.39, 1.0, []), (0.5, 0.97, []), (0.9, 1.2, ["pool"]),
])
def test_what_keeps_enough_and_loses_little_is_named(
    kept: float, alone: float, good: list[str]
) -> None:
    assert bench_threads.verdict(bench_threads.summary(speeds(kept, alone), "openmp")) == good


def test_a_way_that_loses_once_is_not_good() -> None:
    found = speeds(0.5, 1.0)
    found["pool", True, "writing at 1,024"] = [1.0, 1.0, 1.0]
    assert bench_threads.verdict(bench_threads.summary(found, "openmp")) == []


def test_a_busy_process_ends_with_what_it_disturbs() -> None:
    with pytest.raises(KeyboardInterrupt), bench_threads.busy(2):
        raise KeyboardInterrupt
