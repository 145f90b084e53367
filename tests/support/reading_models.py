"""Tiny models to read with, and what they say next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from conftest import tiny_config

from lampe_gguf.backend.llama import LampeLlama

Tiny = Callable[..., Path]

TOKENS = [int(t) for t in np.random.default_rng(3).integers(3, 350, 300)]  # nine windows
NEXT = [int(t) for t in np.random.default_rng(4).integers(3, 350, 20)]


def gemma(tiny: Tiny, name: str = "gemma.gguf", **options: Any) -> Path:
    """Layers that see 12 tokens, and layers that see all, in turns."""
    return tiny(name, arch="gemma3", n_layer=4, extra={
        "gemma3.attention.sliding_window": 12,
        "gemma3.attention.sliding_window_pattern": 2,
        "gemma3.rope.freq_base_swa": 500.0,
    }, **options)


def logits(llm: LampeLlama, tokens: list[int]) -> np.ndarray:
    """Of all tokens, read after what the context holds."""
    return np.concatenate([found.copy() for _, found in llm.read_logits(tokens)])


def long_config(**changes: Any) -> Any:
    """tiny_config() for inputs of up to 4,096 tokens."""
    return tiny_config(context_length=4096, **changes)
