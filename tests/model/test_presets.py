"""Published presets, the defaults for any other model, and the choice between them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lampe_gguf.errors import LampeError, UsageError
from lampe_gguf.model import presets

MEASURED = ("smollm2-135m", "gemma3-270m", "qwen2.5-coder-0.5b")
PUBLISHED = [name for name in presets.PRESETS if name not in MEASURED]


@pytest.mark.parametrize("name", presets.PRESETS)
def test_presets_are_valid_and_say_where_they_come_from(name):
    config = presets.preset(name).validate()
    assert config.method == "lampe"
    assert config.attention_factor == 1.0
    assert f"preset {name}: " in config.provenance
    assert ("2508.02308" in config.provenance) == (name in PUBLISHED)


def test_published_constants():
    published = {name: presets.preset(name) for name in PUBLISHED}
    rows = {
        name: (c.window, c.slope, c.offset, c.max_mapping_length, c.short_mapping_length)
        for name, c in published.items()
    }
    assert rows == {
        "llama2": (4096, 8.673006440952035e-05, -0.648012322406978, 2489.1055552214357, 1536),
        "llama3": (8192, 1.0493097327094324e-04, -2.466638011138158, 6204.409324666837, 1536),
        "mistral": (32768, 1.0493097327094324e-04, -2.466638011138158, 24576, 1536),
        "llama3.1": (131072, 4.505261149632588e-05, -2.788576860718702, 82358.52413056031, 0),
    }
    shorts = {name: c.short_length for name, c in published.items()}
    assert shorts == {"llama2": 8192, "llama3": 8192, "mistral": 8192, "llama3.1": 0}


def test_context_lengths_of_presets():
    lengths = {name: presets.preset(name).context_length for name in PUBLISHED}
    assert lengths == {"llama2": 16384, "llama3": 32768, "mistral": 131072, "llama3.1": 262144}
    assert presets.preset_context_length(65536) == 131072


def test_an_unknown_preset_is_a_usage_error_that_lists_the_known():
    with pytest.raises(UsageError, match=r"no preset 'llama9'.*llama2, llama3, mistral, llama3.1"):
        presets.preset("llama9")


def test_defaults_of_an_8k_model_are_the_measured_row():
    config = presets.default_config(8192)
    assert (config.max_mapping_length, config.local_window, config.tail_window) == (4096, 1024, 200)
    assert (config.context_length, config.length_policy, config.length_step) == (
        32768,
        "causal",
        512,
    )
    assert config.provenance == (
        "uncalibrated: plain up to the window of 8192, beyond it L = 4096"
    )
    # plain RoPE up to W, LaMPE beyond
    assert config.plan(8192).is_identity
    assert config.plan(8193).mapping_length == 4096
    assert config.plan(32768).mapping_length == 4096


@given(st.integers(16, 2**24))
def test_defaults_are_valid_for_every_window(window):
    config = presets.default_config(window).validate()
    step = config.length_step
    assert step <= max(1, window // 8)
    assert config.plan(window).is_identity
    beyond = -(-window // step) * step + 1
    assert config.mapping_length(beyond) == config.mapping_length(4 * window) == window // 2
    # the step in which the window ends keeps all that fits into it
    assert config.mapping_length(beyond - 1) == window


@pytest.mark.parametrize("window", [0, 15, 2**24 + 1, -1])
def test_windows_out_of_range_are_refused(window):
    with pytest.raises(LampeError, match=f"window is {window} tokens"):
        presets.default_config(window)


@pytest.mark.parametrize(
    ("arch", "window", "name", "n_vocab", "expected"),
    [
        ("llama", 4096, "LLaMA v2", 32000, "llama2"),
        ("llama", 4096, "meta-llama_Llama-2-7b-chat-hf", None, "llama2"),
        ("llama", 4096, "Llama 2 13B Chat", 32000, "llama2"),
        ("llama", 8192, "Meta-Llama-3-8B-Instruct", 128256, "llama3"),
        ("llama", 8192, "Meta Llama 3 70B", None, "llama3"),
        ("llama", 32768, "mistralai_mistral-7b-instruct-v0.2", 32000, "mistral"),
        ("llama", 32768, "Mistral 7B Instruct v0.3", 32768, "mistral"),
        ("llama", 131072, "Meta Llama 3.1 8B Instruct", 128256, "llama3.1"),
        ("llama", 8192, "SmolLM2 135M 8k Lc100K Mix1 Ep2", 49152, "smollm2-135m"),
        ("llama", 8192, "SmolLM2-135M-Instruct", None, "smollm2-135m"),
        ("gemma3", 32768, "Gemma 3 270m (gemma-3)", 262144, "gemma3-270m"),
        ("qwen2", 32768, "Qwen2.5 Coder 0.5B Instruct AWQ (Qwen2.5-Coder)", 151936,
         "qwen2.5-coder-0.5b"),
        # near misses: each differs from a preset's model in one thing
        ("llama", 131072, "Llama 3.2 1B Instruct", 128256, None),
        ("llama", 131072, "Llama 3.3 70B Instruct", 128256, None),
        ("llama", 8192, "Meta Llama 3.1 8B Instruct", 128256, None),
        ("llama", 131072, "Meta-Llama-3-8B-Instruct", 128256, None),
        ("llama", 8192, "Meta-Llama-3-8B-Instruct", 32000, None),
        ("qwen2", 32768, "mistral-7b", 32000, None),
        ("llama", 4096, "SOLAR 10.7B", 32000, None),
        ("llama", 32768, "Mixtral 8x7B", 32000, None),
        ("llama", 8192, "SmolLM2 360M Instruct", 49152, None),
        ("gemma3", 32768, "Gemma 3 1b It", 262144, None),
        ("qwen2", 32768, "Qwen2.5 Coder 1.5B Instruct", 151936, None),
        ("llama", 4096, "", 32000, None),
    ],
)
def test_choice(arch, window, name, n_vocab, expected):
    assert presets.find_preset(arch, window, name, n_vocab) == expected
    config = presets.choose(arch, window, name, n_vocab)
    assert config == (
        presets.default_config(window) if expected is None else presets.preset(expected)
    )
    assert bool(re.match("uncalibrated", config.provenance)) == (expected is None)
