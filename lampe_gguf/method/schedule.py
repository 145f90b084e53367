"""From an input's length to its mapping length, and which length counts (method: 1 and 3)."""

from __future__ import annotations

import math

import numpy as np

from .positions import IntArray


def scaled_sigmoid(length: int, max_mapping_length: float, slope: float, offset: float) -> float:
    """L / (1 + exp(-(a*l + b))) in double precision, in positions (method: section 1)."""
    try:
        growth = math.exp(-(slope * length + offset))
    except OverflowError:
        # Python refuses where C's exp gives infinity; the sigmoid has reached 0 either way.
        return 0.0
    return max_mapping_length / (1.0 + growth)


def mapping_length(
    length: int,
    *,
    max_mapping_length: float,
    slope: float,
    offset: float,
    min_mapping_length: int,
    short_length: int = 0,
    short_mapping_length: int = 0,
) -> int:
    """Mapping length m for an input of `length` tokens, in positions (method: section 1).

    The scaled sigmoid rounded down, clamped to [min_mapping_length, floor(max_mapping_length)], or
    `short_mapping_length` for inputs shorter than `short_length`: it may exceed
    max_mapping_length, so that what fits the window need not be compressed where longer inputs are.
    The result may exceed `length`: the plan for such a length is the identity.
    """
    if length < short_length:
        return max(short_mapping_length, min_mapping_length)
    m = math.floor(scaled_sigmoid(length, max_mapping_length, slope, offset))
    return min(max(m, min_mapping_length), math.floor(max_mapping_length))


def round_up(length: int, step: int) -> int:
    """Smallest multiple of `step` that is not below `length`."""
    return -(-length // step) * step


def causal_lengths(n_tokens: int, length_step: int) -> IntArray:
    """Length l of each query 0 .. n_tokens - 1 under the policy `causal`: i + 1, rounded up.

    It depends on nothing that comes after the query, so cached tokens stay right whatever
    follows them (method: section 3).
    """
    i = np.arange(n_tokens, dtype=np.int64)
    return np.asarray((i // length_step + 1) * length_step, dtype=np.int64)


def prompt_lengths(n_tokens: int, prompt_length: int) -> IntArray:
    """Length l of each query 0 .. n_tokens - 1 under the policy `prompt`.

    `prompt_length` for every query of the prompt, then one more with each new token
    (method: section 3).
    """
    i = np.arange(n_tokens, dtype=np.int64)
    return np.maximum(i + 1, prompt_length)
