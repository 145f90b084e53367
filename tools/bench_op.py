#!/usr/bin/env python3
"""Time LaMPE attention against stock flash attention, operator against operator, on the CPU.

Shapes are SmolLM2-135M's (9 query heads, 3 KV heads of 64), f16 cache: a batch of 512 queries at
the end of the context, and one query. Both run in this process, alternating; medians; the ratio is
stock's time over LaMPE's, above 1 where LaMPE is faster.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import ggml_ctypes as gg  # type: ignore[import-not-found]

from lampe_gguf.positions import NO_LIMIT, Plan, identity_plan, lampe_plan
from lampe_gguf.reference import NORM, Rope, rope_table

D, N_HEAD, N_HEAD_KV = 64, 9, 3


def plan_rows(plan: Plan, positions: NDArray[np.int64]) -> NDArray[np.int32]:
    fields = [plan.local_window, plan.num, plan.den, plan.middle_shift, plan.tail_start,
              plan.tail_shift, plan.length]
    return np.array([[p, *fields] for p in positions], dtype=np.int32)


def time_pair(
    ggml: Any, n_kv: int, n_q: int, plan: Plan, repeats: int, threads: int, clock: Any
) -> Any:
    """Median seconds of (stock, LaMPE), and of one over the other."""
    rng = np.random.default_rng(0)
    positions = np.arange(n_kv - n_q, n_kv)
    mask = np.where(np.arange(n_kv)[None] <= positions[:, None], 0.0, -np.inf).astype(np.float16)
    table = rope_table(n_kv + 3, Rope(D, NORM)).astype(np.float32)

    def half(heads: int, rows: int) -> NDArray[np.float16]:
        return rng.normal(size=(rows, heads, D)).astype(np.float16)

    with gg.Context(ggml, 1 << 28) as ctx:
        q = ctx.heads_first(ctx.tensor(
            gg.F32, (D, N_HEAD, n_q), rng.normal(size=(n_q, N_HEAD, D)).astype(np.float32)
        ))
        k, v = (
            ctx.heads_first(ctx.tensor(gg.F16, (D, N_HEAD_KV, n_kv), half(N_HEAD_KV, n_kv)))
            for _ in range(2)
        )
        masked = ctx.tensor(gg.F16, (n_kv, n_q), mask)
        stock = ctx.flash_attn(q, k, v, masked, scale=D**-0.5)
        lampe = ctx.lampe_attn(
            q, k, v, masked,
            ctx.tensor(gg.I32, (8, n_q), plan_rows(plan, positions)),
            ctx.tensor(gg.I32, (n_kv,), np.arange(n_kv, dtype=np.int32)),
            ctx.tensor(gg.F32, (D, n_kv + 3), table), None,
            scale=D**-0.5, softcap=0.0, mode=gg.ROPE_NORM,
        )
        graphs = [ctx.graph(stock, threads), ctx.graph(lampe, threads)]
        times: list[list[float]] = [[], []]
        for _ in range(repeats + 1):
            for graph, found in zip(graphs, times, strict=True):
                start = clock()
                graph.compute()
                found.append(clock() - start)
    # the first round warms up
    pairs = list(zip(times[0][1:], times[1][1:], strict=True))
    return (
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
        statistics.median(a / b for a, b in pairs),
    )


def main() -> int:
    """Print one line per shape and plan."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--cpu-time", action="store_true",
                        help="count processor time, for a machine that has other work to do")
    options = parser.parse_args()
    ggml = gg.Ggml()
    rows = []
    for n_q in (512, 1):
        for n_kv in (1024, 4096, 16384):
            plans = {"identity": identity_plan(n_kv)}
            if n_kv > 6144:
                plans["lampe"] = lampe_plan(n_kv, 6144, 1024, 200)
                assert plans["lampe"].local_window < NO_LIMIT
            for name, plan in plans.items():
                repeats = options.repeats * (1 if n_q > 1 else 10)
                stock, lampe, ratio = time_pair(
                    ggml, n_kv, n_q, plan, repeats, options.threads,
                    time.process_time if options.cpu_time else time.perf_counter,
                )
                rows.append({"queries": n_q, "keys": n_kv, "plan": name, "stock_ms": 1e3 * stock,
                             "lampe_ms": 1e3 * lampe, "ratio": ratio})
                if not options.json:
                    print(f"{n_q:4} queries, {n_kv:6} keys, {name:8}: stock {1e3 * stock:8.2f} ms,"
                          f" LaMPE {1e3 * lampe:8.2f} ms, ratio {ratio:.2f}", flush=True)
    if options.json:
        print(json.dumps(rows, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
