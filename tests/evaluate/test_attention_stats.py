"""Entropy, bins of distance and divergence, against numbers worked out by hand and plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lampe_gguf.attention.stats import bin_edges, entropy, jensen_shannon, pattern


def rows(*shape: int) -> np.ndarray:
    p = np.random.default_rng(0).random(shape) ** 8
    return p / p.sum(axis=-1, keepdims=True)


def test_entropy_of_known_distributions() -> None:
    assert entropy(np.full(10, 0.1)) == pytest.approx(math.log(10))
    assert entropy([0.0, 1.0, 0.0]) == 0.0
    assert entropy([0.5, 0.25, 0.25]) == pytest.approx(1.5 * math.log(2))
    p = rows(2, 3, 50)
    want = [[-sum(x * math.log(x) for x in row) for row in head] for head in p]
    np.testing.assert_allclose(entropy(p.astype(np.float32)), want, rtol=1e-6)


@pytest.mark.parametrize("n_keys, edges", [
    (1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (4, [0, 1, 2]), (5, [0, 1, 2, 4]),
    (8, [0, 1, 2, 4]), (9, [0, 1, 2, 4, 8]),
])
def test_bins_are_octaves_and_none_is_empty(n_keys: int, edges: list[int]) -> None:
    found = bin_edges(n_keys)
    assert found.tolist() == edges and found[-1] < n_keys


@pytest.mark.parametrize("n_keys", [1, 2, 5, 37, 64, 100])
def test_pattern_is_the_mass_of_each_distance(n_keys: int) -> None:
    edges = bin_edges(100)
    p = rows(3, n_keys)
    want = np.zeros((3, 1 + len(edges)))
    for key in range(n_keys):
        distance = n_keys - 1 - key
        at = 0 if key == 0 else 1 + max(i for i, edge in enumerate(edges) if edge <= distance)
        want[:, at] += p[:, key]
    found = pattern(p, edges)
    np.testing.assert_allclose(found, want, atol=1e-15)
    np.testing.assert_allclose(found.sum(axis=-1), 1)


def test_divergence_is_in_bits() -> None:
    assert jensen_shannon([0.5, 0.5, 0], [0.5, 0.5, 0]) == 0
    assert jensen_shannon([1, 0], [0, 1]) == pytest.approx(1)
    # halfway is (3/4, 1/4), with 0.811278 bits of entropy
    assert jensen_shannon([1, 0], [0.5, 0.5]) == pytest.approx(0.811278 - 0.5, abs=1e-6)
    p, q = rows(2, 4, 9)
    assert jensen_shannon(p, q).shape == (4,)
    np.testing.assert_allclose(jensen_shannon(p, q), jensen_shannon(q, p))
    np.testing.assert_allclose(jensen_shannon(3 * p, q), jensen_shannon(p, q))
