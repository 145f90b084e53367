#!/usr/bin/env python3
"""README's picture: perplexity by position in the text, plain RoPE and LaMPE, as PNG."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from demo import LENGTH, long_text, model_path

from lampe_gguf.errors import LampeError
from lampe_gguf.evaluate import perplexity
from lampe_gguf.plot import plot_perplexity
from lampe_gguf.progress import Progress

WINDOW = 8192
LABELS = {"rope": "plain RoPE", "lampe": "LaMPE"}


def main(target: str = "tools/perplexity.png") -> int:
    """Measure both ways and draw them into `target`."""
    series = {}
    for method, label in LABELS.items():
        with Progress(f"reading with {label}", LENGTH, "tokens") as bar:

            def show(done: int, total: int, bar: Progress = bar) -> None:
                bar.advance(done - bar.done)

            found = perplexity(model_path(), long_text(), LENGTH, method=method, on_progress=show)
        print(f"{label}: last 2,048 tokens {found.last_2048:.2f}, {found.seconds:.0f} s")
        series[label] = ([end for end, _ in found.blocks], [value for _, value in found.blocks])
    with tempfile.TemporaryDirectory(dir=Path(target).parent) as folder:
        beside = Path(folder) / "picture.png"
        plot_perplexity(series, WINDOW, beside)
        beside.replace(target)
    print(f"wrote {target}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:2]))
    except LampeError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
