"""The journal of `eval --resume`: whatever happens to its bytes, nothing else is lost."""

from __future__ import annotations

import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from time_limit import time_limit

from lampe_gguf.errors import LampeError, UsageError
from lampe_gguf.evaluate.tasks.journal import Journal, Result

SETTINGS = {"model": "m.gguf", "bytes": 91_000_000, "raw": False, "factor": None}


def result(number: int, answer: str = "answer") -> Result:
    return Result("passkey", 128, "lampe", str(number), f"p{number}", 0.5, "contains",
                  [str(number)], answer, 1.0, 100, 90, 0.125)


def write(path: Path, *numbers: int) -> bytes:
    with Journal(path, SETTINGS) as journal:
        for number in numbers:
            journal.add(result(number))
    return path.read_bytes()


def numbers(path: Path) -> list[int]:
    with Journal(path, SETTINGS) as journal:
        found = sorted(journal.found.values(), key=lambda each: each.id)
    assert found == [result(int(each.id)) for each in found]
    return [int(each.id) for each in found]


def test_one_bad_byte_costs_its_line_and_is_said(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    whole = write(path, 1, 2, 3)
    path.write_bytes(whole.replace(b'"id": "2"', b'"id": \xff2"'))
    with Journal(path, SETTINGS) as journal:
        assert journal.skipped == [3]
        assert "line 3 of" in str(journal.damage()) and "left out" in str(journal.damage())
        journal.add(result(4))
    assert b"\0" not in path.read_bytes()
    with Journal(path, SETTINGS) as journal:
        assert journal.skipped == [3] and len(journal.found) == 3
        assert sorted(each.id for each in journal.found.values()) == ["1", "3", "4"]


@pytest.mark.parametrize("inserted", [b"\n", b"\0" * 300 + b"\n", b"   \n", b"[1]\n", b"[" * 9999,
                                      b"12345", b'{"journal": 1}\n', b"\xff\xfe\n"])
def test_what_was_put_between_costs_nothing_else(tmp_path: Path, inserted: bytes) -> None:
    path = tmp_path / "j.jsonl"
    lines = write(path, 1, 2, 3).splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], inserted, *lines[2:]]))
    assert numbers(path) == [1, 2, 3]
    write(path, 4)
    assert numbers(path) == [1, 2, 3, 4]
    with Journal(path, SETTINGS) as journal:
        assert journal.skipped == [3]


def test_many_damaged_lines_are_one_short_sentence(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    path.write_bytes(write(path, 1) + b"?\n" * 500)
    with Journal(path, SETTINGS) as journal:
        said = str(journal.damage())
    assert said.startswith("500 lines of") and "3, 4, 5," in said and len(said) < 300


@pytest.mark.parametrize("tail, kept", [(b"\n", True), (b"}\n", False), (b"\n\0\0\0\0", True)])
def test_the_last_line_may_have_lost_its_end(tmp_path: Path, tail: bytes, kept: bool) -> None:
    path = tmp_path / "j.jsonl"
    whole = write(path, 1, 2)
    path.write_bytes(whole + tail[1:] if tail[1:2] == b"\0" else whole.removesuffix(tail))
    assert numbers(path) == [1, 2][: 1 + kept]
    write(path, 3)
    assert numbers(path) == [1, 2, 3] if kept else [1, 3]
    assert all(json.loads(line) for line in path.read_bytes().splitlines())


def test_a_changed_value_is_damage_too(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    path.write_bytes(write(path, 1, 2).replace(b'"score": 1.0', b'"score": 0.0', 1))
    assert numbers(path) == [2]


def test_a_damaged_first_line_costs_no_answer(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    path.write_bytes(write(path, 1, 2).replace(b"91000000", b"91000001"))
    assert numbers(path) == [1, 2]
    write(path, 3)
    assert numbers(path) == [1, 2, 3]
    # and the answers of other settings are not taken for those of this run
    before = path.read_bytes()
    other = {**SETTINGS, "raw": True}
    with pytest.raises(UsageError, match="begun with raw False and now it is True"):
        Journal(path, other).__enter__()
    path.write_bytes(before := before[:300].replace(b'"raw"', b'"rax"') + before[300:700])
    with pytest.raises(LampeError, match="first line .* is damaged"):
        Journal(path, other).__enter__()
    assert path.read_bytes() == before


def test_a_journal_without_checksums_is_read(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    lines = [json.loads(line) for line in write(path, 1, 2).splitlines()]
    for line in lines:
        del line["check"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert numbers(path) == [1, 2]


WRONG: list[tuple[str, Any]] = [
    *(("score", x) for x in ("x", [1], None, True, 5, -0.1, math.nan, -math.inf, 10**400)),
    *(("depth", x) for x in ("0.5", 2, math.nan, False)),
    *(("seconds", x) for x in (None, "1", -1, math.inf, 10**400)),
    *((name, x) for name in ("length", "prompt_tokens", "read")
      for x in (None, "8", 0.5, -1, True, 10**30)),
    *((name, x) for name in ("answer", "task", "method", "id", "prompt", "metric")
      for x in (None, 1, ["a"])),
    *(("expected", x) for x in (None, "a", [1], {"a": 1})),
    ("another", 1),
]


@pytest.mark.parametrize("name, value", WRONG)
def test_a_wrong_value_without_a_checksum_is_damage(
    tmp_path: Path, name: str, value: object
) -> None:
    path = tmp_path / "j.jsonl"
    lines = [json.loads(line) for line in write(path, 1, 2).splitlines()]
    for line in lines:
        del line["check"]
    lines[1][name] = value
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with Journal(path, SETTINGS) as journal:
        assert journal.skipped == [2] and "line 2 of" in str(journal.damage())
        assert list(journal.found.values()) == [result(2)]


def test_whole_numbers_and_no_depth_are_right_without_a_checksum(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    lines = [json.loads(line) for line in write(path, 1).splitlines()]
    lines[1] |= {"score": 1, "seconds": 0, "depth": None}
    for line in lines:
        del line["check"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with Journal(path, SETTINGS) as journal:
        assert not journal.skipped and len(journal.found) == 1


@pytest.mark.parametrize("name", ["fifo", "/dev/null"])
def test_what_is_no_regular_file_is_refused_at_once(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    if name == "fifo":
        os.mkfifo(path)
    with time_limit(5), pytest.raises(UsageError, match="is not a regular file; give another path"):
        Journal(path, SETTINGS).__enter__()


@pytest.mark.parametrize("left", [b"", b"\0" * 4096, b"\0" * 9 + b"\n", b"\n\n", b"{\"jour"])
def test_what_a_crash_leaves_of_an_empty_one(tmp_path: Path, left: bytes) -> None:
    path = tmp_path / "j.jsonl"
    path.write_bytes(left)
    write(path, 1)
    assert numbers(path) == [1] and b"\0" not in path.read_bytes()


@settings(deadline=None)  # a busy machine is no failure
@given(st.data())
def test_any_damage_loses_the_damaged_lines_at_most(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "j.jsonl"
        whole = bytearray(write(path, *range(5)))
        touched: set[int] = set()
        at = data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=6))
        for offset in at:
            touched.add(whole[:offset].count(b"\n"))
        for offset in at:
            whole[offset] = data.draw(st.integers(0, 255))
        path.write_bytes(whole)
        kept = {number for number in range(5) if number + 1 not in touched}
        if not kept:
            return
        found = set(numbers(path))
        assert kept <= found
        write(path, 7)
        assert set(numbers(path)) == found | {7}
        assert len(path.read_bytes()) >= len(whole) - 300
