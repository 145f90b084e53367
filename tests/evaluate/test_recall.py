"""Recall: what is fed, what is scored, and the command."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import call, tiny_config

from lampe_gguf.backend.llama import LampeLlama
from lampe_gguf.backend.vocabulary import read_tokens, vocabulary
from lampe_gguf.errors import LampeError
from lampe_gguf.evaluate import recall as measure
from lampe_gguf.evaluate.perplexity import score
from lampe_gguf.evaluate.recall import CUE, SCORED, map_named, recall, versus

Tiny = Callable[..., Path]
TEXT = "".join(chr(97 + i * i % 26) + (" " if i % 5 == 0 else "") for i in range(1200))


@pytest.fixture
def model(tiny: Tiny) -> Path:
    return tiny("m.gguf", window=128, lampe=tiny_config(
        window=128, local_window=16, max_mapping_length=64.0, context_length=2048))


def behind(model: Path, length: int, start: int, name: str) -> float:
    """The loss of one excerpt, read behind the text in one go under one map."""
    with vocabulary(model) as vocab:
        tokens = read_tokens(vocab, TEXT, 600)
        between = vocab.tokenize(measure.SEPARATOR.encode(), False, False)
    fed = [*tokens[:length], *between, *tokens[start : start + CUE + SCORED]]
    config = map_named(name, LampeLlama(model, n_ctx=64).lampe_config or tiny_config(), 512)
    with LampeLlama(model, lampe=config, n_ctx=512) as llm:
        return float(score(llm, fed)[-SCORED:].mean())


@pytest.mark.parametrize("name", ["lampe", "48/16", "rope", "jetlong:24", "48/16+1:40/8"])
def test_an_excerpt_is_scored_as_if_it_stood_behind_the_text(model: Path, name: str) -> None:
    found, = recall(model, TEXT, 300, methods=[name], read_with=name, excerpts=4)
    for start, got in zip(measure.starts_of(300, 4), found.excerpts, strict=True):
        assert got == pytest.approx(behind(model, 300, start, name), abs=2e-3)
    for i, got in enumerate(found.fresh):
        assert got == pytest.approx(
            behind(model, 300, 300 + i * (CUE + SCORED), name), abs=2e-3)


def test_one_reading_serves_all_maps_and_asking_changes_nothing(model: Path) -> None:
    first, other, last = recall(model, TEXT, 300, methods=["lampe", "48/16", "rerope"], excerpts=3)
    again, = recall(model, TEXT, 300, methods=["48/16"], excerpts=3)  # read with "lampe", too
    assert other.excerpts == again.excerpts and other.fresh == again.fresh
    assert first.seconds_reading > 0 == other.seconds_reading
    assert last.excerpts != other.excerpts
    reread = recall(model, TEXT, 300, methods=["lampe", "48/16"], reread=True, excerpts=3)[1]
    assert reread.excerpts != other.excerpts and reread.seconds_reading > 0


def test_differences_are_of_the_same_excerpts(model: Path) -> None:
    one, other = recall(model, TEXT, 300, methods=["lampe", "48/16"], excerpts=6, fresh=5)
    of_recall, of_fresh = versus(one, other)
    assert of_recall.mean == pytest.approx(one.recall.mean - other.recall.mean)
    pairs = np.subtract(one.fresh, other.fresh)
    assert of_fresh.error == pytest.approx(pairs.std(ddof=1) / 5**0.5)
    assert [len(one.by_depth), one.length] == [4, 300]
    assert np.mean([part.mean for part in other.by_depth]) == pytest.approx(
        other.recall.mean, abs=0.2)


def test_a_name_may_have_maps_of_layers(model: Path) -> None:
    config = map_named("48/16+0,5-6:40/39+3:20/9", tiny_config(tail_window=5, window=128), 300)
    assert config.for_layer(1) == dataclasses.replace(
        map_named("48/16", tiny_config(tail_window=5, window=128), 300),
        provenance=config.provenance)
    assert [str(each) for each in config.layer_maps] == ["0,5-6:40/39", "3:20/9"]
    assert [each.tail_window for each in config.layer_maps] == [0, 5]
    # what the file says of layers is not in a name that says nothing of them
    assert map_named("48/16", config, 300).layer_maps == ()
    assert map_named("jetlong:24", config, 300).layer_maps == ()
    assert map_named("lampe", config, 300).layer_maps == config.layer_maps
    base, other = recall(model, TEXT, 300, methods=["48/16", "48/16+1:40/8"], excerpts=2)
    assert base.excerpts != other.excerpts


def test_excerpts_are_spread_evenly() -> None:
    assert measure.starts_of(1064, 4) == [125, 375, 625, 875]
    assert measure.starts_of(128, 2) == [16, 48]


@pytest.mark.parametrize("options, words", [
    ({"methods": ["yarn"]}, "there is no map 'yarn'"),
    ({"methods": ["64/"]}, "there is no map '64/'"),
    ({"methods": ["rope:5"]}, "there is no map 'rope:5'"),
    ({"methods": ["48/16+1"]}, "there is no map of layers '1'"),
    ({"methods": ["48/16+7:40/8"]}, "this model has the layers 0 to 1"),
    ({"excerpts": 1}, "give at least 2"),
    ({"length": 20}, "give at least 128 tokens"),
    ({"length": 1400}, "the text has"),
])
def test_what_makes_no_sense_is_refused(
    model: Path, options: dict[str, object], words: str
) -> None:
    given = {"length": 300, "excerpts": 2, **options}
    length = given.pop("length")
    with pytest.raises(LampeError, match=words):
        recall(model, TEXT, length, **given)  # type: ignore[arg-type]


def test_the_command(model: Path, tmp_path: Path) -> None:
    text, plot = tmp_path / "t.txt", tmp_path / "p.png"
    text.write_text(TEXT)
    done = call("eval", "recall", model, "--text", text, "--lengths", "200,300", "--methods",
                "lampe,48/16", "--excerpts", "2", "--plot", plot)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("against lampe, excerpt by excerpt:") == 2
    assert plot.read_bytes().startswith(b"\x89PNG")
    done = call("eval", "recall", model, "--text", text, "--lengths", "300", "--excerpts", "3",
                "--json")
    found, = json.loads(done.stdout)["runs"]
    direct, = recall(model, TEXT, 300, excerpts=3)
    assert found["excerpts"] == direct.excerpts
    done = call("eval", "recall", model, "--text", text, "--lengths", "300", "--excerpts", "2",
                "--json", "--methods", "lampe,48/16+0,1:40/8,48/16")
    assert [run["name"] for run in json.loads(done.stdout)["runs"]] == [
        "lampe", "48/16+0,1:40/8", "48/16"]
    wrong = call("eval", "recall", model, "--text", text, "--lengths", "300", "--methods", "x")
    assert wrong.returncode == 2 and "there is no map 'x'" in wrong.stderr
