"""inspect: the rows of the table against the map itself, and pictures without matplotlib."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lampe_gguf.container import copying
from lampe_gguf.errors import LampeError
from lampe_gguf.inspect import as_text, mapping
from lampe_gguf.inspect import inspect_gguf as inspect
from lampe_gguf.method.positions import regions, relative_position
from lampe_gguf.model.presets import PRESETS, default_config
from lampe_gguf.plot import plot_mapping


@pytest.mark.parametrize("length", [1, 9, 20, 21, 700, 6144, 6145, 8192, 20000, 32768])
@pytest.mark.parametrize("name", ["default", "llama3"])
def test_a_row_says_what_the_map_does(name: str, length: int) -> None:
    config = default_config(8192) if name == "default" else PRESETS[name]
    row = mapping(config, length)
    plan = config.plan(length)
    distance = np.arange(length)
    query, keys = np.full(length, length - 1), length - 1 - distance
    region = regions(plan, query, keys)
    spans = [row.local, row.middle, row.tail]
    for number, span in enumerate(spans):
        inside = distance[region == number]
        assert (span is None) == (len(inside) == 0)
        if span is not None:
            assert span == (inside[0], inside[-1])
    assert relative_position(plan, query, keys).max() <= row.mapping_length + 1
    assert row.compression == length / row.mapping_length


def test_a_plain_file_shows_what_convert_would_write(smollm2_path: Path) -> None:
    found = inspect(smollm2_path)
    assert not found.converted and found.reason is None
    assert [row.length for row in found.rows] == [4096, 8192, 16384, 32768]
    assert [row.mapping_length for row in found.rows] == [4096, 8192, 4096, 4096]
    text = as_text(found)
    assert "not converted yet" in text and "8.00" in text


def test_pictures_need_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(LampeError, match=r"-m pip install .lampe-gguf\[plot\]"):
        plot_mapping(default_config(8192), [8192], tmp_path / "p.png")
    assert not list(tmp_path.iterdir())


def test_a_damaged_setting_is_named(tiny: Callable[..., Path]) -> None:
    path = tiny()
    data = path.read_bytes()
    path.write_bytes(data.replace(b"lampe.slope", b"lampe.slop_"))
    with pytest.raises(LampeError, match="lampe.slop_ is unknown"):
        inspect(path)


def test_a_picture_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "p.png"
    path.write_text("old")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(copying.os, "pwrite", full)
    with pytest.raises(LampeError, match="disk is full"):
        plot_mapping(default_config(8192), [8192], path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    plot_mapping(default_config(8192), [8192], path)
    assert path.read_bytes().startswith(b"\x89PNG")
