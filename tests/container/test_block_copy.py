"""Large ranges go block by block past the cache, and whatever cannot is copied the plain way."""

from __future__ import annotations

import errno
import mmap
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lampe_gguf.container import block_copy, copying
from lampe_gguf.container.block_copy import BLOCK
from lampe_gguf.convert import convert_gguf as convert
from lampe_gguf.errors import LampeError
from lampe_gguf.strip import strip_gguf as strip

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="O_DIRECT as Linux has it")

SIZE = 100 * BLOCK + 1234
WINDOW = 16 * BLOCK


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of each window that was written directly; every range counts as large."""
    calls: list[int] = []
    write = block_copy._write_mapped

    def record(*arguments: int) -> int:
        calls.append(write(*arguments))
        return calls[-1]

    monkeypatch.setattr(copying, "LEAST", 2 * BLOCK)
    monkeypatch.setattr(block_copy, "WINDOW", WINDOW)
    monkeypatch.setattr(block_copy, "_write_mapped", record)
    return calls


def copied(folder: Path, source_offset: int, target_offset: int) -> bool:
    """Copy all from `source_offset` on, and say whether all of it is there and was reported."""
    data = np.random.default_rng(1).bytes(SIZE)
    (folder / "in").write_bytes(data)
    steps: list[int] = []
    with open(folder / "in", "rb") as source, open(folder / "out", "wb") as target:
        count = SIZE - source_offset
        copying.copy_range(
            source.fileno(), source_offset, target.fileno(), target_offset, count, steps.append
        )
    expected = bytes(target_offset) + data[source_offset:]
    return (folder / "out").read_bytes() == expected and sum(steps) == count


@pytest.mark.parametrize("source, target", [(0, 0), (11, 11), (11, 3 * BLOCK + 11), (BLOCK, 0)])
@pytest.mark.parametrize("pages", [1, 4])
def test_whole_blocks_go_directly(
    tmp_path: Path,
    written: list[int],
    monkeypatch: pytest.MonkeyPatch,
    source: int,
    target: int,
    pages: int,
) -> None:
    granularity = pages * mmap.ALLOCATIONGRANULARITY  # some processors have larger pages
    monkeypatch.setattr(block_copy.mmap, "ALLOCATIONGRANULARITY", granularity)
    assert copied(tmp_path, source, target)
    assert len(written) > 5 and all(written)
    assert sum(written) == (SIZE - source - -source % BLOCK) // BLOCK * BLOCK


def test_other_remainders_are_copied_plainly(tmp_path: Path, written: list[int]) -> None:
    assert copied(tmp_path, 11, 12) and not written


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EOPNOTSUPP, errno.EFAULT])
@pytest.mark.parametrize("after", [0, 2])
def test_a_system_that_cannot(
    tmp_path: Path, written: list[int], monkeypatch: pytest.MonkeyPatch, code: int, after: int
) -> None:
    write = os.pwrite

    def refuse(fd: int, data: Any, at: int) -> int:
        if len(written) >= after:
            raise OSError(code, os.strerror(code))
        return write(fd, data, at)

    monkeypatch.setattr(block_copy.os, "pwrite", refuse)
    monkeypatch.setattr(copying, "write_all", lambda *_: pytest.fail("the kernel copies the rest"))
    assert copied(tmp_path, 11, 11)
    assert written == [WINDOW] * after + [0]


def test_no_file_can_be_opened_for_it(
    tmp_path: Path, written: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(block_copy.os, "O_DIRECT")
    assert copied(tmp_path, 0, 0) and not written


def test_short_writes_go_on_at_a_block(
    tmp_path: Path, written: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.pwrite
    monkeypatch.setattr(
        block_copy.os, "pwrite", lambda fd, data, at: write(fd, data[: 3 * BLOCK], at)
    )
    assert copied(tmp_path, 0, 0) and set(written) <= {BLOCK, 2 * BLOCK, 3 * BLOCK}


def test_a_full_disk_is_said_at_once(
    tmp_path: Path, written: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(block_copy.os, "pwrite", full)
    with pytest.raises(OSError, match="No space"):
        copied(tmp_path, 0, 0)


@pytest.mark.parametrize("left", [0, BLOCK, 20 * BLOCK + 5])
def test_a_source_that_shrinks_is_an_error(tmp_path: Path, written: list[int], left: int) -> None:
    (tmp_path / "in").write_bytes(bytes(SIZE))
    with open(tmp_path / "in", "rb") as source, open(tmp_path / "out", "wb") as target:

        def shrink(_: int) -> None:
            os.truncate(tmp_path / "in", left)

        with pytest.raises(LampeError, match="became shorter"):
            copying.copy_range(source.fileno(), 0, target.fileno(), 0, SIZE, shrink)


def test_a_model_goes_there_and_back(tiny: Callable[..., Path], written: list[int]) -> None:
    plain = tiny("plain.gguf", lampe=None)
    with open(plain, "ab") as file:
        file.write(np.random.default_rng(2).bytes(SIZE))
    output = convert(plain).outputs[0]
    there = sum(written)
    assert there > SIZE - BLOCK
    back = strip(output, plain.with_name("back.gguf"))[0]
    assert sum(written) > there + SIZE - BLOCK
    assert back.read_bytes() == plain.read_bytes()
