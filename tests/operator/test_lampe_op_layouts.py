"""The fused op on layouts and contents that real caches have: streams, views, padding, stale cells.

Each case is checked against the float64 oracle; see test_lampe_op for the arithmetic itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import ggml_ctypes as gg
import numpy as np
import pytest
from op_cases import Case, solve

from lampe_gguf.method.positions import Plan, identity_plan, lampe_plan, relative_position
from lampe_gguf.method.reference import NORM, Rope, rope_table, rotate

D, N_HEAD, N_HEAD_KV = 32, 6, 2
ROPE = Rope(D, NORM)
HIDDEN = -np.inf
MASK = "f32"
# relative to the largest output: f32 arithmetic; integers of 16 bits, where an f16 cache costs
# 5e-4 itself
TOLERANCE = {"f32": 2e-5, "f16": 1e-3}


@pytest.fixture(scope="module")
def ggml() -> gg.Ggml:
    found = gg.Ggml()
    assert found.has_lampe_attn, "the installed llama_cpp is not the patched build"
    return found


@pytest.fixture(params=["f32", "f16"])
def kind(request: pytest.FixtureRequest) -> str:
    """The type of the cache."""
    return str(request.param)


@dataclass
class Stream:
    """One stream of a batch: its queries, its cells and who sees what."""

    q_pos: np.ndarray
    k_pos: np.ndarray
    mask: np.ndarray  # [n_q, n_kv], additive
    plans: list[Plan]
    q: np.ndarray = field(init=False)
    k: np.ndarray = field(init=False)
    v: np.ndarray = field(init=False)
    kind: str = "f32"

    def fill(self, rng: np.random.Generator, kind: str) -> None:
        n_q, n_kv = self.mask.shape
        self.q = rng.normal(size=(n_q, N_HEAD, D)).astype(np.float32)
        self.k = rng.normal(size=(n_kv, N_HEAD_KV, D)).astype(np.float32)
        self.v = rng.normal(size=(n_kv, N_HEAD_KV, D)).astype(np.float32)
        self.k, self.v = (gg.stored(each, kind)[1] for each in (self.k, self.v))
        self.kind = kind

    def oracle(self) -> np.ndarray:
        """Attention in float64, one query and head at a time, whatever the mask shows."""
        out = np.zeros((len(self.q_pos), N_HEAD, D))
        for i, position in enumerate(self.q_pos):
            seen = np.flatnonzero((self.k_pos >= 0) & (self.mask[i] > HIDDEN))
            if len(seen) == 0:
                continue
            distance = relative_position(self.plans[i], position, self.k_pos[seen])
            turned = rotate(self.q[i][:, None].repeat(len(seen), axis=1), distance, ROPE)
            for h in range(N_HEAD):
                score = (turned[h] * self.k[seen, h // 3]).sum(1) * D**-0.5 + self.mask[i, seen]
                weight = np.exp(score - score.max())
                out[i, h] = weight @ self.v[seen, h // 3].astype(np.float64) / weight.sum()
        return out


def causal(q_pos: np.ndarray, k_pos: np.ndarray) -> np.ndarray:
    return np.where(k_pos[None] <= q_pos[:, None], 0.0, HIDDEN).astype(np.float32)


def stream(length: int, n_q: int, n_kv: int, plan: Plan | None = None) -> Stream:
    """`length` tokens in the first of `n_kv` cells, the last `n_q` of them asking."""
    q_pos = np.arange(length - n_q, length)
    k_pos = np.where(np.arange(n_kv) < length, np.arange(n_kv), -1)
    plans = [plan or lampe_plan(length, 40, 16, 6)] * n_q
    return Stream(q_pos, k_pos, causal(q_pos, k_pos), plans)


def plan_rows(s: Stream) -> np.ndarray:
    return np.array(
        [[p, t.local_window, t.num, t.den, t.middle_shift, t.tail_start, t.tail_shift, t.length]
         for p, t in zip(s.q_pos, s.plans, strict=True)], dtype=np.int32)


def compute(ggml: gg.Ggml, streams: list[Stream], *, n_threads: int = 2, pad_q: int = 0,
            n_pos: int = 0, spare: int = 0, is_causal: bool = False) -> np.ndarray:
    """Run the op on all streams at once; `spare` cells lie between one stream's and the next."""
    n_q, n_kv, n = *streams[0].mask.shape, len(streams)
    kind = streams[0].kind
    width = {"f32": 4, "f16": 2}[kind]
    n_pos = n_pos or 3 + max(int(max(s.q_pos.max(), s.k_pos.max())) for s in streams)

    def stack(arrays: list[np.ndarray], dtype: type) -> np.ndarray:
        return np.ascontiguousarray(np.stack(arrays), dtype=dtype)

    def cells(arrays: list[np.ndarray]) -> np.ndarray:
        room = [np.concatenate([a, np.full((spare, *a.shape[1:]), np.nan, a.dtype)])
                for a in arrays]
        return gg.stored(stack(room, np.float32), kind)[0]

    padded = [np.concatenate([s.mask, np.full((pad_q, n_kv), np.nan)]) for s in streams]
    with ggml.context(1 << 26) as ctx:
        rows = (n_kv + spare) * N_HEAD_KV * D * width

        def cache(arrays: list[np.ndarray]) -> int:
            whole = ctx.tensor(
                gg.TYPES[kind], (D, N_HEAD_KV, n_kv + spare, n), cells(arrays)
            )
            strides = (width * D * N_HEAD_KV, width * D, rows)
            return ctx.view(whole, (D, n_kv, N_HEAD_KV, n), strides)

        node = ctx.lampe_attn(
            ctx.heads_first(ctx.tensor(gg.F32, (D, N_HEAD, n_q, n),
                                       stack([s.q for s in streams], np.float32))),
            cache([s.k for s in streams]),
            cache([s.v for s in streams]),
            ctx.tensor(gg.TYPES[MASK], (n_kv, n_q + pad_q, 1, n), gg.stored(
                stack(padded, np.float32), MASK)[0]),
            ctx.tensor(gg.I32, (8, n_q, 1, n), stack([plan_rows(s) for s in streams], np.int32)),
            ctx.tensor(gg.I32, (n_kv, 1, 1, n), stack([s.k_pos for s in streams], np.int32)),
            ctx.tensor(gg.F32, (D, n_pos), rope_table(n_pos, ROPE).astype(np.float32)),
            None, scale=D**-0.5, softcap=0.0, mode=gg.ROPE_NORM, causal=is_causal,
        )
        ctx.graph(node, n_threads).compute()
        return ctx.read(node, (n, n_q, N_HEAD, D))


def check(got: np.ndarray, streams: list[Stream]) -> None:
    assert np.isfinite(got).all()
    for found, s in zip(got, streams, strict=True):
        want = s.oracle()
        assert np.abs(found - want).max() <= TOLERANCE[s.kind] * max(1.0, np.abs(want).max())


def filled(streams: list[Stream], kind: str) -> list[Stream]:
    rng = np.random.default_rng(0)
    for s in streams:
        s.fill(rng, kind)
    return streams


@pytest.mark.parametrize("n_threads", [1, 2, 3])
@pytest.mark.parametrize("n_q", [1, 2, 3, 70])
def test_streams_of_different_lengths(ggml: gg.Ggml, kind: str, n_q: int, n_threads: int) -> None:
    streams = filled([stream(length, n_q, 300) for length in (300, 71, 199)], kind)
    check(compute(ggml, streams, n_threads=n_threads), streams)


@pytest.mark.parametrize("n_q", [1, 30])
def test_padded_mask_and_cells_between_streams(ggml: gg.Ggml, kind: str, n_q: int) -> None:
    streams = filled([stream(length, n_q, 130) for length in (130, 90)], kind)
    check(compute(ggml, streams, pad_q=7, spare=5), streams)


@pytest.mark.parametrize("n_q", [1, 30])
def test_empty_cells_may_hold_anything(ggml: gg.Ggml, kind: str, n_q: int) -> None:
    (s,) = filled([stream(150, n_q, 200)], kind)
    holes = np.arange(0, 140, 3)
    s.k_pos[holes] = -1  # the mask still shows them
    empty = s.k_pos < 0
    s.k[empty] = np.nan
    s.v[empty] = np.inf
    check(compute(ggml, [s]), [s])


@pytest.mark.parametrize("n_q", [1, 40])
def test_a_plan_per_query(ggml: gg.Ggml, kind: str, n_q: int) -> None:
    (s,) = filled([stream(260, n_q, 260)], kind)
    choice = [identity_plan(260), lampe_plan(260, 60, 20, 8), lampe_plan(260, 100, 33, 0)]
    s.plans = [choice[(i // 3) % 3] for i in range(n_q)]
    check(compute(ggml, [s], n_threads=3), [s])


@pytest.mark.parametrize("n_q", [2, 50])
def test_future_keys_that_the_mask_shows_are_local(ggml: gg.Ggml, kind: str, n_q: int) -> None:
    (s,) = filled([stream(180, n_q, 180)], kind)
    s.q_pos = s.q_pos - 90
    # the oracle takes distances below 0 as they are
    s.plans = [lampe_plan(180, 60, 20, 8)] * n_q
    s.mask[:] = 0.0
    check(compute(ggml, [s]), [s])


@pytest.mark.parametrize("n_q", [1, 50])
def test_a_causal_mask_need_not_be_read_for_tiles_of_the_future(
    ggml: gg.Ggml, kind: str, n_q: int
) -> None:
    (s,) = filled([stream(100, n_q, 400)], kind)
    s.k_pos = np.arange(400)
    hidden = causal(s.q_pos, s.k_pos)
    s.mask = np.where(s.k_pos >= 192, 0.0, hidden)  # left open a tile after the last query
    got = compute(ggml, [s], is_causal=True)
    s.mask = hidden
    check(got, [s])


@pytest.mark.parametrize("n_q", [1, 50])
def test_a_mask_of_numbers_is_added(ggml: gg.Ggml, kind: str, n_q: int) -> None:
    (s,) = filled([stream(180, n_q, 180)], kind)
    s.mask += np.random.default_rng(5).normal(size=s.mask.shape).astype(np.float32)
    check(compute(ggml, [s]), [s])


@pytest.mark.parametrize("n_q", [1, 30])
def test_an_empty_cell_before_a_run_of_positions(ggml: gg.Ggml, kind: str, n_q: int) -> None:
    (s,) = filled([stream(150, n_q, 150)], kind)
    s.q_pos, s.k_pos = s.q_pos - 1, s.k_pos - 1  # -1 is an empty cell's, and 0 follows it
    s.mask = causal(s.q_pos, s.k_pos)
    s.k[0], s.v[0] = np.nan, np.inf
    check(compute(ggml, [s]), [s])


@pytest.mark.parametrize("n_q", [1, 20])
def test_a_run_of_positions_that_leaves_the_table(ggml: gg.Ggml, kind: str, n_q: int) -> None:
    (s,) = filled([stream(100, n_q, 120)], kind)
    s.k_pos = np.arange(120)  # from 100 on another sequence's
    s.mask = causal(s.q_pos, s.k_pos)
    check(compute(ggml, [s], n_pos=100), [s])


@pytest.mark.parametrize("n_q", [1, 20])
def test_a_middle_that_is_stretched(ggml: gg.Ggml, kind: str, n_q: int) -> None:
    (s,) = filled([stream(200, n_q, 200)], kind)
    s.plans = [replace(s.plans[0], num=3, den=2)] * n_q
    check(compute(ggml, [s], n_pos=400), [s])


@pytest.mark.parametrize("num", [-1, -100])  # rows of the table from query to key, and before it
@pytest.mark.parametrize("n_q", [1, 20])
def test_a_middle_before_the_table_is_read_nowhere(
    ggml: gg.Ggml, kind: str, n_q: int, num: int
) -> None:
    (s,) = filled([stream(60, n_q, 60)], kind)
    s.plans = [replace(s.plans[0], num=num, den=2)] * n_q  # of a broken file: rows are clamped
    want = compute(ggml, [s])
    order = np.random.default_rng(0).permutation(60)  # no run of positions, nor a shortcut for it
    for each in ("k_pos", "k", "v"):
        setattr(s, each, getattr(s, each)[order])
    s.mask = s.mask[:, order]
    assert np.abs(compute(ggml, [s]) - want).max() < 2 * TOLERANCE[kind] * np.abs(want).max()


@pytest.mark.parametrize("n_q", [1, 20])
def test_positions_beyond_the_table_are_read_nowhere(ggml: gg.Ggml, kind: str, n_q: int) -> None:
    (s,) = filled([stream(120, n_q, 120)], kind)
    s.k_pos[5:100:7] = 2**30  # hidden: another sequence's, far ahead
    s.mask[:, 5:100:7] = HIDDEN
    check(compute(ggml, [s], n_pos=123), [s])


def test_threads_change_nothing_but_rounding(ggml: gg.Ggml, kind: str) -> None:
    (s,) = filled([stream(900, 1, 900)], kind)
    one = compute(ggml, [s], n_threads=1)
    for n_threads in (2, 5, 16):
        assert np.abs(compute(ggml, [s], n_threads=n_threads) - one).max() < 1e-6


@pytest.mark.parametrize("n_threads", [1, 4])
@pytest.mark.parametrize("n_q", [1, 64, 512])
def test_workspace_does_not_grow_with_the_context(
    ggml: gg.Ggml, n_q: int, n_threads: int
) -> None:
    def work_size(n_kv: int) -> int:
        with gg.Context(ggml, 1 << 28) as ctx:
            node = ctx.lampe_attn(
                ctx.tensor(gg.F32, (D, n_q, N_HEAD)), ctx.tensor(gg.F16, (D, n_kv, N_HEAD_KV)),
                ctx.tensor(gg.F16, (D, n_kv, N_HEAD_KV)), ctx.tensor(gg.F16, (n_kv, n_q)),
                ctx.tensor(gg.I32, (8, n_q)), ctx.tensor(gg.I32, (n_kv,)),
                ctx.tensor(gg.F32, (D, 9)), None, scale=1.0, softcap=0.0, mode=gg.ROPE_NORM,
            )
            return int(ctx.graph(node, n_threads).plan.work_size)

    assert work_size(1024) == work_size(65536)


def test_the_device_refuses_what_it_cannot_read(ggml: gg.Ggml) -> None:
    with gg.Context(ggml, 1 << 20) as ctx:
        def node(k_type: int, k_stride: int) -> int:
            k = ctx.view(ctx.tensor(k_type, (2 * D, 8, N_HEAD_KV)), (D, 8, N_HEAD_KV, 1),
                         (k_stride, 16 * 4 * D, 64 * 4 * D))
            v = ctx.tensor(gg.F16, (D, 8, N_HEAD_KV))
            return ctx.lampe_attn(
                ctx.tensor(gg.F32, (D, 1, N_HEAD)), k, v, ctx.tensor(gg.F16, (8, 1)),
                ctx.tensor(gg.I32, (8, 1)), ctx.tensor(gg.I32, (8,)),
                ctx.tensor(gg.F32, (D, 9)), None, scale=1.0, softcap=0.0, mode=gg.ROPE_NORM,
            )

        assert ggml.supports_op(node(gg.F32, 8 * D))
        assert not ggml.supports_op(node(gg.I32, 8 * D))


def test_many_threads_take_little_room(ggml: gg.Ggml) -> None:
    # Llama 3 8B, a batch of 512 on 16,384 keys: 8 x 32 blocks, of which two parts each are enough
    # for 96 threads
    d, n_head, n_head_kv, n_q, n_kv = 128, 32, 8, 512, 16384
    partial = n_q * n_head * (d + 2) * 4  # bytes of one part
    with ggml.context(1 << 24) as ctx:
        node = ctx.lampe_attn(
            ctx.heads_first(ctx.tensor(gg.F32, (d, n_head, n_q))),
            ctx.heads_first(ctx.tensor(gg.F16, (d, n_head_kv, n_kv))),
            ctx.heads_first(ctx.tensor(gg.F16, (d, n_head_kv, n_kv))),
            ctx.tensor(gg.F16, (n_kv, n_q)), ctx.tensor(gg.I32, (8, n_q)),
            ctx.tensor(gg.I32, (n_kv,)), ctx.tensor(gg.F32, (d, n_kv)), None,
            scale=1.0, softcap=0.0, mode=gg.ROPE_NEOX, causal=True,
        )
        two, many = (ctx.graph(node, n_threads).work_size for n_threads in (2, 96))
    assert many < 48 * two + 2 * partial


@pytest.mark.parametrize("n_q, n_kv", [(1, 1500), (64, 700)])
def test_many_threads_merge_what_they_find(ggml: gg.Ggml, n_q: int, n_kv: int) -> None:
    case = Case(d=128, d_v=128, rope=Rope(128), n_head=8, n_head_kv=2, n_q=n_q, n_kv=n_kv,
                k_type="f32", v_type="f32", n_threads=96, sinks=True)
    solved = solve(ggml, case)
    assert np.abs(solved.got - solved.want).max() < 8 * np.abs(solved.plain() - solved.want).max()
