"""The small grid of maps that is searched: mapping length L and local window s1, best first."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ..method.config import LampeConfig
from ..model.presets import FLAT_OFFSET
from .objective import Losses, Objective

MAPPED = (1.0, 0.75, 0.5, 0.375, 0.25, 0.125)  # L, in windows
LOCAL = (0.5, 0.25, 0.125, 0.0625)  # s1, in L
MAX_TRIALS = 14

Cell = tuple[int, int]  # of the grid: places in MAPPED and LOCAL

# looked at first: what did best on three models, then the whole range of L, coarsely
START: tuple[Cell, ...] = ((2, 1), (1, 1), (4, 1), (0, 1))


def shape(cell: Cell, window: int) -> tuple[int, int]:
    """L and s1 of a cell, positions."""
    mapped = int(MAPPED[cell[0]] * window)
    return mapped, max(1, int(LOCAL[cell[1]] * mapped))


def flat(base: LampeConfig, mapped: int, local_window: int) -> LampeConfig:
    """LaMPE with m = L at every length; the tail window takes a sixteenth of L at most."""
    return dataclasses.replace(
        base,
        method="lampe",
        local_window=local_window,
        tail_window=min(base.tail_window, mapped // 16),
        max_mapping_length=float(mapped),
        slope=0.0,
        offset=FLAT_OFFSET,
        short_length=0,
        short_mapping_length=0,
        attention_factor=1.0,
    )


def next_cell(found: Mapping[Cell, Losses], objective: Objective) -> Cell | None:
    """The next cell to ask under, None where the search is over.

    The neighbours of the best come first, then those of whatever cannot be told from it, in the
    order of its value: where the excerpts say little, more of the grid is seen.
    """
    if len(found) >= MAX_TRIALS:
        return None
    for cell in START:
        if cell not in found:
            return cell
    for i, k in objective.tied(found):
        for cell in ((i + 1, k), (i - 1, k), (i, k + 1), (i, k - 1)):
            if cell not in found and 0 <= cell[0] < len(MAPPED) and 0 <= cell[1] < len(LOCAL):
                return cell
    return None
