"""Attention weights against transformers, where it is installed (pip install lampe-gguf[hf])."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lampe_gguf.attention.stats import entropy

pytest.importorskip("torch", reason="torch is not installed; pip install lampe-gguf[hf]")
pytest.importorskip("transformers", reason="no transformers; pip install lampe-gguf[hf]")


def test_weights_are_those_of_transformers(tiny: Callable[..., Path]) -> None:
    import compare_attention as compare

    path = tiny("plain.gguf", lampe=None)
    tokens = [int(x) for x in np.random.default_rng(0).integers(259, 380, 60)]
    here = compare.by_llama_cpp(path, tokens, 20)
    there = compare.by_transformers(path, tokens)[:, :, 20:]
    assert here.shape == there.shape == (2, 4, 40, 60)
    # an f16 cache and, in the sums, another order: 0.0025 on a weight of 0.66 was seen
    np.testing.assert_allclose(here, there, atol=5e-3)
    np.testing.assert_allclose(entropy(here), entropy(there), atol=1e-2)
