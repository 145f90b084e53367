#!/usr/bin/env python3
"""Time SmolLM2 with all layers on a device: upstream's attention, fused and not, and LaMPE.

    .venv/bin/python tools/device/on_device_speed.py [--length N]

For a build of on_device.py on PYTHONPATH; the sides take turns, medians of three.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import click
from arguments import COUNT, run, tool
from demo import long_text, model_path

from lampe_gguf.backend.llama import LampeLlama
from lampe_gguf.backend.vocabulary import read_tokens
from lampe_gguf.method.config import LampeConfig
from lampe_gguf.model.choose import file_config

WRITTEN = 32  # tokens that are timed
WARM_UP = 8  # tokens written before
ROUNDS = 3


def speeds(config: LampeConfig | None, flash_attn: bool, n_tokens: int) -> tuple[float, float]:
    """Tokens a second: reading `n_tokens`, and writing after them."""
    llm = LampeLlama(model_path(), lampe=config, n_ctx=n_tokens + 512, n_gpu_layers=99,
                     flash_attn=flash_attn, verbose=False)
    tokens = read_tokens(llm, long_text(), n_tokens + WARM_UP + WRITTEN)
    llm.eval(tokens[:512])
    llm.reset()
    start = time.perf_counter()
    llm.eval(tokens[:n_tokens])
    read = time.perf_counter() - start
    for token in tokens[n_tokens:n_tokens + WARM_UP]:
        llm.eval([token])
    start = time.perf_counter()
    for token in tokens[n_tokens + WARM_UP:]:
        llm.eval([token])
    written = time.perf_counter() - start
    llm.close()
    return n_tokens / read, WRITTEN / written


@tool(__doc__)
@click.option("--length", "lengths", multiple=True, type=COUNT, metavar="N",
              default=(1024, 4096, 16384, 30000), show_default=True)
def main(lengths: tuple[int, ...]) -> None:
    """Print a line for every length and side."""
    config = file_config(model_path())[1]
    sides = {"stock, flash attention": (None, True), "stock without": (None, False),
             "LaMPE": (config, True)}
    for n_tokens in lengths:
        taken: dict[str, list[tuple[float, float]]] = {}
        for _ in range(ROUNDS):
            for name, side in sides.items():
                taken.setdefault(name, []).append(speeds(*side, n_tokens))
        for name, pairs in taken.items():
            read, written = (statistics.median(each) for each in zip(*pairs, strict=True))
            print(f"{n_tokens:6} tokens  {name:22}  reads {read:.0f} and writes {written:.0f} "
                  "tokens/s", flush=True)


if __name__ == "__main__":
    run(main)
