"""A server maps positions as the library does, and its memory is what llama.cpp counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import tiny_config
from serving_side import require_server, same, served

from lampe_gguf.backend.llama import LampeLlama
from lampe_gguf.convert import convert_gguf
from lampe_gguf.serving import memory, serve
from lampe_gguf.serving.arguments import Wishes
from lampe_gguf.serving.memory import MIB

PROMPT = "The keeper lit the lamp at dusk, and ships came in. " * 2
WINDOW = 32
TOKEN = 2 * 2 * 2 * 64 * 2  # bytes: keys and values of 2 layers, 2 heads of 64 values in 16 bits
ROTATION = 64 * 4  # and how far the keys at one position are turned, once for all slots


def said(model: Path, **wishes: Any) -> Any:
    with served(model, slots=1, **wishes) as client:
        return client.complete(PROMPT, 12, cache_prompt=False)


def written(model: Path, n: int = 12) -> list[int]:
    """What the library writes after the prompt."""
    with LampeLlama(model, n_ctx=0, n_threads=1, n_threads_batch=1) as llm:
        tokens = llm.tokenize(PROMPT.encode())
        assert len(tokens) > 3 * WINDOW
        stream = llm.generate(tokens, temp=0.0)
        return [next(stream) for _ in range(n)]


def test_a_plain_file_is_served_as_converted(tiny: Callable[..., Path], tmp_path: Path) -> None:
    plain = tiny("plain.gguf", lampe=None, window=WINDOW)
    converted = convert_gguf(plain, tmp_path / "converted.gguf").outputs[0]
    as_plain = said(plain)
    same(as_plain, said(converted), 1e-6)
    assert as_plain["tokens"] == written(converted)


def test_a_converted_file_is_served_with_its_own_map(tiny: Callable[..., Path]) -> None:
    model = tiny("own.gguf", lampe=tiny_config(local_window=4, max_mapping_length=12.0))
    answer = said(model)
    assert answer["tokens"] == written(model)
    assert answer["tokens"] != said(tiny("other.gguf"))["tokens"]  # the weights are the same


def test_without_lampe_a_converted_file_is_plain(tiny: Callable[..., Path]) -> None:
    models = (tiny("own.gguf", window=256, lampe=tiny_config(window=256)),
              tiny("plain.gguf", lampe=None, window=256))
    off, plain = (said(model, use_lampe=False) for model in models)
    same(off, plain, 0)
    assert off["tokens"] != said(models[0])["tokens"]


@pytest.mark.parametrize("options, part", [
    ([], 1.0), (["--cache-type-k", "q8_0", "--cache-type-v", "q8_0"], 34 / 64),
])
def test_keys_and_values_take_what_is_counted(
    tiny: Callable[..., Path], options: list[str], part: float
) -> None:
    require_server()
    model = tiny(lampe=tiny_config(context_length=65536))
    need = memory.measure(model, options, 65536, n_slots=2)
    assert need.kv == 65536 * (2 * TOKEN * part + ROTATION)


def test_little_memory_is_a_shorter_context(
    tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    require_server()
    model = tiny(lampe=tiny_config(context_length=65536))
    monkeypatch.setattr(serve, "free_memory", lambda: 80 * MIB)
    planned = serve.plan(model, Wishes(port=0, slots=1))
    given = planned.arguments[planned.arguments.index("--ctx-size") + 1]
    assert int(given) == planned.fitted.n_ctx and 20_000 < int(given) < 65536
    # a tenth stays free, and little more than that; llama.cpp counts in whole MiB
    assert 66 * MIB < planned.fitted.need.on("Host") < 73 * MIB
