"""Against upstream's own build: off means off, to the bit; the identity plan is plain RoPE."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import tiny_config
from llama_cpp import llama_cpp as C
from stock_side import all_logits, context_logits

from lampe_gguf.backend import api as backend
from lampe_gguf.backend.llama import LampeLlama
from lampe_gguf.errors import LampeError
from lampe_gguf.evaluate import perplexity as evaluate
from lampe_gguf.model.presets import default_config

TOKENS = [int(t) for t in np.random.default_rng(3).integers(3, 350, 100)]


def stock_logits(run_stock: Any, path: Path, tokens: list[int], out: Path, **options: Any) -> Any:
    version = run_stock(
        "logits_to_file", model=str(path), tokens=tokens, out=str(out), n_ctx=1024, **options
    )
    assert version == "0.3.36+stock"
    return np.load(out)


@pytest.mark.parametrize("flash_attn", [True, False])
@pytest.mark.parametrize("type_k", [1, 8])
@pytest.mark.parametrize("how", ["absent", "switched off"])
def test_off_is_upstream_to_the_bit(
    tiny: Callable[..., Path], tmp_path: Path, run_stock: Any, flash_attn: bool, type_k: int,
    how: str,
) -> None:
    path = tiny(lampe=None if how == "absent" else tiny_config(context_length=2048), window=1024)
    options = {"flash_attn": flash_attn, "type_k": type_k}
    want = stock_logits(run_stock, path, TOKENS, tmp_path / "stock.npy", **options)
    llm = LampeLlama(path, n_ctx=1024, lampe=None if how == "absent" else False, **options)
    assert llm.path == "off"
    np.testing.assert_array_equal(all_logits(llm, TOKENS), want)


@pytest.mark.parametrize("flash_attn", [-1, 0, 1])  # what a caller may ask for: auto, off, on
@pytest.mark.parametrize("arch", ["llama", "gemma3"])
def test_switching_off_gives_back_what_the_caller_asked_for(
    tiny: Callable[..., Path], tmp_path: Path, run_stock: Any, flash_attn: int, arch: str
) -> None:
    extra = {"gemma3.attention.sliding_window": 12, "gemma3.attention.sliding_window_pattern": 2}
    path = tiny(arch=arch, lampe=tiny_config(context_length=2048), window=1024,
                extra=extra if arch == "gemma3" else {})
    out = tmp_path / "stock.npz"
    options = {"tokens": TOKENS, "flash_attn": flash_attn}
    run_stock("context_to_file", model=str(path), out=str(out), **options)
    stock = np.load(out)
    memories = []

    def switch(*ways: str) -> Callable[[Any], None]:
        def prepare(context: Any) -> None:
            memories.append(C.llama_get_memory(context))
            for way in ways:
                backend.set_path(context, way)
                assert backend.get_path(context) == way
            # callers keep the address
            assert C.llama_get_memory(context) == memories[-1]

        return prepare

    llm = LampeLlama(path, n_ctx=256)
    for ways in (["off"], ["portable", "off"], ["off", "portable", "fused", "off"]):
        logits, state = context_logits(llm.model, prepare=switch(*ways), **options)
        np.testing.assert_array_equal(logits, stock["logits"])
        # the layout of the values, too
        assert state == stock["state"].tobytes()
    # LaMPE itself does not depend on it
    want, _ = context_logits(llm.model, TOKENS, 1)
    got, state = context_logits(llm.model, **options)
    np.testing.assert_array_equal(got, want)
    assert state != stock["state"].tobytes()
    portable, _ = context_logits(llm.model, TOKENS, 1, switch("portable"))
    got, _ = context_logits(llm.model, prepare=switch("off", "portable"), **options)
    np.testing.assert_array_equal(got, portable)


def test_flash_attention_shows_in_the_bits(tiny: Callable[..., Path]) -> None:
    # or the test above would show nothing
    llm = LampeLlama(tiny(lampe=None, window=1024), n_ctx=256)
    on, off = (context_logits(llm.model, TOKENS, kind) for kind in (1, 0))
    assert not np.array_equal(on[0], off[0]) and on[1] != off[1]


@pytest.mark.parametrize("lampe", [None, False])
def test_quantised_values_need_flash_attention_as_upstream(
    tiny: Callable[..., Path], tmp_path: Path, run_stock: Any, lampe: Any
) -> None:
    path = tiny(lampe=tiny_config(context_length=2048), window=1024)
    with pytest.raises(LampeError):
        LampeLlama(path, lampe=lampe, n_ctx=1024, type_v=8, flash_attn=False)
    llm = LampeLlama(path, lampe=lampe, n_ctx=1024, type_v=8, flash_attn=True)
    if lampe is False:
        want = stock_logits(run_stock, path, TOKENS, tmp_path / "stock.npy", type_v=8,
                            flash_attn=True)
        np.testing.assert_array_equal(all_logits(llm, TOKENS), want)
    else:
        assert llm.path == "fused"
        with pytest.raises(LampeError, match="leave the values in f16"):
            backend.set_path(llm.ctx, "portable")
        assert llm.path == "fused"


def test_identity_plan_is_upstream_within_the_noise_on_a_real_model(
    smollm2_path: Path, tmp_path: Path, run_stock: Any
) -> None:
    text = "The history of long documents is short. " * 200
    config = dataclasses.replace(default_config(8192), method="rope")
    llm = LampeLlama(smollm2_path, lampe=config, n_ctx=1024)
    tokens = llm.tokenize(Path(__file__).read_bytes() + text.encode())[:512]
    got = all_logits(llm, tokens)
    portable = all_logits(
        LampeLlama(smollm2_path, lampe=config, n_ctx=1024, attention="portable"), tokens
    )
    fused = stock_logits(run_stock, smollm2_path, tokens, tmp_path / "a.npy", flash_attn=True)
    plain = stock_logits(run_stock, smollm2_path, tokens, tmp_path / "b.npy", flash_attn=False)

    def away(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.sqrt(((a - b) ** 2).mean()))

    noise = away(fused, plain)  # what upstream's own two ways differ by
    for ours in (got, portable):
        assert away(ours, plain) < 2 * noise
        differ = np.flatnonzero(ours.argmax(1) != plain.argmax(1))
        # the same argmax, but for ties within the noise
        for i in differ:
            gap = plain[i].max() - plain[i, ours[i].argmax()]
            assert gap < 8 * noise, (i, gap, noise)
        assert len(differ) <= max(4, 2 * (fused.argmax(1) != plain.argmax(1)).sum())


@pytest.mark.parametrize("method", ["rope", "linear", "yarn", "ntk"])
def test_plain_methods_measure_what_stock_attention_does(smollm2_path: Path, method: str) -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    # a factor that matters, so that what YaRN multiplies cos and sin with matters too
    factor = None if method == "rope" else 4.0
    found = evaluate.perplexity(smollm2_path, text, 400, method=method, factor=factor)
    assert found.path == "fused"
    options = evaluate.setting(method, default_config(8192), 400, factor=factor,
                               **evaluate.model_rope(smollm2_path)).options
    llm = LampeLlama(smollm2_path, lampe=False, n_ctx=512, **options)
    assert llm.path == "off"
    tokens = evaluate.read_tokens(llm, text, 400)
    assert found.all == pytest.approx(np.exp(evaluate.score(llm, tokens).mean()), rel=0.02)
