"""Drive `lampe-gguf desktop` as a person does, by the keyboard, on a screen that nobody sees.

For the tests and for desktop_pause.py. There is no window manager: who types says which window has
the keyboard.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lampe_gguf.errors import LampeError

PROGRAM = [sys.executable, "-m", "lampe_gguf.cli.main", "desktop"]
SECONDS = 120
MAIN = "lampe-gguf"  # stands in the title of the program's window
EVENTS = {"said": "line", "answered": "answer"}


class Keys:
    """The program on a screen, and a keyboard.

    environment  with the screen's $DISPLAY
    folder       where its settings and conversations are kept
    """

    def __init__(self, environment: dict[str, str], folder: Path, *arguments: str) -> None:
        self.environment = environment
        self.folder = folder
        self.process = subprocess.Popen(
            [*PROGRAM, "--settings", str(folder / "settings.ini"), "--no-readings", *arguments],
            env={**environment, "QT_QPA_PLATFORM": "xcb",
                 "LAMPE_GGUF_CHATS": str(folder / "chats")},
            stderr=subprocess.PIPE, text=True)
        self.focus(MAIN)

    def xdotool(self, *words: str) -> str:
        """What xdotool says."""
        done = subprocess.run(["xdotool", *words], env=self.environment, capture_output=True,
                              text=True, timeout=SECONDS)
        return done.stdout.strip()

    def windows(self, name: str) -> list[str]:
        """Those on the screen with this in their title."""
        return self.xdotool("search", "--onlyvisible", "--name", name).split()

    def focus(self, name: str) -> None:
        """Give the keyboard to the window of a name."""
        found = self.until(lambda: self.windows(name))
        self.xdotool("windowfocus", "--sync", found[-1])

    def title(self) -> str:
        """Of the program's window."""
        found = self.windows(MAIN)
        return self.xdotool("getwindowname", found[-1]) if found else ""

    def drag(self, name: str, to: str) -> None:
        """Drag with the mouse from the middle of one window to the middle of another."""
        places = []
        for window in (self.until(lambda: self.windows(name))[-1], self.windows(to)[-1]):
            said = self.xdotool("getwindowgeometry", "--shell", window)
            at = dict(line.split("=") for line in said.splitlines())
            places.append((int(at["X"]) + int(at["WIDTH"]) // 2,
                           int(at["Y"]) + int(at["HEIGHT"]) // 2))
        (left, top), (right, bottom) = places
        self.xdotool("mousemove", str(left), str(top), "mousedown", "1")
        for part in range(1, 11):  # as a hand does; what is dragged over answers meanwhile
            self.xdotool("mousemove", str(left + (right - left) * part // 10),
                         str(top + (bottom - top) * part // 10))
            time.sleep(0.03)
        self.xdotool("mouseup", "1")

    def press(self, *keys: str) -> None:
        """Press keys by their names in X11, as "ctrl+o"."""
        self.xdotool("key", "--clearmodifiers", *keys)

    def type(self, text: str) -> None:
        """Type a text."""
        self.xdotool("type", "--delay", "4", text)

    def choose(self, key: str, title: str, path: Path) -> None:
        """Have a dialog opened by its key, and choose a file in it."""
        self.press(key)
        self.focus(title)
        self.type(str(path))
        self.press("Return")
        self.until(lambda: not self.windows(title))
        self.focus(MAIN)

    def until(self, condition: Callable[[], Any], seconds: float = SECONDS) -> Any:
        """What a condition gives as soon as it is true of anything."""
        end = time.monotonic() + seconds
        while not (found := condition()):
            if self.process.poll() is not None:
                assert self.process.stderr is not None
                raise LampeError(f"the window has gone: {self.process.stderr.read()}")
            if time.monotonic() > end:
                raise LampeError(f"not so after {seconds:.0f} s: {self.title()!r}")
            time.sleep(0.02)
        return found

    def events(self) -> list[Any]:
        """What the journal says of the conversation that was written to last."""
        found = list((self.folder / "chats").glob("*.jsonl"))
        if not found:
            return []
        last = max(found, key=lambda each: each.stat().st_mtime)
        lines = last.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines[1:] if line.endswith("}")]

    def lines(self, event: str) -> list[str]:
        """What was "said", or "answered", in that conversation."""
        return [str(each[EVENTS[event]]) for each in self.events() if each["event"] == event]

    def leave(self) -> int:
        """Quit by the keyboard; gives the exit code."""
        self.press("ctrl+q")
        return self.process.wait(20)


@contextlib.contextmanager
def program(environment: dict[str, str], folder: Path, *arguments: str) -> Iterator[Keys]:
    """The program, ended at the end whatever happens; LampeError where a slot of it raised."""
    keys = Keys(environment, folder, *arguments)
    try:
        yield keys
    finally:
        keys.process.kill()
        keys.process.wait()
        assert keys.process.stderr is not None
        said = keys.process.stderr.read()
    if "Traceback" in said:
        raise LampeError(said)


@contextlib.contextmanager
def screen(folder: Path, size: str = "1140x780x24") -> Iterator[dict[str, str]]:
    """The environment for programs on a screen, which is a file in a folder: see picture()."""
    read, write = os.pipe()
    try:
        server = subprocess.Popen(
            ["Xvfb", "-displayfd", str(write), "-screen", "0", size, "-fbdir", str(folder),
             "-nolisten", "tcp"],
            pass_fds=(write,), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except FileNotFoundError:
        raise LampeError("there is no Xvfb; install it (Debian, Ubuntu: apt install xvfb "
                         "xdotool)") from None
    finally:
        os.close(write)
    try:
        with open(read, encoding="ascii") as found:
            number = found.readline().strip()  # once programs may come
        yield {**os.environ, "DISPLAY": f":{number}"}
    finally:
        server.terminate()
        server.wait()


def picture(folder: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """What the screen of a folder shows: [height, width, 3], red, green, blue."""
    data = (folder / "Xvfb_screen0").read_bytes()
    header = struct.unpack(">25I", data[:100])  # X window dump, version 7
    size, width, height, line, n_colours = header[0], header[4], header[5], header[12], header[19]
    start = size + 12 * n_colours
    pixels = np.frombuffer(data, np.uint8, line * height, start).reshape(height, line // 4, 4)
    return np.ascontiguousarray(pixels[:, :width, 2::-1])
