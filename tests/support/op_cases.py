"""Calls of the attention operator on random data, with what the float64 oracle says of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import ggml_ctypes as gg
import numpy as np

from lampe_gguf.method.positions import (
    Plan,
    identity_plan,
    jetlong_plan,
    lampe_plan,
    relative_position,
    rerope_plan,
    selfextend_plan,
)
from lampe_gguf.method.reference import NEOX, Rope, attention, rope_table, rotate

FEW_ROWS = 8  # queries times heads of a group: up to so many, the processor's kernel uses float32


@dataclass
class Case:
    """One call of the op; sequences of `n_past` cells each, and the queries after them."""

    d: int = 64
    d_v: int = 64
    n_head: int = 4
    n_head_kv: int = 2
    n_kv: int = 200
    n_q: int = 5
    rope: Rope = field(default_factory=lambda: Rope(64))
    k_type: str = "f16"
    v_type: str = "f16"
    plan: str = "lampe"
    sequences: int = 1
    shuffle: bool = False
    empty: int = 0
    hole: int = -1  # an empty cell, before that of position 0
    sinks: bool = False
    softcap: float = 0.0
    mask_type: str = "f16"
    attention_factor: float = 1.0
    n_threads: int = 2
    seed: int = 0

    @property
    def wide(self) -> bool:
        """Whether cache and batch are such that the kernel may multiply integers."""
        rows = self.n_q * self.n_head // self.n_head_kv
        return rows > FEW_ROWS and "f32" not in (self.k_type, self.v_type)

    def plan_for(self, length: int) -> Plan:
        return {
            "identity": lambda: identity_plan(length),
            "lampe": lambda: lampe_plan(length, min(length, 40), 16, 6),
            "rerope": lambda: rerope_plan(12, length),
            "selfextend": lambda: selfextend_plan(4, 10, length),
            "jetlong": lambda: jetlong_plan(length, 32, 9),
        }[self.plan]()


def plain_float32(case: Case, q, k, v, q_pos, k_pos, plans, mask, sinks, scale) -> np.ndarray:
    """The same attention with every step rounded to float32: what low precision costs."""
    f32 = np.float32
    out = np.zeros((len(q), case.n_head, case.d_v), f32)
    group = case.n_head // case.n_head_kv
    for i in range(len(q)):
        seen = np.flatnonzero((k_pos >= 0) & (mask[i] > -np.inf))
        if len(seen) == 0:
            continue
        at = relative_position(plans[i], q_pos[i], k_pos[seen])
        # unrotated dimensions must not be scaled twice: rotate scales the pairs alone
        turned = rotate(q[i][:, None].repeat(len(seen), axis=1), at, case.rope,
                        case.attention_factor**2).astype(f32)
        for h in range(case.n_head):
            score = (turned[h] * k[seen, h // group].astype(f32)).sum(1, dtype=f32) * f32(scale)
            if case.softcap:
                score = f32(case.softcap) * np.tanh(score / f32(case.softcap))
            top = score.max() if sinks is None else max(score.max(), f32(sinks[h]))
            weight = np.exp(score - top)
            total = weight.sum(dtype=f32)
            if sinks is not None:
                total += np.exp(f32(sinks[h]) - top)
            out[i, h] = (weight @ v[seen, h // group].astype(f32)) / total
    return out


@dataclass
class Solved:
    """What the operator gave, what the oracle says, and what low precision would have cost."""

    got: np.ndarray
    want: np.ndarray
    plain: Callable[[], np.ndarray]  # the same attention in float32
    cache_error: Callable[[], float]  # root mean square, of keys and values rounded to f16


def solve(ggml: gg.Ggml, case: Case) -> Solved:
    """Run the operator on a case."""
    rng = np.random.default_rng(case.seed)
    k_exact, v_exact = (
        rng.normal(size=(case.n_kv, case.n_head_kv, size)).astype(np.float32)
        for size in (case.d, case.d_v)
    )
    k_raw, k = gg.stored(k_exact, case.k_type)
    v_raw, v = gg.stored(v_exact, case.v_type)
    q = (2 * rng.normal(size=(case.n_q, case.n_head, case.d))).astype(np.float32)
    owner = np.arange(case.n_kv) % case.sequences
    k_pos = np.arange(case.n_kv) // case.sequences
    if case.shuffle:
        order = rng.permutation(case.n_kv)
        owner, k_pos = owner[order], k_pos[order]
    if case.empty:
        k_pos[rng.choice(case.n_kv, case.empty, replace=False)] = -1
    if case.hole >= 0:
        k_pos = np.roll(k_pos, case.hole + 1)
        k_pos[case.hole] = -1
    q_owner = np.arange(case.n_q) % case.sequences
    longest = case.n_kv // case.sequences
    # sequences of different lengths: each a little shorter than the one before
    q_pos = longest - 1 - 7 * q_owner - np.arange(case.n_q)[::-1] // case.sequences
    plans = [case.plan_for(int(p) + 1) for p in q_pos]
    mask = np.where((owner[None] == q_owner[:, None]) & (k_pos[None] <= q_pos[:, None]), 0.0,
                    -np.inf).astype(np.float32)
    sinks = rng.normal(size=case.n_head).astype(np.float32) if case.sinks else None
    scale = case.d**-0.5
    n_pos = longest + 3
    table = rope_table(n_pos, case.rope, case.attention_factor).astype(np.float32)
    rows = np.array([[p, t.local_window, t.num, t.den, t.middle_shift, t.tail_start, t.tail_shift,
                      t.length] for p, t in zip(q_pos, plans, strict=True)], dtype=np.int32)
    with ggml.context(1 << 26) as ctx:
        heads = ctx.heads_first
        node = ctx.lampe_attn(
            heads(ctx.tensor(gg.F32, (case.d, case.n_head, case.n_q), q)),
            heads(ctx.tensor(gg.TYPES[case.k_type], (case.d, case.n_head_kv, case.n_kv), k_raw)),
            heads(ctx.tensor(gg.TYPES[case.v_type], (case.d_v, case.n_head_kv, case.n_kv), v_raw)),
            ctx.tensor(gg.TYPES[case.mask_type], (case.n_kv, case.n_q),
                       mask.astype(np.float16) if case.mask_type == "f16" else mask),
            ctx.tensor(gg.I32, (8, case.n_q), rows),
            ctx.tensor(gg.I32, (case.n_kv,), k_pos.astype(np.int32)),
            ctx.tensor(gg.F32, (case.rope.n_rot, n_pos), table),
            None if sinks is None else ctx.tensor(gg.F32, (case.n_head,), sinks),
            scale=scale, softcap=case.softcap,
            mode=gg.ROPE_NEOX if case.rope.mode == NEOX else gg.ROPE_NORM, causal=True,
        )
        assert ggml.supports_op(node)
        graph = ctx.graph(node, case.n_threads)
        graph.compute()
        got = ctx.read(node, (case.n_q, case.n_head, case.d_v))

    def oracle(k: np.ndarray, v: np.ndarray) -> np.ndarray:
        return attention(q, k, v, q_pos, k_pos, plans, case.rope, scale=scale,
                         softcap=case.softcap, attention_factor=case.attention_factor,
                         sinks=sinks, mask=mask)

    def cache_error() -> float:
        halves = oracle(gg.stored(k_exact, "f16")[1], gg.stored(v_exact, "f16")[1])
        return rms(halves - oracle(k_exact, v_exact))

    assert np.isfinite(got).all()
    return Solved(got, oracle(k, v),
                  lambda: plain_float32(case, q, k, v, q_pos, k_pos, plans, mask, sinks, scale),
                  cache_error)


def rms(error: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(error, dtype=np.float64))))
