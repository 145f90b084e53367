"""The layout of a written file: data keeps its place within a block, so blocks can be shared."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest

from lampe_gguf.container import copying
from lampe_gguf.container.block_copy import BLOCK
from lampe_gguf.container.copying import STRIDE
from lampe_gguf.convert import convert_gguf as convert


@pytest.mark.parametrize("provenance", ["", "x" * 31, "y" * 511])
def test_metadata_grows_by_whole_blocks(
    tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, provenance: str
) -> None:
    plain = tiny("plain.gguf", lampe=None)
    os.truncate(plain, 9_000_000)
    calls: list[tuple[int, int, int]] = []
    copy = copying.os.copy_file_range

    def record(source: int, target: int, count: int, at: int, to: int) -> int:
        calls.append((at, to, count))
        return copy(source, target, count, at, to)

    monkeypatch.setattr(copying.os, "copy_file_range", record)
    output = convert(plain, provenance=provenance).outputs[0]
    before, after = (gguf.GGUFReader(str(path)).data_offset for path in (plain, output))
    assert after > before and (after - before) % BLOCK == 0
    # all but a first piece goes from a block's start to a block's start, at the target's strides
    data = [call for call in calls if call[0] > before]
    assert sum(count for _, _, count in data) > 9_000_000 - before - STRIDE
    for at, to, _ in data:
        assert at % BLOCK == 0 and to % STRIDE == 0
