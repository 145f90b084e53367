"""The operator's CUDA kernel for few queries, which may be of several sequences, against float64.

On the card that LAMPE_GGML_DEVICE names, as CUDA0; without it, on the emulation, which also counts
what is launched, read and allocated. See test_cuda_op for one query and for batches.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import ggml_ctypes as gg
import numpy as np
import pytest
from ggml_device import EMULATED, Counted, EmulatedGgml, open_ggml
from op_cases import rms

from lampe_gguf.method.positions import (
    Plan,
    identity_plan,
    lampe_plan,
    relative_position,
    selfextend_plan,
)
from lampe_gguf.method.reference import NEOX, NORM, Rope, rope_table, rotate

DEVICE = os.environ.get("LAMPE_GGML_DEVICE", EMULATED)
# Of the largest output: f16 queries, keys and weights, of rows that see few keys and of many.
TOLERANCE = 2e-3
HIDDEN = -np.inf

emulated = pytest.mark.skipif(DEVICE != EMULATED, reason="the emulation counts, a card does not")


@pytest.fixture(scope="module")
def ggml() -> gg.Ggml:
    return open_ggml(DEVICE)


@dataclass
class Batch:
    """Queries and cells of one stream or, the same number of each, of several."""

    q_pos: np.ndarray  # [n_stream, n_q]
    k_pos: np.ndarray  # [n_stream, n_kv], -1: empty
    mask: np.ndarray  # [n_stream, n_q, n_kv], added to the scores
    plans: list[list[Plan]]
    gqa: int = 4
    n_head_kv: int = 1
    d: int = 64
    k_type: str = "f16"
    v_type: str = "f16"
    mode: str = NEOX
    softcap: float = 0.0
    sinks: bool = False
    gap: int = 0  # numbers between one key's values and the next one's
    mask_gap: int = 0  # ... between one query's mask and the next one's
    length_step: int = 0
    q: np.ndarray = field(init=False)
    k: np.ndarray = field(init=False)
    v: np.ndarray = field(init=False)

    @property
    def rope(self) -> Rope:
        return Rope(self.d, self.mode)

    def fill(self) -> None:
        rng = np.random.default_rng(self.d + self.gqa)
        n, n_q, n_kv = self.mask.shape
        self.q = 2 * rng.normal(size=(n, n_q, self.n_head_kv * self.gqa, self.d))
        self.q = self.q.astype(np.float32)
        self.k, self.v = (
            rng.normal(size=(n, n_kv, self.n_head_kv, self.d)).astype(np.float32)
            for _ in range(2))
        self.sink = rng.normal(size=self.n_head_kv * self.gqa).astype(np.float32)

    def oracle(self) -> np.ndarray:
        """Attention in float64, one query and head at a time, whatever the mask shows."""
        out = np.zeros(self.q.shape)
        ks, vs = (gg.stored(x, kind)[1].astype(np.float64) for x, kind in (
            (self.k, self.k_type), (self.v, self.v_type)))
        for s, i in np.ndindex(self.q_pos.shape):
            seen = np.flatnonzero((self.k_pos[s] >= 0) & (self.mask[s, i] > HIDDEN))
            if len(seen) == 0:
                continue
            at = relative_position(self.plans[s][i], self.q_pos[s, i], self.k_pos[s, seen])
            turned = rotate(self.q[s, i][:, None].repeat(len(seen), axis=1), at, self.rope)
            for h in range(self.q.shape[2]):
                score = (turned[h] * ks[s, seen, h // self.gqa]).sum(1) * self.d**-0.5
                if self.softcap:
                    score = self.softcap * np.tanh(score / self.softcap)
                score += self.mask[s, i, seen]
                sink = float(self.sink[h]) if self.sinks else HIDDEN
                weight = np.exp(score - max(score.max(), sink))
                total = weight.sum() + np.exp(sink - max(score.max(), sink))
                out[s, i, h] = weight @ vs[s, seen, h // self.gqa] / total
        return out

    def compute(self, ggml: gg.Ggml) -> np.ndarray:
        n, n_q, n_kv = self.mask.shape
        n_head = self.n_head_kv * self.gqa
        n_pos = 3 + int(max(self.q_pos.max(), self.k_pos.max()))
        rows = np.array([[[p, t.local_window, t.num, t.den, t.middle_shift, t.tail_start,
                           t.tail_shift, t.length] for p, t in zip(at, plans, strict=True)]
                         for at, plans in zip(self.q_pos, self.plans, strict=True)], np.int32)

        wide = n_kv + self.mask_gap
        mask = np.zeros((n, n_q, wide), np.float16)
        mask[:, :, :n_kv] = self.mask

        def cache(x: np.ndarray, kind: str, gap: int) -> int:
            x = x.copy()
            if kind != "q4_0" and kind != "q8_0":
                x[self.k_pos < 0] = np.nan  # an empty cell may hold anything
            x = np.concatenate([x, np.full((*x.shape[:3], gap), np.nan, np.float32)], axis=3)
            tensor = ctx.tensor(gg.TYPES[kind], (self.d + gap, self.n_head_kv, n_kv, n),
                                gg.stored(x, kind)[0])
            if not gap:
                return ctx.heads_first(tensor)
            row = 2 * (self.d + gap)
            return ctx.view(tensor, (self.d, n_kv, self.n_head_kv, n),
                            (row * self.n_head_kv, row, row * self.n_head_kv * n_kv))

        with ggml.context(1 << 26) as ctx:
            node = ctx.lampe_attn(
                ctx.heads_first(ctx.tensor(gg.F32, (self.d, n_head, n_q, n), self.q)),
                cache(self.k, self.k_type, self.gap), cache(self.v, self.v_type, 0),
                ctx.view(ctx.tensor(gg.F16, (wide, n_q, 1, n), mask), (n_kv, n_q, 1, n),
                         (2 * wide, 2 * wide * n_q, 2 * wide * n_q)),
                ctx.tensor(gg.I32, (8, n_q, 1, n), rows),
                ctx.tensor(gg.I32, (n_kv, 1, 1, n), self.k_pos.astype(np.int32)),
                ctx.tensor(gg.F32, (self.d, n_pos), rope_table(n_pos, self.rope).astype("f4")),
                ctx.tensor(gg.F32, (n_head,), self.sink) if self.sinks else None,
                scale=self.d**-0.5, softcap=self.softcap, length_step=self.length_step,
                mode=gg.ROPE_NEOX if self.mode == NEOX else gg.ROPE_NORM,
            )
            assert ggml.supports_op(node)
            ctx.graph(node).compute()
            return ctx.read(node, self.q.shape)


def check(ggml: gg.Ggml, batch: Batch) -> Counted | None:
    """Compare with the oracle; what the emulation counted, on a card None."""
    batch.fill()
    got, want = batch.compute(ggml), batch.oracle()
    assert np.isfinite(got).all()
    error = abs(got - want)
    assert error.max() <= TOLERANCE * abs(want).max(), (error.max(), rms(error))
    return ggml.counted() if isinstance(ggml, EmulatedGgml) else None


def draft(n_q: int, n_kv: int = 150, plan: Callable[[int], Plan] | None = None) -> Batch:
    """The last tokens of one sequence, as when a draft is checked."""
    q_pos = np.arange(n_kv - n_q, n_kv)
    k_pos = np.arange(n_kv)
    plan = plan or (lambda length: lampe_plan(n_kv, 40, 16, 6))
    return Batch(q_pos[None], k_pos[None],
                 np.where(k_pos <= q_pos[:, None], 0.0, HIDDEN)[None],
                 [[plan(int(p) + 1) for p in q_pos]])


def slots(n: int, layout: str, n_q: int = 1, each: int = 40) -> Batch:
    """The last tokens of sequences that share a cache, of lengths and compressions of their own."""
    lengths = each + 9 * np.arange(n)
    owner = np.repeat(np.arange(n), lengths)
    k_pos = np.concatenate([np.arange(length) for length in lengths])
    if layout == "mixed":
        order = np.random.default_rng(n).permutation(len(owner))
        owner, k_pos = owner[order], k_pos[order]
    of = np.tile(np.arange(n), n_q)
    q_pos = lengths[of] - 1 - np.repeat(np.arange(n_q)[::-1], n)
    mine = owner == of[:, None]
    if layout == "shared":  # what they begin with is that of the longest, for all of them
        mine = (mine & (k_pos >= each // 2)) | ((owner == n - 1) & (k_pos < each // 2))
    plans = [lampe_plan(int(lengths[s]), 24 + int(s) % 3, 9, 4) for s in of]
    mask = np.where(mine & (k_pos <= q_pos[:, None]), 0.0, HIDDEN)
    return Batch(q_pos[None], k_pos[None], mask[None], [plans])


def is_few(batch: Batch) -> bool:
    n_q = batch.q_pos.shape[1]
    return n_q <= 8 and n_q * batch.gqa <= 128


@pytest.mark.parametrize("n_q, gqa", [
    *((n_q, gqa) for n_q in (2, 3, 5, 8, 9) for gqa in (1, 3, 4, 7, 16)), (4, 32), (7, 19)])
def test_drafts(ggml: gg.Ggml, n_q: int, gqa: int) -> None:
    batch = replace(draft(n_q, 100), gqa=gqa)
    counted = check(ggml, batch)
    if counted:
        assert ("lampe_attn_few" in counted.kernels) == is_few(batch)
        # few queries do not rotate the whole cache
        assert ("lampe_rotate_keys" in counted.kernels) != is_few(batch)


@pytest.mark.parametrize("layout", ["apart", "mixed", "shared"])
@pytest.mark.parametrize("n, n_q, gqa", [(2, 1, 3), (5, 1, 4), (8, 1, 1), (3, 2, 7), (4, 1, 16)])
def test_sequences_that_share_a_cache(
    ggml: gg.Ggml, layout: str, n: int, n_q: int, gqa: int
) -> None:
    check(ggml, replace(slots(n, layout, n_q, each=26), gqa=gqa))


@pytest.mark.parametrize("d, mode", [(96, NEOX), (128, NORM), (256, NEOX)])
def test_head_sizes(ggml: gg.Ggml, d: int, mode: str) -> None:
    check(ggml, replace(slots(3, "shared", 2, each=30), d=d, mode=mode, gqa=3, n_head_kv=2))


@pytest.mark.parametrize("k_type, v_type", [
    ("f32", "bf16"), ("bf16", "f16"), ("q8_0", "q8_0"), ("q4_0", "q4_0"), ("f16", "q8_0")])
def test_cache_types(ggml: gg.Ggml, k_type: str, v_type: str) -> None:
    check(ggml, replace(slots(4, "shared"), k_type=k_type, v_type=v_type))


def test_rows_that_are_not_aligned(ggml: gg.Ggml) -> None:
    check(ggml, replace(draft(4), gap=2, n_head_kv=2))


@pytest.mark.parametrize("first", range(0, 16, 3))
def test_borders_of_regions_within_a_chunk(ggml: gg.Ggml, first: int) -> None:
    """Each query has borders of its own, at every place of a chunk."""
    def plan(length: int) -> Plan:
        at = length % 5
        return replace(lampe_plan(length, 40, 16, 6), local_window=first + 7 * at,
                       tail_start=60 + first + 3 * at)

    check(ggml, replace(draft(5, 97, plan), gqa=3))


def test_every_query_has_a_compression_of_its_own(ggml: gg.Ggml) -> None:
    plans = [lampe_plan(100 + 3 * i, 30 + i, 9, 4) for i in range(6)]
    plans += [identity_plan(120), selfextend_plan(4, 10, 120)]
    batch = replace(draft(8, 120), gqa=2)
    batch.plans = [plans]
    check(ggml, batch)


def test_masks_may_be_anything(ggml: gg.Ggml) -> None:
    """Numbers, holes, keys after the query, a query that sees nothing, cells of no key."""
    batch = replace(slots(3, "mixed", 2), gqa=3)
    rng = np.random.default_rng(5)
    shape = batch.mask.shape
    batch.mask = np.where(rng.random(shape) < 0.3, HIDDEN, rng.normal(size=shape).round(2))
    batch.mask[:, 4] = HIDDEN
    batch.k_pos = np.where(rng.random(batch.k_pos.shape) < 0.2, -1, batch.k_pos)
    batch.mask = batch.mask.astype(np.float16).astype(np.float64)
    assert batch.mask.shape[2] % 2 == 1
    check(ggml, batch)
    assert not batch.compute(ggml)[0, 4].any()


@pytest.mark.parametrize("hidden", [slice(0, 64), slice(16, 150), slice(0, 130), slice(100, 150)])
def test_whole_chunks_that_are_empty_or_hidden(ggml: gg.Ggml, hidden: slice) -> None:
    batch = draft(3)
    batch.mask[:, :, hidden] = HIDDEN
    check(ggml, batch)
    batch = draft(3)
    batch.k_pos[:, hidden] = -1
    check(ggml, batch)


def test_soft_cap_and_sinks(ggml: gg.Ggml) -> None:
    check(ggml, replace(draft(4), softcap=8.0, sinks=True))
    check(ggml, replace(slots(4, "shared"), softcap=8.0, sinks=True, gqa=7))


@pytest.mark.parametrize("mask_gap", [0, 1])
def test_streams(ggml: gg.Ggml, mask_gap: int) -> None:
    """Caches apart, of two sequences and an odd number of cells each."""
    a, b = slots(2, "mixed", 2), slots(2, "shared", 2)
    check(ggml, Batch(*(np.concatenate([getattr(a, name), getattr(b, name)])
                        for name in ("q_pos", "k_pos", "mask")),
                      a.plans + b.plans, gqa=5, n_head_kv=2, mask_gap=mask_gap))


@emulated
@pytest.mark.parametrize("sms", [1, 2, 64])
def test_parts_of_the_keys(
    ggml: gg.Ggml, sms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAMPE_EMULATED_SMS", str(sms))
    batch = replace(slots(6, "apart"), gqa=7, sinks=True, n_head_kv=4 if sms == 1 else 1)
    counted = check(ggml, batch)
    assert counted and ("lampe_merge" in counted.kernels) == (sms > 1)


@emulated
@pytest.mark.parametrize("order", [1, 2])
def test_in_another_order_of_threads(
    ggml: gg.Ggml, order: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAMPE_EMULATED_ORDER", str(order))
    check(ggml, replace(slots(3, "shared", 2), gqa=3))
    check(ggml, replace(slots(3, "shared"), gqa=3, k_type="q8_0"))


@emulated
def test_what_is_read(ggml: gg.Ggml, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache once for all rows of a block, and nothing of chunks that no row sees."""
    monkeypatch.setenv("LAMPE_EMULATED_SMS", "1")  # one block for each of four KV heads

    def copied(batch: Batch) -> int:
        counted = check(ggml, replace(batch, n_head_kv=4))
        assert counted and "lampe_attn_few" in counted.kernels
        return counted.copied

    all_of_it = 4 * 2 * 2 * 64 * 160
    assert copied(draft(4, 160)) == all_of_it
    assert copied(draft(8, 160)) == 2 * all_of_it
    late = draft(4, 160)
    late.mask[:, :, 48:128] = HIDDEN
    # the first chunk of each warp is on its way before the mask is known
    assert copied(late) == all_of_it * (64 + 160 - 128) // 160


class Changing:
    """The plan changes after every few positions."""

    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self, length: int) -> Plan:
        return lampe_plan(-(-length // self.step) * self.step, 40, 16, 6)


@pytest.mark.parametrize("told", [0, 1, 3, 20, 2**31 - 1])
@pytest.mark.parametrize("step", [1, 3, 20])
def test_a_wrong_step_of_the_length_changes_no_result(
    ggml: gg.Ggml, step: int, told: int
) -> None:
    batch = replace(draft(22, 120, Changing(step)), gqa=1, length_step=told)
    counted = check(ggml, batch)
    unknown = check(ggml, replace(batch, length_step=0))
    if counted and unknown:
        assert "lampe_rotate_keys" in counted.kernels
        rotated = 2 * 64 * 128  # bytes of all keys in one rotation, in whole tiles
        fewer = {0: 0, 1: 0, 3: 0, 20: 2, 2**31 - 1: 3}[told]
        assert 0 <= unknown.workspace - counted.workspace - rotated * fewer < rotated // 2
