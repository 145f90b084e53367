"""A bracketing search whose evaluations serve many curves at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def propose(values: Mapping[int, FloatArray], resolution: int) -> int | None:
    """The next candidate to evaluate, None where all curves are known to `resolution`.

    values  candidate -> loss on each curve, [n_curves]; at least the two ends of the range

    Each curve is taken to fall and then rise, as perplexity does over the mapping length (or only
    to fall): its best candidate lies between the neighbours of the best one known. The middle of
    the wider of these two gaps is what that curve asks for, and the candidate that most curves ask
    for is evaluated, for all of them.
    """
    known = sorted(values)
    losses = np.array([values[x] for x in known])
    votes: Counter[tuple[int, int]] = Counter()
    for best in losses.argmin(axis=0):
        gaps = [
            (known[i + 1] - known[i], known[i])
            for i in (best - 1, best)
            if 0 <= i < len(known) - 1
        ]
        width, start = max(gaps, default=(0, 0))
        if width > resolution:
            votes[start, width] += 1
    if not votes:
        return None
    # of equals the widest: it says most
    (start, width), _ = max(votes.items(), key=lambda item: (item[1], item[0][1], -item[0][0]))
    return start + width // 2


def tied(losses: Mapping[int, FloatArray], n_errors: float = 2.0) -> tuple[int, list[int]]:
    """The best candidate, and all that the text cannot tell from it, ascending.

    losses    candidate -> loss of each piece of the same text, [n_pieces]
    n_errors  standard errors of the mean difference that count as none

    The differences are paired, piece by piece: what makes a piece hard is hard for all.
    """
    best = min(losses, key=lambda x: float(losses[x].mean()))
    return best, sorted(
        x for x, loss in losses.items() if not is_worse(loss, losses[best], n_errors)
    )


def is_worse(loss: FloatArray, than: FloatArray, n_errors: float = 2.0) -> bool:
    """Whether a loss is above another on the same pieces by more than the text's own noise."""
    difference, error = paired_difference(loss, than)
    return difference > n_errors * error and difference > 0


def paired_difference(loss: FloatArray, than: FloatArray) -> tuple[float, float]:
    """Mean of loss - than over pieces of text, and its standard error; both in nats per token."""
    difference = (loss - than).ravel()
    if len(difference) < 2:
        return float(difference.mean()), 0.0
    return float(difference.mean()), float(difference.std(ddof=1) / np.sqrt(len(difference)))
