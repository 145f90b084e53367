#!/usr/bin/env python3
"""Time LaMPE attention against stock flash attention, operator against operator.

    .venv/bin/python tools/measure/bench_attention.py --shape smollm2-135m --queries 512 --queries 1

A batch of queries at the end of a context, and one query (decoding). Both operators run in this
process, alternating; medians; the ratio is stock's time over LaMPE's, above 1 where LaMPE is
faster. The plan 'identity' leaves all positions as they are; 'lampe', above 8,192 keys, is that of
a model trained on 8,192 tokens. For one query there are so many copies of the context that a
processor's caches hold little of them (200 MB, 400 copies at most), as with a model's layers.
Speeds are given beside what the machine can do at most, which tools/measure/peak.c measures first.
`--accuracy` gives the errors of both against attention in float64 on 1,024 keys and values that no
cache has rounded yet; of the options it takes --shape, --queries, --kv, --threads and --device.
Options marked + may be given more than once, for more rows.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))

import ggml_ctypes as gg  # type: ignore[import-not-found]
from arguments import COUNT, run, tool
from ggml_device import open_ggml  # type: ignore[import-not-found]

from lampe_gguf.method.positions import Plan, identity_plan, lampe_plan
from lampe_gguf.method.reference import NORM, Rope, attention, rope_table, rotate

SHAPES = {  # head size, query heads, KV heads
    "smollm2-135m": (64, 9, 3),
    "llama-3-8b": (128, 32, 8),
    "qwen2.5-1.5b": (128, 12, 2),
    "qwen2.5-0.5b": (64, 14, 2),
}
KV_BYTES = 200e6  # of decoding: more than any cache holds
MOST_COPIES = 400  # what a graph has nodes for
RANDOM_KEYS = 4096  # more are repeated
TRAINED = 8192  # tokens
ACCURACY_KEYS = 1024
PLANS: dict[str, Callable[[int], Plan]] = {
    "identity": identity_plan,
    "lampe": lambda length: lampe_plan(length, TRAINED, TRAINED // 2, 200),
}
# Of one measurement on a device: asking for a graph and waiting for it costs some 10 us.
LEAST_SECONDS = 0.01
MOST_TIMES = 1000


@dataclass(frozen=True)
class Row:
    """One line of the table: times are medians of one operator, rates and memory LaMPE's."""

    shape: str
    queries: int
    keys: int
    kv: str
    plan: str
    threads: int
    stock_ms: float
    lampe_ms: float
    ratio: float
    gflops: float
    gbs: float
    scratch_kb: float  # a thread


def measure_peak(threads: int) -> dict[str, float]:
    """What tools/measure/peak.c finds; an empty dictionary where there is no C compiler."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "peak")
        source = Path(__file__).with_name("peak.c")
        subprocess.run([compiler, "-O3", "-march=native", "-pthread", str(source), "-o",
                        str(program)], check=True)
        done = subprocess.run([str(program), str(threads)], check=True, capture_output=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def plan_rows(plan: Plan, positions: NDArray[np.int64]) -> NDArray[np.int32]:
    fields = [plan.local_window, plan.num, plan.den, plan.middle_shift, plan.tail_start,
              plan.tail_shift, plan.length]
    return np.array([[p, *fields] for p in positions], dtype=np.int32)


class Pair:
    """Graphs of the two operators on the same sizes, `copies` caches in each."""

    def __init__(self, ggml: Any, shape: tuple[int, int, int], n_kv: int, n_q: int, kv: str,
                 plan: Plan, threads: int, copies: int,
                 data: tuple[NDArray[Any], ...] | None = None) -> None:
        d, n_head, n_head_kv = shape
        rng = np.random.default_rng(0)
        positions = np.arange(n_kv - n_q, n_kv)
        mask = np.zeros((n_q, n_kv), np.float16)
        for row, position in zip(mask, positions, strict=True):
            row[position + 1:] = -np.inf
        self.ctx = ctx = ggml.context((1 << 28) + mask.size * 2)
        kind = gg.TYPES[kv]
        some = min(n_kv, RANDOM_KEYS)

        def cache(values: NDArray[Any] | None = None) -> int:
            if values is None:
                values = rng.normal(size=(some, n_head_kv, d))
            raw, _ = gg.stored(values.astype(np.float32), kv)
            raw = np.concatenate([raw] * -(-n_kv // len(raw)))[:n_kv]
            return int(ctx.heads_first(ctx.tensor(kind, (d, n_head_kv, n_kv), raw)))

        queries, unrotated, keys, values = data or (
            rng.normal(size=(n_q, n_head, d)), None, None, None)
        q, q_raw = (
            ctx.heads_first(ctx.tensor(gg.F32, (d, n_head, n_q), each.astype(np.float32)))
            for each in (queries, queries if unrotated is None else unrotated)
        )
        half = ctx.tensor(gg.F16, (n_kv, n_q), mask)
        rows = ctx.tensor(gg.I32, (8, n_q), plan_rows(plan, positions))
        cells = ctx.tensor(gg.I32, (n_kv,), np.arange(n_kv, dtype=np.int32))
        rope = Rope(d, NORM)
        table = ctx.tensor(gg.F32, (d, n_kv + 3), rope_table(n_kv + 3, rope).astype(np.float32))
        stock, lampe = [], []
        for _ in range(copies):
            k, v = cache(keys), cache(values)
            k_rotated = k if keys is None else cache(
                rotate(keys.astype(np.float64), np.arange(n_kv)[:, None], rope))
            stock.append(ctx.flash_attn(q, k_rotated, v, half, scale=d**-0.5))
            lampe.append(ctx.lampe_attn(q_raw, k, v, half, rows, cells, table, None,
                                        scale=d**-0.5, softcap=0.0, mode=gg.ROPE_NORM,
                                        causal=True))
        self.nodes = stock[0], lampe[0]
        self.graphs = [ctx.graph(stock, threads), ctx.graph(lampe, threads)]
        self.copies = copies

    def __enter__(self) -> Pair:
        self.ctx.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.ctx.__exit__(*error)

    def time(self, repeats: int, clock: Callable[[], float],
             least: float = 0.0) -> tuple[float, float, float]:
        """Median seconds of one stock and one LaMPE operator, and of one over the other.

        A graph is asked for so often before it is waited for that this takes about `least` seconds.
        """
        def seconds(graph: Any, times: int) -> float:
            start = clock()
            graph.compute(times)
            return (clock() - start) / times

        for graph in self.graphs:
            graph.compute()  # warms up
        times = [1, 1]
        if least:
            times = [round(min(max(least / max(seconds(graph, 1), 1e-9), 1), MOST_TIMES))
                     for graph in self.graphs]
        pairs = [[seconds(*each) / self.copies for each in zip(self.graphs, times, strict=True)]
                 for _ in range(repeats)]
        return (
            statistics.median(a for a, _ in pairs),
            statistics.median(b for _, b in pairs),
            statistics.median(a / b for a, b in pairs),
        )


def measure(ggml: Any, name: str, n_kv: int, n_q: int, kv: str, plan: str,
            threads: int, repeats: int, on_device: bool, cpu_time: bool) -> Row:
    """One row of the table."""
    d, n_head, n_head_kv = shape = SHAPES[name]
    n_bytes = 2 * gg.stored(np.zeros((n_kv, n_head_kv * d), np.float32), kv)[0].nbytes
    copies = min(MOST_COPIES, max(1, round(KV_BYTES / n_bytes)))
    if n_q > 1:  # on a device, enough work that asking for it does not count
        copies = min(copies, 8) if on_device else 1
    chosen = PLANS[plan](n_kv)
    repeats *= 3 if n_q == 1 else 1
    clock = time.process_time if cpu_time else time.perf_counter
    with Pair(ggml, shape, n_kv, n_q, kv, chosen, threads, copies) as pair:
        stock, lampe, ratio = pair.time(repeats, clock, LEAST_SECONDS if on_device else 0.0)
        scratch = pair.graphs[1].work_size / threads / 1e3
    seen = n_q * n_kv - n_q * (n_q - 1) // 2  # pairs of query and key
    return Row(name, n_q, n_kv, kv, plan, threads, 1e3 * stock, 1e3 * lampe, ratio,
               4.0 * d * n_head * seen / lampe / 1e9, n_bytes / lampe / 1e9, scratch)


def accuracy(ggml: Any, name: str, n_q: int, kv: str, spread: float, threads: int) -> list[float]:
    """Relative errors (root mean square) of stock and LaMPE, `spread` the scale of the queries."""
    d, n_head, n_head_kv = shape = SHAPES[name]
    n_kv = ACCURACY_KEYS
    rng = np.random.default_rng(0)
    plan, rope, positions = identity_plan(n_kv), Rope(d, NORM), np.arange(n_kv - n_q, n_kv)
    q = (spread * rng.normal(size=(n_q, n_head, d))).astype(np.float32)
    k, v = (rng.normal(size=(n_kv, n_head_kv, d)).astype(np.float32) for _ in range(2))
    turned = rotate(q.astype(np.float64), positions[:, None], rope)
    want = attention(q, k, v, positions, np.arange(n_kv), [plan] * n_q, rope, scale=d**-0.5)
    errors = []
    with Pair(ggml, shape, n_kv, n_q, kv, plan, threads, 1, (turned, q, k, v)) as pair:
        for graph, node in zip(pair.graphs, pair.nodes, strict=True):
            graph.compute()
            got = pair.ctx.read(node, want.shape)
            errors.append(float(np.sqrt(np.square(got - want).mean() / np.square(want).mean())))
    return errors


def show_accuracy(ggml: Any, shapes: Iterable[str], queries: Iterable[int], kvs: Iterable[str],
                  threads: int, as_json: bool) -> None:
    """Print the errors of both, for flat and for peaked attention."""
    rows = []
    for name in shapes:
        for n_q in (min(each, ACCURACY_KEYS) for each in queries):
            for kv in kvs:
                for spread in (0.3, 1.0, 3.0):
                    stock, lampe = accuracy(ggml, name, n_q, kv, spread, threads)
                    rows.append({"shape": name, "queries": n_q, "kv": kv, "spread": spread,
                                 "stock": stock, "lampe": lampe})
                    if not as_json:
                        print(f"{name:13} {asking(n_q)} {kv}, spread {spread:.1f}: relative error "
                              f"stock {stock:.2e}, LaMPE {lampe:.2e}", flush=True)
    if as_json:
        print(json.dumps(rows, indent=2))


@tool(__doc__)
@click.option("--shape", "shapes", multiple=True, type=click.Choice(list(SHAPES)),
              default=list(SHAPES), help="+ default: all")
@click.option("--length", "lengths", multiple=True, type=COUNT, metavar="N",
              default=(1024, 4096, 16384), show_default=True, help="+ keys")
@click.option("--queries", multiple=True, type=COUNT, metavar="N", default=(512, 1),
              show_default=True,
              help="+ the last of the keys ask, so there are no more than keys")
@click.option("--kv", "kvs", multiple=True, type=click.Choice(list(gg.STORABLE)),
              default=("f16",), show_default=True, help="+ type of the cache")
@click.option("--repeats", type=COUNT, default=5, metavar="N", show_default=True,
              help="pairs of runs that a median is of, for one query three times as many")
@click.option("--threads", multiple=True, type=COUNT, metavar="N", help="+ default: all")
@click.option("--device", metavar="NAME",
              help="as ggml calls it: CUDA0; it has no threads to choose")
@click.option("--accuracy", "errors", is_flag=True, help="errors instead of times")
@click.option("--json", "as_json", is_flag=True, help="rows as JSON, with no words between them")
@click.option("--cpu-time", is_flag=True,
              help="count processor time, for a machine that has other work to do")
def main(shapes: tuple[str, ...], lengths: tuple[int, ...], queries: tuple[int, ...],
         kvs: tuple[str, ...], repeats: int, threads: tuple[int, ...], device: str | None,
         errors: bool, as_json: bool, cpu_time: bool) -> None:
    """Print one line per shape, length, type and plan."""
    # a device has no threads to choose
    threads = (1,) if device else threads or (os.cpu_count() or 1,)
    try:
        ggml = open_ggml(device)
    except LookupError as error:
        raise click.UsageError(str(error)) from None
    if errors:
        show_accuracy(ggml, shapes, queries, kvs, threads[0], as_json)
        return
    peaks = {}
    rows = []
    for n_threads in threads:
        peak = peaks[n_threads] = {} if device else measure_peak(n_threads)
        if not as_json:
            print(device or headline(n_threads, peak), flush=True)
        for name, n_q, n_kv, kv in itertools.product(shapes, queries, lengths, kvs):
            for plan in PLANS if n_kv > TRAINED else ("identity",):
                row = measure(ggml, name, n_kv, min(n_q, n_kv), kv, plan, n_threads, repeats,
                              device is not None, cpu_time)
                rows.append(row)
                if not as_json:
                    print(line(row, peak), flush=True)
    if as_json:
        print(json.dumps({"peaks": peaks, "rows": [asdict(row) for row in rows]}, indent=2))


def headline(threads: int, peak: dict[str, float]) -> str:
    """What the rows of so many threads stand under."""
    many = "1 thread" if threads == 1 else f"{threads} threads"
    if not peak:
        return many
    return (f"{many}; the machine does at most {peak['f32_gflops']:.0f} GFLOP/s in f32, "
            f"{peak['i16_gops']:.0f} Gop/s in pairs of 16-bit integers, and reads "
            f"{peak['read_gbs']:.0f} GB/s")


def asking(n_q: int) -> str:
    """How many queries and a comma, as wide for one as for many."""
    return f"{n_q:4} {'query,' if n_q == 1 else 'queries,'}".ljust(13)


def line(row: Row, peak: dict[str, float]) -> str:
    """A row for people: the rate that counts is operations in a batch, bytes in decoding."""
    text = (f"{row.shape:13} {asking(row.queries)} {row.keys:6} keys, {row.kv}, {row.plan:8}: "
            f"stock {row.stock_ms:9.3f} ms, LaMPE {row.lampe_ms:9.3f} ms, ratio {row.ratio:.2f}, ")
    memory = f", {row.scratch_kb:.0f} kB of scratch a thread" if row.scratch_kb else ""
    if row.queries == 1:
        share = f" ({row.gbs / peak['read_gbs']:.0%} of peak)" if peak else ""
        return f"{text}{row.gbs:5.1f} GB/s{share}{memory}"
    best = max(peak["f32_gflops"], peak["i16_gops"]) if peak else 0.0
    share = f" ({row.gflops / best:.0%} of peak)" if peak else ""
    return f"{text}{row.gflops:5.0f} GFLOP/s{share}{memory}"


if __name__ == "__main__":
    run(main)
