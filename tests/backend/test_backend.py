"""The patched llama.cpp as a whole, on tiny models, against the oracle and against itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import attention, tiny_config, within
from llama_cpp import llama_cpp as C
from stock_side import all_logits, distance
from tiny_oracle import TinyOracle

from lampe_gguf.backend import api as backend
from lampe_gguf.backend.llama import LampeLlama
from lampe_gguf.errors import LampeError
from lampe_gguf.method.reference import NEOX, NORM, Rope

Tiny = Callable[..., Path]
PATHS = [True, False]  # fused, portable

rng = np.random.default_rng(7)
TOKENS = [int(t) for t in rng.integers(3, 350, 120)]
KV = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 8, "bf16": 30}


def opened(path: Path, fused: bool = True, **options: Any) -> LampeLlama:
    values = {"n_ctx": 256, **attention(fused)}
    return LampeLlama(path, **{**values, **options})


# -- against the oracle --------------------------------------------------------------------------


@pytest.mark.parametrize("fused", PATHS)
@pytest.mark.parametrize("arch", ["llama", "qwen2"])
@pytest.mark.parametrize("head_dim, n_head, n_head_kv", [
    (64, 4, 2), (80, 3, 3), (96, 2, 1), (128, 4, 1), (256, 2, 1), (64, 8, 1),
])
def test_equals_the_oracle(
    tiny: Tiny, fused: bool, arch: str, head_dim: int, n_head: int, n_head_kv: int
) -> None:
    config = tiny_config()
    path = tiny(arch=arch, head_dim=head_dim, n_head=n_head, n_head_kv=n_head_kv, n_layer=1)
    want = TinyOracle(path).logits(TOKENS, config)
    llm = opened(path, fused, type_k=KV["f32"], type_v=KV["f32"])
    assert llm.path == ("fused" if fused else "portable")
    assert llm.path_reason == ("" if fused else "the portable path was asked for")
    got = all_logits(llm, TOKENS)
    # what plain low precision costs: keys and values rounded to half precision
    cost = distance(want, TinyOracle(path).logits(TOKENS, config, key_type=np.float16))
    assert distance(want, got) < within(max(cost, 1e-5))
    # and the map matters: plain RoPE is far away
    assert distance(want, TinyOracle(path).logits(TOKENS, None)) > 100 * max(cost, 1e-5)


@pytest.mark.parametrize("fused", PATHS)
@pytest.mark.parametrize("kind", ["factors", "yarn", "linear", "attention_factor", "jetlong"])
def test_equals_the_oracle_whatever_the_rotation(tiny: Tiny, fused: bool, kind: str) -> None:
    rope, options, config = Rope(64, NORM), {}, tiny_config()
    if kind == "factors":
        factors = tuple(np.linspace(1, 6, 32).astype(np.float32).tolist())
        rope, options = Rope(64, NORM, freq_factors=factors), {"rope_freqs": factors}
    elif kind == "yarn":
        rope = Rope(64, NORM, freq_scale=0.25, ext_factor=1.0, n_ctx_orig=16)
        options = {"rope_scaling": {"type": "yarn", "factor": 4.0,
                                    "original_context_length": 16}}
    elif kind == "linear":
        rope = Rope(64, NORM, freq_scale=0.5)
        options = {"rope_scaling": {"type": "linear", "factor": 2.0}}
    elif kind == "attention_factor":
        config = tiny_config(attention_factor=1.2)
    else:
        config = tiny_config(method="jetlong")
    path = tiny(lampe=config, n_layer=1, **options)
    want = TinyOracle(path, rope).logits(TOKENS, config)
    got = all_logits(opened(path, fused, type_k=KV["f32"], type_v=KV["f32"]), TOKENS)
    cost = distance(want, TinyOracle(path, rope).logits(TOKENS, config, key_type=np.float16))
    assert distance(want, got) < within(max(cost, 1e-5))


@pytest.mark.parametrize("arch", ["llama", "qwen2", "qwen3", "stablelm", "gptneox", "phi2"])
@pytest.mark.parametrize("type_k", list(KV))
def test_both_paths_agree(tiny: Tiny, arch: str, type_k: str) -> None:
    path = tiny(arch=arch)
    fused, portable = (
        all_logits(opened(path, flash, type_k=KV[type_k]), TOKENS) for flash in PATHS
    )
    # sums in another order; where that tips the rounding of a cached key, by one step of its type
    assert distance(fused, portable) < {"q8_0": 5e-3, "q4_0": 5e-2}.get(type_k, 2e-3)


@pytest.mark.parametrize("type_v", ["q8_0", "q4_0"])
def test_quantised_values(tiny: Tiny, type_v: str) -> None:
    path = tiny()
    full = all_logits(opened(path), TOKENS)
    small = all_logits(opened(path, type_k=KV[type_v], type_v=KV[type_v]), TOKENS)
    assert distance(full, small) < {"q8_0": 0.05, "q4_0": 0.6}[type_v]


# -- the plan ------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [
    {}, {"method": "rerope"}, {"method": "selfextend", "group_size": 5}, {"method": "jetlong"},
    {"method": "rope"}, {"slope": 0.01, "offset": -2.0},
    {"short_length": 64, "short_mapping_length": 15},
    {"short_length": 33, "short_mapping_length": 32},
])
def test_plans_are_those_of_the_method(tiny: Tiny, changes: dict[str, Any]) -> None:
    config = tiny_config(**changes)
    llm = opened(tiny(lampe=config))
    for length in [*range(1, 130), 333, 511, 512, 100_003]:
        assert llm.plan_for(length) == config.plan(length), length


def test_plan_in_force_follows_the_sequence(tiny: Tiny) -> None:
    llm = opened(tiny())
    assert llm.plan() is None
    llm.eval(TOKENS[:70])
    assert llm.plan() == tiny_config().plan(80)  # 70 rounded up to a multiple of 16


def test_parameters_can_change_at_any_time(tiny: Tiny) -> None:
    path = tiny(n_layer=1)
    other = tiny_config(method="selfextend", group_size=3)
    llm = opened(path)
    all_logits(llm, TOKENS[:60])
    llm.set_config(other)
    # one layer: cached keys and values depend on no position, hence on no map
    got = all_logits(llm, TOKENS[60:])
    want = all_logits(opened(path, lampe=other), TOKENS)[60:]
    assert distance(want, got) < within(1e-5)


@pytest.mark.parametrize("fused", PATHS)
def test_an_attention_factor_can_change_between_tokens(tiny: Tiny, fused: bool) -> None:
    # the graph of the token before is of the same sizes, and holds the old factor
    path = tiny(n_layer=1)
    other = tiny_config(attention_factor=1.5)
    llm = opened(path, fused)
    all_logits(llm, TOKENS[:62], [60, 1, 1])
    llm.set_config(other)
    got = all_logits(llm, TOKENS[62:66], [1] * 4)
    want = all_logits(opened(path, fused, lampe=other), TOKENS[:66], [62, 1, 1, 1, 1])[62:]
    assert distance(want, got) < within(1e-4)


# -- batches, sequences, states, shifts ----------------------------------------------------------


@pytest.mark.parametrize("fused", PATHS)
def test_any_split_into_batches_gives_the_same(tiny: Tiny, fused: bool) -> None:
    path = tiny()
    whole = all_logits(opened(path, fused), TOKENS)
    for batches in ([1] * 120, [7, 50, 1, 62], [64, 56]):
        parts = all_logits(opened(path, fused), TOKENS, batches)
        assert distance(whole, parts) < 1e-3
        assert (whole.argmax(1) == parts.argmax(1)).mean() > 0.98


@pytest.mark.parametrize("fused", PATHS)
def test_prompt_policy_announced_is_the_paper(tiny: Tiny, fused: bool) -> None:
    config = tiny_config(length_policy="prompt")
    path = tiny(lampe=config, n_layer=1)
    want = TinyOracle(path).logits(TOKENS, config, prompt_length=100)
    llm = opened(path, fused, n_batch=32, n_ubatch=32, type_k=KV["f32"], type_v=KV["f32"])
    backend.set_prompt_length(llm.ctx, 100)
    got = all_logits(llm, TOKENS, [32, 32, 32, 4] + [1] * 20)
    assert distance(want, got) < within(1e-4)
    assert llm.plan() == config.plan(120)


def test_an_announced_length_ends_with_its_prompt(tiny: Tiny) -> None:
    config = tiny_config(length_policy="prompt")
    llm = opened(tiny(lampe=config, n_layer=1))
    backend.set_prompt_length(llm.ctx, 100)
    all_logits(llm, TOKENS, [100] + [1] * 20)
    memory = C.llama_get_memory(llm.ctx)
    assert C.llama_memory_seq_rm(memory, 0, 10, 60)
    C.llama_memory_seq_add(memory, 0, 60, -1, -50)
    llm.n_tokens = 70
    llm.eval(TOKENS[:1])
    assert llm.plan() == config.plan(71)  # and not of 100


def decode(llm: LampeLlama, items: list[tuple[int, int, int]]) -> np.ndarray:
    """Decode (token, position, sequence) triples as one batch; logits of each."""
    batch = C.llama_batch_init(len(items), 0, 1)
    try:
        batch.n_tokens = len(items)
        for i, (token, position, sequence) in enumerate(items):
            batch.token[i], batch.pos[i] = token, position
            batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = 1, sequence, 1
        assert C.llama_decode(llm.ctx, batch) == 0
        return np.array([
            np.ctypeslib.as_array(C.llama_get_logits_ith(llm.ctx, i), shape=(llm.n_vocab(),))
            for i in range(len(items))
        ])
    finally:
        C.llama_batch_free(batch)


def several(path: Path, fused: bool, unified: bool) -> Any:
    """A context for three sequences, through the C API: Llama itself opens one sequence only."""
    llm = opened(path, fused)
    params = C.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = 768, 256, 64, 3
    params.kv_unified = unified
    ctx = C.llama_init_from_model(llm.model, params)
    assert ctx
    backend.set_path(ctx, "fused" if fused else "portable")
    return llm, ctx


@pytest.mark.parametrize("unified", [True, False])
@pytest.mark.parametrize("fused", PATHS)
def test_sequences_of_different_lengths_share_a_batch(
    tiny: Tiny, fused: bool, unified: bool
) -> None:
    path = tiny()
    texts = [TOKENS[:90], TOKENS[20:50], TOKENS[5:110]]
    alone = [all_logits(opened(path, fused), text) for text in texts]
    llm, ctx = several(path, fused, unified)

    class Shim:
        pass

    shim: Any = Shim()
    shim.ctx, shim.n_vocab = ctx, llm.n_vocab
    items = [(t, i, s) for s, text in enumerate(texts) for i, t in enumerate(text[:-1])]
    # interleaved, so that cells of the sequences alternate
    items.sort(key=lambda item: (item[1], item[2]))
    got = decode(shim, items)
    for row, (_, position, sequence) in zip(got, items, strict=True):
        assert distance(alone[sequence][position], row) < 2e-2, (sequence, position)
    last = decode(shim, [(text[-1], len(text) - 1, s) for s, text in enumerate(texts)])
    for s in range(3):
        assert distance(alone[s][-1], last[s]) < 2e-2
    C.llama_free(ctx)


@pytest.mark.parametrize("fused", PATHS)
def test_saved_state_goes_on_where_it_was(tiny: Tiny, fused: bool) -> None:
    path = tiny()
    llm = opened(path, fused)
    llm.eval(TOKENS[:80])
    state = llm.save_state()
    want = all_logits(llm, TOKENS[80:])
    other = opened(path, fused)
    other.load_state(state)
    np.testing.assert_array_equal(all_logits(other, TOKENS[80:]), want)


@pytest.mark.parametrize("saved_on", [True, False])
def test_state_of_the_other_kind_is_refused(tiny: Tiny, saved_on: bool) -> None:
    path = tiny()
    source = opened(path, lampe=None if saved_on else False)
    source.eval(TOKENS[:20])
    target = opened(path, lampe=False if saved_on else None)
    with pytest.raises(LampeError, match="with LaMPE" if saved_on else "without LaMPE"):
        target.load_state(source.save_state())
    # one sequence alone, through the C API
    size = C.llama_state_seq_get_size(source.ctx, 0)
    buffer = (C.ctypes.c_uint8 * size)()
    assert C.llama_state_seq_get_data(source.ctx, buffer, size, 0) == size
    assert C.llama_state_seq_set_data(target.ctx, buffer, size, 0) == 0
    assert ("with LaMPE" if saved_on else "without LaMPE") in backend.last_error()
    target.n_tokens = 0
    target.eval(TOKENS[:20])  # still usable


@pytest.mark.parametrize("fused", PATHS)
def test_removing_and_shifting_leaves_what_a_fresh_context_has(
    tiny: Tiny, fused: bool
) -> None:
    # one layer: what is cached depends on the token alone, so a shift must be exact
    path = tiny(n_layer=1)
    llm = opened(path, fused)
    llm.eval(TOKENS[:100])
    memory = C.llama_get_memory(llm.ctx)
    assert C.llama_memory_seq_rm(memory, 0, 10, 50)
    C.llama_memory_seq_add(memory, 0, 50, -1, -40)
    llm.n_tokens = 60
    got = all_logits(llm, TOKENS[100:])
    fresh = all_logits(opened(path, fused), TOKENS[:10] + TOKENS[50:])[60:]
    assert distance(fresh, got) < within(1e-4)


@pytest.mark.parametrize("fused", PATHS)
def test_positions_may_run_ahead_of_the_cells(tiny: Tiny, fused: bool) -> None:
    # early tokens removed and the rest not shifted: the tables of the fused op must grow
    config = tiny_config(method="rope", context_length=2048)
    llm = opened(tiny(lampe=config), fused)
    memory = C.llama_get_memory(llm.ctx)
    rows = []
    for start in range(0, 1800, 60):
        C.llama_memory_seq_rm(memory, 0, 0, start)
        llm.n_tokens = start
        rows.append(all_logits(llm, TOKENS[:60]))
    assert C.llama_memory_seq_pos_max(memory, 0) == 1799
    # plain RoPE knows differences alone: the same tokens, the same logits, wherever they stand
    for row in rows:
        assert distance(rows[0], row) < 5e-3


def test_neox_and_norm_are_told_apart(tiny: Tiny) -> None:
    # guards the oracle tests: with the wrong pairs they would not agree
    path = tiny(n_layer=1)
    config = tiny_config()
    right = TinyOracle(path).logits(TOKENS, config)
    wrong = TinyOracle(path, Rope(64, NEOX)).logits(TOKENS, config)
    assert distance(right, wrong) > 0.05


# -- LoRA ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fused", PATHS)
def test_lora_is_untouched(tiny: Tiny, tmp_path: Path, fused: bool) -> None:
    import gguf

    path, rank = tiny(n_layer=1), 4
    oracle, adapter = TinyOracle(path), tmp_path / "adapter.gguf"
    writer = gguf.GGUFWriter(str(adapter), "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 2.0 * rank)
    for name in ("blk.0.attn_q.weight", "blk.0.attn_k.weight"):
        n_out, n_in = oracle.weights[name].shape
        a = (0.05 * rng.normal(size=(rank, n_in))).astype(np.float32)
        b = rng.normal(size=(n_out, rank)).astype(np.float32)
        writer.add_tensor(f"{name}.lora_a", a)
        writer.add_tensor(f"{name}.lora_b", b)
        oracle.weights[name] = oracle.weights[name] + 2.0 * b.astype(float) @ a.astype(float)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    options = {"type_k": KV["f32"], "type_v": KV["f32"]}
    got = all_logits(opened(path, fused, lora_path=str(adapter), **options), TOKENS)
    want = oracle.logits(TOKENS, tiny_config())
    assert distance(want, got) < within(1e-4)
    assert distance(want, all_logits(opened(path, fused, **options), TOKENS)) > 0.1
