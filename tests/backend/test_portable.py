"""Attention from stock operations on inputs longer than a range of cells (256), in small blocks.

Against the fused operator, which knows neither ranges nor blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import llama_cpp as C
import numpy as np
import pytest
from conftest import attention, tiny_config, within
from stock_side import all_logits, distance

from lampe_gguf.backend import api as backend
from lampe_gguf.backend.llama import LampeLlama
from lampe_gguf.method.config import LampeConfig

Tiny = Callable[..., Path]
LENGTH = 1100
TOKENS = [int(t) for t in np.random.default_rng(5).integers(259, 380, LENGTH)]
# regions of several ranges: local 300, a middle into 80 positions, tail 100
CONFIG = tiny_config(context_length=4096, window=512, local_window=300, tail_window=100,
                     max_mapping_length=480.0, length_step=128)
BATCH = 4 * 2 * 2048 * 4  # bytes for the scores of one token: 4 heads, up to 2,048 cells, twice
F32: dict[str, Any] = {"type_k": 0, "type_v": 0}


def opened(path: Path, fused: bool, **options: Any) -> LampeLlama:
    values = {"n_ctx": 2048, "n_batch": 512, "n_ubatch": 512, **attention(fused)}
    return LampeLlama(path, **{**values, **options})


@pytest.mark.parametrize("tokens_per_block", [1, 7, 100, 512])
@pytest.mark.parametrize("config", [
    CONFIG,
    tiny_config(context_length=4096, length_step=128, tail_window=0),
    tiny_config(context_length=4096, method="rerope"),
    tiny_config(context_length=4096, length_policy="prompt"),
    tiny_config(context_length=4096, method="rope"),
], ids=["three regions", "no tail", "rerope", "prompt", "identity"])
def test_blocks_change_nothing(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, tokens_per_block: int, config: LampeConfig
) -> None:
    path = tiny(lampe=config, n_layer=1)
    monkeypatch.setenv("LLAMA_LAMPE_SCORES_MAX", str(tokens_per_block * BATCH))
    batches = [512, 130, 1, 1, 300, 156]  # none of them ends with a step of lengths
    fused, portable = (
        all_logits(opened(path, flash, **F32), TOKENS, batches) for flash in (True, False)
    )
    assert distance(fused, portable) < within(2e-5)


def test_ranges_grow_while_writing(tiny: Tiny) -> None:
    path = tiny(lampe=CONFIG, n_layer=1)
    # 557 tokens: the middle reaches into another range, with no other change of the graph
    batches = [512, 38, *[1] * 30]
    fused, portable = (
        all_logits(opened(path, flash, **F32), TOKENS[:580], batches) for flash in (True, False)
    )
    assert distance(fused, portable) < within(2e-5)


def test_half_precision_keys_cost_little(tiny: Tiny) -> None:
    path = tiny(lampe=CONFIG)
    exact = all_logits(opened(path, True, **F32), TOKENS)
    cost = distance(exact, all_logits(opened(path, True), TOKENS))
    # cached keys are rounded once, and once more after they are rotated
    assert distance(exact, all_logits(opened(path, False), TOKENS)) < 3 * cost


def test_cells_that_were_moved_and_freed(tiny: Tiny) -> None:
    path = tiny(lampe=CONFIG, n_layer=1)  # what is cached depends on the token alone
    llm = opened(path, False, **F32)
    all_logits(llm, TOKENS[:900])
    memory = C.llama_get_memory(llm.ctx)
    assert C.llama_memory_seq_rm(memory, 0, 100, 600)
    C.llama_memory_seq_add(memory, 0, 600, -1, -500)
    llm.n_tokens = 400
    # 500 freed cells in the middle of the cache take the next tokens
    got = all_logits(llm, TOKENS[:650])
    want = all_logits(opened(path, True, **F32), TOKENS[:100] + TOKENS[600:900] + TOKENS[:650])
    assert distance(want[400:], got) < within(2e-5)


@pytest.mark.parametrize("unified", [True, False])
@pytest.mark.parametrize("tokens_per_block", [5, 512])
def test_sequences_share_the_cache(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, unified: bool, tokens_per_block: int
) -> None:
    path = tiny(lampe=CONFIG, n_layer=1)
    monkeypatch.setenv("LLAMA_LAMPE_SCORES_MAX", str(tokens_per_block * BATCH))
    texts = [TOKENS[:700], TOKENS[50:400], TOKENS[9:900]]
    alone = [all_logits(opened(path, True, **F32), text) for text in texts]
    llm = opened(path, False, **F32)
    params = C.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = 3072, 510, 510, 3
    params.kv_unified, params.type_k, params.type_v = unified, 0, 0
    ctx = C.llama_init_from_model(llm.model, params)
    backend.set_path(ctx, "portable")
    items = sorted((i, s, t) for s, text in enumerate(texts) for i, t in enumerate(text))
    batch = C.llama_batch_init(510, 0, 1)
    for start in range(0, len(items), 510):
        part = items[start : start + 510]
        batch.n_tokens = len(part)
        for i, (position, sequence, token) in enumerate(part):
            batch.token[i], batch.pos[i] = token, position
            batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = 1, sequence, 1
        assert C.llama_decode(ctx, batch) == 0
        for i, (position, sequence, _) in enumerate(part):
            row = np.ctypeslib.as_array(C.llama_get_logits_ith(ctx, i), shape=(llm.n_vocab(),))
            want = alone[sequence][position]
            shown = want > -1e30
            away = abs(row - want)[shown].max() / want[shown].std()
            assert away < 4 * within(2.5e-4), (position, sequence)
    C.llama_batch_free(batch)
    C.llama_free(ctx)


@pytest.mark.parametrize("length", [300, 512])
def test_attention_that_is_not_causal(tiny: Tiny, length: int) -> None:
    path = tiny(lampe=CONFIG, n_layer=1)
    llms = [opened(path, flash, **F32) for flash in (True, True, False)]
    for llm in llms:
        all_logits(llm, TOKENS[:length])
    for llm in llms[1:]:
        C.llama_set_causal_attn(llm.ctx, False)
    causal, fused, portable = (all_logits(llm, TOKENS[:length]) for llm in llms)
    assert distance(fused, portable) < within(2e-5)
    # the last query sees the same keys either way, the first sees more
    assert distance(causal[-1:], fused[-1:]) < within(2e-5)
    assert distance(causal[:1], fused[:1]) > 0.01


def test_a_map_of_more_plans_finds_a_scheduler_of_their_size(tiny: Tiny) -> None:
    path = tiny(lampe=CONFIG, n_layer=1)
    many = tiny_config(context_length=4096, length_step=1, max_mapping_length=20.0)
    fused, portable = (opened(path, flash, **F32) for flash in (True, False))
    for llm in (fused, portable):
        all_logits(llm, TOKENS[:40])
        llm.set_config(many)
    got = [all_logits(llm, TOKENS[40:500]) for llm in (fused, portable)]
    assert distance(*got) < within(2e-5)
