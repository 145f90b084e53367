"""The scaled sigmoid through (length, best mapping length) points (method: section 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..evaluate.reading import FloatArray
from ..method.schedule import scaled_sigmoid

MIN_POINTS = 4
MIN_LEVELS = 3  # different mapping lengths: fewer say nothing of a curve
MAX_RESIDUAL = 0.05  # root mean square, as a share of L
GRID = 400  # values of L that are tried


@dataclass(frozen=True)
class SigmoidFit:
    """L, a and b, and how well they describe the points.

    residual  root mean square, in positions
    problem   why the curve must not be used; None where it may
    """

    max_mapping_length: float
    slope: float
    offset: float
    residual: float
    problem: str | None

    def at(self, length: int) -> float:
        return scaled_sigmoid(length, self.max_mapping_length, self.slope, self.offset)


def fit_sigmoid(
    lengths: Sequence[int], mapping_lengths: Sequence[int], window: int
) -> SigmoidFit | None:
    """Fit m(l) = L / (1 + exp(-(a*l + b))) with L <= window; None below two points.

    For a given L, logit(m/L) is a straight line in l; L is found on a grid. The line's points
    weigh as much as they move m, so that the residual is in positions.
    """
    at = np.asarray(lengths, dtype=np.float64)
    m = np.asarray(mapping_lengths, dtype=np.float64)
    if len(set(lengths)) < 2:
        return None
    best: tuple[float, float, float, float] | None = None
    for bound in np.linspace(min(m.max() * 1.0005, window), window, GRID):
        share = np.clip(m / bound, 1e-6, 1 - 1e-4)
        weight = share * (1 - share)
        design = np.stack([at, np.ones_like(at)], axis=1) * weight[:, None]
        line, *_ = np.linalg.lstsq(design, np.log(share / (1 - share)) * weight, rcond=None)
        slope, offset = float(line[0]), float(line[1])
        found = np.array([scaled_sigmoid(int(x), float(bound), slope, offset) for x in at])
        residual = float(np.sqrt(np.square(found - m).mean()))
        if best is None or residual < best[0]:
            best = residual, float(bound), slope, offset
    assert best is not None
    residual, bound, slope, offset = best
    return SigmoidFit(bound, slope, offset, residual, _problem(m, bound, slope, residual))


def _problem(m: FloatArray, bound: float, slope: float, residual: float) -> str | None:
    levels = len(set(m.tolist()))
    if len(m) < MIN_POINTS:
        return f"{len(m)} points are too few for a curve of three constants"
    if levels < MIN_LEVELS:
        return f"the best mapping lengths take {levels} values only: there is no curve in them"
    if slope <= 0:
        return "the best mapping length falls with the input's length, and the sigmoid rises"
    if residual > MAX_RESIDUAL * bound:
        return (f"the curve misses the points by {residual:.0f} positions (root mean square), "
                f"more than {MAX_RESIDUAL:.0%} of L")
    return None
