"""`lampe-gguf desktop` on a screen of its own, with real keys: what they do is on the disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import patched.screen
import pytest
from desktop_window import SLACK, STOP
from measure.desktop_keys import PROGRAM, picture, program, screen
from xvfb import missing_programs

from lampe_gguf.desktop.screen import DEBIAN, _answers, uses_x11

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


def ended(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The program where Qt would end the process itself."""
    hidden = ("WAYLAND_DISPLAY", "XDG_SESSION_TYPE", "QT_QPA_PLATFORM")
    others = {name: value for name, value in os.environ.items() if name not in hidden}
    command = [*PROGRAM, "--settings", str(tmp_path / "settings.ini")]
    return subprocess.run(command, env={**others, **environment}, capture_output=True, text=True,
                          timeout=60)


@pytest.mark.parametrize("platform", [{}, {"QT_QPA_PLATFORM": "xcb"}])
def test_without_a_library_of_qts_it_says_what_to_install(
    tmp_path: Path, platform: dict[str, str]
) -> None:
    (tmp_path / "libxcb-cursor.so.0").touch()  # which is found first, and is none
    done = ended(tmp_path, DISPLAY=":98765", LD_LIBRARY_PATH=str(tmp_path), **platform)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: Qt's plugin for X11 cannot be loaded (")
    assert "libxcb-cursor.so.0: " in done.stderr and " libxcb-cursor0 " in done.stderr


def test_without_an_answer_of_the_screen_it_says_so(tmp_path: Path) -> None:
    if missing := patched.screen.missing_libraries():
        pytest.skip(f"not installed: {', '.join(missing)}")
    done = ended(tmp_path, DISPLAY=":98765")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "no screen that takes a window at DISPLAY=:98765" in done.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="X11 is one of two there alone")
@pytest.mark.parametrize("environment, expected", [
    ({"DISPLAY": ":0"}, True),
    ({"DISPLAY": ":0", "QT_QPA_PLATFORM": "xcb"}, True),
    ({"DISPLAY": ":0", "QT_QPA_PLATFORM": "offscreen"}, False),
    ({"DISPLAY": ":0", "QT_QPA_PLATFORM": "wayland;xcb"}, False),
    ({"DISPLAY": ":0", "WAYLAND_DISPLAY": "wayland-0"}, False),
    ({"DISPLAY": ":0", "XDG_SESSION_TYPE": "wayland"}, False),
    ({"DISPLAY": ":0", "QT_QPA_PLATFORM_PLUGIN_PATH": "/elsewhere"}, False),
])
def test_only_what_x11_alone_shows_is_looked_into(
    environment: dict[str, str], expected: bool
) -> None:
    assert uses_x11(environment) == expected


def test_the_tests_install_what_the_window_names() -> None:
    beside = {"xvfb", "xdotool", "fonts-dejavu-core"}
    assert set(DEBIAN.split()) == set(patched.screen.PACKAGES) - beside


def test_without_a_screen_it_says_so(tmp_path: Path) -> None:
    hidden = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(PROGRAM, env=environment, capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 1 and "no screen" in done.stderr and "lampe-gguf chat" in done.stderr


@pytest.mark.parametrize("error", [0, 1])
def test_a_server_that_answers_keeps_its_client(error: int) -> None:
    """Its last one gone, it would begin anew just when Qt connects."""
    closed: list[int] = []

    class Xcb:
        def __init__(self) -> None:
            self.xcb_connect = lambda name, number: 7
            self.xcb_connection_has_error = lambda connection: error
            self.xcb_disconnect = lambda connection: closed.append(connection)

    assert _answers(Xcb()) == (not error) and closed == ([7] if error else [])
