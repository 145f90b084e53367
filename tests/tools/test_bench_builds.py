"""The portable build beside the native one: ratios pair by pair, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from patched.places import CHECKOUT

sys.path.insert(0, str(CHECKOUT / "tools" / "measure"))

import bench_builds
import bench_threads


def test_ratios_are_those_of_a_pair() -> None:
    """The machine is twice as slow in the third round, which both builds suffer."""
    speeds: bench_threads.Speeds = {
        ("native", False, "reading at 1,024"): [100.0, 100.0, 50.0],
        ("portable", False, "reading at 1,024"): [98.0, 110.0, 50.0],
    }
    [row] = bench_builds.summary(speeds)
    assert row["ratio"] == 1.0 and row["native"] == 100 and row["portable"] == 98
    assert row["low"] == pytest.approx(0.99) and row["high"] == pytest.approx(1.05)
    shown = bench_builds.show([row])
    assert "| reading at 1,024 | 100.0 | 98.0 | 1.000 | 0.990 to 1.050 |" in shown


@pytest.mark.parametrize("there, options, reason", [
    ("libggml-cpu.so", [], "holds no variant"),
    ("libggml-cpu-zen4.so", ["--threads", "2"], "that of all threads together"),
    ("libggml-cpu-zen4.so", ["--lengths", "1024,512"], "no ascending numbers above 512"),
])
def test_what_cannot_be_compared_is_refused(
    tmp_path: Path, there: str, options: list[str], reason: str
) -> None:
    (tmp_path / there).touch()
    done = subprocess.run([sys.executable, bench_builds.__file__, str(tmp_path), *options],
                          capture_output=True, text=True)
    assert done.returncode == 2 and reason in done.stderr
    assert done.stderr.count("\n") == 1
