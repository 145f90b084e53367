"""The fused op on the CPU against the float64 oracle, on random shapes.

The tolerance is a multiple of what plain low precision costs: the same attention in float32
NumPy on the same (already dequantised) keys and values. Where the kernel multiplies integers of 16
bits, it is what rounding such keys and values to f16 costs, as a cache does.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import ggml_ctypes as gg
import numpy as np
import pytest

from lampe_gguf.positions import (
    Plan,
    identity_plan,
    jetlong_plan,
    lampe_plan,
    relative_position,
    rerope_plan,
    selfextend_plan,
)
from lampe_gguf.reference import NEOX, NORM, Rope, attention, rope_table, rotate

MULTIPLE = 8.0  # of the plain float32 error
FLOOR = 2e-6  # relative to the largest output: below it, rounding alone decides
FEW_ROWS = 8  # queries times heads of a group: up to so many, the kernel computes in float32
INTEGER_MULTIPLE = 1.5  # of the root mean square of what an f16 cache costs


@pytest.fixture(scope="module")
def ggml() -> gg.Ggml:
    found = gg.Ggml()
    assert found.has_lampe_attn, "the installed llama_cpp is not the patched build"
    return found


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
        for h in range(case.n_head):
            query = rotate(np.repeat(q[i, h][None], len(seen), 0), at, case.rope,
                           case.attention_factor**2).astype(f32)
            # unrotated dimensions must not be scaled twice: rotate scales the pairs alone
            score = (query * k[seen, h // group].astype(f32)).sum(1, dtype=f32) * f32(scale)
            if case.softcap:
                score = f32(case.softcap) * np.tanh(score / f32(case.softcap))
            top = score.max() if sinks is None else max(score.max(), f32(sinks[h]))
            weight = np.exp(score - top)
            total = weight.sum(dtype=f32)
            if sinks is not None:
                total += np.exp(f32(sinks[h]) - top)
            out[i, h] = (weight @ v[seen, h // group].astype(f32)) / total
    return out


def run(ggml: gg.Ggml, case: Case) -> None:
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
    with gg.Context(ggml, 1 << 26) as ctx:
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

    want = oracle(k, v)
    assert np.isfinite(got).all()
    if case.wide and ggml.multiplies_integers:
        halves = oracle(gg.stored(k_exact, "f16")[1], gg.stored(v_exact, "f16")[1])
        cost = rms(halves - oracle(k_exact, v_exact))
        assert rms(got - want) <= INTEGER_MULTIPLE * cost, (rms(got - want), cost)
        return
    plain = plain_float32(case, q, k, v, q_pos, k_pos, plans, mask, sinks, scale)
    cost = np.abs(plain - want).max() if case.attention_factor == 1.0 else 0.0
    allowed = MULTIPLE * max(cost, FLOOR * np.abs(want).max())
    assert np.abs(got - want).max() <= allowed, (np.abs(got - want).max(), cost)


def rms(error: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(error, dtype=np.float64))))


@pytest.mark.parametrize("n_q", [1, 5, 40])
@pytest.mark.parametrize("d", [64, 80, 96, 128, 256])
def test_head_sizes(ggml: gg.Ggml, d: int, n_q: int) -> None:
    run(ggml, Case(d=d, d_v=d, rope=Rope(d), n_q=n_q))


@pytest.mark.parametrize("n_head, n_head_kv", [(1, 1), (4, 4), (9, 3), (4, 1), (10, 2), (8, 1)])
@pytest.mark.parametrize("n_q", [1, 33])
def test_grouped_queries(ggml: gg.Ggml, n_head: int, n_head_kv: int, n_q: int) -> None:
    run(ggml, Case(n_head=n_head, n_head_kv=n_head_kv, n_q=n_q, seed=n_head))


@pytest.mark.parametrize("mode", [NORM, NEOX])
@pytest.mark.parametrize("kind", ["full", "partial", "factors", "yarn"])
@pytest.mark.parametrize("n_q", [2, 20])
def test_rotations(ggml: gg.Ggml, mode: str, kind: str, n_q: int) -> None:
    rope = {
        "full": Rope(64, mode),
        "partial": Rope(24, mode),
        "factors": Rope(64, mode, freq_factors=tuple(np.linspace(1, 8, 32))),
        "yarn": Rope(64, mode, freq_scale=0.25, ext_factor=1.0, n_ctx_orig=64),
    }[kind]
    run(ggml, Case(rope=rope, n_q=n_q))


@pytest.mark.parametrize("k_type", ["f32", "f16", "bf16", "q8_0", "q4_0"])
@pytest.mark.parametrize("v_type", ["f32", "f16", "bf16", "q8_0", "q4_0"])
def test_cache_types(ggml: gg.Ggml, k_type: str, v_type: str) -> None:
    for n_q in (1, 24):
        run(ggml, Case(k_type=k_type, v_type=v_type, n_q=n_q, mask_type="f32"))


@pytest.mark.parametrize("plan", ["identity", "lampe", "rerope", "selfextend", "jetlong"])
@pytest.mark.parametrize("n_q", [1, 64])
def test_plans(ggml: gg.Ggml, plan: str, n_q: int) -> None:
    run(ggml, Case(plan=plan, n_q=n_q, n_kv=333))


@pytest.mark.parametrize("sequences", [2, 3, 5])
@pytest.mark.parametrize("n_q", [5, 45])
def test_sequences_of_different_lengths_in_one_batch(
    ggml: gg.Ggml, sequences: int, n_q: int
) -> None:
    run(ggml, Case(sequences=sequences, n_q=n_q, n_kv=301, shuffle=True, empty=20))


@pytest.mark.parametrize("n_threads", [1, 2, 3, 7])
@pytest.mark.parametrize("n_kv, n_q", [(1, 1), (63, 1), (64, 2), (65, 9), (257, 100)])
def test_ragged_tails_and_threads(ggml: gg.Ggml, n_kv: int, n_q: int, n_threads: int) -> None:
    run(ggml, Case(n_kv=n_kv, n_q=min(n_q, n_kv), n_threads=n_threads, shuffle=True))


def test_values_of_another_size_sinks_softcap_attention_factor(ggml: gg.Ggml) -> None:
    for n_q in (3, 30):
        run(ggml, Case(d=96, d_v=48, rope=Rope(96), n_q=n_q))
        run(ggml, Case(sinks=True, softcap=20.0, n_q=n_q))
        run(ggml, Case(attention_factor=1.07, rope=Rope(32), n_q=n_q))


def test_a_query_that_sees_nothing_gives_zeros(ggml: gg.Ggml) -> None:
    run(ggml, Case(n_kv=90, n_q=40, empty=90))


@pytest.mark.parametrize("seed", range(20))
def test_random_shapes(ggml: gg.Ggml, seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    d = int(rng.choice([64, 96, 128]))
    n_head_kv = int(rng.integers(1, 4))
    run(ggml, Case(
        d=d, d_v=d, n_head=n_head_kv * int(rng.integers(1, 9)), n_head_kv=n_head_kv,
        n_kv=int(rng.integers(150, 500)), n_q=int(rng.integers(1, 70)),
        rope=Rope(int(rng.choice([d, d // 2])), str(rng.choice([NORM, NEOX]))),
        k_type=str(rng.choice(["f16", "q8_0"])), v_type=str(rng.choice(["f16", "q4_0"])),
        plan=str(rng.choice(["lampe", "jetlong", "selfextend"])),
        sequences=int(rng.integers(1, 4)), shuffle=bool(rng.integers(2)),
        empty=int(rng.integers(0, 30)), softcap=float(rng.choice([0.0, 15.0])), seed=seed,
    ))


@pytest.mark.parametrize("plan", ["identity", "lampe", "selfextend"])
@pytest.mark.parametrize("hole", [0, 64, 70])
@pytest.mark.parametrize("n_q", [1, 40])
def test_an_empty_cell_before_the_first_position(
    ggml: gg.Ggml, n_q: int, hole: int, plan: str
) -> None:
    # a tile of keys begins at cell 64
    run(ggml, Case(n_q=n_q, hole=hole, plan=plan))
