"""`lampe-gguf desktop` on a screen of its own, with real keys: what they do is on the disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import PROGRAM
from desktop_window import SLACK, STOP
from xvfb import missing_programs, screen

SECONDS = 60
DOCUMENT = "The keeper of the light wrote down every ship that passed. " * 30


class Keys:
    """A program on a screen, and a keyboard."""

    def __init__(self, environment: dict[str, str], folder: Path, *arguments: str) -> None:
        self.environment = environment
        self.folder = folder
        self.process = subprocess.Popen(
            [*PROGRAM, "desktop", "--settings", str(folder / "settings.ini"), "--no-readings",
             "--temperature", "0", *arguments],
            env={**environment, "QT_QPA_PLATFORM": "xcb",
                 "LAMPE_GGUF_CHATS": str(folder / "chats")},
            stderr=subprocess.PIPE, text=True)
        self.focus("lampe-gguf")

    def xdotool(self, *words: str) -> str:
        done = subprocess.run(["xdotool", *words], env=self.environment, capture_output=True,
                              text=True, timeout=SECONDS)
        return done.stdout.strip()

    def focus(self, name: str) -> None:
        """Give the keyboard to the window of a name; there is no one else to do that."""
        found = self.until(lambda: self.xdotool("search", "--onlyvisible", "--name", name))
        self.xdotool("windowfocus", "--sync", found.split()[-1])

    def press(self, *keys: str) -> None:
        self.xdotool("key", "--clearmodifiers", *keys)

    def type(self, text: str) -> None:
        self.xdotool("type", "--delay", "4", text)

    def choose(self, key: str, title: str, path: Path) -> None:
        """Have a dialog opened, and a file chosen in it."""
        self.press(key)
        self.focus(title)
        self.type(str(path))
        self.press("Return")
        self.until(lambda: not self.xdotool("search", "--onlyvisible", "--name", title))
        self.focus("lampe-gguf")

    def until(self, condition: Callable[[], Any], seconds: float = SECONDS) -> Any:
        end = time.monotonic() + seconds
        while not (found := condition()):
            if self.process.poll() is not None:
                assert self.process.stderr is not None
                pytest.fail(f"it has ended: {self.process.stderr.read()}")
            assert time.monotonic() < end, f"not so after {seconds} s: {self.events()}"
            time.sleep(0.02)
        return found

    def events(self) -> list[Any]:
        """What the conversation's journal says, of the one that was written to last."""
        found = list((self.folder / "chats").glob("*.jsonl"))
        if not found:
            return []
        last = max(found, key=lambda each: each.stat().st_mtime)
        lines = last.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines[1:] if line.endswith("}")]

    def lines(self, event: str) -> list[str]:
        """What was "said", or "answered"."""
        name = {"said": "line", "answered": "answer"}[event]
        return [each.get(name, "") for each in self.events() if each["event"] == event]

    def leave(self) -> None:
        self.press("ctrl+q")
        assert self.process.wait(20) == 0


@contextmanager
def program(environment: dict[str, str], folder: Path, *arguments: str) -> Iterator[Keys]:
    keys = Keys(environment, folder, *arguments)
    try:
        yield keys
    finally:
        keys.process.kill()
        keys.process.wait()
        assert keys.process.stderr is not None
        assert "Traceback" not in keys.process.stderr.read()


@pytest.fixture
def screened() -> Iterator[dict[str, str]]:
    if missing := missing_programs():
        pytest.skip(f"not installed: {', '.join(missing)}")
    with screen() as environment:
        yield environment


def test_everything_by_keyboard(
    screened: dict[str, str], tmp_path: Path, smollm2_path: Path
) -> None:
    book = tmp_path / "book.txt"
    book.write_text(DOCUMENT, encoding="utf-8")
    with program(screened, tmp_path, "--max-tokens", "12") as keys:
        keys.choose("ctrl+o", "Open a model", smollm2_path)
        keys.choose("ctrl+d", "Add documents", book)
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
        keys.until(lambda: not keys.xdotool("search", "--onlyvisible", "--name", "^Keys$"))
        keys.focus("lampe-gguf")
        keys.leave()
    assert f"model={smollm2_path}" in (tmp_path / "settings.ini").read_text()
    # the next time: the model is opened by itself, and the conversation goes on
    with program(screened, tmp_path, "--max-tokens", "600") as keys:
        time.sleep(0.5)
        keys.press("ctrl+Next")
        keys.until(lambda: "Who wrote down the ships?" in keys.xdotool(
            "getwindowname", keys.xdotool("getwindowfocus")))
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
        keys.leave()


def test_a_signal_closes_it(screened: dict[str, str], tmp_path: Path) -> None:
    with program(screened, tmp_path) as keys:
        time.sleep(0.3)
        os.kill(keys.process.pid, signal.SIGTERM)
        assert keys.process.wait(10) == 0


def test_without_a_screen_it_says_so(tmp_path: Path) -> None:
    hidden = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run([*PROGRAM, "desktop"], env=environment, capture_output=True, text=True,
                          timeout=SECONDS)
    assert done.returncode == 1 and "no screen" in done.stderr and "lampe-gguf chat" in done.stderr
