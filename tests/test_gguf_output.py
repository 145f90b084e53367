"""The layout of a written file: data keeps its place within a block, so blocks can be shared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gguf
import pytest

from lampe_gguf import copying
from lampe_gguf.convert import convert
from lampe_gguf.copying import BLOCK


@pytest.mark.parametrize("provenance", ["", "x" * 31, "y" * 511])
def test_metadata_grows_by_whole_blocks(
    tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, provenance: str
) -> None:
    plain = tiny("plain.gguf", lampe=None)
    calls: list[tuple[int, int, int]] = []
    copy = copying.os.copy_file_range

    def record(source: int, target: int, count: int, at: int, to: int) -> int:
        calls.append((at, to, count))
        return copy(source, target, count, at, to)

    monkeypatch.setattr(copying.os, "copy_file_range", record)
    output = convert(plain, provenance=provenance).outputs[0]
    before, after = (gguf.GGUFReader(str(path)).data_offset for path in (plain, output))
    assert after > before and (after - before) % BLOCK == 0
    # the bulk of the data goes in one call, from a block's start to a block's start
    at, to, count = max(calls, key=lambda call: call[2])
    assert at % BLOCK == to % BLOCK == 0
    assert count > plain.stat().st_size - before - BLOCK
