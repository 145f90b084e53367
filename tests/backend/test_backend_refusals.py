"""What the patched llama.cpp refuses, and how it says so."""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import tiny_config
from llama_cpp import _logger
from llama_cpp import llama_cpp as C

from lampe_gguf.backend import api as backend
from lampe_gguf.backend.llama import LampeLlama
from lampe_gguf.errors import LampeError

Tiny = Callable[..., Path]
WARNING = 3  # ggml_log_level
TOKENS = [int(t) for t in np.random.default_rng(7).integers(3, 350, 120)]

BAD_VALUES = [
    ("version", 2), ("window", 8), ("context_length", 16), ("local_window", 0),
    ("local_window", 32), ("tail_window", 24), ("max_mapping_length", 11.0),
    ("max_mapping_length", 33.0), ("max_mapping_length", float("nan")),
    ("slope", float("nan")), ("slope", float("inf")), ("offset", float("-inf")),
    ("short_mapping_length", 5), ("short_mapping_length", 33), ("short_length", 7),
    ("attention_factor", 0.0),
    ("attention_factor", float("nan")), ("length_policy", "sometimes"), ("length_step", 0),
    ("method", "magic"), ("group_size", 1 << 25),
    ("local_window", ("float32", 8.0)), ("slope", ("string", "0")), ("slope", ("uint32", 0)),
    ("length_policy", ("uint32", 0)), ("window", ("string", "32")), ("window", ("int32", -5)),
    ("surprise", ("uint32", 1)),
]

def opened(path: Path, **options: Any) -> LampeLlama:
    return LampeLlama(path, **{"n_ctx": 256, "flash_attn": True, **options})


def with_value(key: str, value: Any) -> dict[str, Any]:
    values = dataclasses.asdict(tiny_config())
    values[key] = value
    return values


@pytest.mark.parametrize("key, value", BAD_VALUES)
def test_bad_metadata_is_refused_by_name(tiny: Tiny, key: str, value: Any) -> None:
    path = tiny(lampe=with_value(key, value))
    named = "short_mapping_length" if key == "short_length" else key
    with pytest.raises(LampeError, match=named):
        opened(path)


@pytest.mark.parametrize("key", [
    "version", "window", "context_length", "local_window", "tail_window", "max_mapping_length",
    "slope", "offset", "short_length", "short_mapping_length", "attention_factor",
    "length_policy", "length_step",
])
def test_missing_metadata_is_refused_by_name(tiny: Tiny, key: str) -> None:
    values = with_value(key, 0)
    del values[key]
    with pytest.raises(LampeError, match=f"{key} is missing"):
        opened(tiny(lampe=values))


@pytest.mark.parametrize("key, value", [("local_window", 0), ("slope", float("nan")),
                                        ("length_policy", 3), ("window", "32")])
def test_bad_overrides_are_refused_too(tiny: Tiny, key: str, value: Any) -> None:
    with pytest.raises(LampeError, match=key):
        opened(tiny(), kv_overrides={f"llama.rope.scaling.lampe.{key}": value})


def test_context_beyond_the_lampe_length_is_refused(tiny: Tiny) -> None:
    path = tiny()
    with pytest.raises(LampeError, match="n_ctx = 1024 is beyond the LaMPE context length of 512"):
        opened(path, n_ctx=1024)
    assert opened(path, n_ctx=0).n_ctx() == 512


def test_context_beyond_the_memory_is_refused_with_the_figure(tiny: Tiny) -> None:
    path = tiny(lampe=tiny_config(context_length=2**24), head_dim=256, n_head=8, n_head_kv=8)
    with pytest.raises(LampeError, match=r"needs \d+\.\d GiB .* pass n_ctx = \d+ or less"):
        opened(path, n_ctx=0)


def test_position_beyond_the_lampe_length_is_refused(tiny: Tiny) -> None:
    llm = opened(tiny())
    llm._batch.set_batch(batch=TOKENS[:10], n_past=505, logits_all=False)
    with pytest.raises(RuntimeError, match="position 514 .* beyond the LaMPE context length"):
        llm._ctx.decode(llm._batch)
    llm.eval(TOKENS[:10])  # still usable


@pytest.mark.parametrize("options, reason", [
    ({"arch": "maincoder"}, "does not commute"),  # told by the graph alone
    ({"extra": {"llama.attention.causal": False}}, "not causal"),
])
def test_models_that_do_not_qualify_are_refused(
    tiny: Tiny, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(LampeError, match=reason):
        opened(tiny(**options))
    assert opened(tiny("plain.gguf", lampe=None, **options)).path == "off"


def test_plain_llama_gets_lampe_and_the_reasons(tiny: Tiny) -> None:
    import llama_cpp

    path = tiny()
    plain = llama_cpp.Llama(str(path), n_ctx=256, verbose=False)
    # it passes no flash_attn, and its default is off
    assert (backend.get_path(plain.ctx), backend.get_path_reason(plain.ctx)) == ("fused", "")
    with pytest.raises(ValueError, match="local_window is 0"):
        llama_cpp.Llama(str(tiny("bad.gguf", lampe=with_value("local_window", 0))), verbose=False)
    with pytest.raises(ValueError, match="beyond the LaMPE context length"):
        llama_cpp.Llama(str(path), n_ctx=4096, verbose=False)


def test_switching_needs_an_empty_context(tiny: Tiny) -> None:
    llm = opened(tiny())
    llm.eval(TOKENS[:5])
    with pytest.raises(LampeError, match="only while the context is empty"):
        backend.set_enabled(llm.ctx, False)
    C.llama_memory_clear(C.llama_get_memory(llm.ctx), True)
    backend.set_enabled(llm.ctx, False)
    assert llm.path == "off" and llm.plan() is None


def test_paths_that_cannot_be_are_refused(tiny: Tiny) -> None:
    llm = opened(tiny())
    assert backend._library().llama_lampe_set_path(llm.ctx, 7) == -1
    assert backend.last_error() == "there is no path of attention 7" and llm.path == "fused"
    with pytest.raises(LampeError, match="give \"fused\" or \"portable\""):
        opened(tiny(), attention="portabel")
    with pytest.raises(LampeError, match="carries no LaMPE metadata"):
        backend.set_path(opened(tiny(lampe=None)).ctx, "portable")


def test_model_without_metadata_cannot_be_switched_on(tiny: Tiny) -> None:
    llm = opened(tiny(lampe=None))
    with pytest.raises(LampeError, match="no LaMPE metadata"):
        backend.set_enabled(llm.ctx, True)


@pytest.mark.parametrize("lampe", [None, False])
def test_what_a_stopped_batch_left_is_no_warning_under_lampe(tiny: Tiny, lampe: Any) -> None:
    said: list[tuple[int, str]] = []

    def keep(level: int, text: bytes, _: Any) -> None:
        said.append((level, text.decode("utf-8", "replace")))

    llm = opened(tiny(), lampe=lampe)
    callback = C.llama_log_callback(keep)
    C.llama_log_set(callback, ctypes.c_void_p(0))
    try:
        stop = ctypes.c_bool(True)
        backend.set_abort_flag(llm.ctx, stop)
        llm._batch.set_batch(batch=TOKENS[:10], n_past=0, logits_all=False)
        with pytest.raises(RuntimeError, match="llama_decode returned 2"):
            llm._ctx.decode(llm._batch)
    finally:
        C.llama_log_set(_logger.llama_log_callback, ctypes.c_void_p(0))
    warned = [text for level, text in said
              if level == WARNING and "removing memory module entries" in text]
    # upstream's own where LaMPE is off
    assert len(warned) == (0 if lampe is None else 1)
