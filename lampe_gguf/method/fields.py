"""The fields of LaMPE's metadata, their types and ranges: one table for Python and the backend.

tools/make_fields.py writes the header that the patched llama.cpp reads them by.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

VERSION = 1
METHODS = ("lampe", "rope", "rerope", "selfextend", "jetlong")
LENGTH_POLICIES = ("causal", "prompt")

MIN_WINDOW = 16
MAX_LENGTH = 2**24
MAX_LENGTH_STEP = 2**20
MIN_ATTENTION_FACTOR = 0.1
MAX_ATTENTION_FACTOR = 10.0
MAX_PROVENANCE_BYTES = 511
MAX_U32 = 2**32 - 1
MAX_F64 = sys.float_info.max


@dataclass(frozen=True)
class Bound:
    """An end of a range: a number, or one that other fields give."""

    constant: float = 0
    plus: tuple[str, ...] = ()
    minus: tuple[str, ...] = ()

    def value(self, values: Mapping[str, Any]) -> Any:
        """The number, given the fields that it depends on."""
        return (self.constant + sum(values[name] for name in self.plus)
                - sum(values[name] for name in self.minus))

    def __str__(self) -> str:
        parts = [" + ".join(self.plus), *self.minus]
        text = " - ".join(part for part in parts if part)
        if not text:
            return f"{self.constant:g}"
        rest = f" {'-' if self.constant < 0 else '+'} {abs(self.constant):g}"
        return text + (rest if self.constant else "")


@dataclass(frozen=True)
class Field:
    """One field. Ranges include both ends, and depend on fields that stand before this one.

    kind      "u32", a whole number, stored with any width; "f64", a number, stored as f32 or f64;
              "name", one of `names`; "text", of at most `most` bytes
    required  a file without it is refused
    zero      (field, values): 0 is allowed too where that field has one of these values
    """

    name: str
    kind: Literal["u32", "f64", "name", "text"]
    least: Bound = Bound()
    most: Bound = Bound()
    required: bool = True
    names: tuple[str, ...] = ()
    zero: tuple[str, tuple[int | str, ...]] | None = None


_WINDOW = Bound(plus=("window",))
_BOTH_WINDOWS = Bound(1, plus=("local_window", "tail_window"))
_ANY = (Bound(-MAX_F64), Bound(MAX_F64))

FIELDS = (
    Field("version", "u32", Bound(VERSION), Bound(VERSION)),
    Field("method", "name", names=METHODS, required=False),
    Field("window", "u32", Bound(MIN_WINDOW), Bound(MAX_LENGTH)),
    Field("context_length", "u32", _WINDOW, Bound(MAX_LENGTH)),
    Field("local_window", "u32", Bound(1), Bound(-1, plus=("window",))),
    Field("tail_window", "u32", Bound(0), Bound(-1, plus=("window",), minus=("local_window",))),
    Field("max_mapping_length", "f64", _BOTH_WINDOWS, _WINDOW),
    Field("slope", "f64", *_ANY),
    Field("offset", "f64", *_ANY),
    Field("short_length", "u32", Bound(0), Bound(MAX_U32)),
    Field("short_mapping_length", "u32", _BOTH_WINDOWS, _WINDOW, zero=("short_length", (0,))),
    Field("attention_factor", "f64", Bound(MIN_ATTENTION_FACTOR), Bound(MAX_ATTENTION_FACTOR)),
    Field("length_policy", "name", names=LENGTH_POLICIES),
    Field("length_step", "u32", Bound(1), Bound(MAX_LENGTH_STEP)),
    Field("group_size", "u32", Bound(1), Bound(MAX_LENGTH), required=False,
          zero=("method", tuple(name for name in METHODS if name != "selfextend"))),
    Field("provenance", "text", most=Bound(MAX_PROVENANCE_BYTES), required=False),
)
BY_NAME = {field.name: field for field in FIELDS}
