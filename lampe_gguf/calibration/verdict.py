"""What the losses say: which values are taken, why, and how each map did."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from ..evaluate.recall import Loss
from ..method.config import LampeConfig
from ..method.fields import MAX_PROVENANCE_BYTES
from .objective import RECALL, UNSEEN, Losses
from .report import FITTED, HELD_OUT, Judged, Report, name_of


def loses(report: Report, config: LampeConfig, baseline: LampeConfig) -> bool:
    """Whether a map loses against what convert would write on the fitted text already."""
    mine, base = (report.get_beyond(FITTED, each) for each in (config, baseline))
    if mine is None or base is None or not report.objective.is_worse(mine, base):
        return False
    report.reasons.append(
        f"{name_of(config)} has {_with_error(report.objective.difference(mine, base))} against "
        "what convert would write, and is not considered")
    return True


def is_baseline(report: Report, config: LampeConfig, baseline: LampeConfig) -> bool:
    """Whether a map is what convert would write."""
    same = config.effective() == baseline.effective()
    if same:
        report.reasons.append(f"{name_of(config)} is what convert would write")
    return same


def perplexity_says(report: Report, configs: Sequence[LampeConfig]) -> None:
    """Say what unseen loss alone would have chosen, where it is something else."""
    known = {config: report.get_beyond(FITTED, config) for config in configs}
    found = {config: losses for config, losses in known.items() if losses is not None}
    if len(found) < 2:
        return
    ours, other = report.objective.best(found), UNSEEN.best(found)
    if ours.effective() == other.effective():
        report.reasons.append(f"perplexity alone would have chosen the same, {name_of(ours)}")
        return
    report.reasons.append(
        f"perplexity alone would have chosen {name_of(other)} and not {name_of(ours)}: "
        + _parts(found[other], found[ours]))


def decide(
    report: Report, baseline: LampeConfig, plain: LampeConfig, finalists: Sequence[LampeConfig],
    read: Sequence[LampeConfig],
) -> LampeConfig | None:
    """The best finalist that gains on text it was not found on, and loses nothing in the window.

    read  those of the finalists that the held-out text was read under

    The baseline where there is none; None where there was no time to see.
    """
    say, objective = report.reasons.append, report.objective
    if not finalists:
        say("nothing better was found than what convert would write, which stays")
        return baseline
    if not read:
        say("there was no time for the held-out text, so what convert would write stays; give "
            "more --budget and --resume")
        return None
    taken: dict[LampeConfig, Losses] = {}
    base = _known(report.get_beyond(HELD_OUT, baseline))
    inside = _known(report.get(HELD_OUT, report.inside, plain))
    for config in read:
        found = _known(report.get_beyond(HELD_OUT, config))
        within = _known(report.get(HELD_OUT, report.inside, config))
        gains = objective.is_worse(base, found)
        lost = objective.is_worse(within, inside)
        text = (f"on the held-out text, read and asked under it, {name_of(config)} has "
                f"{_with_error(objective.difference(found, base))} against what convert would "
                f"write ({_parts(found, base)})")
        if not gains:
            better = objective.difference(found, base).mean < 0
            text += ", no gain beyond the noise" if better else ", no gain"
        elif lost:
            text += (f", but inside the window "
                     f"{_with_error(objective.difference(within, inside))} against plain RoPE")
        else:
            taken[config] = found
        say(text)
    chosen = objective.best(taken) if taken else baseline
    say(f"taken: {name_of(chosen)}" if taken else "what convert would write stays")
    return chosen


def say_rival(report: Report, chosen: LampeConfig, rival: LampeConfig) -> None:
    """How a neighbour does against what was chosen, on the held-out text."""
    mine, other = (report.get_beyond(HELD_OUT, each) for each in (chosen, rival))
    if mine is not None and other is not None:
        report.reasons.append(
            f"there {name_of(rival)} has "
            f"{_with_error(report.objective.difference(other, mine))} against that")


def judged(
    report: Report, segment: str, baseline: LampeConfig, maps: Sequence[LampeConfig]
) -> list[Judged]:
    """All that was asked on a text, of this run and earlier ones, the baseline first.

    maps  those of the grid
    """
    asked: dict[str, LampeConfig] = {}
    for name in report.losses:
        where, _, values = name.split(" ", 2)
        if where == segment:
            asked[values] = LampeConfig(**json.loads(values), context_length=report.window)
    base = report.get_beyond(segment, baseline)
    found = []
    for config in asked.values():
        each = [report.get(segment, length, config) for length in report.task.lengths]
        mine = report.get_beyond(segment, config)
        more = Loss(math.nan, math.nan)
        if mine is not None and base is not None:
            more = report.objective.difference(mine, base)
        found.append(Judged(
            name_of(config), _kind(config, segment, baseline, maps), config.effective(),
            recall=[math.nan if x is None else float(x.old.mean()) for x in each],
            unseen=[math.nan if x is None else float(x.fresh.mean()) for x in each],
            objective=math.nan if mine is None else report.objective.value(mine),
            difference=more.mean, error=more.error,
        ))
    order = ("baseline", "calibrated", "map", "extra", "rival", "plain")
    return sorted(found, key=lambda each: (order.index(each.kind), _least(each.objective)))


def provenance(report: Report, chosen: LampeConfig, baseline: LampeConfig) -> str:
    """Where the values come from, in as many words as metadata hold."""
    read = f"{', '.join(report.text_names)} to {report.task.lengths[-1]} tokens"
    said = f"calibrated on {read}"
    if chosen is baseline:
        said = f"{baseline.provenance}; none better found on {read}"
    return said.encode()[:MAX_PROVENANCE_BYTES].decode("utf-8", "ignore")


def _kind(
    config: LampeConfig, segment: str, baseline: LampeConfig, maps: Sequence[LampeConfig]
) -> str:
    if config.effective() == baseline.effective():
        return "baseline"
    if config.method != "lampe":
        return "plain" if config.method == "rope" else "rival"
    if segment == HELD_OUT:
        return "calibrated"
    return "map" if any(config.effective() == each.effective() for each in maps) else "extra"


def _known(losses: Losses | None) -> Losses:
    assert losses is not None  # it was asked before it is judged
    return losses


def _least(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _with_error(found: Loss) -> str:
    return f"{found.mean:+.3f} +- {found.error:.3f} nats a token"


def _parts(losses: Losses, than: Losses) -> str:
    """How two differ in each of the two losses."""
    recall, unseen = RECALL.difference(losses, than), UNSEEN.difference(losses, than)
    return (f"recall {recall.mean:+.3f} +- {recall.error:.3f}, unseen {unseen.mean:+.3f} +- "
            f"{unseen.error:.3f}")
