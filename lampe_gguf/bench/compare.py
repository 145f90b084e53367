"""Speed of whole models, LaMPE against stock attention, in processes that take turns."""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..backend.api import require_patched
from ..errors import LampeError, UsageError

OnWork = Callable[[int], None]  # called with the number of tokens just read


@dataclasses.dataclass(frozen=True)
class Speed:
    """Tokens per second of both sides (medians), and how often faster LaMPE is.

    The ratio is the median over the rounds, each of them one run of either side; `spread` is the
    least and the greatest of them.
    """

    lampe: float
    stock: float
    ratio: float
    spread: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What `compare` found at one length: tokens in the context when writing begins."""

    length: int
    prefill: Speed
    decode: Speed


@dataclasses.dataclass(frozen=True)
class Report:
    """All lengths, and what ran; pairs are of LaMPE and of stock.

    stock        what LaMPE was compared with
    peak_rss_mb  peak resident memory of a process over all lengths, MB; None where not known
    """

    comparisons: list[Comparison]
    rounds: int
    threads: int
    decode_tokens: int
    stock: str
    versions: tuple[str, str]
    paths: tuple[str, str]
    peak_rss_mb: tuple[float | None, float | None]


def compare(
    model: Path,
    lengths: Sequence[int],
    *,
    rounds: int = 3,
    decode: int = 32,
    threads: int | None = None,
    stock: Path | None = None,
    portable: bool = False,
    flash_attn: bool = True,
    rpc_servers: Sequence[str] = (),
    on_work: OnWork | None = None,
) -> Report:
    """Time prefill up to each length and decoding there, LaMPE and stock alternating.

    portable    LaMPE takes the portable path, also where the devices have fused attention
    flash_attn  stock's; False: it composes attention of other operations
    rpc_servers  HOST:PORT of machines that both sides compute with, as LampeLlama has them
    stock   folder with upstream's own build of llama-cpp-python; None: this build with LaMPE off,
            whose graph is upstream's
    Raises LampeError with what the side that failed said.
    """
    if not lengths:
        raise UsageError("no length to measure at; give --lengths")
    if stock is not None and not (stock / "llama_cpp").is_dir():
        raise UsageError(
            f"{stock} holds no llama_cpp; give the folder that "
            "'python3 tools/backend.py build --stock' prints"
        )
    if stock is not None and rpc_servers:
        raise UsageError("upstream's own build knows no peer of this one; leave --stock out, and "
                         "stock is this build with LaMPE off")
    require_patched()
    ordered = sorted(set(lengths))
    threads = threads or os.cpu_count() or 1
    arguments = {
        "model": os.fspath(model), "lengths": ordered, "decode": decode, "threads": threads,
        "portable": portable, "flash_attn": flash_attn, "rpc_servers": list(rpc_servers),
    }
    other = "off" if stock is None else "stock"
    lampe_runs: list[list[dict[str, Any]]] = []
    stock_runs: list[list[dict[str, Any]]] = []
    for number in range(rounds):
        turns = [("lampe", lampe_runs, None), (other, stock_runs, stock)]
        # who goes first alternates too: a machine that grows warm favours neither
        for side, runs, folder in turns if number % 2 == 0 else reversed(turns):
            runs.append(_run_side({"side": side, **arguments}, folder, on_work))

    def speed(index: int, field: str, tokens: int) -> Speed:
        return _speed(tokens, [run[index][field] for run in lampe_runs],
                      [run[index][field] for run in stock_runs])

    def peak(runs: list[list[dict[str, Any]]]) -> float | None:
        values = [run[-1]["peak_rss_mb"] for run in runs]
        return None if None in values else max(values)

    return Report(
        comparisons=[
            Comparison(
                length=length,
                prefill=speed(index, "prefill_seconds", length),
                decode=speed(index, "decode_seconds", decode),
            )
            for index, length in enumerate(ordered)
        ],
        rounds=rounds,
        threads=threads,
        decode_tokens=decode,
        stock="this build with LaMPE off" if stock is None else "upstream's own build",
        versions=(lampe_runs[0][-1]["version"], stock_runs[0][-1]["version"]),
        paths=(lampe_runs[0][-1]["path"], stock_runs[0][-1]["path"]),
        peak_rss_mb=(peak(lampe_runs), peak(stock_runs)),
    )


def _speed(tokens: int, lampe: list[float], stock: list[float]) -> Speed:
    ratios = [b / a for a, b in zip(lampe, stock, strict=True)]
    return Speed(
        lampe=tokens / statistics.median(lampe),
        stock=tokens / statistics.median(stock),
        ratio=statistics.median(ratios),
        spread=(min(ratios), max(ratios)),
    )


def _run_side(
    arguments: dict[str, Any], stock: Path | None, on_work: OnWork | None
) -> list[dict[str, Any]]:
    """One child process; returns what it reported, less the work done."""
    env = dict(os.environ)
    if stock is not None:
        env["PYTHONPATH"] = os.fspath(stock.resolve())
    command = [sys.executable, "-m", "lampe_gguf.bench.side", json.dumps(arguments)]
    found: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as child,
    ):
        assert child.stdout is not None
        try:
            for line in child.stdout:
                fields = json.loads(line)
                if "error" in fields:
                    raise LampeError(fields["error"])
                if "work" not in fields:
                    found.append(fields)
                elif on_work is not None:
                    on_work(fields["work"])
        except BaseException:
            child.kill()
            raise
        if child.wait():
            errors.seek(0)
            last = errors.read().strip().rpartition("\n")[2]
            raise LampeError(f"the process that measured {arguments['side']} died: {last}")
    return found
