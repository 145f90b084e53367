"""Pictures of a calibration: perplexity against m, and the best m against the length."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ..plot import new_figure, save_figure
from ..shown import title
from .report import Report
from .run import FITTED
from .search import FloatArray


def constants(report: Report) -> dict[int, FloatArray]:
    """Losses of the constant mapping lengths that were read, m -> mean per length."""
    found: dict[int, FloatArray] = {}
    local: dict[int, int] = {}
    for name, losses in report.readings.items():
        segment, _, values = name.partition(" ")
        config = json.loads(values)
        plain = config["slope"] == 0 and config["length_policy"] == "causal"
        if segment != FITTED or not plain or config["attention_factor"] != 1.0:
            continue
        m, mean = int(config["max_mapping_length"]), np.array(losses).mean(axis=1)
        # of several readings with one m (other local windows), the best
        if m not in found or mean.mean() < found[m].mean():
            found[m], local[m] = mean, config["local_window"]
    return dict(sorted(found.items()))


def plot_calibration(report: Report, path: Path) -> None:
    """Two panels into a PNG: the V-shapes, and the points with their curve."""
    figure = new_figure(11, 4.5)
    left, right = figure.subplots(1, 2)
    found = constants(report)
    lengths = report.task.lengths
    for row, length in enumerate(lengths):
        best = min(losses[row] for losses in found.values())
        left.plot(list(found), [100 * np.expm1(losses[row] - best) for losses in found.values()],
                  marker="o", markersize=4, label=f"{length:,}")
    left.set_xlabel("mapping length m, positions")
    left.set_ylabel("perplexity above that length's best, %")
    left.set_yscale("symlog", linthresh=1)
    left.set_ylim(0, max(1.0, left.get_ylim()[1]))  # one reading alone has no differences
    left.set_title(f"{title(report.model_name)}: constant mapping lengths")
    left.legend(title="input, tokens")

    at = [point.length for point in report.points]
    best_m = [point.best for point in report.points]
    ranges = [[point.best - point.tied[0] for point in report.points],
              [point.tied[1] - point.best for point in report.points]]
    right.errorbar(at, best_m, yerr=ranges, fmt="o", capsize=3,
                   label="best, and what the text cannot tell from it")
    every = np.arange(1, lengths[-1] + 1, max(1, lengths[-1] // 500))
    if report.fit is not None:
        used = "" if report.fit.problem is None else " (not used)"
        right.plot(every, [report.fit.at(int(x)) for x in every], linestyle="--",
                   label=f"scaled sigmoid{used}")
    if report.config is not None:
        mapped = [min(int(x), report.config.mapping_length(int(x))) for x in every]
        right.plot(every, mapped, color="black", linewidth=1, label="chosen")
    right.axvline(report.window, color="gray", linestyle=":", linewidth=1)
    right.set_xlabel("input, tokens")
    right.set_ylabel("mapping length m, positions")
    right.set_ylim(bottom=0)
    right.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)
    save_figure(figure, path)
