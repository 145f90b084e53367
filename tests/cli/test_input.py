"""Text on standard input that nobody asked for: a sentence, and no waiting."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from conftest import PROGRAM, call

from lampe_gguf.backend.llama import LampeLlama
from lampe_gguf.cli import main as cli

SAID = "what stands on standard input is not read; --doc - reads it\n"
ASK = ("Why?", "--max-tokens", "2")


@pytest.fixture
def model(tiny: Callable[..., Path]) -> Path:
    return tiny("m.gguf")


def ask(model: Path, stdin: Any, *more: str) -> str:
    done = subprocess.run([*PROGRAM, "ask", str(model), *ASK, *more], stdin=stdin, text=True,
                          capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_text_in_a_pipe_or_a_file_is_said_not_to_be_read(model: Path, tmp_path: Path) -> None:
    assert call("ask", model, *ASK, stdin="It was dark.").stderr.count(SAID) == 1
    assert SAID not in call("ask", model, *ASK, "--doc", "-", stdin="It was dark.").stderr
    path = tmp_path / "book.txt"
    path.write_text("It was dark.")
    with open(path) as file:
        assert ask(model, file).count(SAID) == 1
        assert file.read() == "It was dark."  # it is whoever's comes next
        assert SAID not in ask(model, file)  # at its end


def test_nothing_is_said_of_an_input_without_text(model: Path, tmp_path: Path) -> None:
    assert SAID not in ask(model, subprocess.DEVNULL)
    assert SAID not in call("ask", model, *ASK, stdin="").stderr  # a pipe that is closed
    (tmp_path / "empty").touch()
    with open(tmp_path / "empty") as file:
        assert SAID not in ask(model, file)
    reading, writing = os.pipe()
    here, there = socket.socketpair()
    try:
        for stdin in (reading, here):  # open, and nobody writes: waiting would last for ever
            assert SAID not in ask(model, stdin)
        there.send(b"It was dark.")
        assert ask(model, here).count(SAID) == 1
    finally:
        os.close(reading)
        os.close(writing)
        here.close()
        there.close()


def test_nothing_is_said_at_a_terminal(model: Path) -> None:
    pty = pytest.importorskip("pty", reason="no terminals on this system")
    ours, theirs = pty.openpty()
    try:
        os.write(ours, b"typed\n")
        assert SAID not in ask(model, theirs)
    finally:
        os.close(ours)
        os.close(theirs)


def test_text_that_comes_late_is_said_after_the_answer(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reading, writing = os.pipe()

    def generate(self: LampeLlama, tokens: list[int], **options: Any) -> Generator[int, None, None]:
        os.write(writing, b"It was dark.")
        yield self.token_eos()

    with os.fdopen(reading) as stdin:
        monkeypatch.setattr(LampeLlama, "generate", generate)
        monkeypatch.setattr("sys.stdin", stdin)
        assert cli.main(["ask", str(model), *ASK]) == 0
        assert capsys.readouterr().err.count(SAID) == 1
    os.close(writing)
