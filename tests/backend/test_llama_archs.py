"""Every architecture that qualifies, on random models that llama.cpp itself lays out.

What is compared: the identity plan with upstream's attention, the two paths with one another under
a real plan, and one batch with three. A refusal is checked the other way round.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from conftest import GPU_LAYERS, tiny_config
from random_model import RandomModel
from stock_side import distance

from lampe_gguf.model.architectures import GLOBAL_WITHOUT_ROPE, QUALIFYING, REASONS, qualifies

TOKENS = [int(t) for t in np.random.default_rng(3).integers(0, 128, 120)]
CONFIG = tiny_config(context_length=256)
IDENTITY = dataclasses.replace(CONFIG, method="rope")

EVERY_OTHER = {"attention.sliding_window_pattern": [1, 0]}
SMALL = {"block_count": 22, "embedding_length": 64, "attention.head_count": 1,
         "attention.head_count_kv": 1, "feed_forward_length": 96}
OPTIONS: dict[str, dict[str, Any]] = {
    "baichuan": {"block_count": 32},  # the 7B model: others have ALiBi
    "chameleon": {"vocab_size": 10240},  # it hides those of its tokens that are images
    # their scores are not divided by anything; their last layers use keys of earlier ones
    "gemma3n": {"qk_norm": 0.35, **SMALL},
    "gemma4": {"qk_norm": 0.35, "block_count": 6, "attention.shared_kv_layers": 3,
               "attention.sliding_window_pattern": [1, 1, 0, 1, 1, 0],
               "embedding_length_per_layer_input": 64, "attention.key_length_swa": 64,
               "attention.value_length_swa": 64},
    "granite_swa": EVERY_OTHER, "mimo2": EVERY_OTHER, "spark2_5": EVERY_OTHER,
    "step35": EVERY_OTHER,
}
ALWAYS_SLIDE = ("gemma2", "gemma3n", "gemma4", "gpt-oss", "granite_swa", "mimo2", "spark2_5",
                "step35")
MAY_SLIDE = ("gemma3", "laguna", "mellum", "olmo2", "plamo3")
CASES = [(arch, 12 if arch in ALWAYS_SLIDE else 0) for arch in sorted(QUALIFYING)]
CASES += [(arch, 12) for arch in MAY_SLIDE]


# llama.cpp has a device take part in products of the processor's layers, with its own rounding
@pytest.mark.skipif(bool(GPU_LAYERS), reason="of the processor alone")
@pytest.mark.parametrize("arch, sliding", CASES)
def test_a_random_model(arch: str, sliding: int) -> None:
    with RandomModel(arch, CONFIG, sliding=sliding, **OPTIONS.get(arch, {})) as model:
        stock = model.logits(TOKENS, None, False)
        # what upstream's flash attention is away from its own matrix products
        noise = max(distance(stock, model.logits(TOKENS, None, True)), 1e-3)
        np.testing.assert_array_equal(stock, model.logits(TOKENS, IDENTITY, False))
        assert distance(stock, model.logits(TOKENS, IDENTITY, True)) < noise
        fused = model.logits(TOKENS, CONFIG, True)
        assert model.path == ("portable" if arch == "grok" else "fused")  # llama.cpp: no flash
        assert distance(fused, model.logits(TOKENS, CONFIG, False)) < noise
        assert distance(fused, model.logits(TOKENS, CONFIG, True, [1, 70, 49])) < noise
        assert distance(stock, fused) > 20 * noise  # the map matters


@pytest.mark.skipif(not GPU_LAYERS, reason="for a device: tools/device/on_device.py")
@pytest.mark.parametrize("arch, sliding", CASES)
def test_a_random_model_on_the_device(arch: str, sliding: int) -> None:
    options = OPTIONS.get(arch, {})
    batches = [1, 70, 49]
    with RandomModel(arch, CONFIG, sliding=sliding, **options) as model:
        stock, want = (model.logits(TOKENS, each, False, batches) for each in (None, CONFIG))
    with RandomModel(arch, CONFIG, sliding=sliding, n_gpu_layers=GPU_LAYERS, **options) as model:
        plain, got = (model.logits(TOKENS, each, False, batches) for each in (None, CONFIG))
        assert model.path == "portable"
    # the device rounds plain RoPE's products too
    cost = max(distance(stock, plain), 1e-3)
    assert distance(want, got) < 3 * cost
    assert distance(stock, want) > 10 * cost  # the map matters more


@pytest.mark.parametrize("fused", [True, False])
def test_local_layers_without_rope(fused: bool) -> None:
    changes = EVERY_OTHER | {"attention.rope_pattern": [0, 1]}
    with RandomModel("granite_swa", CONFIG, sliding=12, **changes) as model:
        stock = model.logits(TOKENS, None, False)
        assert distance(stock, model.logits(TOKENS, IDENTITY, fused)) < 2e-3
        fused = model.logits(TOKENS, CONFIG, fused, [1, 70, 49])
        assert distance(stock, fused) > 0.02


def test_global_layers_without_rope() -> None:
    changes: dict[str, Any] = EVERY_OTHER | {"attention.rope_pattern": [1, 0]}
    assert qualifies("granite_swa", {f"granite_swa.{k}": v for k, v in changes.items()}) is not None
    with RandomModel("granite_swa", CONFIG, sliding=12, **changes) as model:
        with pytest.raises(ValueError, match="no attention with RoPE"):
            model.logits(TOKENS, CONFIG, True)


@pytest.mark.parametrize("arch", [a for a, why in REASONS.items() if why == GLOBAL_WITHOUT_ROPE])
def test_nothing_to_extend(arch: str) -> None:
    options = EVERY_OTHER | {"swiglu_clamp_exp": 7.0, "attention.no_rope_layer_step": 2}
    with RandomModel(arch, CONFIG, sliding=12, **options) as model:
        with pytest.raises(ValueError, match="no attention with RoPE over a plain KV cache of all"):
            model.logits(TOKENS, CONFIG, True)
