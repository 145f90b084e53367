"""A model over several devices, in each of llama.cpp's ways: none, layer, row, tensor.

The devices are the tests' own (other_device.cpp in tests/support). They compute what the processor
computes, so what they give together can be held against what one of them gives.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import tiny_config

Tiny = Callable[..., Path]
Run = Callable[..., Any]
NONE, LAYER, ROW, TENSOR = range(4)
TWO = {"OTHER_DEVICES": "2"}
FUSED = {"OTHER_DEVICE_FUSED": "Other0,Other1"}
GUARDS = {"OTHER_DEVICE_GUARDS": "1"}  # one's memory is out of the other's reach
LACKING = "Other{} has no fused attention with LaMPE for this model"
SPLIT = ("one of the devices has no fused attention with LaMPE for this model, which tensors split "
         "across devices need: pass another split_mode, such as layer")
CONFIG = tiny_config(length_step=32)
SLIDING = {"gemma3.attention.sliding_window": 12, "gemma3.attention.sliding_window_pattern": 2}
F32 = {"type_k": 0, "type_v": 0}  # rounded keys and values would make much of the last bit


@pytest.fixture
def model(tiny: Tiny) -> Callable[..., str]:
    """Make a model of four layers, wide enough for two devices to have a part of each tensor."""

    def make(**options: Any) -> str:
        extra = SLIDING if options.get("arch") == "gemma3" else {}
        name = "plain.gguf" if options.get("lampe", CONFIG) is None else "tiny.gguf"
        shape = {"n_layer": 4, "n_head": 4, "n_head_kv": 2, "n_ff": 256}
        return str(tiny(name, **{**shape, "lampe": CONFIG, "extra": extra, **options}))

    return make


def caches(device: list[str]) -> list[str]:
    """Those of keys that a device wrote, as "layer:length of a row"."""
    return [name.removeprefix("cache_k_l") for name in device if name.startswith("cache_k")]


@pytest.mark.parametrize("arch", ["llama", "gemma3"])
@pytest.mark.parametrize("settings, path", [({}, "portable"), ({**FUSED, **GUARDS}, "fused")])
def test_layers(
    model: Callable[..., str], on_device: Run, arch: str, settings: dict[str, str], path: str
) -> None:
    events = {"OTHER_DEVICE_EVENTS": "1"}  # llama.cpp keeps several copies of its inputs then
    found = on_device("readings", {**TWO, **settings}, model=model(arch=arch), cases=[
        {"split_mode": NONE}, {"split_mode": NONE, "main_gpu": 1},
        {"split_mode": LAYER, "tensor_split": [1, 1]},
        {"split_mode": LAYER, "tensor_split": [1, 3], "settings": events},
    ])
    assert [each["path"] for each in found] == [path] * 4
    assert [each["distance"] for each in found] == [0] * 4
    assert max(each["resumed"] for each in found[1:]) < 1e-4  # a sliding window's cells are moved
    where = [[caches(device) for device in each["devices"]] for each in found]
    every = [f"{layer}:128" for layer in range(4)]
    assert where == [[every, []], [[], every], [every[:3], every[3:]], [every[:2], every[2:]]]


def test_one_device_that_lacks_the_operator_decides_for_all(
    model: Callable[..., str], on_device: Run
) -> None:
    first = {**TWO, "OTHER_DEVICE_FUSED": "Other0"}
    path = model()
    alone, both, idle = on_device("readings", first, model=path, cases=[
        {"split_mode": NONE, "main_gpu": 1}, {"split_mode": LAYER},
        {"split_mode": LAYER, "tensor_split": [1, 0]},
    ])
    assert (both["path"], both["reason"]) == ("portable", LACKING.format(1))
    assert alone["distance"] == both["distance"] == 0 < idle["distance"]
    assert (idle["path"], idle["reason"]) == ("fused", "")
    refused = on_device("refusal", first, model=path, n_gpu_layers=99, attention="fused")
    assert LACKING.format(1) in refused
    assert on_device("doctor", first)["path"] == "fused on CPU, fused on Other0, portable on Other1"


@pytest.mark.parametrize("settings, path", [({}, "portable"), (FUSED, "fused")])
def test_rows(
    model: Callable[..., str], on_device: Run, settings: dict[str, str], path: str
) -> None:
    rows = {"OTHER_DEVICE_ROWS": "1"}
    found = on_device("readings", {**TWO, **settings}, model=model(), cases=[
        {"split_mode": NONE}, {"split_mode": ROW, "tensor_split": [1, 3], "settings": rows},
    ])[1]
    assert (found["path"], found["distance"]) == (path, 0)
    assert [caches(device) for device in found["devices"]] == [["0:128", "1:128"],
                                                              ["2:128", "3:128"]]
    for layer in range(4):
        for device, count in zip(found["devices"], (64, 192), strict=True):
            assert f"blk.{layer}.ffn_up.weight:{count}" in device


def test_rows_are_refused_as_upstream_does(model: Callable[..., str], on_device: Run) -> None:
    said = on_device("refusals", TWO, model=model(), cases=[
        {"split_mode": ROW}, {"split_mode": ROW, "lampe": False},
    ])
    assert said == ["device Other0 does not support split buffers"] * 2


@pytest.mark.parametrize("options", [
    {"arch": "llama"}, {"arch": "gemma3"}, {"arch": "qwen2", "n_head_kv": 4},
    {"arch": "llama", "n_head_kv": 1},  # one of the devices has no head
    {"arch": "gemma3", "n_ff": 128},  # ... and no part of the feed-forward network
])
def test_tensors(model: Callable[..., str], on_device: Run, options: dict[str, Any]) -> None:
    found = on_device("readings", {**TWO, **FUSED}, model=model(**options), cases=[
        {"split_mode": NONE, **F32}, {"split_mode": TENSOR, **F32},
        {"split_mode": TENSOR, "tensor_split": [1, 3], **F32},
    ])
    for each in found[1:]:
        assert (each["path"], each["reason"], each["numbers"]) == ("fused", "", True)
        assert each["distance"] < 2e-5 and each["resumed"] < 1e-4
    length = 64 * options.get("n_head_kv", 2)  # of a token's keys
    for device in found[1]["devices"]:
        assert "LAMPE_ATTN" in device
    for layers in zip(*(caches(device) for device in found[1]["devices"]), strict=True):
        parts = sorted(int(layer.split(":")[1]) for layer in layers)
        assert parts == ([0, 64] if length == 64 else [length // 2] * 2)


def test_tensors_with_lampe_off_are_upstreams(model: Callable[..., str], on_device: Run) -> None:
    plain = model(lampe=None, window=512)
    for flash_attn in (-1, 1):
        found = on_device("switched_off", {**TWO, **FUSED}, model=model(), plain=plain,
                          flash_attn=flash_attn, split_mode=TENSOR)
        assert found == {"before": "fused", "same_logits": True, "same_state": True}
    assert on_device("refusal", TWO, model=model(), n_gpu_layers=99, split_mode=TENSOR,
                     lampe=False) == ""  # it asks for no operator of ours


def test_tensors_that_are_refused(model: Callable[..., str], on_device: Run) -> None:
    cases = [
        {},
        {"settings": {"OTHER_DEVICE_FUSED": "Other1"}, "type_v": 8},
        {"settings": FUSED, "attention": "portable"},
        {"offload_kqv": False},
        {"flash_attn": False},
        {},
    ]
    said = on_device("refusals", TWO, model=model(),
                     cases=[{"split_mode": TENSOR, **case} for case in cases])
    assert said[:2] == [SPLIT, SPLIT]
    assert "the portable path does not run with tensors split across devices: pass" in said[2]
    assert "tensors split across devices need the cache there, too" in said[3]
    assert "need flash attention; pass flash_attn=True" in said[4]
    assert said[5:] == [""]
