"""A map for some layers: both paths against the oracle, and nothing else touched by it."""

from __future__ import annotations

import ctypes
import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest
from conftest import attention, tiny_config, within
from llama_cpp import llama_cpp as C
from stock_side import all_logits, distance
from tiny_oracle import TinyOracle

from lampe_gguf.attention.measure import measure
from lampe_gguf.backend import api as backend
from lampe_gguf.backend.llama import LampeLlama
from lampe_gguf.errors import LampeError
from lampe_gguf.method.config import LampeConfig
from lampe_gguf.method.layers import LayerMap
from lampe_gguf.model import metadata

Tiny = Callable[..., Path]
PATHS = [True, False]  # fused, portable
TOKENS = [int(t) for t in np.random.default_rng(7).integers(3, 350, 120)]
F32 = {"type_k": 0, "type_v": 0}
# the base maps into 20 positions, exact up to 8
NARROW = LayerMap((0,), 3, 1, 9.0)
WIDE = LayerMap((2, 3), 12, 0, 28.5)
LAYERS = 4
CONFIG = tiny_config(layer_maps=(NARROW, WIDE))
BASE = tiny_config()


def opened(path: Path, fused: bool = True, **options: Any) -> LampeLlama:
    values = {"n_ctx": 256, **attention(fused)}
    return LampeLlama(path, **{**values, **options})


def same_as_base(*layers: int) -> LampeConfig:
    """Maps of their own that say what the base says."""
    own = LayerMap(layers, BASE.local_window, BASE.tail_window, BASE.max_mapping_length)
    return dataclasses.replace(BASE, layer_maps=(own,))


@pytest.mark.parametrize("fused", PATHS)
@pytest.mark.parametrize("arch", ["llama", "qwen2"])
@pytest.mark.parametrize("maps", [(NARROW, WIDE), (NARROW, LayerMap((1, 2, 3), 12, 0, 28.5))],
                         ids=["a layer without", "every layer has its own"])
def test_equals_the_oracle(tiny: Tiny, fused: bool, arch: str, maps: tuple[LayerMap, ...]) -> None:
    config = tiny_config(layer_maps=maps)
    path = tiny(arch=arch, n_layer=LAYERS, lampe=config)
    oracle = TinyOracle(path)
    want = oracle.logits(TOKENS, config)
    llm = opened(path, fused, **F32)
    assert llm.lampe_config == config and llm.path == ("fused" if fused else "portable")
    got = all_logits(llm, TOKENS)
    cost = distance(want, oracle.logits(TOKENS, config, key_type=np.float16))
    assert distance(want, got) < within(cost)
    # and each map matters, in its own layers
    others = [dataclasses.replace(config, layer_maps=maps[:k] + maps[k + 1:]) for k in range(2)]
    moved = dataclasses.replace(maps[0], layers=(1,)), dataclasses.replace(maps[1], layers=(0,))
    for other in [*others, tiny_config(layer_maps=moved)]:
        assert distance(want, oracle.logits(TOKENS, other)) > 50 * cost


@pytest.mark.parametrize("fused", PATHS)
@pytest.mark.parametrize("changes", [
    {"method": "jetlong"}, {"method": "rerope"}, {"attention_factor": 1.2},
    {"length_policy": "prompt"}, {"slope": 0.01, "offset": -2.0},
    {"short_length": 64, "short_mapping_length": 15},
])
def test_all_else_is_the_bases(tiny: Tiny, fused: bool, changes: dict[str, Any]) -> None:
    config = tiny_config(layer_maps=(NARROW, LayerMap((1,), 10, 2, 15.0)), **changes)
    path = tiny(n_layer=3, lampe=config)
    want = TinyOracle(path).logits(TOKENS, config)
    cost = distance(want, TinyOracle(path).logits(TOKENS, config, key_type=np.float16))
    assert distance(want, all_logits(opened(path, fused, **F32), TOKENS)) < within(cost)


@pytest.mark.parametrize("fused", PATHS)
def test_the_bases_own_values_change_no_bit(tiny: Tiny, fused: bool) -> None:
    path = tiny(n_layer=LAYERS)
    llm = opened(path, fused)
    want = all_logits(llm, TOKENS)
    for layers in [(1,), (0, 1, 2, 3)]:
        config = same_as_base(*layers)
        llm.reset()
        llm.set_config(config)
        np.testing.assert_array_equal(all_logits(llm, TOKENS), want)
        other = opened(tiny("own.gguf", n_layer=LAYERS, lampe=config), fused)
        np.testing.assert_array_equal(all_logits(other, TOKENS), want)
    llm.reset()
    llm.set_config(CONFIG)
    assert distance(want, all_logits(llm, TOKENS)) > 0.01
    llm.reset()
    llm.set_config(BASE)
    np.testing.assert_array_equal(all_logits(llm, TOKENS), want)


@pytest.mark.parametrize("fused", PATHS)
def test_off_is_stock(tiny: Tiny, fused: bool) -> None:
    plain = tiny("plain.gguf", n_layer=LAYERS, lampe=None)
    want = all_logits(opened(plain, fused), TOKENS)
    off = opened(tiny(n_layer=LAYERS, lampe=CONFIG), fused, lampe=False)
    assert off.plan_for(100, 0) is None
    np.testing.assert_array_equal(all_logits(off, TOKENS), want)


@pytest.mark.parametrize("fused", PATHS)
def test_any_way_to_give_them_is_the_same(tiny: Tiny, fused: bool) -> None:
    path = tiny(n_layer=LAYERS, lampe=CONFIG)
    want = all_logits(opened(path, fused), TOKENS)
    plain = tiny("plain.gguf", n_layer=LAYERS, lampe=None)
    np.testing.assert_array_equal(all_logits(opened(plain, fused, lampe=CONFIG), TOKENS), want)
    # a configuration that is given takes the place of the file's, its maps too
    base = all_logits(opened(plain, fused, lampe=BASE), TOKENS)
    np.testing.assert_array_equal(all_logits(opened(path, fused, lampe=BASE), TOKENS), base)
    np.testing.assert_array_equal(
        all_logits(opened(tiny("base.gguf", n_layer=LAYERS), fused, lampe=CONFIG), TOKENS), want)
    # what gives single values leaves the maps alone
    key = metadata.prefix("llama") + "local_window"
    changed = opened(path, fused, kv_overrides={key: 9}).lampe_config
    assert changed == dataclasses.replace(CONFIG, local_window=9)
    changed = opened(plain, fused, lampe=CONFIG, kv_overrides={key: 9}).lampe_config
    assert changed == dataclasses.replace(CONFIG, local_window=9)
    off = opened(plain, fused, lampe=CONFIG, kv_overrides={metadata.prefix("llama") + "version": 0})
    assert off.path == "off"
    # and none of them is an array
    with pytest.raises(LampeError, match="layer_map_local_window cannot be an override"):
        opened(path, fused, kv_overrides={metadata.prefix("llama") + "layer_map_local_window": 3})


def test_programs_that_know_nothing_of_it_get_it(tiny: Tiny) -> None:
    path = tiny(n_layer=LAYERS, lampe=CONFIG)
    plain = llama_cpp.Llama(str(path), n_ctx=256, verbose=False)
    assert backend.get_config(plain.ctx) == CONFIG == backend.model_config(plain.model)
    np.testing.assert_array_equal(all_logits(plain, TOKENS), all_logits(opened(path), TOKENS))


@pytest.mark.parametrize("fused", PATHS)
def test_a_copy_keeps_them(tiny: Tiny, fused: bool) -> None:
    llm = opened(tiny(n_layer=LAYERS), fused)
    llm.set_config(CONFIG)
    again = pickle.loads(pickle.dumps(llm))
    assert again.lampe_config == CONFIG
    np.testing.assert_array_equal(all_logits(again, TOKENS), all_logits(llm, TOKENS))


def test_both_paths_agree_with_any_cache_and_batches(tiny: Tiny) -> None:
    path = tiny(n_layer=LAYERS, lampe=CONFIG)
    whole = all_logits(opened(path, **F32), TOKENS)
    for fused in PATHS:
        for batches in ([1] * 120, [7, 50, 1, 62]):
            parts = all_logits(opened(path, fused, **F32), TOKENS, batches)
            assert distance(whole, parts) < within(1e-4), (fused, batches)
    for type_k, most in (("1", 3e-3), ("8", 1e-2)):
        pair = [all_logits(opened(path, fused, type_k=int(type_k)), TOKENS) for fused in PATHS]
        assert distance(*pair) < most


@pytest.mark.parametrize("fused", PATHS)
def test_maps_may_change_with_every_token(tiny: Tiny, fused: bool) -> None:
    # one layer: what is cached depends on the token alone
    path = tiny(n_layer=1)
    own = tiny_config(layer_maps=(LayerMap((0,), 3, 1, 9.0),))
    want = {config: TinyOracle(path).logits(TOKENS, config) for config in (BASE, own)}
    llm = opened(path, fused, **F32)
    for start in range(0, 120, 20):
        config = (BASE, own)[start // 20 % 2]
        llm.set_config(config)
        got = all_logits(llm, TOKENS[start : start + 20])
        assert distance(want[config][start : start + 20], got) < within(1e-4)


@pytest.mark.parametrize("fused", PATHS)
def test_a_state_holds_no_map(tiny: Tiny, fused: bool) -> None:
    path = tiny(n_layer=LAYERS, lampe=CONFIG)
    llm = opened(path, fused)
    llm.eval(TOKENS[:80])
    state = llm.save_state()
    want = all_logits(llm, TOKENS[80:])
    other = opened(path, fused)
    other.load_state(state)
    np.testing.assert_array_equal(all_logits(other, TOKENS[80:]), want)
    # asked under the base: as the first would be, whose map was set
    llm.load_state(state)
    llm.set_config(BASE)
    third = opened(tiny("base.gguf", n_layer=LAYERS), fused)
    third.load_state(state)
    asked = all_logits(third, TOKENS[80:])
    np.testing.assert_array_equal(asked, all_logits(llm, TOKENS[80:]))
    assert distance(want, asked) > 0.01


@pytest.mark.parametrize("changes", [{}, {"method": "rerope"}, {"slope": 0.01, "offset": -2.0}])
def test_plans_are_those_of_the_method(tiny: Tiny, changes: dict[str, Any]) -> None:
    config = dataclasses.replace(CONFIG, **changes)
    llm = opened(tiny(n_layer=LAYERS, lampe=config))
    for length in [*range(1, 130, 3), 511, 100_003]:
        assert llm.plan_for(length) == config.plan(length)
        for layer in range(LAYERS):
            assert llm.plan_for(length, layer) == config.for_layer(layer).plan(length)
    assert llm.plan_for(100, LAYERS) is None and llm.plan_for(100, -1) is None
    assert config.for_layer(1).plan(100) != config.for_layer(0).plan(100)


def nodes(llm: LampeLlama) -> int:
    """How many operators a token takes."""
    found = 0

    def count(_: int, asks: bool, __: Any) -> bool:
        nonlocal found
        found += asks
        return not asks

    callback = C.ggml_backend_sched_eval_callback(count)
    params = type(llm.context_params).from_buffer_copy(llm.context_params)
    params.cb_eval = callback
    context = C.llama_init_from_model(llm.model, params)
    backend.set_path(context, llm.path)
    backend.set_config(context, llm.lampe_config or BASE)
    batch = C.llama_batch_init(1, 0, 1)
    batch.n_tokens = 1
    batch.token[0], batch.pos[0], batch.n_seq_id[0], batch.seq_id[0][0] = 5, 0, 1, 0
    found = 0
    assert C.llama_decode(context, batch) == 0
    C.llama_batch_free(batch)
    C.llama_free(context)
    return found


@pytest.mark.parametrize("fused", PATHS)
def test_the_graph_has_no_node_more(tiny: Tiny, fused: bool) -> None:
    llm = opened(tiny(n_layer=LAYERS), fused)
    before = nodes(llm)
    assert before > LAYERS
    llm.set_config(CONFIG)
    assert nodes(llm) == before


def test_attention_can_be_looked_at(tiny: Tiny) -> None:
    text = "".join(map(chr, range(97, 122))) * 8
    found = {}
    for name, config in (("base", BASE), ("same", same_as_base(1)), ("own", CONFIG)):
        report = measure(tiny(f"{name}.gguf", n_layer=LAYERS, lampe=config), text, [120],
                         trained_length=16, n_queries=4)
        found[name] = [each for each in report.readings if each.method == "lampe"]
    assert found["base"] and found["base"] == found["same"] != found["own"]


@pytest.mark.parametrize("layers, said", [
    ((4,), "layer 4: this model has the layers 0 to 3"),
    ((0, 511), "layer 511: this model has"),
])
def test_layers_that_a_model_lacks_are_refused(
    tiny: Tiny, layers: tuple[int, ...], said: str
) -> None:
    llm = opened(tiny(n_layer=LAYERS, lampe=CONFIG))
    with pytest.raises(LampeError, match=said):
        llm.set_config(dataclasses.replace(BASE, layer_maps=(
            dataclasses.replace(NARROW, layers=layers),)))
    assert llm.lampe_config == CONFIG  # nothing has changed
    llm.eval(TOKENS[:20])
    with pytest.raises(LampeError, match=said):
        opened(tiny("plain.gguf", n_layer=LAYERS, lampe=None), lampe=dataclasses.replace(
            BASE, layer_maps=(dataclasses.replace(NARROW, layers=layers),)))


def gemma(tiny: Tiny, config: LampeConfig | None, name: str = "gemma.gguf") -> Path:
    """Layers 0 and 2 see a window of 12 tokens, 1 and 3 all of them."""
    return tiny(name, arch="gemma3", n_layer=LAYERS, lampe=config, extra={
        "gemma3.attention.sliding_window": 12, "gemma3.attention.sliding_window_pattern": 2,
        "gemma3.rope.freq_base_swa": 500.0})


@pytest.mark.parametrize("fused", PATHS)
def test_beside_sliding_windows(tiny: Tiny, fused: bool) -> None:
    config = tiny_config(layer_maps=(dataclasses.replace(NARROW, layers=(1,)),))
    path = gemma(tiny, config)
    oracle = TinyOracle(path)
    want = oracle.logits(TOKENS, config)
    llm = opened(path, fused, **F32)
    cost = distance(want, oracle.logits(TOKENS, config, key_type=np.float16))
    assert distance(want, all_logits(llm, TOKENS)) < 4 * cost
    assert distance(want, oracle.logits(TOKENS, BASE)) > 50 * cost
    assert llm.plan_for(100, 0).is_identity  # type: ignore[union-attr]
    assert llm.plan_for(100, 1) == config.for_layer(1).plan(100)
    with pytest.raises(LampeError, match="layer 2: .* sees a sliding window only"):
        llm.set_config(dataclasses.replace(
            config, layer_maps=(dataclasses.replace(NARROW, layers=(1, 2)),)))
    assert llm.lampe_config == config


def raw(**changes: Any) -> backend.LampeParams:
    """The C struct of CONFIG with other values, which Python would not make."""
    params = backend.to_params(CONFIG)
    for name, value in changes.items():
        if name == "layer":
            params.layer_map[value[0]] = value[1]
        elif name.startswith("map_"):
            setattr(params.layer_maps[0], name.removeprefix("map_"), value)
        else:
            setattr(params, name, value)
    return params


@pytest.mark.parametrize("changes, said", [
    ({"version": 1}, "version is 1"), ({"version": 3}, "version is 3"),
    ({"n_layer_maps": 5}, "maps of 5"), ({"n_layer_maps": 1}, "layer_map has 2"),
    ({"n_layer_maps": 0}, "version is 2"), ({"layer": (1, 3)}, "layer_map has 3"),
    ({"layer": (0, 0)}, "no layer with map 1"), ({"map_local_window": 0}, "local_window is 0"),
    ({"map_local_window": 32}, "local_window is 32"), ({"map_tail_window": 40}, "tail_window"),
    ({"map_max_mapping_length": 33.0}, "max_mapping_length is 33"),
    ({"map_max_mapping_length": 4.0}, "max_mapping_length is 4"),
    ({"map_max_mapping_length": float("nan")}, "max_mapping_length"),
    ({"short_length": 64, "short_mapping_length": 12}, "short_mapping_length is 12"),
])
def test_the_backend_checks_what_it_is_given(
    tiny: Tiny, changes: dict[str, Any], said: str
) -> None:
    llm = opened(tiny(n_layer=LAYERS))
    params = raw(**changes)
    assert backend._library().llama_lampe_set_params(llm.ctx, ctypes.byref(params)) == -1
    assert said in backend.last_error()
    assert llm.lampe_config == BASE
    assert backend._library().llama_lampe_set_params(llm.ctx, ctypes.byref(raw())) == 0
    assert llm.lampe_config == CONFIG


@pytest.mark.parametrize("fused", PATHS)
def test_a_map_may_move_from_layer_to_layer(tiny: Tiny, fused: bool) -> None:
    """Graphs of as many tensors, in another order: what the allocator takes for the same one."""
    path = tiny(n_layer=6, lampe=BASE)
    llm = opened(path, fused)
    for layer in (0, 2, 5, 1, 4):
        moved = dataclasses.replace(BASE, layer_maps=(LayerMap((layer,), 3, 1, 9.0),))
        llm.reset()
        llm.set_config(moved)
        want = all_logits(opened(path, fused, lampe=moved), TOKENS)
        np.testing.assert_array_equal(all_logits(llm, TOKENS), want)
