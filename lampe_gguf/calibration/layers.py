"""Another map in some layers: groups of neighbours one by one, then what gains of it together.

Layers differ: some hold what finding far text needs, others only gain from fewer positions. The
search is by coordinates, on the objective and the reading of all other maps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from ..method.config import LampeConfig
from ..method.fields import MAX_LAYER_MAPS
from ..method.layers import LayerMap, layers_text
from .clock import OutOfTime
from .objective import LEAST, Losses
from .report import Report, name_of

GROUPS = 6
NARROWER = 4  # the narrower map's L is this part of the uniform one's

Ask = Callable[[LampeConfig], Losses]  # the losses of a map, or OutOfTime


def groups_of(layers: Sequence[int], count: int = GROUPS) -> list[tuple[int, ...]]:
    """Neighbours together: at most `count` groups, which differ by a layer at most.

    >>> groups_of([0, 1, 2, 4, 5], 2)
    [(0, 1, 2), (4, 5)]
    """
    size, more = divmod(len(layers), count)
    found, start = [], 0
    for i in range(count):
        end = start + size + (i < more)
        found.append(tuple(layers[start:end]))
        start = end
    return [group for group in found if group]


def maps_to_try(base: LampeConfig) -> list[LayerMap]:
    """A map narrower than the uniform one and the whole window, of no layers yet.

    L and s1 = L/2; what is the uniform map itself is left out.
    """
    mapped = int(base.max_mapping_length)
    uniform = LayerMap((), base.local_window, base.tail_window, base.max_mapping_length)
    tried = [_half_local(base, max(2, mapped // NARROWER)), _half_local(base, base.window)]
    return [each for each in tried if each != uniform]


def with_map(base: LampeConfig, own: LayerMap) -> LampeConfig | None:
    """The same, but with `own` in its layers; None where these are more maps than there can be."""
    values = {layer: dataclasses.replace(each, layers=())
              for each in (*base.layer_maps, own) for layer in each.layers}
    layers: dict[LayerMap, list[int]] = {}
    for layer in sorted(values):
        layers.setdefault(values[layer], []).append(layer)
    if len(layers) > MAX_LAYER_MAPS:
        return None
    maps = tuple(dataclasses.replace(each, layers=tuple(of)) for each, of in layers.items())
    return dataclasses.replace(base, layer_maps=maps).validate()


def find_layers(
    report: Report, ask: Ask, base: LampeConfig, layers: Sequence[int]
) -> LampeConfig | None:
    """The uniform map with others in the groups of layers that gain from one, None where none does.

    base    the uniform map, which was asked under before
    layers  those that may have a map of their own, ascending

    Says in the report's reasons what was tried and what came of it.
    """
    say, objective = report.reasons.append, report.objective
    groups, maps = groups_of(layers), maps_to_try(base)
    if len(groups) < 2:
        say("maps of single layers were not tried: the model has fewer than two layers with RoPE "
            "that see the whole input")
        return None
    trials = [dataclasses.replace(each, layers=group) for group in groups for each in maps]
    uniform = ask(base)
    found: dict[LayerMap, Losses] = {}
    try:
        for own in trials:
            config = with_map(base, own)
            if config is not None:
                found[own] = ask(config)
    except OutOfTime:
        say(f"maps of single layers: {len(found)} of {len(trials)} were asked under, out of time; "
            "give more --budget and --resume")
        if not found:
            return None
    gains = sorted((own for own in found if objective.is_worse(uniform, found[own])),
                   key=lambda own: objective.value(found[own]))
    tried = " and at ".join(f"{each.max_mapping_length:g}/{each.local_window}" for each in maps)
    listed = " ".join(layers_text(group) for group in groups)
    none = "" if gains else ", so all layers keep one map"
    say(f"maps of single layers: the groups {listed} were asked at {tried}, one by one, all other "
        f"layers at {name_of(base)}; {len(gains)} of {len(found)} "
        f"{'gains' if len(gains) == 1 else 'gain'} beyond the noise{none}")
    return _together(report, ask, base, uniform, {own: found[own] for own in gains})


def _together(
    report: Report, ask: Ask, base: LampeConfig, uniform: Losses, gains: dict[LayerMap, Losses]
) -> LampeConfig | None:
    """As many of the changes, best first, as gain on top of those before; each gains by itself."""
    say, objective = report.reasons.append, report.objective
    chosen, losses = base, uniform
    changed: set[int] = set()
    for own, alone in gains.items():
        config = with_map(chosen, own)
        if config is None or changed & set(own.layers):
            continue  # the other map of the same layers gains more
        try:
            together = ask(config) if changed else alone
        except OutOfTime:
            say(f"{own} was not tried on top of that: out of time")
            break
        more = objective.difference(together, losses)
        kept = more.mean < -LEAST
        say(f"{own} has {more.mean:+.3f} +- {more.error:.3f} nats a token "
            + ("on top of that" if changed else f"against {name_of(base)}")
            + (", kept" if kept else ", left out"))
        if kept:
            chosen, losses = config, together
            changed |= set(own.layers)
    return chosen if changed else None


def _half_local(base: LampeConfig, mapped: int) -> LayerMap:
    """L = `mapped` and s1 = L/2, or as much as the base's length for short inputs leaves."""
    tail = min(base.tail_window, mapped // 16)
    most = mapped if not base.short_length else min(mapped, base.short_mapping_length)
    return LayerMap((), max(1, min(mapped // 2, most - tail - 1)), tail, float(mapped))
