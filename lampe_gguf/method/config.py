"""LampeConfig: everything that the runtime has to know about a model's LaMPE map.

The fields are those of the GGUF metadata `{arch}.rope.scaling.lampe.<field>`; their types
and ranges are those of fields.py, for the backend as well.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import FieldError, LampeError
from . import schedule
from .fields import FIELDS, MAX_F64, VERSION, Field
from .positions import (
    NO_LIMIT,
    IntArray,
    Plan,
    identity_plan,
    jetlong_plan,
    lampe_plan,
    rerope_plan,
    selfextend_plan,
)


@dataclass(frozen=True)
class LampeConfig:
    """LaMPE's parameters for one model (method: sections 1 to 4). Lengths are in tokens.

    window                W, what the model was trained with
    context_length        longest supported input
    local_window          s1: distances up to it keep their position (w, w0 of the neighbours)
    tail_window           s2: the far end whose positions are exact again, shifted
    max_mapping_length    L, the upper bound of the mapping length
    slope, offset         a and b of the scaled sigmoid
    short_length          below this length m is short_mapping_length, up to W; 0: no such rule
    attention_factor      multiplies cos and sin of queries and keys
    length_policy         "causal" or "prompt" (section 3)
    length_step           granularity of the length under "causal"
    group_size            SelfExtend's G; the other methods have no use for it
    method                "lampe", or a neighbour: "rope", "rerope", "selfextend", "jetlong"
    provenance            where the values come from, in words

    Making one checks nothing; `validate` does, and so do the methods that compute with it: they
    raise FieldError.

    >>> from lampe_gguf import LampeConfig
    >>> config = LampeConfig(window=8192, context_length=32768, local_window=512, tail_window=200,
    ...                      max_mapping_length=6144.0, slope=0.0, offset=40.0).validate()
    >>> config.mapping_length(16384), config.plan(4096).is_identity
    (6144, True)
    """

    window: int
    context_length: int
    local_window: int
    tail_window: int
    max_mapping_length: float
    slope: float
    offset: float
    short_length: int = 0
    short_mapping_length: int = 0
    attention_factor: float = 1.0
    length_policy: str = "causal"
    length_step: int = 512
    group_size: int = 0
    method: str = "lampe"
    provenance: str = ""
    version: int = VERSION

    def validate(self) -> LampeConfig:
        """Return the configuration itself, or raise FieldError naming field, value and range."""
        values = {field.name: getattr(self, field.name) for field in FIELDS}
        for field in FIELDS:
            _CHECKS[field.kind](field, values)
        return self

    def effective(self) -> dict[str, object]:
        """The fields that what attention computes depends on, by name."""
        beside = ("version", "context_length", "provenance")
        return {name: value for name, value in asdict(self).items() if name not in beside}

    @property
    def min_mapping_length(self) -> int:
        """s1 + s2 + 1: the fewest positions that hold both exact windows."""
        return self.local_window + self.tail_window + 1

    def mapping_length(self, length: int) -> int:
        """m of the schedule for an input of `length` tokens; it may exceed `length`."""
        _check_length(length)
        self.validate()
        return schedule.mapping_length(
            length,
            max_mapping_length=self.max_mapping_length,
            slope=self.slope,
            offset=self.offset,
            min_mapping_length=self.min_mapping_length,
            short_length=self.short_length,
            short_mapping_length=self.short_mapping_length,
        )

    def plan(self, length: int) -> Plan:
        """The position plan in force for an input of `length` tokens, whatever the policy.

        Lengths beyond `context_length` are planned too: under "causal" a length is rounded up.
        """
        _check_length(length)
        self.validate()
        if self.method == "rope":
            return identity_plan(length)
        if self.method == "rerope":
            return rerope_plan(self.local_window, length)
        if self.method == "selfextend":
            return selfextend_plan(self.group_size, self.local_window, length)
        if self.method == "jetlong":
            return jetlong_plan(length, self.window, self.local_window)
        return lampe_plan(length, self.mapping_length(length), self.local_window, self.tail_window)

    def lengths_for(self, n_tokens: int, prompt_length: int | None = None) -> IntArray:
        """Length l that each query 0 .. n_tokens - 1 is planned with, by `length_policy`.

        `prompt_length` matters to "prompt" alone; without it, all n_tokens are the prompt.
        """
        self.validate()
        if self.length_policy == "causal":
            return schedule.causal_lengths(n_tokens, self.length_step)
        return schedule.prompt_lengths(
            n_tokens, n_tokens if prompt_length is None else prompt_length
        )

    def plans_for(self, n_tokens: int, prompt_length: int | None = None) -> list[Plan]:
        """The plan of each query 0 .. n_tokens - 1; queries of one length share one plan."""
        lengths = self.lengths_for(n_tokens, prompt_length)
        plans = {int(length): self.plan(int(length)) for length in np.unique(lengths)}
        return [plans[int(length)] for length in lengths]


def _check_length(length: int) -> None:
    if not 0 <= length < NO_LIMIT:
        raise LampeError(f"no plan for a length of {length} tokens: give 0 to {NO_LIMIT - 1}")


def _check_u32(field: Field, values: dict[str, Any]) -> None:
    value, low, high = values[field.name], field.least.value(values), field.most.value(values)
    allowed = f"an integer from {low} to {high}" if low < high else f"{low}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise FieldError(field.name, value, allowed + _meaning(field))
    if value == 0 and field.zero is not None and values[field.zero[0]] in field.zero[1]:
        return
    if not low <= value <= high:
        raise FieldError(field.name, value, allowed + _meaning(field))


def _check_f64(field: Field, values: dict[str, Any]) -> None:
    value, low, high = values[field.name], field.least.value(values), field.most.value(values)
    allowed = f"a number from {low:g} to {high:g}" if low > -MAX_F64 else "a finite number"
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:  # false for NaN, too
        raise FieldError(field.name, value, allowed + _meaning(field))


def _check_name(field: Field, values: dict[str, Any]) -> None:
    if values[field.name] not in field.names:
        raise FieldError(field.name, values[field.name], f"one of {', '.join(field.names)}")


def _check_text(field: Field, values: dict[str, Any]) -> None:
    value, most = values[field.name], field.most.value(values)
    if not isinstance(value, str) or len(value.encode("utf-8", "replace")) > most:
        raise FieldError(field.name, value, f"a text of at most {most} bytes")


def _meaning(field: Field) -> str:
    """Which fields a range depends on, in words."""
    low, high = field.least, field.most
    if low.plus and high.plus:
        return f" ({low} to {high})"
    if high.plus:
        return f" (up to {high})"
    return f" (from {low})" if low.plus else ""


_CHECKS = {"u32": _check_u32, "f64": _check_f64, "name": _check_name, "text": _check_text}
