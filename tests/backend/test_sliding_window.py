"""Models whose layers alternate between a sliding window and the whole input (Gemma 2 and 3).

Layers that see a window only keep their positions; the others get LaMPE's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import attention, tiny_config
from stock_side import all_logits, distance
from tiny_oracle import TinyOracle

from lampe_gguf.attention.measure import measure
from lampe_gguf.backend.llama import LampeLlama
from lampe_gguf.errors import LampeError
from lampe_gguf.method.config import LampeConfig
from lampe_gguf.model.presets import default_config

Tiny = Callable[..., Path]
ARCHS = ("gemma2", "gemma3")
TOKENS = [int(t) for t in np.random.default_rng(11).integers(3, 350, 100)]
F32 = {"type_k": 0, "type_v": 0}


@pytest.fixture
def gemma(tiny: Tiny) -> Tiny:
    """A tiny Gemma of four layers: windows of 12 tokens, and all tokens, in turns."""

    def make(arch: str, name: str = "gemma.gguf", n_swa: int = 12, **options: Any) -> Path:
        extra = {
            f"{arch}.attention.sliding_window": n_swa,
            f"{arch}.attention.sliding_window_pattern": 2,
            f"{arch}.rope.freq_base_swa": 500.0,
        }
        if arch == "gemma2":
            extra |= {f"{arch}.attn_logit_softcapping": 20.0,
                      f"{arch}.final_logit_softcapping": 30.0}
        return tiny(name, arch=arch, n_layer=4, extra=extra | options.pop("extra", {}), **options)

    return make


def opened(path: Path, fused: bool, **options: Any) -> LampeLlama:
    values = {"n_ctx": 256, **attention(fused)}
    return LampeLlama(path, **{**values, **options})


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("factor", [1.0, 1.2])
def test_equals_the_oracle(gemma: Tiny, arch: str, fused: bool, factor: float) -> None:
    config = tiny_config(attention_factor=factor)
    path = gemma(arch, lampe=config)
    oracle = TinyOracle(path)
    want = oracle.logits(TOKENS, config)
    llm = opened(path, fused, **F32)
    assert llm.path == ("fused" if fused else "portable")
    got = all_logits(llm, TOKENS)
    # upstream's GELU is a table of half precision: as coarse as a cache of it
    cost = distance(want, oracle.logits(TOKENS, config, key_type=np.float16))
    assert distance(want, got) < 4 * cost
    # and the map matters, in some layers only
    assert distance(want, oracle.logits(TOKENS, None)) > 100 * cost
    oracle.pattern = 1
    assert distance(want, oracle.logits(TOKENS, config)) > 100 * cost


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("swa_full", [True, False])
def test_identity_is_upstream(gemma: Tiny, arch: str, swa_full: bool) -> None:
    plain = gemma(arch, "plain.gguf", lampe=None, window=256)
    config = LampeConfig(**{**vars(default_config(256)), "method": "rope"})
    for fused in (True, False):
        stock = all_logits(opened(plain, fused, swa_full=swa_full, **F32), TOKENS)
        llm = opened(plain, fused, lampe=config, swa_full=swa_full, **F32)
        assert distance(stock, all_logits(llm, TOKENS)) < 1e-3


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("arch", ARCHS)
def test_a_small_cache_of_the_windows_and_any_split_into_batches(
    gemma: Tiny, arch: str, fused: bool
) -> None:
    path = gemma(arch)
    tokens = [int(t) for t in np.random.default_rng(5).integers(3, 350, 460)]
    whole = all_logits(opened(path, fused, n_ctx=512, n_batch=512), tokens)
    # a cache of windows holds 256 cells, and forgets
    llm = opened(path, fused, n_ctx=512, n_batch=64, swa_full=False)
    assert distance(whole, all_logits(llm, tokens)) < 2e-3
    llm = opened(path, fused, n_ctx=512, n_batch=512)
    found = []
    for start in (0, 1, 200, 207):
        stop = {0: 1, 1: 200, 200: 207, 207: 460}[start]
        for _, logits in llm.read_logits(tokens[start:stop]):
            found.append(logits.copy())
    assert distance(whole, np.concatenate(found)) < 2e-3


@pytest.mark.parametrize("type_k", [1, 8])
def test_both_paths_agree_with_any_cache(gemma: Tiny, type_k: int) -> None:
    path = gemma("gemma3")
    fused, portable = (
        all_logits(opened(path, flash, type_k=type_k), TOKENS) for flash in (True, False)
    )
    assert distance(fused, portable) < (1e-2 if type_k == 8 else 2e-3)


@pytest.mark.parametrize("fused", [True, False])
def test_what_was_removed_leaves_no_trace(gemma: Tiny, fused: bool) -> None:
    path = gemma("gemma3", n_swa=40)
    llm = opened(path, fused)
    llm.eval(TOKENS[:60])
    llm._ctx.kv_cache_seq_rm(0, 50, 60)
    llm.n_tokens = 50
    got = [logits.copy() for _, logits in llm.read_logits(TOKENS[60:90])][0]
    want = all_logits(opened(path, fused), [*TOKENS[:50], *TOKENS[60:90]])[50:]
    assert distance(want, got) < 2e-3


def test_a_state_goes_on_where_it_was(gemma: Tiny) -> None:
    path = gemma("gemma3")
    llm = opened(path, True)
    llm.eval(TOKENS[:60])
    state = llm.save_state()
    want = [logits.copy() for _, logits in llm.read_logits(TOKENS[60:])][0]
    other = opened(path, True)
    other.load_state(state)
    got = [logits.copy() for _, logits in other.read_logits(TOKENS[60:])][0]
    # cells that no window reaches any more are not saved: sums come in another order
    assert distance(want, got) < 1e-3


def test_their_attention_cannot_be_looked_at(gemma: Tiny) -> None:
    with pytest.raises(LampeError, match="sliding window"):
        measure(gemma("gemma3"), "any text", [64])


def test_layers_that_all_slide_leave_nothing_to_extend(gemma: Tiny) -> None:
    path = gemma("gemma3", extra={"gemma3.attention.sliding_window_pattern": 0})
    with pytest.raises(LampeError, match="all of its layers see a sliding window only"):
        opened(path, True)
