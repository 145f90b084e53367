"""What the results come to: a table for people, a dictionary for programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ...shown import shown
from .intervals import bootstrap, wilson
from .journal import Result


@dataclass(frozen=True)
class Cell:
    """Some results together.

    depth       of a needle, None over all depths
    score       their mean, 0 ... 1
    low, high   its 95 % interval: Wilson's where each is 0 or 1, else bootstrapped
    seconds     mean of an answer
    """

    task: str
    length: int
    method: str
    depth: float | None
    n: int
    score: float
    low: float
    high: float
    seconds: float


def cell(
    results: Sequence[Result], task: str, length: int, method: str, depth: float | None = None,
    seed: int = 0,
) -> Cell:
    """The cell of these results."""
    scores = [each.score for each in results]
    if all(each in (0, 1) for each in scores):
        # resamples of shares that happen to be all 1 would have no width at all
        low, high = wilson(round(sum(scores)), len(scores))
    else:
        low, high = bootstrap(scores, seed)
    return Cell(
        task, length, method, depth, len(scores), sum(scores) / len(scores), low, high,
        sum(each.seconds for each in results) / len(results),
    )


def cells(results: Iterable[Result], by_depth: bool = False, seed: int = 0) -> list[Cell]:
    """A cell for each task, length and method, in the order in which they came.

    by_depth  one for each depth, too
    """
    groups: dict[tuple[str, int, str, float | None], list[Result]] = {}
    for each in results:
        depth = each.depth if by_depth else None
        groups.setdefault((each.task, each.length, each.method, depth), []).append(each)
    return [
        cell(group, task, length, method, depth, seed)
        for (task, length, method, depth), group in groups.items()
    ]


def table(found: Sequence[Cell], methods: Sequence[str]) -> str:
    """A row for each task and length, a column for each method; and the mean over the tasks."""
    tasks = list(dict.fromkeys(each.task for each in found))
    lengths = sorted({each.length for each in found})
    by_key = {(each.task, each.length, each.method): each for each in found}
    rows = [["task", "tokens", "n", *methods]]
    for task in tasks:
        for length in lengths:
            row = [by_key.get((task, length, method)) for method in methods]
            n = max((each.n for each in row if each is not None), default=0)
            if n:
                rows.append([shown(task, 60), f"{length:,}", str(n), *map(_shown, row)])
    if len(tasks) > 1:
        for length in lengths:
            means = []
            for method in methods:
                scores = [c.score for t in tasks if (c := by_key.get((t, length, method)))]
                means.append(f"{sum(scores) / len(scores):.2f}" if scores else "-")
            rows.append(["mean of tasks", f"{length:,}", "", *means])
    return _aligned(rows)


def _shown(each: Cell | None) -> str:
    return "-" if each is None else f"{each.score:.2f} ({each.low:.2f} to {each.high:.2f})"


def grid(found: Sequence[Cell], methods: Sequence[str]) -> str:
    """A row for each length and depth, a column for each method: of needles in haystacks."""
    rows = [["tokens", "depth", *methods]]
    by_key = {(each.length, each.depth, each.method): each for each in found}
    for length, depth in sorted({(each.length, each.depth or 0.0) for each in found}):
        row = [by_key.get((length, depth, method)) for method in methods]
        rows.append([f"{length:,}", f"{depth:g}",
                     *("-" if each is None else f"{each.score:.2f}" for each in row)])
    return _aligned(rows)


def quarters(results: Iterable[Result], methods: Sequence[str]) -> str:
    """How many were found by each method, of all and by quarter of the text; a row each.

    results  with a depth each, of one task
    """
    rows = [["tokens", "method", "found", "1st quarter", "2nd", "3rd", "4th"]]
    groups: dict[tuple[int, str], list[Result]] = {}
    for each in results:
        groups.setdefault((each.length, each.method), []).append(each)
    for length, method in sorted(groups, key=lambda key: (key[0], methods.index(key[1]))):
        group = groups[length, method]
        parts = [[each for each in group if quarter(each.depth or 0.0) == i] for i in range(4)]
        rows.append([f"{length:,}", shown(method, 60),
                     *(f"{sum(each.score == 1 for each in part)} of {len(part)}"
                       for part in [group, *parts])])
    return _aligned(rows)


def quarter(depth: float) -> int:
    """0 ... 3, of a depth of 0 ... 1."""
    return min(3, int(depth * 4))


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        padded = [text.rjust(width) for text, width in zip(row, widths, strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *padded[1:]]).rstrip())
    return "\n".join(lines)


def as_dict(
    results: Sequence[Result], by_depth: bool, *, seed: int, **about: Any
) -> dict[str, Any]:
    """Everything for a program: what was run, cells, single results."""
    listed = cells(results, seed=seed)
    if by_depth:
        listed += cells(results, by_depth=True, seed=seed)
    return {
        **about,
        "seed": seed,
        "cells": [dataclasses.asdict(each) for each in listed],
        "results": [dataclasses.asdict(each) for each in results],
    }
