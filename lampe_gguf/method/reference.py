"""Reference attention in float64: slow, obvious, the oracle that the kernels are checked against.

Every pair of query and key is rotated for itself, to the positions that the query's plan names,
and scored; nothing is shared, split or approximated (method: section 2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .positions import LOCAL, MIDDLE, TAIL, Plan, key_position, query_position, regions

Array = npt.NDArray[np.float64]
Numbers = Any  # an array, or what NumPy makes one of

NORM, NEOX = "norm", "neox"


@dataclass(frozen=True)
class Rope:
    """A model's rotation. Raises ValueError for an unknown mode or an odd n_rot.

    n_rot          dimensions that are rotated, the first of each head; even
    mode           "norm": pairs (0, 1), (2, 3) ...; "neox": (0, n_rot/2), (1, n_rot/2 + 1) ...
    freq_base      angle per position of pair i is freq_base^(-2i/n_rot)
    freq_scale     1/factor of linear scaling, or of YaRN's interpolated part
    freq_factors   divide the angles, one per pair, or None
    ext_factor     0: no YaRN; 1: YaRN's mix of interpolation and extrapolation
    beta_fast, beta_slow, n_ctx_orig   between which numbers of turns YaRN mixes
    """

    n_rot: int
    mode: str = NORM
    freq_base: float = 10000.0
    freq_scale: float = 1.0
    freq_factors: tuple[float, ...] | None = None
    ext_factor: float = 0.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    n_ctx_orig: int = 8192

    def __post_init__(self) -> None:
        if self.mode not in (NORM, NEOX):
            raise ValueError(f"mode must be {NORM!r} or {NEOX!r}, not {self.mode!r}")
        if self.n_rot < 2 or self.n_rot % 2:
            raise ValueError(f"n_rot must be even and at least 2, not {self.n_rot}")

    def pairs(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Indices of the first and of the second dimension of each pair: [n_rot/2] each."""
        i = np.arange(self.n_rot // 2)
        if self.mode == NEOX:
            return i, i + self.n_rot // 2
        return 2 * i, 2 * i + 1

    def angles(self) -> Array:
        """Angle per position of each pair, radians: [n_rot/2]."""
        n = self.n_rot // 2
        i = np.arange(n)
        angle = self.freq_base ** (-2.0 * i / self.n_rot)
        if self.freq_factors is not None:
            angle = angle / np.asarray(self.freq_factors, dtype=np.float64)
        interpolated = self.freq_scale * angle
        if self.ext_factor == 0.0:
            return np.asarray(interpolated, dtype=np.float64)
        low, high = self._turning_pairs()
        ramp = 1.0 - np.clip((i - low) / max(0.001, high - low), 0.0, 1.0)
        mix = self.ext_factor * ramp
        return np.asarray(interpolated * (1.0 - mix) + angle * mix, dtype=np.float64)

    def _turning_pairs(self) -> tuple[float, float]:
        """The pairs that make beta_fast and beta_slow turns over the original context."""

        def pair(turns: float) -> float:
            length = self.n_ctx_orig / (turns * 2 * math.pi)
            return self.n_rot * math.log(length) / (2 * math.log(self.freq_base))

        low, high = math.floor(pair(self.beta_fast)), math.ceil(pair(self.beta_slow))
        return max(0.0, low), min(self.n_rot - 1.0, high)

    def yarn_magnitude(self) -> float:
        """What stock RoPE multiplies cos and sin with under YaRN; 1 without it."""
        return 1.0 if self.ext_factor == 0.0 else 1.0 + 0.1 * math.log(1.0 / self.freq_scale)


def rotate(x: Numbers, position: Numbers, rope: Rope, magnitude: float = 1.0) -> Array:
    """Rotate vectors [..., d] to integer positions [...]; dimensions from n_rot on stay.

    `magnitude` multiplies cos and sin: LaMPE's attention factor. YaRN's magnitude is not in it:
    under LaMPE the model's own RoPE, at position 0, has applied that.
    """
    x = np.asarray(x, dtype=np.float64)
    theta = np.asarray(position, dtype=np.float64)[..., None] * rope.angles()
    cos, sin = magnitude * np.cos(theta), magnitude * np.sin(theta)
    first, second = rope.pairs()
    out = x.copy()
    out[..., first] = x[..., first] * cos - x[..., second] * sin
    out[..., second] = x[..., first] * sin + x[..., second] * cos
    return np.asarray(out, dtype=np.float64)


def rotate_stock(x: Numbers, position: Numbers, rope: Rope) -> Array:
    """Rotate as a model's own RoPE does without LaMPE: `rotate` with YaRN's magnitude."""
    return rotate(x, position, rope, rope.yarn_magnitude())


def rope_table(n_pos: int, rope: Rope, magnitude: float = 1.0) -> Array:
    """What the fused kernel reads: [n_pos, n_rot], a row the cos of all pairs, then their sin."""
    theta = np.arange(n_pos)[:, None] * rope.angles()
    table: Array = magnitude * np.concatenate([np.cos(theta), np.sin(theta)], axis=1)
    return table


def attention(
    q: Numbers,
    k: Numbers,
    v: Numbers,
    q_pos: Numbers,
    k_pos: Numbers,
    plans: Sequence[Plan],
    rope: Rope,
    *,
    scale: float,
    attention_factor: float = 1.0,
    softcap: float = 0.0,
    sinks: Numbers = None,
    mask: Numbers = None,
) -> Array:
    """Attention with LaMPE positions: [n_q, n_head, d_v].

    q      [n_q, n_head, d], not rotated
    k      [n_kv, n_head_kv, d], not rotated; head h of q reads head h // (n_head/n_head_kv)
    v      [n_kv, n_head_kv, d_v]
    q_pos  [n_q] positions; k_pos [n_kv], -1 for an empty cell
    plans  one per query
    sinks  [n_head]: a score per head that takes part in the softmax and has no value
    mask   [n_q, n_kv], for several sequences: numbers, added to the scores (-inf hides), or
           booleans, False hides

    Keys after the query are hidden whatever the mask says. A query that sees no key gives zeros.
    Raises ValueError unless there is one plan per query and n_head_kv divides n_head.
    """
    q, k, v = (np.asarray(each, dtype=np.float64) for each in (q, k, v))
    q_pos, k_pos = np.asarray(q_pos, dtype=np.int64), np.asarray(k_pos, dtype=np.int64)
    n_q, n_head, _ = q.shape
    if len(plans) != n_q:
        raise ValueError(f"{n_q} queries need a plan each, not {len(plans)}")
    if n_head % k.shape[1]:
        raise ValueError(f"{n_head} query heads do not share out over {k.shape[1]} key heads")
    group = n_head // k.shape[1]
    added = np.zeros((n_q, len(k_pos))) if mask is None else np.asarray(mask)
    if added.dtype == np.bool_:
        added = np.where(added, 0.0, -np.inf)
    out = np.zeros((n_q, n_head, v.shape[2]))
    for i in range(n_q):
        seen = np.flatnonzero((k_pos >= 0) & (k_pos <= q_pos[i]) & (added[i] > -np.inf))
        if len(seen) == 0:
            continue
        region = regions(plans[i], q_pos[i], k_pos[seen])
        score = np.empty((n_head, len(seen)))
        for r in (LOCAL, MIDDLE, TAIL):
            here = region == r
            query = rotate(q[i], query_position(plans[i], r, q_pos[i]), rope, attention_factor)
            positions = key_position(plans[i], r, k_pos[seen][here])[:, None]  # of all heads
            keys = rotate(k[seen[here]], positions, rope, attention_factor)
            score[:, here] = np.einsum("hd,jhd->hj", query, keys.repeat(group, axis=1))
        score *= scale
        if softcap:
            score = softcap * np.tanh(score / softcap)
        score += added[i, seen]
        sink = np.full(n_head, -np.inf) if sinks is None else np.asarray(sinks, dtype=np.float64)
        top = np.maximum(score.max(axis=1), sink)
        weight = np.exp(score - top[:, None])
        total = weight.sum(axis=1) + np.exp(sink - top)
        values = v[seen].repeat(group, axis=1)
        out[i] = np.einsum("hj,jhd->hd", weight, values) / total[:, None]
    return out
