"""Scores as pictures."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...plot import new_figure, save_figure
from ...shown import title
from ..recall import Recall
from .journal import Result
from .report import Cell


def plot_grid(found: Sequence[Cell], path: str | os.PathLike[str]) -> None:
    """A heat map of length and depth for each method, green where the needle is found.

    found  cells by depth, of one task
    """
    methods = list(dict.fromkeys(each.method for each in found))
    lengths = sorted({each.length for each in found})
    depths = sorted({each.depth or 0.0 for each in found})
    figure = new_figure(1.5 + 3.2 * len(methods), 3.5)
    panels = figure.subplots(1, len(methods), sharey=True, squeeze=False)[0]
    image = None
    for axes, method in zip(panels, methods, strict=True):
        values = np.full((len(depths), len(lengths)), np.nan)
        for each in found:
            if each.method == method:
                values[depths.index(each.depth or 0.0), lengths.index(each.length)] = each.score
        image = axes.imshow(values, vmin=0, vmax=1, cmap="RdYlGn", aspect="auto")
        axes.set_xticks(range(len(lengths)), [f"{n:,}" for n in lengths], rotation=45)
        axes.set_yticks(range(len(depths)), [f"{depth:.0%}" for depth in depths])
        for (row, column), value in np.ndenumerate(values):
            if not np.isnan(value):
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7,
                          color="black" if 0.2 < value < 0.8 else "white")
        axes.set_title(method)
        axes.set_xlabel("tokens")
    panels[0].set_ylabel("depth of the needle")
    figure.colorbar(image, ax=panels, label="found")
    save_figure(figure, path)


def plot_scores(
    found: Sequence[Cell], window: int, path: str | os.PathLike[str]
) -> None:
    """Score by length with its interval, a panel for each task and a line for each method."""
    tasks = list(dict.fromkeys(each.task for each in found))
    methods = list(dict.fromkeys(each.method for each in found))
    columns = min(4, len(tasks))
    rows = -(-len(tasks) // columns)
    figure = new_figure(1.5 + 3.4 * columns, 0.5 + 2.8 * rows)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, task in zip(panels, tasks, strict=False):
        for method in methods:
            line = sorted((c for c in found if c.task == task and c.method == method),
                          key=lambda c: c.length)
            if line:
                score = np.array([c.score for c in line])
                low, high = (np.array([getattr(c, name) for c in line]) for name in ("low", "high"))
                # an interval of resamples may lie a rounding error beside its mean
                errors = np.maximum(0, [score - low, high - score])
                axes.errorbar([c.length for c in line], score, errors, marker="o", markersize=4,
                              capsize=3, label=method)
        axes.axvline(window, color="gray", linestyle="--", linewidth=1)
        axes.set_xscale("log", base=2)
        lengths = sorted({c.length for c in found if c.task == task})
        axes.set_xticks(lengths, [f"{n:,}" for n in lengths])
        axes.set_ylim(-0.03, 1.03)
        axes.set_title(title(task), fontsize=9)
        axes.grid(alpha=0.3)
    for axes in panels[len(tasks):]:
        axes.set_visible(False)
    figure.axes[0].legend(fontsize=8)
    figure.supxlabel("tokens", fontsize=9)
    figure.supylabel("score", fontsize=9)
    save_figure(figure, path)


def plot_places(
    results: Sequence[Result], window: int, path: str | os.PathLike[str]
) -> None:
    """Where the facts stand that were found (filled) and lost: a row a method, a panel a length.

    results  with a depth each; the dashed line is where truncation cuts the text off
    """
    lengths = sorted({each.length for each in results})
    methods = list(dict.fromkeys(each.method for each in results))
    figure = new_figure(9, 0.6 + len(lengths) * (0.7 + 0.32 * len(methods)))
    panels = figure.subplots(len(lengths), 1, squeeze=False)[:, 0]
    for axes, length in zip(panels, lengths, strict=True):
        draw_places(axes, {
            title(method): [(each.depth or 0.0, each.score == 1) for each in results
                            if (each.length, each.method) == (length, method)]
            for method in methods
        })
        if length > window:
            axes.axvline(1 - window / length, color="gray", linestyle="--", linewidth=1)
        axes.set_title(f"{length:,} tokens", fontsize=9)
    panels[-1].set_xlabel("where the fact stands in the text")
    save_figure(figure, path)


def draw_places(axes: Any, rows: Mapping[str, Sequence[tuple[float, bool]]]) -> None:
    """One panel of plot_places: for each label, places (0 ... 1) and whether it was found there."""
    labels = []
    for row, (label, asked) in enumerate(rows.items()):
        colour = f"C{row % 10}"
        for found in (True, False):
            places = [place for place, right in asked if right == found]
            axes.scatter(places, [row] * len(places), s=36, edgecolors=colour,
                         facecolors=colour if found else "none")
        labels.append(f"{label}: {sum(right for _, right in asked)} of {len(asked)}")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")


def plot_recall(tables: Sequence[Sequence[Recall]], path: str | os.PathLike[str]) -> None:
    """Recall loss by depth, a panel for each length and a line for each method; unseen loss dashed.
    """
    figure = new_figure(1.5 + 4.5 * len(tables), 4)
    panels = figure.subplots(1, len(tables), sharey=True, squeeze=False)[0]
    for axes, table in zip(panels, tables, strict=True):
        for each in table:
            count = len(each.by_depth)
            middles = [(i + 0.5) / count * each.length for i in range(count)]
            line = axes.errorbar(
                middles, [part.mean for part in each.by_depth],
                [part.error for part in each.by_depth], marker="o", markersize=4, capsize=3,
                label=title(each.name),
            )
            axes.axhline(each.unseen.mean, color=line[0].get_color(), linestyle="--", linewidth=1)
        axes.set_title(f"{table[0].length:,} tokens read")
        axes.set_xlabel("where the excerpt stands, tokens from the beginning")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("nats a token, fed again (dashed: never read)")
    panels[0].legend(fontsize=8)
    save_figure(figure, path)
