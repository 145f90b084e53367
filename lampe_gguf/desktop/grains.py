"""Which grain of the map every token lies in, seen from the newest one: figures, no picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lampe_gguf import LampeConfig, Plan, relative_position

from .words import file_name, percent, some

LOCAL, MIDDLE, TAIL = "local", "middle", "tail"
TALK = "talk"  # what is no document: questions, answers, and what the template puts between


@dataclass(frozen=True)
class Grain:
    """Tokens begin .. end - 1, oldest first, and how far from the newest they seem to be."""

    name: str
    begin: int
    end: int
    nearest: int
    farthest: int


@dataclass(frozen=True)
class Part:
    """What one document, or talk, has in one grain: tokens begin .. end - 1."""

    label: str
    grain: str
    begin: int
    end: int


def grains(config: LampeConfig | None, length: int) -> list[Grain]:
    """The grains that `length` tokens lie in, oldest first; one where all positions are exact."""
    if length < 1:
        return []
    plan = None if config is None else config.plan(length)
    if plan is None or plan.is_identity:
        return [Grain(LOCAL, 0, length, 0, length - 1)]
    local = max(0, length - 1 - plan.local_window)
    tail = max(0, min(local, length - plan.tail_start))
    return [_grain(plan, name, begin, end)
            for name, begin, end in ((TAIL, 0, tail), (MIDDLE, tail, local), (LOCAL, local, length))
            if begin < end]


def _grain(plan: Plan, name: str, begin: int, end: int) -> Grain:
    near, far = relative_position(plan, plan.length - 1, [end - 1, begin])
    return Grain(name, begin, end, int(near), int(far))


def parts(stretches: Sequence[tuple[str, int]], found: Sequence[Grain]) -> list[Part]:
    """The stretches of a context, cut where grains change; what is not read yet is left out.

    stretches  labels with their tokens, in order; what is after the last of them is talk
    """
    length = found[-1].end if found else 0
    begin = 0
    made = []
    for label, tokens in [*stretches, ("", length)]:
        end = min(length, begin + tokens)
        for grain in found:
            first, last = max(begin, grain.begin), min(end, grain.end)
            if first < last:
                made.append(Part(label, grain.name, first, last))
        begin = max(begin, end)
    return made


def sentences(made: Sequence[Part], found: Sequence[Grain]) -> list[str]:
    """The map in words: for those who do not see it, and for tool tips."""
    if not found:
        return ["Nothing is read yet."]
    if len(found) == 1:
        said = [f"All {some(found[0].end, 'token')} keep their exact positions."]
    else:
        seem = {LOCAL: "exact", MIDDLE: "compressed", TAIL: "exact, but shifted"}
        said = [f"{each.name.capitalize()}: {some(each.end - each.begin, 'token')}, "
                f"{seem[each.name]}, {each.nearest:,} to {each.farthest:,} away."
                for each in reversed(found)]
    for label in dict.fromkeys(part.label for part in made if part.label):
        mine = [part for part in made if part.label == label]
        total = sum(part.end - part.begin for part in mine)
        shares = []
        for name in (LOCAL, MIDDLE, TAIL):
            tokens = sum(part.end - part.begin for part in mine if part.grain == name)
            if tokens:
                shares.append(f"{percent(tokens / total)} {name}")
        said.append(f"{file_name(label)}: {', '.join(shares)}.")
    return said
