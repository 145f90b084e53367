"""A device beside the processor that lacks the fused operator, as every graphics card does.

It is a library of the tests' own (other_device.cpp in tests/support), whose memory nothing but
itself may touch: what is asked of a device, where a cache lies and what is copied there is seen on
any machine.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import tiny_config

Tiny = Callable[..., Path]
Run = Callable[..., Any]
REASON = "Other0 has no fused attention with LaMPE for this model"
CONFIG = tiny_config(length_step=32)
SLIDING = {"gemma3.attention.sliding_window": 12, "gemma3.attention.sliding_window_pattern": 2}


@pytest.mark.parametrize("arch", ["llama", "gemma3", "smollm3"])
@pytest.mark.parametrize("type_k", [0, 1, 8])
def test_one_layer_on_the_device_is_enough_for_the_portable_path(
    tiny: Tiny, on_device: Run, arch: str, type_k: int
) -> None:
    path = tiny(arch=arch, n_layer=4, lampe=CONFIG, extra=SLIDING if arch == "gemma3" else {})
    none, two, every = on_device("compare", model=str(path), layers=[0, 2, 99], type_k=type_k)
    assert (none["path"], none["reason"]) == ("fused", "")
    for found in (two, every):
        assert (found["path"], found["reason"]) == ("portable", REASON)
        # the device computes as the processor does
        assert found["distance"] < 1e-6 < none["distance"]


def test_a_cache_that_stays_with_the_processor_is_read_by_fused_attention(
    tiny: Tiny, on_device: Run
) -> None:
    path = tiny(lampe=CONFIG)
    kept = on_device("compare", model=str(path), layers=[99], type_k=0, type_v=0,
                     offload_kqv=False)[0]
    assert (kept["path"], kept["reason"]) == ("fused", "")
    assert 0 < kept["distance"] < 2e-5


def test_quantised_values_on_the_device_are_refused_with_a_way_out(
    tiny: Tiny, on_device: Run
) -> None:
    path = tiny(lampe=CONFIG)
    options = {"flash_attn": True, "type_v": 8, "n_gpu_layers": 99}
    assert "leave the values in f16" in on_device("refusal", model=str(path), **options)
    assert on_device("refusal", model=str(path), **options, offload_kqv=False) == ""


@pytest.mark.parametrize("flash_attn", [-1, 0, 1])
@pytest.mark.parametrize("refuses", ["", "FLASH_ATTN_EXT"])  # then "auto" means off
def test_off_is_upstream_where_the_device_lacks_fused_attention(
    tiny: Tiny, on_device: Run, flash_attn: int, refuses: str
) -> None:
    path, plain = tiny(lampe=CONFIG), tiny("plain.gguf", lampe=None, window=512)
    found = on_device("switched_off", model=str(path), plain=str(plain), flash_attn=flash_attn,
                      refuses=refuses)
    assert found == {"before": "portable", "same_logits": True, "same_state": True}


def test_quantised_values_on_the_device_with_lampe_off(tiny: Tiny, on_device: Run) -> None:
    path = tiny(lampe=CONFIG)
    options = {"flash_attn": True, "type_v": 8, "n_gpu_layers": 99, "lampe": False}
    assert on_device("refusal", model=str(path), **options) == ""


def test_doctor_says_what_each_device_would_run(on_device: Run) -> None:
    found = on_device("doctor")
    assert any(name.startswith("Other0") for name in found["devices"])
    assert found["path"] == "fused on CPU, portable on Other0"
