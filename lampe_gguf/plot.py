"""Pictures, as PNG. matplotlib is loaded here alone, and only when a picture is asked for."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np

from .container.atomic import write_file
from .errors import LampeError, how_to_add
from .method.config import LampeConfig
from .method.positions import relative_position


def new_figure(width: float, height: float) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise LampeError(
            f"plots need matplotlib, which is not installed; {how_to_add('plot')}"
        ) from None
    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def save_figure(figure: Any, path: str | os.PathLike[str]) -> None:
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_file(Path(path), picture.getvalue(), force=True)


def plot_mapping(config: LampeConfig, lengths: list[int], path: str | os.PathLike[str]) -> None:
    """The mapped relative position by distance for inputs of several lengths, into a PNG."""
    figure = new_figure(8, 4.5)
    axes = figure.subplots()
    for length in lengths:
        distance = np.unique(np.linspace(0, length - 1, 2000).astype(np.int64))
        mapped = relative_position(config.plan(length), length - 1, length - 1 - distance)
        axes.plot(distance, mapped, label=f"{length:,} tokens")
    axes.axhline(config.window, color="gray", linestyle="--", linewidth=1)
    axes.text(0, config.window, " training window", va="bottom", color="gray", fontsize=8)
    axes.set_xlabel("distance between query and key, tokens")
    axes.set_ylabel("relative position that attention sees")
    axes.set_title(f"{config.method}: positions of the last token, by length of the input")
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.legend(title="input")
    axes.grid(alpha=0.3)
    save_figure(figure, path)


def plot_perplexity(
    series: dict[str, tuple[list[int], list[float]]], window: int, path: str | os.PathLike[str]
) -> None:
    """Perplexity by position in the text, one line a method, into a PNG.

    series  label -> (end positions of the blocks in tokens, perplexity of each block)
    """
    figure = new_figure(8, 4.5)
    axes = figure.subplots()
    for label, (positions, values) in series.items():
        axes.plot(positions, values, marker="o", markersize=4, label=label)
    axes.axvline(window, color="gray", linestyle="--", linewidth=1)
    axes.text(window, 0.98, " training window", va="top", color="gray", fontsize=8,
              transform=axes.get_xaxis_transform())
    axes.set_yscale("log")
    axes.set_xlabel("position in the text, tokens")
    axes.set_ylabel("perplexity (lower is better)")
    axes.legend()
    axes.grid(alpha=0.3, which="both")
    save_figure(figure, path)


def plot_speed(
    lengths: list[int], panels: dict[str, dict[str, list[float]]], path: str | os.PathLike[str]
) -> None:
    """Tokens per second by length, a panel each for reading and writing, into a PNG.

    panels  title -> label of a line -> tokens per second at each of `lengths`
    """
    figure = new_figure(9, 4)
    for axes, (title, lines) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for label, values in lines.items():
            axes.plot(lengths, values, marker="o", markersize=4, label=label)
        axes.set_xscale("log", base=2)
        axes.set_xticks(lengths, [f"{length:,}" for length in lengths])
        axes.set_ylim(bottom=0)
        axes.set_xlabel("tokens in the context")
        axes.set_ylabel("tokens per second")
        axes.set_title(title)
        axes.legend()
        axes.grid(alpha=0.3)
    save_figure(figure, path)
