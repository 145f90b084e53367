"""Pictures of a calibration: recall and unseen loss against L, and the best L by length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..plot import new_figure, save_figure
from ..shown import title
from .report import Judged, Report


def curves(report: Report) -> dict[int, dict[int, Judged]]:
    """The best map of each L (over local windows) at each length: length -> L -> map.

    Constant maps of the fitted text, as the grid has them, and what convert would write where that
    is one.
    """
    recall, unseen = report.weights
    found: dict[int, dict[int, Judged]] = {}
    for row, length in enumerate(report.task.lengths):
        best: dict[int, tuple[float, Judged]] = {}
        for each in report.candidates:
            values = each.parameters
            value = recall * each.recall[row] + unseen * each.unseen[row]
            if (each.kind not in ("map", "baseline") or values["slope"] != 0
                    or values["attention_factor"] != 1.0 or np.isnan(value)):
                continue
            mapped = int(values["max_mapping_length"])
            if mapped not in best or value < best[mapped][0]:
                best[mapped] = value, each
        if best:
            found[length] = {mapped: best[mapped][1] for mapped in sorted(best)}
    return found


def plot_calibration(report: Report, path: Path) -> None:
    """Recall and unseen loss by L into a PNG, a line for each length; with several lengths beyond
    the window also the best L of each, and the schedule."""
    schedule = len(report.points) > 1
    figure = new_figure(16 if schedule else 11, 4.5)
    panels = figure.subplots(1, 3 if schedule else 2)
    for axes, part, name in zip(panels, ("recall", "unseen"),
                                ("recall loss, of what was read", "unseen loss"), strict=False):
        _losses(axes, report, part)
        axes.set_ylabel(f"{name}, nats a token")
    panels[0].set_title(f"{title(report.model_name)}: maps asked from one reading")
    panels[0].legend(title="text, tokens", fontsize=8)
    if schedule:
        _schedule(panels[2], report)
    for axes in panels:
        axes.grid(alpha=0.3)
    save_figure(figure, path)


def _losses(axes: Any, report: Report, part: str) -> None:
    for length, maps in curves(report).items():
        row = report.task.lengths.index(length)
        inside = length <= report.window
        line, = axes.plot(
            list(maps), [getattr(each, part)[row] for each in maps.values()], marker="o",
            markersize=4, linestyle="--" if inside else "-",
            label=f"{length:,}{' (inside the window)' if inside else ''}")
        for each in report.candidates:
            if each.kind == "plain" and inside:  # beyond the window it is off the page
                axes.axhline(getattr(each, part)[row], color=line.get_color(), linestyle=":",
                             linewidth=1, label="plain RoPE there")
    if report.config is not None:
        chosen = min(report.config.max_mapping_length, report.window)
        axes.axvline(chosen, color="black", linewidth=1, label="chosen")
    axes.set_xlabel("L, positions (the best local window of each)")
    axes.set_xlim(left=0)


def _schedule(axes: Any, report: Report) -> None:
    at = [point.length for point in report.points]
    best = [point.best for point in report.points]
    ranges = [[point.best - point.tied[0] for point in report.points],
              [point.tied[1] - point.best for point in report.points]]
    axes.errorbar(at, best, yerr=ranges, fmt="o", capsize=3,
                  label="best, and what the text cannot tell from it")
    longest = report.task.lengths[-1]
    every = np.arange(1, longest + 1, max(1, longest // 500))
    if report.fit is not None:
        used = "" if report.fit.problem is None else " (not used)"
        axes.plot(every, [report.fit.at(int(x)) for x in every], linestyle="--",
                  label=f"scaled sigmoid{used}")
    if report.config is not None:
        mapped = [min(int(x), report.config.mapping_length(int(x))) for x in every]
        axes.plot(every, mapped, color="black", linewidth=1, label="chosen")
    axes.axvline(report.window, color="gray", linestyle=":", linewidth=1)
    axes.set_xlabel("input, tokens")
    axes.set_ylabel("mapping length m, positions")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)
