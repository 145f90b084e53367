"""A picture of a report on attention: entropy by layer, pattern by distance, hits and misses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..plot import new_figure, save_figure
from ..shown import title
from .measure import Reading, Report
from .passkey import Trial

STYLE: dict[str, Any] = {
    "trained": ":", "rope": "--", "lampe": "-", "jetlong": "-.", "rerope": (0, (5, 1)),
    "selfextend": (0, (1, 1)), "linear": (0, (3, 1, 1, 1)), "yarn": (0, (6, 3)),
    "ntk": (0, (3, 1, 1, 1, 1, 1)),
}
LABEL = {"trained": "trained length", "rope": "plain RoPE", "lampe": "LaMPE"}


def plot_attention(report: Report, path: Path) -> None:
    """Two panels into a PNG, three where there are trials.

    Left: entropy by layer, nats. Middle: mass by distance, and how far it is from the trained
    length's. Right: the entropy of each passkey trial, hits beside misses.
    """
    figure = new_figure(16 if report.trials else 11.5, 4.8)
    panels = figure.subplots(1, 3 if report.trials else 2)
    _by_layer(report, panels[0])
    _by_distance(report, panels[1])
    if report.trials:
        _hits(report.trials, panels[2])
    save_figure(figure, path)


def _label(method: str) -> str:
    return LABEL.get(method, method)


def _color(report: Report, reading: Reading) -> str:
    """By length, by method where there is one length."""
    lengths = sorted({each.length for each in report.readings})
    methods = list(dict.fromkeys(each.method for each in report.readings))
    several = len(lengths) > 1
    return f"C{lengths.index(reading.length) if several else methods.index(reading.method)}"


def _by_layer(report: Report, axes: Any) -> None:
    for reading in report.readings:
        mean = np.mean(reading.entropy, axis=1)
        axes.plot(np.arange(len(mean)), mean, linestyle=STYLE[reading.method],
                  color=_color(report, reading),
                  label=f"{reading.length:,}, {_label(reading.method)}")
    axes.set_xlabel("layer")
    axes.set_ylabel("attention uncertainty, nats")
    axes.set_title(f"{title(report.model)}: entropy of attention rows")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, title="input, tokens", title_fontsize=7, handlelength=4)


def _by_distance(report: Report, axes: Any) -> None:
    names = ["first", *(f"{distance:,}" for distance in report.distances)]
    at = np.arange(len(names))
    for reading in report.readings:
        label = f"{reading.length:,}, {_label(reading.method)}"
        if reading.method != "trained":
            label += f" ({reading.divergence:.3f} bits)"
        mass = np.array(reading.pattern)
        n_bins = 1 + sum(distance < reading.tokens for distance in report.distances)
        axes.plot(at[:n_bins], mass[:n_bins], linestyle=STYLE[reading.method], marker="o",
                  markersize=3,
                  color=_color(report, reading), label=label)
    axes.set_xticks(at, names, rotation=60, fontsize=7)
    axes.set_xlabel("first token, then distance from (tokens)")
    axes.set_ylabel("attention mass")
    axes.set_title("pattern, and its divergence from the trained length's")
    axes.set_yscale("log")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, title="input, tokens", title_fontsize=7, handlelength=4)


def _hits(trials: list[Trial], axes: Any) -> None:
    methods = dict.fromkeys(trial.method for trial in trials)
    groups = [(method, hit) for method in methods for hit in (True, False)]
    for at, (method, hit) in enumerate(groups):
        chosen = [trial for trial in trials if (trial.method, trial.hit) == (method, hit)]
        # beside one another, so that none hides another
        spread = np.linspace(-0.2, 0.2, len(chosen)) if len(chosen) > 1 else np.zeros(len(chosen))
        axes.scatter(at + spread, [trial.entropy for trial in chosen],
                     marker="o" if hit else "x", color=f"C{0 if hit else 3}", s=20)
    axes.set_xticks(range(len(groups)), [f"{_label(method)},\n{'hit' if hit else 'miss'}"
                                         for method, hit in groups], fontsize=8)
    axes.set_xlim(-0.5, len(groups) - 0.5)
    axes.set_ylabel("entropy of the query that looks for the key, nats")
    axes.set_title("passkey: hit or miss against uncertainty")
    axes.grid(alpha=0.3)
