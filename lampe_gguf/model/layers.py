"""Which layers of a model can have a map of their own, and what its metadata say of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..container.format import ValueType
from ..container.reader import GGUFFile
from ..errors import FieldError, LampeError
from ..method.config import LampeConfig
from ..method.fields import LAYER_FIELDS, LAYER_MAP, LAYER_PREFIX, MAX_LAYER_MAPS, MAX_U32
from ..method.layers import LayerMap
from .architectures import FIELDS, field, slides
from .description import AHEAD

# every n-th layer sees the whole input where the file does not say: the last of n, or the first
_PERIOD = {"gemma2": 2, "gemma3": 6, "gemma3n": 5, "gpt-oss": 2, "laguna": 4, "mellum": 4,
           "olmo2": 4, "plamo3": 8}
_FIRST = frozenset({"laguna"})

_NO_ROPE_STEP = {"smollm3": 4}  # every n-th layer has no RoPE, whatever the file says
_ROPE_PATTERN = frozenset({"granite_swa"})  # the file says of each layer whether it has RoPE

_WHOLE = {int: "whole numbers", float: "numbers"}


def values_of(file: GGUFFile, arch: str) -> dict[str, Any]:
    """What a file says that decides about its layers."""
    found = {f"{arch}.{name}": file.value(f"{arch}.{name}") for name in (*FIELDS, AHEAD)}
    return {key: value for key, value in found.items() if value is not None}


def n_layer_of(arch: str, metadata: Mapping[str, Any]) -> int:
    """Layers in the file, those that only guess ahead included."""
    return int(field(arch, metadata, "block_count") or 0)


def sliding_layers(arch: str, metadata: Mapping[str, Any]) -> frozenset[int]:
    """The layers of a model that qualifies that see a sliding window only."""
    if not slides(arch, metadata):
        return frozenset()
    n_layer = n_layer_of(arch, metadata)
    pattern = field(arch, metadata, "attention.sliding_window_pattern")
    if isinstance(pattern, list):
        return frozenset(i for i, local in enumerate(pattern[:n_layer]) if local)
    period = _PERIOD.get(arch) if pattern is None else pattern
    if period is None or period < 0:
        return frozenset()  # the backend will say what is wrong with it
    whole = 0 if arch in _FIRST else period - 1
    return frozenset(i for i in range(n_layer) if period == 0 or i % period != whole)


def free_layers(arch: str, metadata: Mapping[str, Any]) -> list[int]:
    """The layers of a model that qualifies that a map of their own changes, ascending.

    Those with RoPE that see the whole input; those that only guess ahead are none of them.
    """
    fixed = sliding_layers(arch, metadata) | _without_rope(arch, metadata)
    return [i for i in range(_n_answering(arch, metadata)) if i not in fixed]


def _without_rope(arch: str, metadata: Mapping[str, Any]) -> frozenset[int]:
    ropes = field(arch, metadata, "attention.rope_pattern")
    if arch in _ROPE_PATTERN and isinstance(ropes, list):
        return frozenset(i for i, rope in enumerate(ropes) if not rope)
    step = _NO_ROPE_STEP.get(arch)
    n_layer = n_layer_of(arch, metadata) if step else 0
    return frozenset(range(step - 1, n_layer, step)) if step else frozenset()


def _n_answering(arch: str, metadata: Mapping[str, Any]) -> int:
    """Layers without those that only guess ahead."""
    ahead = metadata.get(f"{arch}.{AHEAD}")
    return n_layer_of(arch, metadata) - (ahead if isinstance(ahead, int) else 0)


def require_layers(arch: str, metadata: Mapping[str, Any], config: LampeConfig) -> None:
    """Raise FieldError where a layer with a map does not exist, or sees a sliding window only."""
    if not config.layer_maps:
        return
    n_layer = _n_answering(arch, metadata)
    local = sliding_layers(arch, metadata)
    for each in config.layer_maps:
        if each.layers[-1] >= n_layer:
            raise FieldError("layer_maps", str(each),
                             f"of layers that this model has, 0 to {n_layer - 1}")
        if local & set(each.layers):
            raise FieldError("layer_maps", str(each),
                             "of layers that see the whole input, and layer "
                             f"{min(local & set(each.layers))} sees a sliding window only")


def read_layer_maps(file: GGUFFile, arch: str, start: str) -> tuple[LayerMap, ...]:
    """The maps of single layers in a file whose keys begin with `start`.

    Raises LampeError, saying what is wrong, where a key is missing or of a wrong type or length.
    """
    values: dict[str, list[Any]] = {}
    for each in LAYER_FIELDS:
        found = _array(file, start + LAYER_PREFIX + each.name, float if each.kind == "f64" else int)
        values[each.name] = found
        wanted = len(values[LAYER_FIELDS[0].name])
        if len(found) != wanted or not 1 <= wanted <= MAX_LAYER_MAPS:
            raise LampeError(f"{start}{LAYER_PREFIX}{each.name} has {len(found)} values, it must "
                             f"have one for each map, of which there are 1 to {MAX_LAYER_MAPS}")
    numbers = _array(file, start + LAYER_MAP, int)
    n_layer = file.value(f"{arch}.block_count")
    if len(numbers) != n_layer:
        raise LampeError(f"{start}{LAYER_MAP} has {len(numbers)} values, it must have one for each "
                         f"of the {n_layer} layers")
    count = len(values[LAYER_FIELDS[0].name])
    for k in range(1, count + 1):
        if k not in numbers:
            raise LampeError(f"{start}{LAYER_MAP} has no layer with map {k}")
    if not 0 <= min(numbers) <= max(numbers) <= count:
        raise LampeError(f"{start}{LAYER_MAP} has a number that no map has, above {count}")
    return tuple(
        LayerMap(tuple(i for i, number in enumerate(numbers) if number == k + 1),
                 **{name: found[k] for name, found in values.items()})
        for k in range(count)
    )


def _array(file: GGUFFile, key: str, kind: type) -> list[Any]:
    pair = file.pairs.get(key)
    if pair is None:
        raise LampeError(f"{key} is missing")
    found = file.value(key) if pair.type is ValueType.ARRAY else None
    if not isinstance(found, list) or not all(type(each) is kind for each in found):
        raise LampeError(f"{key} must be an array of {_WHOLE[kind]}")
    if kind is int and not all(0 <= each <= MAX_U32 for each in found):
        raise LampeError(f"{key} must have whole numbers from 0 to {MAX_U32}")
    return found
