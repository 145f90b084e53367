"""The command that is named where a model is to be converted for longer inputs: it works."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import call, tiny_config

from lampe_gguf.convert import convert_gguf
from lampe_gguf.model.again import longer
from lampe_gguf.model.choose import read_file

Tiny = Callable[..., Path]
BOOK = "It was a dark and stormy night. " * 20


def follow(command: str) -> Path:
    program, *arguments = shlex.split(command)
    assert program == "lampe-gguf"
    done = call(*arguments)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip().removeprefix("wrote ").removeprefix(
        "replaced the LaMPE metadata in "))


def test_what_the_error_names_makes_it_fit(tiny: Tiny, tmp_path: Path) -> None:
    plain, book = tiny("a model.gguf", lampe=None, window=128), tmp_path / "book.txt"
    book.write_text(BOOK)
    ask = ("Why?", "--doc", book, "--max-tokens", 2)
    refused = call("ask", plain, *ask, "--n-ctx", 4096)
    found = re.search(r"for more: (lampe-gguf .*? --context-length \d+)", refused.stderr)
    assert refused.returncode == 1 and found is not None, refused.stderr
    assert "--force" not in found[1]
    made = follow(found[1])
    assert made.name == "a model.lampe.gguf"
    done = call("ask", made, *ask)
    assert done.returncode == 0, done.stderr
    wide = call("ask", made, *ask, "--n-ctx", 4096)
    found = re.search(r"for more: (lampe-gguf .* --context-length 4096)", wide.stderr)
    assert wide.returncode == 2 and found is not None and "--force" in found[1], wide.stderr
    follow(found[1])
    assert call("ask", made, *ask, "--n-ctx", 4096).returncode == 0


def test_a_file_with_values_of_its_own_keeps_them(tiny: Tiny) -> None:
    own = tiny_config(length_step=32, attention_factor=1.25, tail_window=2, length_policy="prompt",
                      method="selfextend", group_size=3)
    path = tiny("m.lampe.gguf", lampe=own)
    assert follow(longer(read_file(path), 1024)) == path
    after = read_file(path).config
    assert dataclasses.replace(after, provenance=own.provenance) == dataclasses.replace(
        own, context_length=1024)


@pytest.mark.parametrize("window", [None, 64])
def test_values_that_convert_would_choose_are_not_named(tiny: Tiny, window: int | None) -> None:
    path = tiny("m.gguf", lampe=None)
    made = convert_gguf(path, **({} if window is None else {"window": window})).outputs[0]
    command = longer(read_file(made), 1024)
    more = "" if window is None else f" --window={window}"
    assert command == f"lampe-gguf convert {made} --force --context-length 1024{more}"
    follow(command)
    assert read_file(made).config.window == (window or 32)


def test_another_conversion_of_the_model_is_left_alone(tiny: Tiny) -> None:
    path = tiny("m.gguf", lampe=None)
    other = convert_gguf(path, local_window=4).outputs[0]
    before = other.read_bytes()
    made = follow(longer(read_file(path), 1024))
    assert made.name == "m-1024.lampe.gguf" and other.read_bytes() == before
    again = longer(read_file(path), 1024)
    assert "--force" in again and follow(again) == made


def test_a_converted_file_of_another_name_is_not_replaced(tiny: Tiny) -> None:
    path = tiny("m.gguf", lampe=tiny_config(tail_window=2))
    before = path.read_bytes()
    made = follow(longer(read_file(path), 1024))
    assert made.name == "m.lampe.gguf" and path.read_bytes() == before
    assert read_file(made).config.tail_window == 2
