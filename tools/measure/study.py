#!/usr/bin/env python3
"""Perplexity of all methods at several lengths, on several stretches of a text, with errors.

    python tools/measure/study.py          # SmolLM2-135M, Python's reference, all methods
    python tools/measure/study.py --lengths 16384 --segments 3 --methods lampe,jetlong
    python tools/measure/study.py --show   # the table and the picture of what was measured

The error is the standard error over chunks of 256 tokens, taken as independent; the last 512 tokens
of a text are two of them. A method whose positions depend on the query's position alone is read
once, at the greatest length, and its shorter lengths are taken from there; plain RoPE inside the
window stands for every method that changes nothing there. Each reading is kept as it ends: a run
that was stopped goes on.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from arguments import COUNT, run, tool
from demo import long_text, model_path

from lampe_gguf.backend.llama import LampeLlama
from lampe_gguf.backend.vocabulary import read_tokens
from lampe_gguf.cli.progress import Progress
from lampe_gguf.container.atomic import write_file
from lampe_gguf.evaluate.perplexity import BATCH, METHODS, model_rope, score, setting
from lampe_gguf.model.choose import file_config
from lampe_gguf.plot import new_figure, save_figure

STRETCH = 32768  # tokens from the beginning of a stretch of the text to the next
CHUNK = 256  # tokens whose mean loss is kept
BY_POSITION = ("lampe", "jetlong", "rerope", "rope")  # what comes after a token changes nothing
CHANGED_INSIDE = ("lampe", "rerope")  # may not be plain RoPE inside the window
REPORT = Path("tools/reports/study-smollm2-135m.json")
PICTURE = Path("tools/reports/study.png")

Key = tuple[str, int, int]  # method, length, segment


class Study:
    """What was measured so far: mean losses of CHUNK tokens, by reading.

    losses  key -> nats, chunk by chunk; None where a method gave the tokens no context
    """

    def __init__(self, path: Path, lengths: tuple[int, ...]) -> None:
        self.path = path
        self.lengths = lengths
        self.window = file_config(model_path())[1].window
        self.losses: dict[Key, list[float | None]] = {}
        if path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            for each in found["readings"]:
                key = each["method"], each["length"], each["segment"]
                self.losses[key] = each["losses"]

    def save(self) -> None:
        readings = [
            {"method": method, "length": length, "segment": segment,
             "losses": [None if x is None else round(x, 5) for x in losses]}
            for (method, length, segment), losses in sorted(self.losses.items())
        ]
        lines = ",\n".join(json.dumps(each) for each in readings)
        write_file(self.path, f'{{"readings": [\n{lines}\n]}}\n'.encode(), force=True)

    def find(self, method: str, length: int, segment: int) -> Key | None:
        """The reading that has the losses of a method at a length, if it was made."""
        if length <= self.window and method not in CHANGED_INSIDE:
            method = "rope"
        for key in self.losses:
            longer = key[1] > length and method in BY_POSITION
            if (key[0], key[2]) == (method, segment) and (key[1] == length or longer):
                return key
        return None

    def wanted(self, methods: tuple[str, ...], segments: range) -> list[Key]:
        """The readings that are missing for these methods, the shorter ones first."""
        keys: list[Key] = []
        for method in methods:
            for length in sorted(self.lengths):
                if length <= self.window and method not in CHANGED_INSIDE:
                    keys += [("rope", length, segment) for segment in segments]
                else:
                    keys += [(method, length, segment) for segment in segments]
        longest = {key[0]: max(k[1] for k in keys if k[0] == key[0]) for key in keys}
        keys = [(m, longest[m] if m in BY_POSITION else n, s) for m, n, s in keys]
        missing = [key for key in dict.fromkeys(keys) if self.find(*key) is None]
        return sorted(missing, key=lambda key: (key[2], key[1]))

    def tail(self, method: str, length: int, segment: int, n: int) -> np.ndarray | None:
        """Losses of the last n of `length` tokens by chunk, None where they were not measured."""
        key = self.find(method, length, segment)
        if key is None:
            return None
        kept = np.array(self.losses[key][: length // CHUNK][-(n // CHUNK):], dtype=float)
        return None if np.isnan(kept).any() else kept


def read(key: Key, tokens: list[int], bar: Progress) -> list[float | None]:
    """The losses of one reading, made now."""
    method, length, _ = key
    model = model_path()
    config = file_config(model)[1]
    how = setting(method, config, length, **model_rope(model))
    first = max(0, length - config.window) if method == "truncate" else 0
    before = bar.done
    llm = LampeLlama(model, lampe=how.lampe, n_ctx=length - first, n_batch=BATCH, **how.options)
    try:
        nll = score(llm, tokens[first:length],
                    lambda done, total: bar.advance(before + done - bar.done))
    finally:
        llm.close()
    whole = np.full(length, np.nan)
    whole[first + 1 :] = nll
    whole[first] = nll[0]  # nothing predicts the first token: the second counts for it
    means = whole[: length // CHUNK * CHUNK].reshape(-1, CHUNK).mean(axis=1)
    return [None if math.isnan(x) else float(x) for x in means]


def measure(study: Study, methods: tuple[str, ...], segments: range) -> None:
    keys = study.wanted(methods, segments)
    if not keys:
        return
    llm = LampeLlama(model_path(), lampe=False, n_ctx=64)
    tokens = read_tokens(llm, long_text(), STRETCH * (segments.stop - 1) + max(study.lengths))
    llm.close()

    def cost(key: Key) -> int:
        return min(key[1], study.window) if key[0] == "truncate" else key[1]

    with Progress("starting", sum(map(cost, keys)), "tokens") as bar:
        for key in keys:
            method, length, segment = key
            bar.relabel(f"{method}, {length:,} tokens, segment {segment + 1}")
            study.losses[key] = read(key, tokens[segment * STRETCH :], bar)
            study.save()


def rows(study: Study, methods: tuple[str, ...], segments: range) -> Iterator[dict[str, Any]]:
    """Perplexity by length and method, and the loss against LaMPE's on the same chunks."""
    for length in study.lengths:
        for method in methods:
            row: dict[str, Any] = {"length": length, "method": method}
            for n in (2048, 512):
                pairs = [
                    (tail, base) for segment in segments
                    if (tail := study.tail(method, length, segment, n)) is not None
                    and (base := study.tail("lampe", length, segment, n)) is not None
                ]
                if not pairs:
                    continue
                losses, bases = (np.concatenate(each) for each in zip(*pairs, strict=True))
                apart = losses - bases
                row |= {
                    f"ppl_{n}": math.exp(losses.mean()),
                    f"apart_{n}": float(apart.mean()),
                    f"error_{n}": float(apart.std(ddof=1) / math.sqrt(len(apart))),
                    f"segments_{n}": len(pairs),
                }
            if "ppl_2048" in row:
                yield row


def show(found: list[dict[str, Any]]) -> None:
    print("| tokens | method | texts | last 2,048 | nats from LaMPE | last 512 | nats from LaMPE |")
    print("|---|---|---|---|---|---|---|")
    for row in found:
        cells = [f"{row['length']:,}", row["method"], str(row["segments_2048"])]
        for n in (2048, 512):
            cells.append(f"{row[f'ppl_{n}']:.2f}")
            same = row["method"] == "lampe"
            cells.append("" if same else f"{row[f'apart_{n}']:+.4f} +- {row[f'error_{n}']:.4f}")
        print("| " + " | ".join(cells) + " |")


def draw(found: list[dict[str, Any]], path: Path) -> None:
    """Perplexity of the last 2,048 tokens by length, all methods and those that hold."""
    figure = new_figure(11, 4.5)
    everything, near = figure.subplots(1, 2)
    lengths = sorted({row["length"] for row in found})
    best = max(row["ppl_2048"] for row in found if row["method"] == "lampe")
    for method in dict.fromkeys(row["method"] for row in found):
        points = [(row["length"], row["ppl_2048"]) for row in found if row["method"] == method]
        for axes in (everything, near):
            axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=method)
    for axes in (everything, near):
        axes.set_xscale("log", base=2)
        axes.set_xticks(lengths, [f"{length:,}" for length in lengths])
        axes.set_xlabel("tokens read")
        axes.set_ylabel("perplexity of the last 2,048 tokens")
        axes.grid(alpha=0.3, which="both")
    everything.set_yscale("log")
    everything.set_title("all methods")
    everything.legend()
    near.set_ylim(min(row["ppl_2048"] for row in found) * 0.97, best * 1.15)
    near.set_title("those that hold")
    save_figure(figure, path)


@tool(__doc__)
@click.option("--lengths", default="4096,8192,16384,32768", show_default=True)
@click.option("--methods", default=",".join(METHODS), show_default=True)
@click.option("--segments", default="1", help="Stretches of the text: 3, or 2-3.")
@click.option("--report", type=click.Path(path_type=Path), default=REPORT, show_default=True)
@click.option("--plot", type=click.Path(path_type=Path), default=PICTURE, show_default=True)
@click.option("--show", "only_show", is_flag=True, help="Measure nothing.")
def main(lengths: str, methods: str, segments: str, report: Path, plot: Path,
         only_show: bool) -> None:
    """Measure what is missing, print the table, draw the picture."""
    names = tuple(methods.split(","))
    if unknown := set(names) - set(METHODS):
        raise click.UsageError(f"there is no method {', '.join(unknown)}")
    if "lampe" not in names:
        raise click.UsageError("the others are compared with lampe: name it in --methods, too")
    first, _, last = segments.rpartition("-")
    stretches = range(COUNT(first) - 1 if first else 0, COUNT(last))
    study = Study(report, tuple(map(COUNT, lengths.split(","))))
    if not only_show:
        measure(study, names, stretches)
    found = list(rows(study, names, stretches))
    show(found)
    if found:
        draw(found, plot)


if __name__ == "__main__":
    run(main)
