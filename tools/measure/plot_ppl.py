#!/usr/bin/env python3
"""README's picture: perplexity by position in the text, plain RoPE and LaMPE, as PNG.

    .venv/bin/python tools/measure/plot_ppl.py [MEASUREMENT ...]

A measurement is JSON from 'lampe-gguf eval ppl'; without any, both are made now.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import click
from arguments import run, tool
from demo import LENGTH, long_text, model_path

from lampe_gguf.cli.progress import Progress
from lampe_gguf.evaluate.perplexity import perplexity
from lampe_gguf.plot import plot_perplexity

WINDOW = 8192
LABELS = {"rope": "plain RoPE", "lampe": "LaMPE"}


def measure(method: str) -> tuple[list[int], list[float]]:
    """Block ends and perplexities of the demonstration's text under one method."""
    with Progress(f"reading with {LABELS[method]}", LENGTH, "tokens") as bar:
        found = perplexity(
            model_path(), long_text(), LENGTH, method=method,
            on_progress=lambda done, total: bar.advance(done - bar.done),
        )
    print(f"{LABELS[method]}: last 2,048 tokens {found.last_2048:.2f}, {found.seconds:.0f} s")
    return [end for end, _ in found.blocks], [value for _, value in found.blocks]


def measured(file: str) -> tuple[str, tuple[list[int], list[float]]]:
    """Method and blocks of what `lampe-gguf eval ppl ... --json` wrote into a file."""
    found = json.loads(Path(file).read_text(encoding="utf-8"))
    ends, values = zip(*found["blocks"], strict=True)
    return found["method"], (list(ends), list(values))


@tool(__doc__)
@click.option("--out", default="tools/reports/perplexity.png", show_default=True)
@click.argument("measurement", nargs=-1)
def main(out: str, measurement: tuple[str, ...]) -> None:
    """Measure both ways, or take measurements, and draw them."""
    by_method = (
        dict(map(measured, measurement))
        if measurement
        else {method: measure(method) for method in LABELS}
    )
    series = {LABELS.get(method, method): blocks for method, blocks in by_method.items()}
    plot_perplexity(series, WINDOW, out)
    print(f"wrote {out}")


if __name__ == "__main__":
    run(main)
