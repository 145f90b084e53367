"""`lampe-gguf desktop` on a screen of its own, with real keys: what they do is on the disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from desktop_window import SLACK, STOP
from measure.desktop_keys import PROGRAM, picture, program, screen
from xvfb import missing_programs

# a screen of their own; where two come and go at once, one may take the other's socket away
pytestmark = pytest.mark.alone
DRAG = Path(__file__).resolve().parents[1] / "support" / "drag_side.py"
DOCUMENT = "The keeper of the light wrote down every ship that passed. " * 30


@pytest.fixture
def screened(tmp_path: Path) -> Iterator[dict[str, str]]:
    if missing := missing_programs():
        pytest.skip(f"not installed: {', '.join(missing)}")
    with screen(tmp_path) as environment:
        yield environment


def test_everything_by_keyboard(
    screened: dict[str, str], tmp_path: Path, smollm2_path: Path
) -> None:
    book = tmp_path / "book.txt"
    book.write_text(DOCUMENT, encoding="utf-8")
    with program(screened, tmp_path, "--max-tokens", "12",
                 "--temperature", "0") as keys:
        keys.choose("ctrl+o", "Open a model", smollm2_path)
        keys.choose("ctrl+d", "Add documents", book)
        keys.until(lambda: "book.txt" in keys.title())
        keys.type("Who wrote down the ships?")
        keys.press("Return")
        keys.until(lambda: keys.lines("answered"))
        assert keys.lines("said") == ["Who wrote down the ships?"]
        documents = [each for each in keys.events() if each["event"] == "document"]
        assert [each["text"] for each in documents] == [DOCUMENT]
        keys.type("In two")
        keys.press("shift+Return")
        keys.type("lines")
        keys.press("ctrl+Return")
        keys.until(lambda: len(keys.lines("answered")) == 2)
        assert keys.lines("said")[1] == "In two\nlines"
        keys.choose("ctrl+e", "Export as Markdown", tmp_path / "out.md")
        keys.until(lambda: (tmp_path / "out.md").exists()
                   and "Who wrote down the ships?" in (tmp_path / "out.md").read_text())
        keys.press("F1")
        keys.focus("Keys")
        keys.press("Escape")
        keys.until(lambda: not keys.windows("^Keys$"))
        keys.focus("lampe-gguf")
        assert keys.leave() == 0
    assert f"model={smollm2_path}" in (tmp_path / "settings.ini").read_text()
    # the next time: the model is opened by itself, and the conversation goes on
    with program(screened, tmp_path, "--max-tokens", "600") as keys:
        time.sleep(0.5)
        keys.press("ctrl+Next")
        keys.until(lambda: "Who wrote down the ships?" in keys.title())
        keys.press("ctrl+n")
        keys.type("Write a very long story about a lighthouse and its keeper.")
        keys.press("Return")
        keys.until(lambda: keys.lines("said") == [
            "Write a very long story about a lighthouse and its keeper."])
        time.sleep(1.5)
        assert not keys.lines("answered")
        start = time.monotonic()
        keys.press("Escape")
        keys.until(lambda: keys.lines("answered"), 10)
        assert time.monotonic() - start < STOP + SLACK
        assert keys.leave() == 0


def test_a_file_is_dragged_from_another_program(screened: dict[str, str], tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_text(DOCUMENT, encoding="utf-8")
    with program(screened, tmp_path) as keys:
        other = subprocess.Popen([sys.executable, str(DRAG), str(book)],
                                 env={**screened, "QT_QPA_PLATFORM": "xcb"})
        try:
            keys.drag("some files", "lampe-gguf")
            keys.until(lambda: "book.txt" in keys.title(), 20)
        finally:
            other.kill()
            other.wait()


def test_a_signal_closes_it(screened: dict[str, str], tmp_path: Path) -> None:
    with program(screened, tmp_path) as keys:
        # it is to be seen: of the window's colours, and not the screen's black
        keys.until(lambda: picture(tmp_path).mean() > 100 and picture(tmp_path).std() > 5, 10)
        os.kill(keys.process.pid, signal.SIGTERM)
        assert keys.process.wait(10) == 0


def test_without_a_screen_it_says_so(tmp_path: Path) -> None:
    hidden = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(PROGRAM, env=environment, capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 1 and "no screen" in done.stderr and "lampe-gguf chat" in done.stderr
