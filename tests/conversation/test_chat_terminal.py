"""Ctrl-C in a chat on a real terminal: it stops the answer, not the program."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pty = pytest.importorskip("pty", reason="no terminals on this system")


unread: dict[int, str] = {}  # what came after the words that were waited for


def read_until(fd: int, words: str, seconds: float = 60.0) -> str:
    import select

    text, end = unread.pop(fd, ""), time.monotonic() + seconds
    while words not in text:
        left = end - time.monotonic()
        assert left > 0 and select.select([fd], [], [], left)[0], f"no {words!r} in {text!r}"
        try:
            text += os.read(fd, 4096).decode("utf-8", "replace")
        except OSError:
            pytest.fail(f"the program ended: {text!r}")
    at = text.index(words) + len(words)
    unread[fd] = text[at:]
    return text[:at]


def read_to_the_end(fd: int, seconds: float = 15.0) -> None:
    import select

    # a terminal that nobody reads keeps the program from ending
    end = time.monotonic() + seconds
    try:
        while select.select([fd], [], [], max(0.0, end - time.monotonic()))[0]:
            if not os.read(fd, 4096):
                return
    except OSError:
        return
    pytest.fail("it did not leave")


def press(fd: int, keys: bytes) -> None:
    """Type at a prompt. A signal between the prompt and the waiting for keys would be seen with the
    next key only, and a person is never that fast."""
    time.sleep(0.5)
    os.write(fd, keys)


@contextmanager
def chat(model: Path, *options: str) -> Iterator[int]:
    """A chat in a terminal of its own, which is left by Ctrl-C at an empty prompt."""
    pid, fd = pty.fork()
    unread.clear()
    if pid == 0:
        os.execv(sys.executable, [
            sys.executable, "-m", "lampe_gguf.cli.main", "chat", str(model), *options,
        ])
    try:
        read_until(fd, "> ")
        yield fd
        press(fd, b"\x03")
        read_to_the_end(fd)
        _, status = os.waitpid(pid, 0)
        pid = 0
        assert os.waitstatus_to_exitcode(status) == 0
    finally:
        os.close(fd)
        if pid:
            os.kill(pid, 9)
            os.waitpid(pid, 0)


def test_ctrl_c_stops_the_answer_and_a_second_one_leaves(smollm2_path: Path) -> None:
    options = ("--n-ctx", "2048", "--max-tokens", "1500", "--temperature", "0")
    with chat(smollm2_path, *options) as fd:
        os.write(fd, b"Write a very long story about the sea and its sailors.\r")
        read_until(fd, "\n")
        time.sleep(1.0)
        os.write(fd, b"\x03")
        stopped = read_until(fd, "[stopped]")
        assert "Traceback" not in stopped
        read_until(fd, "> ", 10)
        os.write(fd, b"/stats\r")
        assert "context" in read_until(fd, "attention", 10)
        read_until(fd, "> ", 10)


def test_a_line_can_be_edited_dropped_and_called_back(smollm2_path: Path) -> None:
    with chat(smollm2_path, "--n-ctx", "512") as fd:
        press(fd, b"Never mind")
        press(fd, b"\x03")
        read_until(fd, "> ", 10)
        press(fd, b"/statx\x7fs\r")
        read_until(fd, "attention", 10)
        read_until(fd, "> ", 10)
        press(fd, b"\x1b[A")  # up
        press(fd, b"\r")
        read_until(fd, "attention", 10)
        read_until(fd, "> ", 10)
