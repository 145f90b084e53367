"""What was measured, in Markdown: a section for each model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from lampe_gguf.evaluate.recall import QUARTERS, Loss, loss
from lampe_gguf.evaluate.tasks.intervals import wilson
from lampe_gguf.evaluate.tasks.report import quarter
from measure.studying.kept import Kept, Measured
from measure.studying.measuring import CHUNK, TASKS, is_by_position, named, stand_in

BASE = "lampe"  # what the others are compared with
LABELS = {"lampe": "LaMPE", "rope": "plain RoPE", "truncate": "truncation", "jetlong": "Jet-Long",
          "selfextend": "SelfExtend", "rerope": "ReRoPE", "yarn": "YaRN", "ntk": "NTK-aware",
          "linear": "linear interpolation"}
Row = Sequence[str]


def section(kept: Kept, methods: Sequence[str]) -> str:
    """All that is known of a model."""
    chosen = [named(each, kept.window) for each in methods]
    hours = sum(each.seconds for each in kept.all.values()) / 3600
    parts = [f"## {kept.model} (W = {kept.window:,})",
             f"{len(kept.all)} measurements, {hours:.1f} hours."]
    for task in TASKS:
        parts += of_task(kept, task, chosen)
    for length in sorted({each.length for each in kept.of("recall")}):
        parts += of_recall(kept, length, chosen)
    parts += of_perplexity(kept, chosen)
    return "\n\n".join(parts) + "\n"


def label(method: str) -> str:
    """A method for readers."""
    method, _, factor = method.partition("@")
    base, _, value = method.partition(":")
    behind = f", attention factor {factor}" if factor else ""
    if "/" in method:
        return f"LaMPE, {method} (L/s1){behind}"
    return LABELS.get(base, base) + (f", local window {int(value):,}" if value else "") + behind


def markdown(head: Row, rows: Sequence[Row]) -> str:
    return "\n".join("| " + " | ".join(row) + " |"
                     for row in (head, ["---"] * len(head), *rows))


def texts_of(kept: Kept, what: str, length: int | None = None) -> list[str]:
    return sorted({each.text for each in kept.of(what, length=length)})


def found(kept: Kept, what: str, length: int, method: str) -> dict[str, Measured]:
    """By text: a method's measurements, or of the one that stands for it."""
    method = stand_in(what, method, length, kept.window)
    return {text: kept.all[what, text, length, method] for text in texts_of(kept, what, length)
            if (what, text, length, method) in kept.all}


def of_task(kept: Kept, task: str, methods: Sequence[str]) -> Iterator[str]:
    """How many were found, with 95 % intervals, and by quarter of the text."""
    lengths = sorted({each.length for each in kept.of(task)})
    rows = []
    for method in methods:
        cells = [_hits(list(found(kept, task, length, method).values())) for length in lengths]
        if any(cells):
            rows.append([label(method), *(each or "-" for each in cells)])
    if rows:
        yield f"### {task}"
        yield markdown(["found, by quarter from the beginning",
                        *(f"{length:,} tokens" for length in lengths)], rows)


def _hits(measured: Sequence[Measured]) -> str:
    pairs = [(place or 0.0, score == 1) for each in measured
             for place, score in zip(each.found["places"], each.found["scores"], strict=True)]
    if not pairs:
        return ""
    hits = sum(right for _, right in pairs)
    low, high = wilson(hits, len(pairs))
    by_quarter = " ".join(str(sum(right for place, right in pairs if quarter(place) == i))
                          for i in range(QUARTERS))
    return f"{hits} of {len(pairs)} ({100 * low:.0f} to {100 * high:.0f} %): {by_quarter}"


def joined(measured: dict[str, Measured], name: str, texts: Sequence[str]) -> np.ndarray:
    """The losses of all these texts, one after another: [n]."""
    return np.array([x for text in texts for x in measured[text].found[name]], dtype=float)


def quarters_of(measured: dict[str, Measured]) -> list[Loss]:
    """Recall loss by quarter of the text, far to near, over all texts."""
    parts = [np.array_split(np.array(each.found["old"], dtype=float), QUARTERS)
             for each in measured.values()]
    return [loss(np.concatenate([part[i] for part in parts])) for i in range(QUARTERS)]


def of_recall(kept: Kept, length: int, methods: Sequence[str]) -> Iterator[str]:
    """Recall and unseen loss, and how far they are from the base's, excerpt by excerpt."""
    base = found(kept, "recall", length, BASE)
    rows = []
    for method in methods:
        mine = found(kept, "recall", length, method)
        if not mine:
            continue
        row = [label(method)]
        for name in ("old", "fresh"):
            here = loss(joined(mine, name, list(mine)))
            row.append(f"{here.mean:.3f} ± {here.error:.3f}")
            both = [text for text in mine if text in base
                    and len(base[text].found[name]) == len(mine[text].found[name])]
            apart = "" if method == BASE or not both else _shown(
                loss(joined(mine, name, both) - joined(base, name, both)))
            row.append(apart)
            if name == "old":
                row.append(" ".join(f"{each.mean:.2f}" for each in quarters_of(mine)))
        rows.append(row)
    if rows:
        yield (f"### Recall, {length:,} tokens ({', '.join(texts_of(kept, 'recall', length))})")
        yield markdown(["nats a token", "recall", "from LaMPE", "far ... near", "unseen",
                        "from LaMPE"], rows)


def _shown(apart: Loss) -> str:
    return f"{apart.mean:+.3f} ± {apart.error:.3f}"


def tail(kept: Kept, text: str, length: int, method: str, n: int) -> np.ndarray | None:
    """Losses of the last n of `length` tokens by chunk, None where they were not measured."""
    method = stand_in("perplexity", method, length, kept.window)
    for each in kept.of("perplexity", text):
        longer = each.length > length and is_by_position(method)
        if each.method == method and (each.length == length or longer):
            losses = np.array(each.found["losses"][: length // CHUNK][-(n // CHUNK):], dtype=float)
            if not np.isnan(losses).any():
                return losses
    return None


def of_perplexity(kept: Kept, methods: Sequence[str]) -> Iterator[str]:
    """Of the last 2,048 and 512 tokens over all texts, and the loss against the base's."""
    rows = []
    for length in sorted({each.length for each in kept.of("perplexity")}):
        for method in methods:
            row = [f"{length:,}", label(method)]
            for n in (2048, 512):
                row += _perplexity(kept, length, method, n)
            if any(row[2:]):
                rows.append(row)
    if rows:
        yield f"### Perplexity ({', '.join(texts_of(kept, 'perplexity'))})"
        yield markdown(["tokens", "method", "last 2,048", "nats from LaMPE", "last 512",
                        "nats from LaMPE"], rows)


def _perplexity(kept: Kept, length: int, method: str, n: int) -> list[str]:
    pairs = [(mine, tail(kept, text, length, BASE, n)) for text in texts_of(kept, "perplexity")
             if (mine := tail(kept, text, length, method, n)) is not None]
    if not pairs:
        return ["", ""]
    mean = float(np.concatenate([mine for mine, _ in pairs]).mean())
    both = [mine - base for mine, base in pairs if base is not None]
    apart = "" if method == BASE or not both else _shown(loss(np.concatenate(both)))
    return [f"{math.exp(mean):.2f}", apart]
