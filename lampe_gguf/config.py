"""LampeConfig: everything that the runtime has to know about a model's LaMPE map.

The fields are those of the GGUF metadata `{arch}.rope.scaling.lampe.<field>`; int fields are
stored as u32, float fields as f64. The backend applies the same ranges.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import cast

import numpy as np

from . import schedule
from .errors import FieldError, LampeError
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

    Making one checks nothing; `validate` does, and so do the methods that compute with it.
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
        _check_choice("method", self.method, METHODS)
        _check_choice("length_policy", self.length_policy, LENGTH_POLICIES)
        _check_int("version", self.version, VERSION, VERSION)
        _check_int("window", self.window, MIN_WINDOW, MAX_LENGTH)
        _check_int("context_length", self.context_length, self.window, MAX_LENGTH)
        _check_int("local_window", self.local_window, 1, self.window - 1)
        largest_tail = self.window - 1 - self.local_window
        meaning = " (up to window - local_window - 1)"
        _check_int("tail_window", self.tail_window, 0, largest_tail, meaning)
        smallest = self.min_mapping_length
        meaning = " (local_window + tail_window + 1 to window)"
        _check_float("max_mapping_length", self.max_mapping_length, smallest, self.window, meaning)
        _check_float("slope", self.slope)
        _check_float("offset", self.offset)
        _check_int("short_length", self.short_length, 0, MAX_U32)
        if self.short_length or self.short_mapping_length:
            _check_int(
                "short_mapping_length", self.short_mapping_length, smallest, self.window, meaning
            )
        else:
            _check_int("short_mapping_length", self.short_mapping_length, 0, 0)
        _check_float(
            "attention_factor", self.attention_factor, MIN_ATTENTION_FACTOR, MAX_ATTENTION_FACTOR
        )
        _check_int("length_step", self.length_step, 1, MAX_LENGTH_STEP)
        _check_int("group_size", self.group_size, int(self.method == "selfextend"), MAX_LENGTH)
        _check_provenance(self.provenance)
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


def _check_int(name: str, value: object, low: int, high: int, meaning: str = "") -> None:
    allowed = f"an integer from {low} to {high}" if low < high else f"{low}"
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise FieldError(name, value, allowed + meaning)


def _check_float(
    name: str, value: object, low: float = -MAX_F64, high: float = MAX_F64, meaning: str = ""
) -> None:
    allowed = f"a number from {low:g} to {high:g}" if low > -MAX_F64 else "a finite number"
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not low <= cast(float, value) <= high:  # false for NaN, too
        raise FieldError(name, value, allowed + meaning)


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise FieldError(name, value, f"one of {', '.join(choices)}")


def _check_provenance(value: object) -> None:
    if not isinstance(value, str) or len(value.encode("utf-8", "replace")) > MAX_PROVENANCE_BYTES:
        raise FieldError("provenance", value, f"a text of at most {MAX_PROVENANCE_BYTES} bytes")
