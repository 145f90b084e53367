"""The attention weights of a tiny model, by the NumPy oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import tiny_oracle

from lampe_gguf.method.config import LampeConfig
from lampe_gguf.method.reference import attention


def weights(
    path: Path, tokens: list[int], config: LampeConfig | None, prompt_length: int | None = None
) -> np.ndarray:
    """[n_layer, n_query, n_head, n_key] of a model with an f16 cache; config None: plain RoPE."""
    found: list[np.ndarray] = []

    def spy(q: Any, k: Any, v: Any, *arguments: Any, **options: Any) -> np.ndarray:
        # values that are the rows of the identity: what attention returns is its weights
        n_keys, n_head_kv = k.shape[:2]
        identity = np.repeat(np.eye(n_keys)[:, None, :], n_head_kv, axis=1)
        found.append(attention(q, k, identity, *arguments, **options))
        return np.stack([
            found[-1][:, h] @ v[:, h // (q.shape[1] // n_head_kv)] for h in range(q.shape[1])
        ], axis=1)

    with mock.patch.object(tiny_oracle, "attention", spy):
        tiny_oracle.TinyOracle(path).logits(tokens, config, prompt_length, key_type=np.float16)
    return np.stack(found)
