"""How ggml's own threads wait for each other: lampe-barrier.h, compiled alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
HEADERS = CHECKOUT / "patches/overlay/vendor/llama.cpp/ggml/src/ggml-cpu"
SOURCE = CHECKOUT / "tests/support/barrier.c"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform == "win32":
        pytest.skip("there is no C compiler")
    path = tmp_path_factory.mktemp("barrier") / "barrier"
    subprocess.run([compiler, "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread",
                    f"-I{HEADERS}", str(SOURCE), "-o", str(path)], check=True)
    return path


def meet(program: Path, spin: str | None, *arguments: int) -> tuple[int, int, float]:
    """Meetings left too early, sleepers that were forgotten, and seconds of computing."""
    env = {name: value for name, value in os.environ.items() if name != "GGML_LAMPE_SPIN"}
    if spin is not None:
        env["GGML_LAMPE_SPIN"] = spin
    done = subprocess.run([program, *map(str, arguments)], env=env, check=True, text=True,
                          capture_output=True, timeout=120)
    early, sleepers, seconds = done.stdout.split()
    return int(early), int(sleepers), float(seconds)


@pytest.mark.parametrize("spin", [None, "", "0", "1", "20"])
@pytest.mark.parametrize("threads", [2, 5])
def test_nobody_leaves_before_all_are_there_and_nobody_sleeps_on(
    program: Path, spin: str | None, threads: int
) -> None:
    assert meet(program, spin, threads, 300)[:2] == (0, 0)


def test_who_is_kept_waiting_leaves_the_core_to_others(program: Path) -> None:
    sleeping = meet(program, "0", 3, 40, 5000)
    looking = meet(program, "-1", 3, 40, 5000)
    assert sleeping[:2] == looking[:2] == (0, 0)
    assert sleeping[2] < looking[2] / 4  # 40 times 5 ms, in which two look or none
