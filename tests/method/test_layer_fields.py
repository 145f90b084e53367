"""The metadata of single layers: Python and the backend accept and refuse the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llama_cpp as C
import numpy as np
import pytest
from conftest import tiny_config
from test_fields import backend_says, python_says, written
from tiny_model import make_tiny_model

from lampe_gguf.backend import api as backend
from lampe_gguf.backend.llama import LampeLlama
from lampe_gguf.container.format import ValueType
from lampe_gguf.container.reader import GGUFFile
from lampe_gguf.container.writer import encode_array, encode_pair
from lampe_gguf.errors import LampeError
from lampe_gguf.method.fields import FIELDS, LAYER_KEYS, MAX_LAYER_MAPS, MAX_LAYERS
from lampe_gguf.method.layers import LayerMap
from lampe_gguf.model import encoding, layers, metadata

PREFIX = metadata.prefix("llama")
N_LAYER = 3
CONFIG = tiny_config(layer_maps=(LayerMap((0,), 3, 1, 9.0), LayerMap((2,), 12, 0, 28.5)))
WHOLE = sorted(metadata.WHOLE)
NUMBERS = [ValueType.FLOAT32, ValueType.FLOAT64]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """No log of the many loads."""
    C._logger.set_verbose(False)
    yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without LaMPE, as small as can be."""
    path = tmp_path_factory.mktemp("fields") / "base.gguf"
    return make_tiny_model(
        path, window=32, n_layer=N_LAYER, head_dim=32, n_ff=32, n_head=2, n_head_kv=1)


def pairs_of(config: Any, n_layer: int = N_LAYER) -> dict[str, bytes]:
    names = [field.name for field in FIELDS] + [*LAYER_KEYS] * bool(config.layer_maps)
    return dict(zip(names, encoding.encode("llama", config, n_layer), strict=True))


def both(base: Path, path: Path, pairs: dict[str, bytes]) -> tuple[str, str]:
    path = written(base, path, [pair for pair in pairs.values() if pair])
    return python_says(path), backend_says(path)


def cases(name: str) -> Iterator[tuple[str, bytes]]:
    """Other pairs for one key: every type of element, and lists that do not fit."""
    full = PREFIX + name
    yield "missing", b""
    yield "no array", encode_pair(full, ValueType.UINT32, 1)
    yield "a text", encode_pair(full, ValueType.STRING, "1,0,2")
    good: list[Any] = {"layer_map": [1, 0, 2], "layer_map_local_window": [3, 12],
                       "layer_map_tail_window": [1, 0],
                       "layer_map_max_mapping_length": [9, 28]}[name]
    for kind in (*WHOLE, *NUMBERS, ValueType.BOOL):
        yield kind.name, encode_array(full, kind, good)
    kind = metadata.TYPES["f64" if name == LAYER_KEYS[-1] else "u32"]
    lists: list[list[Any]] = [[], good[:-1], [*good, good[-1]], good * 10, good[::-1],
                              [0] * len(good), [*good[:-1], 31], [*good[:-1], 33],
                              [*good[:-1], 5000]]
    if kind is ValueType.FLOAT64:
        lists += [[9.0, bad] for bad in (np.nan, np.inf, -1.0, 32.0, np.nextafter(32, 33),
                                         13.0, np.nextafter(13, 0))]
    for values in lists:
        yield str(values), encode_array(full, kind, values)
    if kind is ValueType.UINT32:
        yield "negative", encode_array(full, ValueType.INT32, [*good[:-1], -1])
        yield "too large", encode_array(full, ValueType.UINT64, [*good[:-1], 2**32])
        yield "largest", encode_array(full, ValueType.UINT64, [*good[:-1], 2**64 - 1])


@pytest.mark.parametrize("name", LAYER_KEYS)
def test_both_accept_and_refuse_the_same(base: Path, tmp_path: Path, name: str) -> None:
    found = {}
    for label, pair in cases(name):
        ours, theirs = both(base, tmp_path / "m.gguf", pairs_of(CONFIG) | {name: pair})
        assert (ours == "") == (theirs == ""), (label, ours, theirs)
        found[label] = not ours
    assert not found["missing"] and not found["no array"] and not found["BOOL"]
    right, wrong = (NUMBERS, WHOLE) if name == LAYER_KEYS[-1] else (WHOLE, NUMBERS)
    assert all(found[kind.name] for kind in right) and not any(found[k.name] for k in wrong)
    assert list(found.values()).count(True) < len(found) - 8


@pytest.mark.parametrize("count", [1, 2, MAX_LAYER_MAPS, MAX_LAYER_MAPS + 1])
def test_the_number_of_maps(base: Path, tmp_path: Path, count: int) -> None:
    # two more than there are layers: the rest of the maps would have none
    maps = [[3] * count, [1] * count, [9.0] * count]
    numbers = [min(i, count) for i in range(1, N_LAYER + 1)]
    pairs = pairs_of(CONFIG) | {
        name: encode_array(PREFIX + name, kind, values) for name, kind, values in zip(
            LAYER_KEYS, [ValueType.UINT32] * 3 + [ValueType.FLOAT64], [numbers, *maps],
            strict=True)}
    ours, theirs = both(base, tmp_path / "m.gguf", pairs)
    assert (ours == "") == (theirs == "") == (count <= N_LAYER), (ours, theirs)


@pytest.mark.parametrize("n_layer", [N_LAYER - 1, N_LAYER + 1, MAX_LAYERS, 4000])
def test_another_number_of_layers_is_refused(base: Path, tmp_path: Path, n_layer: int) -> None:
    config = dataclasses.replace(CONFIG, layer_maps=CONFIG.layer_maps[:1])
    for said in both(base, tmp_path / "m.gguf", pairs_of(config, n_layer)):
        assert f"layer_map has {n_layer} values" in said


def test_versions_say_whether_there_are_any(base: Path, tmp_path: Path) -> None:
    without = dataclasses.replace(CONFIG, layer_maps=())
    two = encode_pair(PREFIX + "version", ValueType.UINT32, 2)
    for pairs, said in [
        (pairs_of(without) | {"version": two}, "layer_map_local_window is missing"),
        (pairs_of(CONFIG) | {"version": pairs_of(without)["version"]}, "layer_map"),
    ]:
        for each in both(base, tmp_path / "m.gguf", pairs):
            assert said in each
    assert both(base, tmp_path / "m.gguf", pairs_of(without)) == ("", "")
    assert pairs_of(without) == {name: pair for name, pair in pairs_of(CONFIG).items()
                                 if name not in LAYER_KEYS} | {
        "version": encode_pair(PREFIX + "version", ValueType.UINT32, 1)}


def test_what_was_written_is_read(base: Path, tmp_path: Path) -> None:
    path = written(base, tmp_path / "m.gguf", list(pairs_of(CONFIG).values()))
    with GGUFFile(path) as file:
        assert metadata.read(file, "llama") == CONFIG
    model = C.llama_model_load_from_file(str(path).encode(), C.llama_model_default_params())
    assert backend.model_config(model) == CONFIG
    C.llama_model_free(model)


@pytest.mark.parametrize("pattern, sliding", [
    (2, {0, 2}), (3, {0, 1}), (1, set()), ([1, 0, 1], {0, 2}), ([0, 0, 0], set()),
    (None, {0, 1, 2}),  # Gemma 3: the last of six sees all
])
def test_both_know_which_layers_slide(
    tmp_path: Path, pattern: Any, sliding: set[int]
) -> None:
    extra: dict[str, Any] = {"gemma3.attention.sliding_window": 12}
    if isinstance(pattern, int):
        extra["gemma3.attention.sliding_window_pattern"] = pattern
    path = make_tiny_model(tmp_path / "base.gguf", arch="gemma3", n_layer=N_LAYER, window=32,
                           head_dim=32, n_ff=32, n_head=2, n_head_kv=1, extra=extra)
    for layer in range(N_LAYER):
        config = tiny_config(layer_maps=(LayerMap((layer,), 3, 1, 9.0),))
        pairs = encoding.encode("gemma3", config, N_LAYER)
        if isinstance(pattern, list):
            key = "gemma3.attention.sliding_window_pattern"
            pairs.append(encode_array(key, ValueType.BOOL, pattern))
        model = written(path, tmp_path / "m.gguf", pairs)
        with GGUFFile(model) as file:
            values = layers.values_of(file, "gemma3")
            assert layers.sliding_layers("gemma3", values) == sliding
            assert {*layers.free_layers("gemma3", values)} == {*range(N_LAYER)} - sliding
            try:
                metadata.read(file, "gemma3")
                ours = ""
            except LampeError as error:
                ours = str(error)
        theirs = backend_says(model)
        assert (ours == "") == (theirs == "") == (layer not in sliding), (layer, ours, theirs)
        assert ("sliding window" in ours) == ("sliding window" in theirs) == (layer in sliding)


def test_layers_that_guess_ahead_have_no_map() -> None:
    values = {"llama.block_count": 4, "llama.nextn_predict_layers": 1}
    config = tiny_config(layer_maps=(LayerMap((2,), 3, 1, 9.0),))
    layers.require_layers("llama", values, config)
    config = tiny_config(layer_maps=(LayerMap((3,), 3, 1, 9.0),))
    with pytest.raises(LampeError, match="of layers that this model has, 0 to 2"):
        layers.require_layers("llama", values, config)
    assert layers.free_layers("llama", values) == [0, 1, 2]


def test_a_map_of_a_layer_without_rope_changes_nothing(tmp_path: Path) -> None:
    config = tiny_config()
    path = make_tiny_model(tmp_path / "m.gguf", arch="smollm3", n_layer=5, window=32, lampe=config)
    with GGUFFile(path) as file:
        free = layers.free_layers("smollm3", layers.values_of(file, "smollm3"))
    assert free == [0, 1, 2, 4]
    with LampeLlama(path, n_ctx=128, n_threads=1, n_threads_batch=1) as llm:

        def logits(layer_maps: tuple[LayerMap, ...]) -> Any:
            llm.set_config(dataclasses.replace(config, layer_maps=layer_maps))
            llm.reset()
            return next(llm.read_logits(list(range(3, 103))))[1].copy()

        uniform = logits(())
        changed = [not np.allclose(logits((LayerMap((layer,), 3, 1, 9.0),)), uniform, atol=1e-3)
                   for layer in range(5)]
    assert [layer for layer in range(5) if changed[layer]] == free


def test_a_file_may_say_which_layers_have_rope() -> None:
    values = {"granite_swa.block_count": 4, "granite_swa.attention.rope_pattern": [1, 0, 0, 1],
              "granite_swa.attention.sliding_window_pattern": [0, 1, 0, 0]}
    assert layers.free_layers("granite_swa", values) == [0, 3]
