"""A configuration as the bytes of GGUF metadata; apart from reading it, which writes nothing."""

from __future__ import annotations

import dataclasses

from ..container.writer import encode_array, encode_pair
from ..method.config import LampeConfig
from ..method.fields import FIELDS, LAYER_FIELDS, LAYER_MAP, LAYER_PREFIX
from .metadata import TYPES, prefix


def encode(arch: str, config: LampeConfig, n_layer: int = 0) -> list[bytes]:
    """The pairs of a configuration as they stand in a file, in the order of fields.FIELDS.

    n_layer  of the model: maps of single layers say of each layer which one it has

    Version 1 where there are none, as older builds read it. Raises LampeError where a value is out
    of range.
    """
    config.validate()
    start, values = prefix(arch), dataclasses.asdict(config)
    pairs = [encode_pair(start + field.name, TYPES[field.kind], values[field.name])
             for field in FIELDS]
    maps = config.layer_maps
    if maps:
        numbers = {layer: k for k, each in enumerate(maps, 1) for layer in each.layers}
        layer_map = [numbers.get(layer, 0) for layer in range(n_layer)]
        pairs.append(encode_array(start + LAYER_MAP, TYPES["u32"], layer_map))
        for field in LAYER_FIELDS:
            found = [getattr(each, field.name) for each in maps]
            pairs.append(encode_array(start + LAYER_PREFIX + field.name, TYPES[field.kind], found))
    return pairs
