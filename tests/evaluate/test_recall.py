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
from lampe_gguf.errors import LampeError, UsageError
from lampe_gguf.evaluate.perplexity import score
from lampe_gguf.evaluate.reading import (
    CUE,
    SCORED,
    SEPARATOR,
    SIZE,
    Reading,
    excerpts_of,
    fresh_ones,
    shared_prefix,
    starts_of,
)
from lampe_gguf.evaluate.recall import map_named, recall, versus
from lampe_gguf.evaluate.suite import method_setting
from lampe_gguf.model.presets import default_config

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
        between = vocab.tokenize(SEPARATOR.encode(), False, False)
    fed = [*tokens[:length], *between, *tokens[start : start + CUE + SCORED]]
    config = map_named(name, LampeLlama(model, n_ctx=64).lampe_config or tiny_config(), 512)
    with LampeLlama(model, lampe=config, n_ctx=512) as llm:
        return float(score(llm, fed)[-SCORED:].mean())


@pytest.mark.parametrize("name", ["lampe", "48/16", "rope", "jetlong:24"])
def test_an_excerpt_is_scored_as_if_it_stood_behind_the_text(model: Path, name: str) -> None:
    found, = recall(model, TEXT, 300, methods=[name], read_with=name, excerpts=4)
    for start, got in zip(starts_of(300, 4), found.excerpts, strict=True):
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
    assert of_fresh.error == pytest.approx(pairs.std(ddof=1) / len(pairs)**0.5)
    assert [len(one.by_depth), one.length] == [4, 300]
    assert np.mean([part.mean for part in other.by_depth]) == pytest.approx(
        other.recall.mean, abs=0.2)


def test_a_name_may_have_an_attention_factor(model: Path) -> None:
    base = tiny_config(tail_window=5, window=128)
    for name in ("lampe", "rope", "jetlong:24", "48/16"):
        expected = dataclasses.replace(map_named(name, base, 300), attention_factor=1.25)
        assert map_named(f"{name}@1.25", base, 300) == expected
        assert method_setting(f"{name}@1.25", base, 300, {}).lampe == expected
    plain, sharp = recall(model, TEXT, 300, methods=["48/16", "48/16@1.25"], excerpts=2)
    assert plain.excerpts != sharp.excerpts and sharp.parameters["attention_factor"] == 1.25
    for wrong in ("lampe@", "lampe@x"):
        with pytest.raises(UsageError, match="is no attention factor; give a number behind"):
            map_named(wrong, base, 300)
    for wrong in ("lampe@nan", "lampe@0"):
        with pytest.raises(LampeError, match="attention_factor"):
            map_named(wrong, base, 300)
    with pytest.raises(UsageError, match="there is no map 'truncate'"):
        map_named("truncate@1.04", base, 300)


def test_a_reading_is_that_of_its_own_map_whatever_was_read_before(model: Path) -> None:
    """What two maps or two lengths share is not read again, and the result is the same."""
    counted: list[int] = []
    with LampeLlama(model, n_ctx=512) as llm:
        tokens = llm.tokenize(TEXT.encode())
        base = llm.lampe_config or tiny_config()
        wide, narrow = (map_named(name, base, 512) for name in ("96/16", "48/16"))
        fresh = fresh_ones(tokens, 400, 3)

        def asked(reading: Reading, length: int, config: object) -> np.ndarray:
            return np.concatenate(reading.losses(
                config, excerpts_of(tokens, length, 3), fresh))  # type: ignore[arg-type]

        reading = Reading(llm, counted.append)
        steps = [(300, wide, 300), (300, wide, 0), (300, narrow, 252), (200, narrow, 0),
                 (250, narrow, 50), (250, wide, 202)]
        for length, config, missing in steps:
            text = tokens[:length]
            assert reading.missing(text, config) == missing, (length, missing)
            reading.read(text, config)
            found = asked(reading, length, narrow)
            anew = Reading(llm)
            anew.read(text, config)
            np.testing.assert_allclose(asked(anew, length, narrow), found, rtol=2e-5)
        other = [tokens[1], *tokens[1:300]]
        assert reading.missing(other, wide) == 300
    assert sum(counted) >= 6 * 6 * (SIZE + len(reading.between)) + 604


def test_shared_prefix_is_where_the_plans_are_the_same() -> None:
    base = default_config(8192)
    wide = map_named("8192/4096", base, 16384)
    small = map_named("4096/1024", base, 16384)
    assert shared_prefix(wide, small, 16384) == 4096
    assert shared_prefix(wide, wide, 16384) == 16384
    assert shared_prefix(wide, dataclasses.replace(wide, local_window=2048), 16384) == 8192
    assert shared_prefix(wide, dataclasses.replace(wide, length_policy="prompt"), 16384) == 0
    assert shared_prefix(wide, dataclasses.replace(wide, attention_factor=1.1), 16384) == 0
    for at in range(512, 4097, 512):
        assert wide.plan(at) == small.plan(at)


def test_excerpts_are_spread_evenly() -> None:
    assert starts_of(1064, 4) == [125, 375, 625, 875]
    assert starts_of(128, 2) == [16, 48]


@pytest.mark.parametrize("options, words", [
    ({"methods": ["yam"]}, "there is no map 'yam'"),
    ({"methods": ["64/"]}, "there is no map '64/'"),
    ({"methods": ["rope:5"]}, "there is no map 'rope:5'"),
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
    assert done.stdout.count("is what having read is worth") == 1
    assert done.stdout.splitlines()[-1].startswith("lower is better")
    assert plot.read_bytes().startswith(b"\x89PNG")
    done = call("eval", "recall", model, "--text", text, "--lengths", "300", "--excerpts", "3",
                "--json")
    found, cut = json.loads(done.stdout)["runs"]
    direct, = recall(model, TEXT, 300, excerpts=3)
    assert found["excerpts"] == direct.excerpts
    assert cut["name"] == "truncate" and cut["parameters"]["read"] < found["length"]
    wrong = call("eval", "recall", model, "--text", text, "--lengths", "300", "--methods", "x")
    assert wrong.returncode == 2 and "there is no map 'x'" in wrong.stderr


def test_a_text_that_is_too_short_gets_a_length_that_works(model: Path) -> None:
    with vocabulary(model) as vocab:
        n_tokens = len(vocab.tokenize(TEXT.encode(), True, False))
    with pytest.raises(LampeError, match="for excerpts that are not read; .* at most ") as refused:
        recall(model, TEXT, 2000, excerpts=12)
    most = int(str(refused.value).rpartition(" ")[2])
    assert most == n_tokens - 3 * SIZE
    assert recall(model, TEXT, most, excerpts=12)[0].length == most
    with pytest.raises(LampeError, match="the text has .* at most"):
        recall(model, TEXT, most + 1, excerpts=12)
    with pytest.raises(LampeError, match="too short for any: give one of at least 6,528 tokens, "
                                         "or fewer --excerpts$"):
        recall(model, TEXT, 2000, excerpts=400)
    with pytest.raises(LampeError, match="at least 256 tokens$"):
        recall(model, TEXT[:100], 200, excerpts=4)


def test_truncation_has_read_the_last_window_alone(model: Path) -> None:
    cut, rope = recall(model, TEXT, 600, methods=["truncate", "rope"], read_with="rope", excerpts=8)
    assert cut.parameters["read"] < 128 < cut.length == rope.length == 600
    with vocabulary(model) as vocab:
        tokens = read_tokens(vocab, TEXT, 700)
        between = vocab.tokenize(SEPARATOR.encode(), False, False)
    start = starts_of(600, 8)[0]
    fed = [*tokens[600 - cut.parameters["read"] : 600], *between,
           *tokens[start : start + CUE + SCORED]]
    with LampeLlama(model, lampe=False, n_ctx=512) as llm:
        assert cut.excerpts[0] == pytest.approx(float(score(llm, fed)[-SCORED:].mean()), abs=2e-3)


@pytest.mark.parametrize("name", ["linear", "yarn", "ntk"])
def test_scaled_frequencies_are_in_the_reading_too(model: Path, name: str) -> None:
    lampe, own, again = recall(model, TEXT, 300, methods=["lampe", name, "48/16"], excerpts=3)
    alone, = recall(model, TEXT, 300, methods=[name], excerpts=3)
    other, = recall(model, TEXT, 300, methods=["48/16"], excerpts=3)
    assert own.excerpts == alone.excerpts != lampe.excerpts
    assert again.excerpts == other.excerpts and own.seconds_reading > 0 == again.seconds_reading
