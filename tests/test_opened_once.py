"""A file's header is read once for each thing that a user does."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import tiny_config

import lampe_gguf
from lampe_gguf.cli import main as cli
from lampe_gguf.container import reader


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are opened to read their headers, by name."""
    names: list[str] = []
    before = reader._open

    def counted(path: Path) -> int:
        names.append(path.name)
        return before(path)

    monkeypatch.setattr(reader, "_open", counted)
    return names


BOOK = "It was a dark and stormy night. " * 6
COMMANDS: dict[str, list[Any]] = {
    "convert": ["convert", "{m}", "{o}"],
    "inspect": ["inspect", "{m}"],
    "ask": ["ask", "{m}", "Why?", "--max-tokens", "2"],
    "ask about a book": ["ask", "{m}", "Why?", "--doc", "{b}", "--max-tokens", "2"],
    "ask plain RoPE": ["ask", "{m}", "?", "--no-lampe", "--max-tokens", "2"],
    "eval ppl": ["eval", "ppl", "{m}", "--text", "{b}", "--lengths", "64,99", "--methods",
                 "lampe,truncate,ntk"],
    "eval kv": ["eval", "kv", "{m}", "--lengths", "512", "--limit", "1", "--methods",
                "lampe"],
    "attention": ["attention", "{m}", "--text", "{b}", "--lengths", "64"],
    "strip": ["strip", "{m}", "{o}"],
}


@pytest.mark.parametrize("converted", [True, False])
@pytest.mark.parametrize("what", COMMANDS)
def test_a_header_is_read_once_for_each_thing_that_a_user_does(
    what: str, converted: bool, tiny: Callable[..., Path], tmp_path: Path, opened: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    if what == "strip" and not converted:
        pytest.skip("nothing to strip")
    config = tiny_config(context_length=512)
    path = tiny("m.gguf", lampe=config if converted else None, window=128)
    (tmp_path / "b.txt").write_text(BOOK, encoding="utf-8")
    places = {"m": path, "b": tmp_path / "b.txt", "o": tmp_path / "o.gguf"}
    assert cli.main([each.format(**places) for each in COMMANDS[what]]) == 0, capsys.readouterr()
    assert opened.count("m.gguf") == 1, opened


def test_chat_and_calibration_read_a_header_once(
    tiny: Callable[..., Path], tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny("m.gguf", lampe=None, window=256)
    (tmp_path / "b.txt").write_text(BOOK * 8, encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", open(os.devnull, encoding="utf-8"))
    assert cli.main(["chat", str(path)]) == 0
    assert opened.count("m.gguf") == 1
    opened.clear()
    assert lampe_gguf.calibrate(path, tmp_path / "b.txt", max_length=320).complete
    assert opened.count("m.gguf") == 1
