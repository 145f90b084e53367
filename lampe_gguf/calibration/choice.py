"""From losses to a schedule: the best mapping length of each length, and the curve through them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ..method.config import LampeConfig
from .fit import fit_sigmoid
from .objective import UNSEEN, Losses, stacked
from .report import Point, Report, name_of
from .search import Cell, flat, shape

# losses of the cells that were asked under, by length
Found = Mapping[int, Mapping[Cell, Losses]]


def choose_schedules(report: Report, safe: LampeConfig, found: Found) -> list[LampeConfig]:
    """What is worth the held-out text, best first: the sigmoid where the points need one and lie on
    one, else the best constant; behind it what cannot be told from it, by another L.

    safe   what a map of the grid does not set
    found  all lengths beyond the window; cells that were not asked under at each of them are no
           candidates

    Fills in the report's points and fit, and says why.
    """
    report.points = [_point(report, length, found[length]) for length in sorted(found)]
    everywhere = [cell for cell in found[max(found)]
                  if all(cell in found[length] for length in found)]
    together = {cell: stacked(found[length][cell] for length in found) for cell in everywhere}
    order = report.objective.tied(together)
    enough = [cell for cell in order if all(
        point.tied[0] <= shape(cell, report.window)[0] <= point.tied[1] for point in report.points
    )]
    constants = [flat(safe, *shape(cell, report.window)) for cell in (enough or order)]
    others = [each for each in constants
              if each.max_mapping_length != constants[0].max_mapping_length]
    name = f"{name_of(constants[0])} (L/s1)"
    say = report.reasons.append
    if enough:
        where = (f"best at {max(found):,} tokens" if len(found) == 1 else
                 "within the noise of the best at every length, no curve is needed")
        say(f"{name} is {where}, of {len(together)} maps" + _tied_with(others))
        return [constants[0], *others[:1]]
    fit = fit_sigmoid([p.length for p in report.points], [p.best for p in report.points],
                      report.window)
    report.fit = fit
    if fit is None or fit.problem is not None:
        reason = fit.problem if fit is not None else "there are too few points"
        say(f"the best L differs by length, but no sigmoid: {reason}; {name} is the best constant")
        return [constants[0], *others[:1]]
    say(f"the best L differs by length, and the sigmoid meets the points within "
        f"{fit.residual:.0f} positions (root mean square)")
    least = int(min(fit.at(point.length) for point in report.points))
    curve = dataclasses.replace(
        constants[0],
        local_window=max(1, min(constants[0].local_window, least // 2)),
        tail_window=min(safe.tail_window, least // 16),
        max_mapping_length=fit.max_mapping_length, slope=fit.slope, offset=fit.offset,
    )
    return [plain_inside(curve), constants[0]]


def plain_inside(config: LampeConfig) -> LampeConfig:
    """The same, but plain RoPE as far as the window goes."""
    return dataclasses.replace(
        config, short_length=config.window + 1, short_mapping_length=config.window
    ).validate()


def _point(report: Report, length: int, found: Mapping[Cell, Losses]) -> Point:
    tied = [shape(cell, report.window)[0] for cell in report.objective.tied(found)]
    by_unseen = shape(UNSEEN.best(found), report.window)[0]
    return Point(length, tied[0], (min(tied), max(tied)), by_unseen)


def _tied_with(others: list[LampeConfig]) -> str:
    if not others:
        return ""
    listed = sorted({int(each.max_mapping_length) for each in others})
    return f"; the text cannot tell it from the best with L = {', '.join(map(str, listed))}"
