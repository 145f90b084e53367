#!/usr/bin/env python3
"""What the kernels of attention take on a CUDA device, LaMPE's and stock's; needs PyTorch.

    python3 tools/measure/profile_device.py [--shape NAME] [--length N] [--queries N]

For a build of on_device.py on PYTHONPATH. PyTorch's profiler sees all kernels of the process,
ggml's too. Times are means over a few runs: enough to find where they go.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))

from arguments import count
from ggml_device import open_ggml  # type: ignore[import-not-found]

from lampe_gguf.method.positions import lampe_plan
from measure import bench_attention as bench

COPIES = 8  # caches, so that none is found in the device's own
RUNS = 2


def main() -> None:
    """Print the kernels of every case, with microseconds of one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", action="append", choices=bench.SHAPES)
    parser.add_argument("--length", type=count, default=16384, metavar="N")
    parser.add_argument("--queries", action="append", type=count, metavar="N")
    options = parser.parse_args()
    import torch

    torch.zeros(1).cuda()
    ggml = open_ggml("CUDA0")
    window = min(options.length // 2, 4096)
    plan = lampe_plan(options.length, min(options.length, 8192), window, 200)
    for name in options.shape or ["smollm2-135m", "llama-3-8b"]:
        for n_q in options.queries or [512, 1]:
            shape = bench.SHAPES[name]
            with bench.Pair(ggml, shape, options.length, n_q, "f16", plan, 1, COPIES) as pair:
                for graph in pair.graphs:
                    graph.compute(3)
                with torch.profiler.profile(
                    activities=[torch.profiler.ProfilerActivity.CUDA]
                ) as profiler:
                    for graph in pair.graphs:
                        graph.compute(RUNS)
            print(f"{name}, {options.length} keys, {n_q} queries")
            for event in profiler.key_averages():
                print(f"{event.device_time_total / event.count:9.1f} us  {event.key[:80]}")


if __name__ == "__main__":
    main()
