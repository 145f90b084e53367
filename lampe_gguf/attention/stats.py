"""Statistics of attention rows: uncertainty and pattern (method: section 5). NumPy alone.

A row is one query's attention: weights over the keys 0 ... query, each at least 0, together 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Numbers = Any  # an array, or what NumPy makes one of


def entropy(rows: Numbers) -> Array:
    """Attention uncertainty -sum p ln p, nats, 0 ... ln(n_keys): [..., n_keys] -> [...]"""
    p = np.asarray(rows, dtype=np.float64)
    # 0 ln 0 is 0: the logarithm of 1 stands in for that of 0
    logarithm = np.log(np.where(p > 0, p, 1.0))
    return np.asarray(-(p * logarithm).sum(axis=-1))


def bin_edges(n_keys: int) -> npt.NDArray[np.int64]:
    """First distances of the bins 0, 1, 2-3, 4-7, ... for inputs of `n_keys` tokens: [n_bins].

    The last bin has no end. ValueError where n_keys is below 1.
    """
    if n_keys < 1:
        raise ValueError(f"n_keys is {n_keys}; it must be at least 1")
    n_octaves = (n_keys - 1).bit_length()
    return np.array([0, *(2**i for i in range(n_octaves))], dtype=np.int64)


def pattern(rows: Numbers, edges: npt.NDArray[np.int64]) -> Array:
    """Attention mass on the first key, then by distance from the query: [..., 1 + n_bins].

    rows   [..., n_keys], the last key being the query's own
    edges  as bin_edges gives them, for n_keys or more

    The first key has an entry of its own, whatever its distance: models rest their attention
    there when they look for nothing, and in bins of distance that mass would move with the
    length of the input, and hide whether anything else did.
    """
    p = np.asarray(rows, dtype=np.float64)
    by_distance = p[..., :0:-1]  # distance 0 first, the first key left out
    used = edges[edges < by_distance.shape[-1]]
    found = np.zeros((*p.shape[:-1], 1 + len(edges)))
    found[..., 0] = p[..., 0]
    if len(used):
        found[..., 1 : 1 + len(used)] = np.add.reduceat(by_distance, used, axis=-1)
    return found


def jensen_shannon(p: Numbers, q: Numbers) -> Array:
    """Jensen-Shannon divergence with logarithms to base 2: 0 (the same) to 1 bit (disjoint).

    p, q  [..., n] distributions, scaled here to sum to 1; returns [...]
    """
    p, q = (np.asarray(x, dtype=np.float64) for x in (p, q))
    p, q = (x / x.sum(axis=-1, keepdims=True) for x in (p, q))
    gained = entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2
    return np.asarray(np.clip(gained / np.log(2), 0.0, 1.0))
