"""A configuration as the bytes of GGUF metadata; apart from reading it, which writes nothing."""

from __future__ import annotations

import dataclasses

from ..container.writer import encode_pair
from ..method.config import LampeConfig
from ..method.fields import FIELDS
from .metadata import TYPES, prefix


def encode(arch: str, config: LampeConfig) -> list[bytes]:
    """The pairs of a configuration as they stand in a file, in the order of fields.FIELDS.

    Raises LampeError where a value is out of range.
    """
    config.validate()
    values = dataclasses.asdict(config)
    return [
        encode_pair(prefix(arch) + field.name, TYPES[field.kind], values[field.name])
        for field in FIELDS
    ]
