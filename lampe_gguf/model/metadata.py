"""LampeConfig as GGUF metadata: the keys `{arch}.rope.scaling.lampe.*`."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..container.format import KeyValue, ValueType
from ..container.reader import GGUFFile
from ..errors import LampeError
from ..method.config import LampeConfig
from ..method.fields import BY_NAME, FIELDS, VERSION, Field

PADDING = "padding"  # holds no setting: see gguf_output.encode_padding

# what is written, and what is read
TYPES = {
    "u32": ValueType.UINT32,
    "f64": ValueType.FLOAT64,
    "name": ValueType.STRING,
    "text": ValueType.STRING,
}
WHOLE = {
    ValueType.UINT8, ValueType.INT8, ValueType.UINT16, ValueType.INT16, ValueType.UINT32,
    ValueType.INT32, ValueType.UINT64, ValueType.INT64,
}
READABLE = {
    "u32": WHOLE,
    "f64": {ValueType.FLOAT32, ValueType.FLOAT64},
    "name": {ValueType.STRING},
    "text": {ValueType.STRING},
}


def prefix(arch: str) -> str:
    """What the keys of an architecture begin with, the last dot included."""
    return f"{arch}.rope.scaling.lampe."


def as_overrides(arch: str, config: LampeConfig) -> dict[str, int | float | str]:
    """The configuration as llama_cpp's `kv_overrides`, to use a model without converting it.

    Provenance, which changes nothing, stays out: an override holds 127 bytes. Raises LampeError
    where a value is out of range.
    """
    config.validate()
    values = dataclasses.asdict(config)
    return {
        prefix(arch) + field.name:
            float(values[field.name]) if field.kind == "f64" else values[field.name]
        for field in FIELDS
        if field.name != "provenance"
    }


def read(file: GGUFFile, arch: str) -> LampeConfig | None:
    """The configuration that a file carries, validated; None where it carries none.

    Raises LampeError, naming the key, where one is missing, unknown, of the wrong type or out of
    range; and where they are of another version, whose keys are not known.
    """
    start = prefix(arch)
    names = [key[len(start) :] for key in file.pairs if key.startswith(start)]
    if not names:
        return None
    version = file.pairs.get(start + "version")
    if version is not None and version.type in WHOLE and file.value(version.key) != VERSION:
        raise _wrong(file, f"version {file.value(version.key)}, and this program reads version "
                           f"{VERSION}")
    values: dict[str, Any] = {}
    for name in names:
        if name == PADDING:
            continue
        if name not in BY_NAME:
            raise _wrong(file, f"the key {start}{name} is unknown")
        field, pair = BY_NAME[name], file.pairs[start + name]
        if pair.type not in READABLE[field.kind]:
            kind, wanted = pair.type.name.lower(), TYPES[field.kind].name.lower()
            raise _wrong(file, f"{start}{name} is a {kind}, it must be a {wanted}")
        values[name] = _value(file, field, pair)
    for field in FIELDS:
        if field.required and field.name not in values:
            raise _wrong(file, f"{start}{field.name} is missing")
    return LampeConfig(**values).validate()


def _value(file: GGUFFile, field: Field, pair: KeyValue) -> Any:
    if field.kind != "text":
        return file.value(pair.key)
    length, most = pair.end - pair.value_offset - 8, int(field.most.constant)
    if length > most:
        raise _wrong(file, f"{pair.key} has {length} bytes, it must have at most {most}")
    # bytes that are no UTF-8 are read as several
    return str(file.value(pair.key)).encode()[:most].decode("utf-8", "ignore")


def _wrong(file: GGUFFile, what: str) -> LampeError:
    return LampeError(f"{file.path} has LaMPE metadata that cannot be used ({what}); convert again")
