"""The oracle itself, against complex numbers, textbook attention and numbers worked by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from lampe_gguf.positions import identity_plan, lampe_plan, relative_position, selfextend_plan
from lampe_gguf.reference import NEOX, NORM, Rope, attention, rope_table, rotate

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
        want = textbook(rotate(q[:, h], at, rope), rotate(k[:, h // 2], at, rope), v[:, h // 2],
                        0.25)
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
    # one visible key of score 2, softcapped to tanh(2), beside a sink of score 0
    capped = np.tanh(2.0)
    got = attention(q, k, v, [0], [0, -1], plan, rope, scale=1.0, softcap=1.0, sinks=[0.0])
    assert got[0, 0, 0] == pytest.approx(4 * np.exp(capped) / (np.exp(capped) + 1))
    none = attention(q, k, v, [0], [5, -1], plan, rope, scale=1.0)
    assert none[0, 0, 0] == 0.0
    masked = attention(q, k, v, [5], [5, 3], plan, rope, scale=1.0, mask=[[0.0, -np.inf]])
    assert masked[0, 0, 0] == pytest.approx(4.0)
