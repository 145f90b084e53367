#!/usr/bin/env python3
"""README's picture: perplexity by position in the text, plain RoPE and LaMPE, as PNG."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demo import LENGTH, long_text, model_path

from lampe_gguf.cli.progress import Progress
from lampe_gguf.errors import LampeError
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


def main() -> int:
    """Measure both ways, or take measurements, and draw them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="tools/reports/perplexity.png")
    parser.add_argument("measurement", nargs="*",
                        help="JSON from 'lampe-gguf eval ppl'; without any, both are made now")
    options = parser.parse_args()
    by_method = (
        dict(map(measured, options.measurement))
        if options.measurement
        else {method: measure(method) for method in LABELS}
    )
    series = {LABELS.get(method, method): blocks for method, blocks in by_method.items()}
    plot_perplexity(series, WINDOW, options.out)
    print(f"wrote {options.out}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LampeError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
