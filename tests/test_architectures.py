"""Which models qualify: what depends on the file, and not on the architecture's name alone."""

from __future__ import annotations

from typing import Any

import pytest

from lampe_gguf.architectures import qualifies, slides


def reason(arch: str, **values: Any) -> str:
    return str(qualifies(arch, {f"{arch}.{k.replace('__', '.')}": v for k, v in values.items()}))


@pytest.mark.parametrize("arch", ["gemma3", "laguna", "mellum", "olmo2", "plamo3"])
def test_a_window_in_the_file_makes_layers_slide(arch: str) -> None:
    assert reason(arch) == reason(arch, attention__sliding_window=4096) == "None"
    assert not slides(arch, {})
    assert slides(arch, {f"{arch}.attention.sliding_window": 4096})


def test_smallthinker_has_no_rope_where_it_does_not_slide() -> None:
    assert reason("smallthinker", attention__sliding_window=0) == "None"
    assert "no RoPE" in reason("smallthinker", attention__sliding_window=4096)


@pytest.mark.parametrize("arch", ["phi3", "phimoe"])
def test_phi_may_slide_only_inside_its_context(arch: str) -> None:
    assert "sliding" in reason(arch, attention__sliding_window=2047, context_length=4096)
    assert reason(arch, attention__sliding_window=0, context_length=4096) == "None"
    assert reason(arch, attention__sliding_window=262144, context_length=131072) == "None"


def test_exaone4_slides_in_its_large_model() -> None:
    assert "whole input have no RoPE" in reason("exaone4", block_count=64)
    assert reason("exaone4", block_count=30, attention__sliding_window=4096) == "None"


def test_other_architectures_do_not_read_a_window() -> None:
    assert reason("llama", attention__sliding_window=4096) == "None"


def test_temperature_by_position() -> None:
    assert "temperature" in reason("mistral3", attention__temperature_scale=0.1)
    assert reason("mistral3", attention__temperature_scale=0.0) == "None"


@pytest.mark.parametrize("kind", ["adapter", "mmproj"])
def test_what_is_no_model(kind: str) -> None:
    assert kind in str(qualifies("llama", {"general.type": kind}))
    assert qualifies("llama", {"general.type": "model"}) is None
