"""Which models qualify: what depends on the file, and not on the architecture's name alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from lampe_gguf.container.reader import GGUFFile
from lampe_gguf.convert import convert_gguf as convert
from lampe_gguf.errors import LampeError
from lampe_gguf.model.architectures import FIELDS, qualifies, slides
from lampe_gguf.model.description import read_model


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


WRONG = ["a string", [1.5], ["x"], [], True, 1.5, -1, float("nan")]
TAKES = {  # key -> (an architecture that looks at it, what of WRONG is right there)
    "attention.causal": ("llama", [True]),
    "attention.rope_pattern": ("granite_swa", [[], -1]),
    "attention.sliding_window": ("phi3", []),
    "attention.sliding_window_pattern": ("granite_swa", [[], -1]),
    "attention.temperature_scale": ("mistral3", [1.5, -1]),
    "block_count": ("baichuan", []),
    "context_length": ("phi3", []),
    "rope.dimension_count": ("llama", []),
    "rope.dimension_sections": ("qwen2", [[], -1]),
    "rope.scaling.finetuned": ("granite", [True]),
}


@pytest.mark.parametrize("value", WRONG, ids=repr)
@pytest.mark.parametrize("name", list(FIELDS))
def test_values_of_wrong_types_are_refused_by_name(name: str, value: Any) -> None:
    arch, right = TAKES[name]
    key = f"{arch}.{name}"
    metadata: dict[str, Any] = {key: value}
    if name == "context_length":
        metadata["phi3.attention.sliding_window"] = 64
    if repr(value) in map(repr, right):
        qualifies(arch, metadata)
        return
    with pytest.raises(LampeError, match=f"^{re.escape(key)} is .* and must be ") as caught:
        qualifies(arch, metadata)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("arch", ["phi3", "gemma3", "smallthinker"])
def test_a_window_of_a_wrong_type_in_a_file(tmp_path: Path, arch: str) -> None:
    for number, value in enumerate(("4096", [4096, 4096], True, 4096.0, -4096)):
        path = tmp_path / f"{number}.gguf"
        writer = gguf.GGUFWriter(path, arch)
        writer.add_uint32(f"{arch}.context_length", 8192)
        key = f"{arch}.attention.sliding_window"
        {str: writer.add_string, list: writer.add_array, bool: writer.add_bool,
         float: writer.add_float32, int: writer.add_int32}[type(value)](key, value)
        writer.add_tensor("t", np.zeros(4, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        with pytest.raises(LampeError, match=f"^{key} is "):
            if arch == "gemma3":  # which qualifies with a window or without
                with GGUFFile(path) as file:
                    slides(arch, read_model(file).values)
            convert(path)


def test_a_kind_that_is_no_string() -> None:
    with pytest.raises(LampeError, match="^general.type is 5 .* must be a string"):
        qualifies("llama", {"general.type": 5})


def test_one_number_for_all_sections_is_m_rope() -> None:
    assert "M-RoPE" in reason("llama", rope__dimension_sections=8)
    assert reason("llama", rope__dimension_sections=0) == "None"
