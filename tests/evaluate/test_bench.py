"""`lampe-gguf bench`: both sides run, in turn, and what is printed is what was timed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lampe_gguf.bench import compare as bench
from lampe_gguf.bench import side as bench_side
from lampe_gguf.errors import LampeError, UsageError

Tiny = Callable[..., Path]
PROGRAM = [sys.executable, "-m", "lampe_gguf.cli.main", "bench"]


@pytest.mark.parametrize("converted", [True, False])
def test_lampe_against_the_same_build(tiny: Tiny, converted: bool) -> None:
    model = tiny() if converted else tiny(lampe=None, window=256)
    work: list[int] = []
    found = bench.compare(
        model, [150, 40, 150], rounds=2, decode=5, threads=2, on_work=work.append
    )
    assert [at.length for at in found.comparisons] == [40, 150]
    assert found.paths == ("fused", "off") and "LaMPE off" in found.stock
    assert found.versions[0] == found.versions[1]
    assert sum(work) == 2 * 2 * 150  # both sides read the longest input, twice
    for at in found.comparisons:
        for speed in (at.prefill, at.decode):
            assert speed.lampe > 0 and speed.stock > 0
            assert speed.spread[0] <= speed.ratio <= speed.spread[1]


def test_lampe_against_upstreams_own_build(tiny: Tiny, stock_path: str) -> None:
    found = bench.compare(tiny(), [64], rounds=1, stock=Path(stock_path))
    assert found.paths == ("fused", "stock")
    assert "lampe" in found.versions[0] and "lampe" not in found.versions[1]


@pytest.mark.parametrize("portable", [True, False])
def test_stock_keeps_its_best_attention(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, portable: bool
) -> None:
    opened: list[dict[str, Any]] = []

    class Fake:
        def __init__(self, _: Any, **options: Any) -> None:
            opened.append(options)
            raise RuntimeError

    monkeypatch.setattr("lampe_gguf.backend.llama.LampeLlama", Fake)
    monkeypatch.setattr("llama_cpp.Llama", Fake)
    for side in ("lampe", "off", "stock"):
        with pytest.raises(RuntimeError):
            bench_side.run(side, str(tiny(f"{side}.gguf")), [64], 4, 1, portable, True)
    lampe, off, stock = opened
    assert lampe.get("attention") == ("portable" if portable else None)
    assert off["lampe"] is False
    for other in (off, stock):
        assert other["flash_attn"] is True and "attention" not in other


def test_figures_are_medians_of_what_the_sides_report(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    seconds = {"lampe": iter([1.0, 2.0, 4.0]), "off": iter([3.0, 10.0, 4.0])}

    def side(arguments: dict[str, Any], *_: Any) -> list[dict[str, Any]]:
        name = arguments["side"]
        order.append(name)
        taken = next(seconds[name])
        return [
            {"length": 100, "prefill_seconds": taken, "decode_seconds": taken / 8},
            {"peak_rss_mb": taken, "version": "1", "path": name},
        ]

    monkeypatch.setattr(bench, "_run_side", side)
    found = bench.compare(tiny(), [100], rounds=3, decode=16)
    assert order == ["lampe", "off", "off", "lampe", "lampe", "off"]
    assert found.comparisons[0].prefill == bench.Speed(50.0, 25.0, 3.0, (1.0, 5.0))
    assert found.comparisons[0].decode == bench.Speed(64.0, 32.0, 3.0, (1.0, 5.0))
    assert found.peak_rss_mb == (4.0, 10.0)


def test_what_cannot_be_measured_is_said(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="backend.py build --stock"):
        bench.compare(tiny(), [64], stock=tmp_path)
    with pytest.raises(LampeError, match="cannot open"):
        bench.compare(tmp_path / "none.gguf", [64])


def test_a_length_beyond_what_the_file_supports_is_measured(tiny: Tiny) -> None:
    # the file says 512: what is written at the greatest length would go beyond it
    (at,) = bench.compare(tiny(), [512], rounds=1, decode=8).comparisons
    assert at.length == 512 and at.decode.lampe > 0


def test_a_child_that_dies_is_said(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "llama_cpp").mkdir()
    (tmp_path / "llama_cpp" / "__init__.py").write_text("import os\nos._exit(7)\n")
    with pytest.raises(LampeError, match="measured stock died"):
        bench.compare(tiny(), [64], stock=tmp_path)


def test_the_command_prints_a_table_json_and_a_picture(tiny: Tiny, tmp_path: Path) -> None:
    model, picture = tiny(), tmp_path / "speed.png"
    options = [str(model), "--lengths", "64", "--rounds", "1", "--decode", "4"]
    done = subprocess.run([*PROGRAM, *options, "--plot", str(picture)], capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    assert "prefill" in done.stdout and "decode" in done.stdout and "peak memory" in done.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
    done = subprocess.run([*PROGRAM, *options, "--json"], capture_output=True, text=True)
    assert json.loads(done.stdout)["comparisons"][0]["length"] == 64
