"""From losses to a schedule: the best mapping length of each length, and the curve through them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ..method.config import LampeConfig
from ..model.presets import FLAT_OFFSET
from .fit import fit_sigmoid
from .report import Point, Report
from .search import FloatArray, tied


def flat(base: LampeConfig, m: int, local_window: int) -> LampeConfig:
    """The same mapping length at every input length; both exact windows shrink to fit into it."""
    return dataclasses.replace(
        base,
        local_window=local_window if m == base.window else min(local_window, m // 2),
        tail_window=min(base.tail_window, m // 16),
        max_mapping_length=float(m),
        slope=0.0,
        offset=FLAT_OFFSET,
        short_length=0,
        short_mapping_length=0,
    )


def choose_schedule(
    report: Report, safe: LampeConfig, local_window: int, found: Mapping[int, FloatArray]
) -> LampeConfig:
    """The sigmoid where the points need one and lie on one, else the best constant.

    found  mapping length -> losses, [n_lengths, pieces]

    Fills in the report's points and fit, and says why.
    """
    lengths = report.task.lengths
    for row, length in enumerate(lengths):
        # every m >= l is plain RoPE there: one candidate, not many
        rows = {min(m, length): losses[row] for m, losses in found.items()}
        best, equal = tied(rows)
        report.points.append(Point(length, best, (equal[0], equal[-1])))

    constant = min(found, key=lambda m: float(found[m].mean()))
    points = [p for p in report.points if p.length > report.window]
    report.fit = fit_sigmoid([p.length for p in points], [p.best for p in points], report.window)

    enough = [
        m for m in sorted(found)
        if all(p.tied[0] <= min(m, p.length) <= p.tied[1] for p in report.points)
    ]
    if enough:
        m = min(enough, key=lambda x: float(found[x].mean()))
        report.reasons.append(
            f"m = {m} at every length is within the text's noise of the best at each: no curve "
            "is needed"
        )
        return flat(safe, m, local_window)
    fit = report.fit
    if fit is None or fit.problem is not None:
        reason = fit.problem if fit is not None else "there are too few points"
        report.reasons.append(f"no sigmoid: {reason}; m = {constant} is the best constant")
        return flat(safe, constant, local_window)
    report.reasons.append(
        f"the sigmoid meets the points within {fit.residual:.0f} positions (root mean square)"
    )
    least = int(min(fit.at(length) for length in [p.length for p in points]))
    s1 = max(1, min(local_window, least // 2))
    s2 = min(safe.tail_window, least // 16)
    # inside the window, what was best there: nothing compressed unless the text asks for it
    inside = [p for p in report.points if p.length <= report.window]
    short = max((p.best for p in inside), default=report.window)
    return dataclasses.replace(
        safe,
        local_window=s1,
        tail_window=s2,
        max_mapping_length=fit.max_mapping_length,
        slope=fit.slope,
        offset=fit.offset,
        short_length=report.window + 1,
        short_mapping_length=max(short, s1 + s2 + 1),
    ).validate()
