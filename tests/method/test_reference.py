"""The oracle itself, against complex numbers, textbook attention and numbers worked by hand."""

from __future__ import annotations

import ctypes
import dataclasses

import ggml_ctypes as gg
import numpy as np
import pytest

from lampe_gguf.method.positions import (
    identity_plan,
    lampe_plan,
    relative_position,
    selfextend_plan,
)
from lampe_gguf.method.reference import (
    NEOX,
    NORM,
    Rope,
    attention,
    rope_table,
    rotate,
    rotate_stock,
)

rng = np.random.default_rng(1)


@pytest.mark.parametrize("mode", [NORM, NEOX])
def test_rotation_is_multiplication_by_a_unit_number(mode: str) -> None:
    rope = Rope(n_rot=16, mode=mode, freq_factors=tuple(np.linspace(1, 4, 8)))
    x, position = rng.normal(size=(5, 24)), np.array([0, 1, 7, 1000, 31999])
    got = rotate(x, position, rope, magnitude=1.5)
    first, second = rope.pairs()
    angle = 10000.0 ** (-np.arange(8) / 8) / np.linspace(1, 4, 8)
    want = (x[:, first] + 1j * x[:, second]) * 1.5 * np.exp(1j * position[:, None] * angle)
    np.testing.assert_allclose(got[:, first] + 1j * got[:, second], want, atol=1e-12)
    np.testing.assert_array_equal(got[:, 16:], x[:, 16:])


def test_pairs_by_hand() -> None:
    norm, neox = Rope(4, NORM).pairs(), Rope(4, NEOX).pairs()
    assert [list(each) for each in norm] == [[0, 2], [1, 3]]
    assert [list(each) for each in neox] == [[0, 1], [2, 3]]


def test_scores_depend_on_the_difference_alone() -> None:
    rope = Rope(n_rot=8)
    q, k = rng.normal(size=8), rng.normal(size=8)
    near = rotate(q, 7, rope) @ rotate(k, 3, rope)
    far = rotate(q, 5007, rope) @ rotate(k, 5003, rope)
    assert near == pytest.approx(far, abs=1e-9)


def test_yarn_keeps_fast_pairs_and_interpolates_slow_ones() -> None:
    plain = Rope(n_rot=64, n_ctx_orig=4096)
    yarn = dataclasses.replace(plain, freq_scale=0.25, ext_factor=1.0)
    ratio = yarn.angles() / plain.angles()
    assert ratio[0] == 1.0 and ratio[-1] == 0.25
    assert np.all(np.diff(ratio) <= 0) and 0.25 < ratio[16] < 1.0
    assert yarn.yarn_magnitude() == pytest.approx(1 + 0.1 * np.log(4))


def test_yarn_by_hand() -> None:
    # YaRN's borders: 16 ln(4096 / (32 * 2 pi)) / (2 ln 10000) = 2.62; for 1 turn of 32, 5.63
    rope = Rope(16, n_ctx_orig=4096, freq_scale=0.25, ext_factor=1.0)
    # so pairs 0 to 2 extrapolate, 6 and 7 interpolate, and in between it changes in quarters
    share = np.array([1, 1, 1, 3 / 4, 2 / 4, 1 / 4, 0, 0])
    want = 10000.0 ** (-np.arange(8) / 8) * (share + 0.25 * (1 - share))
    np.testing.assert_allclose(rope.angles(), want, rtol=1e-14)
    # half of YaRN, and frequency factors under it
    half = dataclasses.replace(rope, ext_factor=0.5, freq_factors=(2.0,) * 8)
    np.testing.assert_allclose(
        half.angles(), 10000.0 ** (-np.arange(8) / 8) / 2 * (0.25 + 0.75 * share / 2), rtol=1e-14
    )
    assert Rope(16, freq_scale=0.25).angles()[0] == 0.25  # linear scaling leaves no pair out
    assert Rope(16, freq_scale=0.25).yarn_magnitude() == 1.0


def test_yarns_borders_are_clamped_as_ggml_clamps_them() -> None:
    # borders -0.99 and 2.02: from 0 to 3
    short = Rope(16, n_ctx_orig=64, freq_scale=0.25, ext_factor=1.0)
    share = np.array([1, 2 / 3, 1 / 3, 0, 0, 0, 0, 0])
    plain = 10000.0 ** (-np.arange(8) / 8)
    np.testing.assert_allclose(short.angles(), plain * (0.25 + 0.75 * share), rtol=1e-14)
    # borders 0.04 and 8.04: from 0 to n_rot - 1 = 3, though there are only 2 pairs
    yarn = {"freq_scale": 0.25, "ext_factor": 1.0}
    long = Rope(4, freq_base=10.0, n_ctx_orig=65536, beta_fast=10000.0, **yarn)
    share, plain = np.array([1, 2 / 3]), np.array([1, 10**-0.5])
    np.testing.assert_allclose(long.angles(), plain * (0.25 + 0.75 * share), rtol=1e-14)


def test_yarn_magnitude_is_stock_only() -> None:
    rope = Rope(4, freq_scale=0.25, ext_factor=1.0, n_ctx_orig=64)
    x = rng.normal(size=6)
    longer = np.linalg.norm(rotate_stock(x, 9, rope)[:4]) / np.linalg.norm(x[:4])
    assert longer == pytest.approx(1 + 0.1 * np.log(4))
    np.testing.assert_array_equal(rotate_stock(x, 9, rope)[4:], x[4:])
    assert np.linalg.norm(rotate(x, 9, rope)) == pytest.approx(np.linalg.norm(x))


class RopeContext(gg.Context):
    """A ggml context that has the stock RoPE operator."""

    def rope(self, x: int, positions: int, factors: int | None, rope: Rope) -> int:
        function = self.ggml.base.ggml_rope_ext
        function.restype = ctypes.c_void_p
        function.argtypes = [ctypes.c_void_p] * 4 + [ctypes.c_int] * 3 + [ctypes.c_float] * 6
        mode = gg.ROPE_NEOX if rope.mode == NEOX else gg.ROPE_NORM
        return function(
            self._ctx,
            x,
            positions,
            factors,
            rope.n_rot,
            mode,
            rope.n_ctx_orig,
            rope.freq_base,
            rope.freq_scale,
            rope.ext_factor,
            1.0,
            rope.beta_fast,
            rope.beta_slow,
        )


@pytest.mark.parametrize("mode", [NORM, NEOX])
@pytest.mark.parametrize(
    "kind", ["full", "partial", "factors", "linear", "yarn", "yarn factors", "yarn short"]
)
def test_stock_rotation_is_ggmls(mode: str, kind: str) -> None:
    try:
        ggml = gg.Ggml()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    yarn = {"freq_scale": 0.25, "ext_factor": 1.0, "n_ctx_orig": 4096, "beta_fast": 24.0}
    factors = {"freq_factors": tuple(np.linspace(1, 8, 32))}
    rope = {
        "full": Rope(64, mode, freq_base=500000.0),
        "partial": Rope(24, mode),
        "factors": Rope(64, mode, **factors),
        "linear": Rope(64, mode, freq_scale=0.5),
        "yarn": Rope(64, mode, **yarn),
        "yarn factors": Rope(64, mode, **yarn, **factors),
        "yarn short": Rope(64, mode, freq_scale=0.25, ext_factor=1.0, n_ctx_orig=64),
    }[kind]
    position = np.array([0, 1, 2, 17, 300], dtype=np.int32)
    x = rng.normal(size=(5, 3, 64)).astype(np.float32)
    with RopeContext(ggml, 1 << 20) as ctx:
        given = rope.freq_factors and np.array(rope.freq_factors, dtype=np.float32)
        node = ctx.rope(
            ctx.tensor(gg.F32, (64, 3, 5), x),
            ctx.tensor(gg.I32, (5,), position),
            None if given is None else ctx.tensor(gg.F32, (32,), given),
            rope,
        )
        ctx.graph(node, 1).compute()
        got = ctx.read(node, x.shape)
    # ggml's float32 angles err by some 1e-7 of up to 300 radians
    np.testing.assert_allclose(got, rotate_stock(x, position[:, None], rope), atol=3e-4)


def test_table_holds_what_rotate_does() -> None:
    rope = Rope(n_rot=8, mode=NEOX)
    table = rope_table(50, rope, magnitude=1.2)
    x = rng.normal(size=8)
    cos, sin = table[37, :4], table[37, 4:]
    want = np.concatenate([x[:4] * cos - x[4:] * sin, x[:4] * sin + x[4:] * cos])
    np.testing.assert_allclose(rotate(x, 37, rope, 1.2), want, atol=1e-12)


def textbook(q: np.ndarray, k: np.ndarray, v: np.ndarray, scale: float) -> np.ndarray:
    """Causal attention of one head; q and k rotated already."""
    score = scale * q @ k.T + np.triu(np.full((len(q), len(k)), -np.inf), 1)
    weight = np.exp(score - score.max(axis=1, keepdims=True))
    return (weight / weight.sum(axis=1, keepdims=True)) @ v


def test_identity_plan_is_textbook_rope_attention() -> None:
    rope, n = Rope(n_rot=16, mode=NEOX), 40
    q, k, v = rng.normal(size=(n, 4, 16)), rng.normal(size=(n, 2, 16)), rng.normal(size=(n, 2, 12))
    at = np.arange(n)
    got = attention(q, k, v, at, at, [identity_plan()] * n, rope, scale=0.25)
    for h in range(4):
        queries, keys = rotate(q[:, h], at, rope), rotate(k[:, h // 2], at, rope)
        want = textbook(queries, keys, v[:, h // 2], 0.25)
        np.testing.assert_allclose(got[:, h], want, atol=1e-12)


def test_lampe_scores_each_pair_at_its_mapped_position() -> None:
    rope, n = Rope(n_rot=16), 64
    plan = lampe_plan(64, 16, 6, 2)
    q, k, v = rng.normal(size=(1, 1, 16)), rng.normal(size=(n, 1, 16)), rng.normal(size=(n, 1, 4))
    got = attention(q, k, v, [63], np.arange(n), [plan], rope, scale=0.3)
    at = relative_position(plan, 63, np.arange(n))
    # the key at 0 and the query at the relative position: another way to the same score
    score = 0.3 * np.array([rotate(q[0, 0], p, rope) @ k[j, 0] for j, p in enumerate(at)])
    weight = np.exp(score - score.max())
    np.testing.assert_allclose(got[0, 0], weight @ v[:, 0] / weight.sum(), atol=1e-12)


def test_order_of_the_cells_does_not_matter() -> None:
    rope, n = Rope(n_rot=8), 30
    plans = [selfextend_plan(3, 5)] * 2
    q, k, v = rng.normal(size=(2, 2, 8)), rng.normal(size=(n, 1, 8)), rng.normal(size=(n, 1, 8))
    shuffled = rng.permutation(n)
    one = attention(q, k, v, [20, 29], np.arange(n), plans, rope, scale=1.0)
    two = attention(q, k[shuffled], v[shuffled], [20, 29], shuffled, plans, rope, scale=1.0)
    np.testing.assert_allclose(one, two, atol=1e-12)


def test_empty_cells_sinks_softcap_and_nothing_to_see() -> None:
    rope = Rope(n_rot=2)
    q, k = np.array([[[1.0, 0.0]]]), np.array([[[2.0, 0.0]], [[9.0, 9.0]]])
    v = np.array([[[4.0]], [[100.0]]])
    plan = [identity_plan()]
    # one visible key of score 2, softcapped to 3 tanh(2/3), beside a sink of score 0
    capped = 3 * np.tanh(2 / 3)
    got = attention(q, k, v, [0], [0, -1], plan, rope, scale=1.0, softcap=3.0, sinks=[0.0])
    assert got[0, 0, 0] == pytest.approx(4 * np.exp(capped) / (np.exp(capped) + 1))
    none = attention(q, k, v, [0], [5, -1], plan, rope, scale=1.0)
    assert none[0, 0, 0] == 0.0
    none = attention(q, k, v, [5], [5, 3], plan, rope, scale=1.0, mask=[[-np.inf, -np.inf]])
    assert none[0, 0, 0] == 0.0
    masked = attention(q, k, v, [5], [5, 3], plan, rope, scale=1.0, mask=[[0.0, -np.inf]])
    assert masked[0, 0, 0] == pytest.approx(4.0)


@pytest.mark.parametrize("kind", ["numbers", "booleans"])
def test_sequences_in_one_cache_are_as_if_each_were_alone(kind: str) -> None:
    rope, n, lengths = Rope(n_rot=4, mode=NEOX), 30, (30, 22)
    owner, k_pos = np.repeat([0, 1], n), np.tile(np.arange(n), 2)
    q, k, v = (
        rng.normal(size=(2, 2, 8)),
        rng.normal(size=(2 * n, 1, 8)),
        rng.normal(size=(60, 1, 3)),
    )
    plans = [lampe_plan(length, 12, 5, 2) for length in lengths]
    q_pos = np.array(lengths) - 1
    # it says whose a key is and no more: the second sequence's last 8 keys are in the future
    mask = owner[None] == np.array([[0], [1]])
    given = mask if kind == "booleans" else np.where(mask, 0.0, -np.inf)
    both = attention(q, k, v, q_pos, k_pos, plans, rope, scale=0.5, mask=given)
    for s, length in enumerate(lengths):
        own = np.flatnonzero(owner == s)[:length]
        alone = attention(
            q[s : s + 1],
            k[own],
            v[own],
            q_pos[s : s + 1],
            k_pos[own],
            plans[s : s + 1],
            rope,
            scale=0.5,
        )
        np.testing.assert_allclose(both[s], alone[0], atol=1e-12)


def test_a_mask_of_numbers_is_added_to_the_scores() -> None:
    rope, q, k = Rope(n_rot=2), np.zeros((1, 1, 2)), np.zeros((2, 1, 2))
    v = np.array([[[0.0]], [[1.0]]])
    got = attention(
        q, k, v, [1], [0, 1], [identity_plan()], rope, scale=1.0, mask=[[0.0, np.log(3.0)]]
    )
    assert got[0, 0, 0] == pytest.approx(3 / 4)


def test_attention_factor_scales_the_rotated_part_of_the_score() -> None:
    rope, x = Rope(n_rot=2), np.array([[[1.0, 0.0, 1.0]]])
    # keys at the query's own place: the score is 2^2 * 1 from the pair and 1 from the rest
    keys, v = np.concatenate([x, 0 * x]), np.array([[[1.0]], [[0.0]]])
    got = attention(
        x, keys, v, [3], [3, 3], [identity_plan()], rope, scale=0.5, attention_factor=2.0
    )
    assert got[0, 0, 0] == pytest.approx(1 / (1 + np.exp(-0.5 * 5)))


def test_each_head_has_its_own_sink() -> None:
    q, k, v = np.zeros((1, 2, 2)), np.zeros((1, 1, 2)), np.ones((1, 1, 1))
    sinks = [0.0, np.log(3.0)]
    got = attention(q, k, v, [0], [0], [identity_plan()], Rope(2), scale=1.0, sinks=sinks)
    np.testing.assert_allclose(got[0, :, 0], [1 / 2, 1 / 4])


@np.errstate(over="raise")
def test_large_scores_do_not_overflow() -> None:
    rope, q, k = Rope(n_rot=2), np.full((1, 1, 2), 1e4), np.full((2, 1, 2), 1e4)
    v = np.array([[[2.0]], [[4.0]]])
    got = attention(q, k, v, [7], [7, 7], [identity_plan()], rope, scale=1.0, sinks=[3e8])
    assert got[0, 0, 0] == 0.0  # the sink takes it all
    got = attention(q, k, v, [7], [7, 7], [identity_plan()], rope, scale=1.0, sinks=[0.0])
    assert got[0, 0, 0] == pytest.approx(3.0)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="'neoks'"):
        Rope(8, "neoks")
    with pytest.raises(ValueError, match="n_rot .* not 7"):
        Rope(7)
    q, k, v = np.zeros((2, 3, 8)), np.zeros((4, 2, 8)), np.zeros((4, 2, 8))
    at, plan = [2, 3], identity_plan()
    with pytest.raises(ValueError, match="2 queries need a plan each, not 1"):
        attention(q, k, v, at, np.arange(4), [plan], Rope(8), scale=1.0)
    with pytest.raises(ValueError, match="3 query heads .* 2 key heads"):
        attention(q, k, v, at, np.arange(4), [plan] * 2, Rope(8), scale=1.0)
