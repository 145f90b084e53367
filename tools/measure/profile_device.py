#!/usr/bin/env python3
"""What the kernels of attention take on a CUDA device, LaMPE's and stock's; needs PyTorch.

    .venv/bin/python tools/measure/profile_device.py [--shape NAME] [--length N] [--queries N]

For a build of on_device.py on PYTHONPATH. PyTorch's profiler sees all kernels of the process,
ggml's too. Times are means over a few runs: enough to find where they go.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))

import click
from arguments import COUNT, run, tool
from ggml_device import open_ggml  # type: ignore[import-not-found]

from lampe_gguf.method.positions import lampe_plan
from measure import bench_attention as bench

COPIES = 8  # caches, so that none is found in the device's own
RUNS = 2


@tool(__doc__)
@click.option("--shape", "shapes", multiple=True, type=click.Choice(list(bench.SHAPES)),
              default=("smollm2-135m", "llama-3-8b"), show_default=True)
@click.option("--length", type=COUNT, default=16384, metavar="N")
@click.option("--queries", multiple=True, type=COUNT, default=(512, 1), show_default=True,
              metavar="N")
def main(shapes: tuple[str, ...], length: int, queries: tuple[int, ...]) -> None:
    """Print the kernels of every case, with microseconds of one."""
    import torch

    torch.zeros(1).cuda()
    ggml = open_ggml("CUDA0")
    window = min(length // 2, 4096)
    plan = lampe_plan(length, min(length, 8192), window, 200)
    for name in shapes:
        for n_q in queries:
            shape = bench.SHAPES[name]
            with bench.Pair(ggml, shape, length, n_q, "f16", plan, 1, COPIES) as pair:
                for graph in pair.graphs:
                    graph.compute(3)
                with torch.profiler.profile(
                    activities=[torch.profiler.ProfilerActivity.CUDA]
                ) as profiler:
                    for graph in pair.graphs:
                        graph.compute(RUNS)
            print(f"{name}, {length} keys, {n_q} queries")
            for event in profiler.key_averages():
                print(f"{event.device_time_total / event.count:9.1f} us  {event.key[:80]}")


if __name__ == "__main__":
    run(main)
