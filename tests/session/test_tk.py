"""The README's window: a real one, with real keys, on a screen that nobody sees."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from xvfb import missing_programs, screen

# a screen of their own; where two come and go at once, one may take the other's socket away
pytestmark = pytest.mark.alone
ROOT = next(p for p in Path(__file__).resolve().parents if (p / "pyproject.toml").is_file())
SIDE = ROOT / "tests" / "support" / "tk_side.py"


def program() -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = [each for each in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
             if "tkinter" in each]
    assert len(found) == 1
    return str(found[0])


def test_the_program_is_short() -> None:
    assert len(program().splitlines()) <= 40


def test_it_opens_reads_stops_and_answers(tmp_path: Path, smollm2_path: Path) -> None:
    if importlib.util.find_spec("_tkinter") is None:
        pytest.skip("this Python has no tkinter")
    if missing := missing_programs():
        pytest.skip(f"not installed: {', '.join(missing)}")
    (tmp_path / "ask.py").write_text(program(), encoding="utf-8")
    book = tmp_path / "book.txt"
    book.write_text("The keeper of the light wrote down every ship that passed. " * 120)
    with screen() as environment:
        done = subprocess.run(
            [sys.executable, str(SIDE), str(tmp_path / "ask.py"), str(smollm2_path), str(book)],
            env={**environment, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
            timeout=200)
    assert (done.returncode, done.stdout) == (0, "driven\n"), done.stderr
