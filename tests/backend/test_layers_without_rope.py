"""Models that have RoPE in some of their layers only (SmolLM3): the others stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import attention, tiny_config, within
from stock_side import all_logits, distance
from tiny_oracle import TinyOracle

from lampe_gguf.backend.llama import LampeLlama
from lampe_gguf.errors import LampeError

Tiny = Callable[..., Path]
TOKENS = [int(t) for t in np.random.default_rng(13).integers(3, 350, 100)]


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("factor", [1.0, 1.2])
def test_equals_the_oracle(tiny: Tiny, fused: bool, factor: float) -> None:
    config = tiny_config(attention_factor=factor)
    path = tiny(arch="smollm3", n_layer=5, lampe=config)
    oracle = TinyOracle(path)
    want = oracle.logits(TOKENS, config)
    llm = LampeLlama(path, n_ctx=256, type_k=0, type_v=0, **attention(fused))
    assert llm.path == ("fused" if fused else "portable")
    got = all_logits(llm, TOKENS)
    cost = distance(want, oracle.logits(TOKENS, config, key_type=np.float16))
    assert distance(want, got) < within(max(cost, 1e-5))
    # the fourth layer matters, and the map in the others
    oracle.arch = "llama"
    assert distance(want, oracle.logits(TOKENS, config)) > 100 * cost
    oracle.arch = "smollm3"
    assert distance(want, oracle.logits(TOKENS, None)) > 100 * cost


@pytest.mark.parametrize("type_k", [1, 8])
def test_both_paths_agree_with_a_quantised_cache(tiny: Tiny, type_k: int) -> None:
    path = tiny(arch="smollm3", n_layer=5)
    fused, portable = (
        all_logits(LampeLlama(path, n_ctx=256, type_k=type_k, **attention(fused)), TOKENS)
        for fused in (True, False)
    )
    # rounding tips cached keys by a step of their type: stock's two ways are 1.4e-2 apart here
    assert distance(fused, portable) < (1e-2 if type_k == 8 else 2e-3)


def test_a_norm_after_rope_is_no_layer_without_it(tiny: Tiny) -> None:
    with pytest.raises(LampeError, match="does not commute"):
        LampeLlama(tiny(arch="maincoder"), n_ctx=64)
