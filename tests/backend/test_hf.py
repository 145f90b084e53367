"""LaMPE in transformers against the NumPy oracle; skipped where torch is not installed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from conftest import tiny_config

torch = pytest.importorskip("torch", reason="the extra hf is not installed")
transformers = pytest.importorskip("transformers", reason="the extra hf is not installed")

from lampe_gguf.errors import LampeError  # noqa: E402
from lampe_gguf.huggingface.attention import _attention, enable_lampe  # noqa: E402
from lampe_gguf.method.reference import NEOX, Rope, attention  # noqa: E402

N = 150
D = 16


def llama(**changes):
    values = {
        "vocab_size": 64, "hidden_size": 4 * D, "intermediate_size": 64, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": D,
        "max_position_embeddings": 32,
    }
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**{**values, **changes})
    return transformers.LlamaForCausalLM(config).eval().double()


def tokens():
    return torch.randint(0, 64, (1, N), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("changes", [
    {}, {"method": "jetlong"}, {"method": "selfextend", "group_size": 8}, {"length_step": 7},
    {"length_policy": "prompt"}, {"attention_factor": 1.2},
])
def test_attention_is_the_oracles(changes):
    config = tiny_config(**changes)
    model = llama()
    enable_lampe(model, config)
    module = model.model.layers[0].self_attn
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(1, h, N, D)) for h in (4, 2, 2))
    got, _ = _attention(module, *(torch.from_numpy(x) for x in (q, k, v)), None, scaling=D**-0.5)
    rope = Rope(D, NEOX)
    want = attention(
        *(x[0].transpose(1, 0, 2) for x in (q, k, v)), np.arange(N), np.arange(N),
        config.plans_for(N), rope, scale=D**-0.5, attention_factor=config.attention_factor,
    )
    np.testing.assert_allclose(got[0].numpy(), want, rtol=0, atol=1e-6)  # f32 frequencies


def test_identity_is_the_model_itself():
    model, ids = llama(), tokens()
    with torch.no_grad():
        want = model(ids).logits
        enable_lampe(model, tiny_config(method="rope"))
        got = model(ids).logits
    assert (got - want).abs().max() < 1e-5  # its own cos and sin are f32
    assert (want - want.mean()).abs().max() > 1e-2


def test_lampe_changes_what_is_beyond_its_identity():
    model, ids = llama(), tokens()
    with torch.no_grad():
        want = model(ids).logits
        enable_lampe(model, tiny_config())
        got = model(ids).logits
    # lengths are rounded up to 16: what is short of the mapping length of 20 is plain
    assert (got - want)[0, :16].abs().max() < 1e-5
    assert (got - want)[0, -1].abs().max() > 1e-4


def test_a_cached_prefix_stays_right():
    model, ids = llama(), tokens()
    enable_lampe(model, tiny_config())
    with torch.no_grad():
        whole = model(ids).logits
        first = model(ids[:, :100], use_cache=True)
        parts = [first.logits]
        cache = first.past_key_values
        for start, stop in ((100, 101), (101, 102), (102, N)):
            step = model(ids[:, start:stop], past_key_values=cache, use_cache=True)
            parts.append(step.logits)
            cache = step.past_key_values
    assert (torch.cat(parts, dim=1) - whole).abs().max() < 1e-9


def test_values_can_be_changed():
    model, ids = llama(), tokens()
    enable_lampe(model, tiny_config())
    with torch.no_grad():
        first = model(ids).logits
        enable_lampe(model, dataclasses.replace(tiny_config(), local_window=4))
        other = model(ids).logits
        enable_lampe(model, tiny_config())
        again = model(ids).logits
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_what_does_not_qualify_is_refused():
    config = transformers.GPT2Config(n_layer=1, n_head=2, n_embd=32, vocab_size=64)
    with pytest.raises(LampeError, match="no rotary embedding"):
        enable_lampe(transformers.GPT2LMHeadModel(config), tiny_config())
    model = llama()
    model.config.layer_types = ["sliding_attention", "full_attention", "full_attention"]
    with pytest.raises(LampeError, match="sliding_attention"):
        enable_lampe(model, tiny_config())


def test_padding_is_refused():
    model, ids = llama(), tokens()
    enable_lampe(model, tiny_config())
    mask = torch.ones_like(ids)
    mask[0, :5] = 0
    with pytest.raises(LampeError, match="padding"):
        model(ids, attention_mask=mask)
