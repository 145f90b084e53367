"""Maps of single layers: their text, their ranges, and the configuration of one layer."""

from __future__ import annotations

import dataclasses
import json
import pickle
from typing import Any

import pytest
from conftest import tiny_config
from hypothesis import given
from hypothesis import strategies as st

from lampe_gguf.errors import FieldError, UsageError
from lampe_gguf.method.config import LampeConfig
from lampe_gguf.method.layers import LayerMap, layers_text

OWN = LayerMap((1, 2, 5), 4, 2, 12.0)


def mapped(*maps: Any, **changes: Any) -> LampeConfig:
    return dataclasses.replace(tiny_config(**changes), layer_maps=maps)


@pytest.mark.parametrize("text, tail, want", [
    ("10-14,25-29:1024/512", 64,
     LayerMap((10, 11, 12, 13, 14, 25, 26, 27, 28, 29), 512, 64, 1024.0)),
    ("0:512/500", 64, LayerMap((0,), 500, 11, 512.0)),  # the tail shrinks to fit
    ("7,9:512/511", 64, LayerMap((7, 9), 511, 0, 512.0)),
    ("3-3:100/10", 0, LayerMap((3,), 10, 0, 100.0)),
])
def test_a_text_is_read(text: str, tail: int, want: LayerMap) -> None:
    assert LayerMap.parse(text, tail) == want


@pytest.mark.parametrize("text", [
    "", ":", "1", "1:5", "1:/", "1:5/", ":5/2", "a:5/2", "1-:5/2", "-1:5/2", "1,:5/2", "1:5/2/3",
    "1:5.5/2", "1:-5/2", "1-9999999:5/2", "1:5/2 ", "٣:5/2", "1-2-3:9/2", "1:99999999999/2",
])
def test_what_is_no_map_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="there is no map of layers .* it is layers:L/s1"):
        LayerMap.parse(text, 8)


@given(st.sets(st.integers(0, 60), min_size=1), st.integers(1, 9), st.integers(20, 99))
def test_the_text_is_read_back(layers: set[int], local: int, most: int) -> None:
    own = LayerMap(tuple(sorted(layers)), local, 3, float(most))
    assert LayerMap.parse(str(own), 3) == own
    assert layers_text(own.layers).count(",") < len(layers)


def test_a_layer_has_its_own_map_or_the_bases() -> None:
    config = mapped(OWN, LayerMap((0,), 9, 0, 30.5)).validate()
    base = tiny_config()
    assert config.for_layer(1) == config.for_layer(5) == dataclasses.replace(
        base, local_window=4, tail_window=2, max_mapping_length=12.0)
    assert config.for_layer(0) == dataclasses.replace(
        base, local_window=9, tail_window=0, max_mapping_length=30.5)
    assert config.for_layer(3) == config.for_layer(511) == base
    assert base.for_layer(3) is base
    assert config.plan(200) == base.plan(200) != config.for_layer(2).plan(200)
    assert config.for_layer(2).plan(200).mapping_length == 12


def test_the_version_follows() -> None:
    config = mapped(OWN)
    assert (tiny_config().version, config.version) == (1, 2)
    assert dataclasses.replace(config, layer_maps=()) == tiny_config()
    assert dataclasses.replace(tiny_config(), version=2) == tiny_config()
    with pytest.raises(FieldError, match="version is 3"):
        mapped(OWN, version=3).validate()


def test_json_and_pickles_are_read_back() -> None:
    config = mapped(OWN, LayerMap((0,), 9, 0, 30.5)).validate()
    assert LampeConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config
    assert pickle.loads(pickle.dumps(config)) == config
    assert LampeConfig(**json.loads(json.dumps(dataclasses.asdict(tiny_config())))) == tiny_config()


def test_what_depends_on_them_knows_them() -> None:
    config, base = mapped(OWN), tiny_config()
    assert config.effective() != base.effective()
    assert mapped(dataclasses.replace(OWN, local_window=5)).effective() != config.effective()
    assert "layer_maps" not in base.effective()  # what older programs kept stays found
    json.dumps(config.effective(), sort_keys=True)


@pytest.mark.parametrize("maps, said", [
    ((OWN,) * 5, "at most 4 LayerMap"),
    ("1:12/4", "at most 4 LayerMap"),
    ([{"layers": [1], "local_window": 4}, 7], "at most 4 LayerMap"),
    ([dataclasses.asdict(OWN) | {"layers": 7}], "0 to 511, ascending"),
    ((OWN, dataclasses.replace(OWN, layers=(5, 6))), r"\(5, 6\); .* layers that have no other map"),
    ((dataclasses.replace(OWN, layers=()),), "0 to 511, ascending"),
    ((dataclasses.replace(OWN, layers=(2, 1)),), "0 to 511, ascending"),
    ((dataclasses.replace(OWN, layers=(1, 1)),), "0 to 511, ascending"),
    ((dataclasses.replace(OWN, layers=(-1,)),), "0 to 511, ascending"),
    ((dataclasses.replace(OWN, layers=(512,)),), "0 to 511, ascending"),
    ((dataclasses.replace(OWN, layers=(True,)),), "0 to 511, ascending"),
    ((dataclasses.replace(OWN, layers=[1, 2]),), "0 to 511, ascending"),
    ((dataclasses.replace(OWN, local_window=0),), r"'1-2,5:12/0'; .* local_window \(here 0\) that"),
    ((dataclasses.replace(OWN, local_window=4.0),), "local_window"),
    ((dataclasses.replace(OWN, tail_window=30),), "tail_window"),
    ((dataclasses.replace(OWN, max_mapping_length=6.5),), "max_mapping_length .* from 7 to 32"),
    ((dataclasses.replace(OWN, max_mapping_length=32.5),), "max_mapping_length"),
    ((dataclasses.replace(OWN, max_mapping_length=float("nan")),), "max_mapping_length"),
])
def test_maps_out_of_range_are_refused(maps: Any, said: str) -> None:
    with pytest.raises(FieldError, match=said) as caught:
        dataclasses.replace(tiny_config(), layer_maps=maps).validate()
    assert caught.value.field == "layer_maps"


def test_the_short_rule_holds_in_every_layer() -> None:
    config = tiny_config(short_length=64, short_mapping_length=12)
    with pytest.raises(FieldError, match="of a short_mapping_length .here 12. that"):
        dataclasses.replace(config, layer_maps=(LayerMap((1,), 10, 2, 20.0),)).validate()
