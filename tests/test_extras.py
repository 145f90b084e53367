"""What is missing is installed by the pip of this Python: no other one has to do with it."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from lampe_gguf import errors

NO_QT = """
import sys
sys.modules["PySide6"] = None
import lampe_gguf.cli
lampe_gguf.cli.run()
"""


def test_the_window_names_the_python_that_it_wants_qt_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":99")
    done = subprocess.run([sys.executable, "-c", NO_QT, "desktop"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "error: the window needs PySide6, which is not installed; run "
        f'{sys.executable} -m pip install "lampe-gguf[desktop]"')


def test_the_extra_exists_and_pip_finds_it_in_what_is_installed() -> None:
    project = (errors.PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8")
    for name in ("plot", "eval", "documents", "desktop", "hf"):
        assert f"\n{name} = [" in project
        assert errors.how_to_add(name) == (
            f'run {sys.executable} -m pip install "lampe-gguf[{name}]"')
    # without an index: what is installed will do
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--dry-run",
               "lampe-gguf[desktop]"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_checkout_that_is_not_installed_is_named_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "distributions", lambda **wanted: iter(()))
    assert errors.how_to_add("plot").endswith(f'install --editable "{errors.PACKAGE.parent}[plot]"')


def test_a_path_with_spaces_is_one_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(Path("/my programs/python3")))
    assert errors.pip() == "'/my programs/python3' -m pip"
    monkeypatch.setattr(sys, "frozen", True, raising=False)  # it would start the app itself
    assert errors.pip() == "pip"
