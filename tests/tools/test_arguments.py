"""Numbers on the tools' command lines: a wrong one is said before anything runs."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest
from arguments import count

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.mark.parametrize("text", ["0", "-5", "1.5", "many", ""])
def test_what_is_no_count(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="at least 1"):
        count(text)


def test_a_count() -> None:
    assert count("512") == 512


@pytest.mark.parametrize("option", ["--length", "--queries", "--threads", "--repeats"])
def test_a_benchmark_of_nothing(option: str) -> None:
    command = [sys.executable, str(TOOLS / "measure" / "bench_attention.py"), option, "0"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(
        f"argument {option}: '0' is not a whole number of at least 1")
