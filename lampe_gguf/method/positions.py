"""The multi-grained position map in exact integers (method: section 2) and its neighbours (4).

A `Plan` says how the relative position p(i, j) of query i and key j follows from their
positions. The distance d = i - j falls into one of three regions, and in each of them p is
a difference of a query part and a key part, so that attention can rotate the two apart:

    region  condition                    query position            key position
    local   d <= local_window            i                         j
    tail    else, d >= tail_start        i - tail_shift            j
    middle  else                         g(i) + middle_shift       g(j)     g(x) = x*num // den

One plan of this kind serves LaMPE, plain RoPE, ReRoPE, SelfExtend and Jet-Long alike.
Only NumPy is imported here: the module is the method, and everything else stands on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

NO_LIMIT = 2**31 - 1  # larger than any distance; fits the int32 fields of the backend's plan

LOCAL, MIDDLE, TAIL = 0, 1, 2
REGION_NAMES = ("local", "middle", "tail")

IntArray = npt.NDArray[np.int64]
Positions = Any  # an integer or anything that NumPy makes an integer array of


@dataclass(frozen=True)
class Plan:
    """The position map for inputs of one length; all fields are integers, in tokens.

    length        l that the plan was made for (0 where it is of no matter)
    local_window  s1: up to this distance the position is exact
    num, den      the middle's scale, g(x) = x*num // den
    middle_shift  added to the query's position in the middle
    tail_start    distances from here on (and beyond the local window) are the tail
    tail_shift    taken off the query's position in the tail

    >>> from lampe_gguf import default_config
    >>> plan = default_config(8192).plan(32768)
    >>> plan.length, plan.mapping_length, plan.local_window
    (32768, 4096, 1024)
    """

    length: int
    local_window: int
    num: int
    den: int
    middle_shift: int
    tail_start: int
    tail_shift: int

    @property
    def is_identity(self) -> bool:
        """Whether the plan is plain RoPE for every distance."""
        return self.local_window >= NO_LIMIT

    @property
    def mapping_length(self) -> int:
        """Number of positions that `length` tokens are mapped into; `length` for the identity.

        For LaMPE it is m. The separable middle may pass m - 1 by up to 2 (method: section 2).
        """
        if self.is_identity:
            return self.length
        if self.tail_start < NO_LIMIT:
            return self.length - self.tail_shift
        last = max(self.length - 1, 0)
        local = min(last, self.local_window)
        middle = last * self.num // self.den + self.middle_shift
        return 1 + (local if last <= self.local_window else max(local, middle))


def identity_plan(length: int = 0) -> Plan:
    """Plain RoPE: every relative position is the distance itself."""
    return Plan(length, NO_LIMIT, 1, 1, 0, NO_LIMIT, 0)


def lampe_plan(length: int, mapping_length: int, local_window: int, tail_window: int) -> Plan:
    """LaMPE's plan for `length` tokens mapped into `mapping_length` positions (method: section 2).

    The identity where nothing has to be compressed: m >= l, or l <= s1 + s2 + 1. Raises
    ValueError where the two windows do not fit into the mapping length (m < s1 + s2 + 1).
    """
    _check_not_negative(length=length, local_window=local_window, tail_window=tail_window)
    exact = local_window + tail_window
    if mapping_length >= length or length <= exact + 1:
        return identity_plan(length)
    if mapping_length < exact + 1:
        raise ValueError(
            f"mapping_length {mapping_length} is too small for local_window {local_window} and "
            f"tail_window {tail_window}: it must be at least {exact + 1}"
        )
    num = mapping_length - exact
    den = length - exact
    return Plan(
        length=length,
        local_window=local_window,
        num=num,
        den=den,
        middle_shift=local_window - local_window * num // den,
        tail_start=length - tail_window,
        tail_shift=length - mapping_length,
    )


def rerope_plan(local_window: int, length: int = 0) -> Plan:
    """ReRoPE(w): beyond the local window every key is at relative position w."""
    _check_not_negative(length=length, local_window=local_window)
    return Plan(length, local_window, 0, 1, local_window, NO_LIMIT, 0)


def selfextend_plan(group_size: int, local_window: int, length: int = 0) -> Plan:
    """SelfExtend(G, w): beyond the local window, positions in groups of G, shifted to meet at w.

    Raises ValueError for a group size below 1.
    """
    _check_not_negative(length=length, local_window=local_window)
    _check_group_size(group_size)
    shift = local_window - local_window // group_size
    return Plan(length, local_window, 1, group_size, shift, NO_LIMIT, 0)


def jetlong_plan(length: int, window: int, local_window: int) -> Plan:
    """Jet-Long(w0): groups of G = ceil(l / W) beyond the local window, with no shift.

    The identity for lengths inside the window W. Raises ValueError for a window below 1.
    """
    _check_not_negative(length=length, local_window=local_window)
    if window < 1:
        raise ValueError(f"window must be at least 1, not {window}")
    group_size = max(1, -(-length // window))
    if group_size == 1:
        return identity_plan(length)
    return Plan(length, local_window, 1, group_size, 0, NO_LIMIT, 0)


def regions(plan: Plan, i: Positions, j: Positions) -> IntArray:
    """Region of each pair (query position i, key position j): LOCAL, MIDDLE or TAIL.

    i and j broadcast against each other. Pairs that a causal mask hides (j > i) count as local.
    """
    distance = _integers(i) - _integers(j)
    beyond = np.where(distance >= plan.tail_start, TAIL, MIDDLE)
    return np.asarray(np.where(distance <= plan.local_window, LOCAL, beyond), dtype=np.int64)


def query_position(plan: Plan, region: int, i: Positions) -> IntArray:
    """Position to rotate query i to, for keys in `region`."""
    position = _integers(i)
    if region == TAIL:
        return position - plan.tail_shift
    if region == MIDDLE:
        return position * plan.num // plan.den + plan.middle_shift
    return position


def key_position(plan: Plan, region: int, j: Positions) -> IntArray:
    """Position to rotate key j to, for queries that see it in `region`."""
    position = _integers(j)
    if region == MIDDLE:
        return position * plan.num // plan.den
    return position


def relative_position(plan: Plan, i: Positions, j: Positions) -> IntArray:
    """Relative position p(i, j) that attention sees, int64; i and j broadcast (method: section 2).

    plan  what LampeConfig.plan gives for a length
    i, j  positions of query and key, tokens: integers, or arrays of them of any two shapes that
          NumPy broadcasts

    Exact for every position below 2**31: products stay below 2**63. Pairs that a causal mask
    hides (j > i) get their plain, negative distance. Raises TypeError for numbers that are no
    integers.

    >>> from lampe_gguf import default_config, relative_position
    >>> plan = default_config(8192).plan(32768)
    >>> relative_position(plan, 32767, [32767, 30000, 16384, 0]).tolist()
    [0, 1183, 2423, 4095]
    """
    region = regions(plan, i, j)
    by_region = [
        query_position(plan, r, i) - key_position(plan, r, j) for r in (LOCAL, MIDDLE, TAIL)
    ]
    return np.asarray(np.choose(region, by_region), dtype=np.int64)


def _integers(x: Positions) -> IntArray:
    array = np.asarray(x)
    if array.dtype.kind not in "iu":
        raise TypeError(f"positions must be integers, not {array.dtype}")
    return np.asarray(array, dtype=np.int64)


def _check_not_negative(**values: int) -> None:
    for name, value in values.items():
        if value < 0:
            raise ValueError(f"{name} must not be negative, not {value}")


def _check_group_size(group_size: int) -> None:
    if group_size < 1:
        raise ValueError(f"group_size must be at least 1, not {group_size}")
