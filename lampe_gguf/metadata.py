"""LampeConfig as GGUF metadata: the keys `{arch}.rope.scaling.lampe.*`."""

from __future__ import annotations

import dataclasses
from typing import Any

from .config import LampeConfig
from .errors import LampeError
from .gguf_file import GGUFFile, ValueType
from .gguf_output import encode_pair

PADDING = "padding"  # holds no setting: see gguf_output.encode_padding

TYPES = {
    "version": ValueType.UINT32,
    "method": ValueType.STRING,
    "window": ValueType.UINT32,
    "context_length": ValueType.UINT32,
    "local_window": ValueType.UINT32,
    "tail_window": ValueType.UINT32,
    "max_mapping_length": ValueType.FLOAT64,
    "slope": ValueType.FLOAT64,
    "offset": ValueType.FLOAT64,
    "short_length": ValueType.UINT32,
    "short_mapping_length": ValueType.UINT32,
    "attention_factor": ValueType.FLOAT64,
    "length_policy": ValueType.STRING,
    "length_step": ValueType.UINT32,
    "group_size": ValueType.UINT32,
    "provenance": ValueType.STRING,
}
OPTIONAL = ("method", "length_policy", "group_size", "provenance")


def prefix(arch: str) -> str:
    """What the keys of an architecture begin with, the last dot included."""
    return f"{arch}.rope.scaling.lampe."


def encode(arch: str, config: LampeConfig) -> list[bytes]:
    """The pairs of a configuration as they stand in a file, in the order of TYPES.

    Raises LampeError where a value is out of range.
    """
    config.validate()
    values = dataclasses.asdict(config)
    return [encode_pair(prefix(arch) + name, kind, values[name]) for name, kind in TYPES.items()]


def as_overrides(arch: str, config: LampeConfig) -> dict[str, int | float | str]:
    """The configuration as llama_cpp's `kv_overrides`, to use a model without converting it.

    Provenance, which changes nothing, stays out: an override holds 127 bytes. Raises LampeError
    where a value is out of range.
    """
    config.validate()
    values = dataclasses.asdict(config)
    floats = {name for name, kind in TYPES.items() if kind is ValueType.FLOAT64}
    return {
        prefix(arch) + name: float(values[name]) if name in floats else values[name]
        for name in TYPES
        if name != "provenance"
    }


def read(file: GGUFFile, arch: str) -> LampeConfig | None:
    """The configuration that a file carries, validated; None where it carries none.

    Raises LampeError, naming the key, where one is missing, unknown, of the wrong type or out of
    range.
    """
    start = prefix(arch)
    names = [key[len(start) :] for key in file.pairs if key.startswith(start)]
    if not names:
        return None
    values: dict[str, Any] = {}
    for name in names:
        if name == PADDING:
            continue
        if name not in TYPES:
            raise _wrong(file, f"the key {start}{name} is unknown")
        kind = file.pairs[start + name].type
        if kind is not TYPES[name]:
            wanted = TYPES[name].name.lower()
            raise _wrong(file, f"{start}{name} is a {kind.name.lower()}, it must be a {wanted}")
        values[name] = file.value(start + name)
    for name in TYPES:
        if name not in values and name not in OPTIONAL:
            raise _wrong(file, f"{start}{name} is missing")
    return LampeConfig(**values).validate()


def _wrong(file: GGUFFile, what: str) -> LampeError:
    return LampeError(f"{file.path} has LaMPE metadata that cannot be used ({what}); convert again")
