"""A reading that was loaded goes on as the one that was kept, bit for bit."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import tiny_config
from reading_models import NEXT, TOKENS, gemma, logits

from lampe_gguf.backend.llama import LampeLlama
from lampe_gguf.errors import LampeError
from lampe_gguf.readings.keeping import Readings
from lampe_gguf.readings.key import SAMPLE, SAMPLES, fingerprint, parts

Tiny = Callable[..., Path]
F16, Q8_0 = 1, 8


@pytest.fixture
def kept(tmp_path: Path) -> Readings:
    said: list[str] = []
    return Readings(tmp_path / "kept", 10**9, least=16, on_note=said.append)


@pytest.mark.parametrize("kind", [F16, Q8_0])
@pytest.mark.parametrize("options", [
    {}, {"lampe": False}, {"attention": "portable"}, {"lampe": False, "flash_attn": False},
], ids=["fused", "off", "portable", "off, no flash attention"])
@pytest.mark.parametrize("arch", ["llama", "gemma3"])
def test_logits_are_those_of_the_one_that_read(
    tiny: Tiny, kept: Readings, arch: str, options: dict[str, Any], kind: int
) -> None:
    path = gemma(tiny) if arch == "gemma3" else tiny()
    whole = options in ({}, {"lampe": False})  # the others take no quantised values
    options = {"type_k": kind, "type_v": kind if whole else F16, **options}
    llm = LampeLlama(path, n_ctx=512, **options)
    llm.eval(TOKENS)
    assert kept.keep(llm, ["a text"]) is not None
    want = logits(llm, NEXT)
    for n_ctx in (512, 384, 1024 if options.get("lampe") is False else 512):
        other = LampeLlama(path, n_ctx=n_ctx, **options)
        assert kept.load(other, [*TOKENS, *NEXT]) == len(TOKENS) == other.n_tokens
        assert np.array_equal(logits(other, NEXT), want)
        assert other._input_ids.tolist() == [*TOKENS, *NEXT]


def test_it_does_not_depend_on_what_the_context_held(tiny: Tiny, kept: Readings) -> None:
    path = tiny()
    llm = LampeLlama(path, n_ctx=512)
    llm.eval(TOKENS)
    kept.keep(llm)
    want = logits(llm, NEXT)
    other = LampeLlama(path, n_ctx=512)
    other.eval(NEXT * 20)
    assert kept.load(other, TOKENS) == len(TOKENS)
    assert np.array_equal(logits(other, NEXT), want)


def test_what_is_too_long_for_a_context_is_not_loaded(tiny: Tiny, kept: Readings) -> None:
    path = tiny()
    llm = LampeLlama(path, n_ctx=512)
    llm.eval(TOKENS)
    kept.keep(llm)
    said: list[str] = []
    kept.on_note = said.append
    assert kept.load(LampeLlama(path, n_ctx=256), TOKENS[:250]) == 0 and said == []


def test_a_part_of_a_reading_is_cut_from_it(tiny: Tiny, kept: Readings) -> None:
    path = tiny()
    llm = LampeLlama(path, n_ctx=512)
    llm.eval(TOKENS)
    kept.keep(llm)
    llm = LampeLlama(path, n_ctx=512)
    llm.eval(TOKENS[:100])
    want = logits(llm, NEXT)
    other = LampeLlama(path, n_ctx=512)
    assert kept.load(other, [*TOKENS[:100], *NEXT]) == 100 == other.n_tokens
    got = logits(other, NEXT)
    assert np.abs(want - got).max() < 1e-2 * np.abs(want).max()  # another split into batches


def test_a_window_that_slid_on_is_not_cut_back(tiny: Tiny, kept: Readings) -> None:
    path = gemma(tiny)
    llm = LampeLlama(path, n_ctx=512)
    llm.eval(TOKENS)
    kept.keep(llm)
    other = LampeLlama(path, n_ctx=512)
    assert kept.load(other, [*TOKENS[:200], *NEXT]) == 0 and other.n_tokens == 0
    assert kept.load(other, [*TOKENS, *NEXT]) == len(TOKENS)
    # and whoever cuts it later reads anew, instead of going on without what the window needs
    assert not other._ctx.kv_cache_seq_rm(-1, 200, -1)
    first = next(other.generate([*TOKENS[:200], *NEXT], temp=0.0))
    llm.reset()
    assert first == next(llm.generate([*TOKENS[:200], *NEXT], temp=0.0))


def test_a_context_that_holds_as_much_is_left_alone(tiny: Tiny, kept: Readings) -> None:
    path = tiny()
    llm = LampeLlama(path, n_ctx=512)
    llm.eval(TOKENS)
    kept.keep(llm)
    llm.eval(NEXT)
    assert kept.load(llm, [*TOKENS, *NEXT, 5]) == 0 and llm.n_tokens == len(TOKENS) + len(NEXT)


CHANGES: dict[str, dict[str, Any]] = {
    "off": {"lampe": False},
    "another map": {"lampe": tiny_config(local_window=7)},
    "another cache": {"type_k": Q8_0},
    "another path": {"attention": "portable"},
    "another RoPE": {"rope_freq_base": 5000.0},
    "another override": {"kv_overrides": {"llama.attention.layer_norm_rms_epsilon": 0.01}},
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_values_are_another_key(tiny: Tiny, kept: Readings, change: str) -> None:
    path = tiny()
    llm = LampeLlama(path, n_ctx=512)
    llm.eval(TOKENS)
    kept.keep(llm)
    assert kept.load(LampeLlama(path, n_ctx=512, **CHANGES[change]), TOKENS) == 0
    # what it does not depend on, and the same values from elsewhere
    same = LampeLlama(path, n_ctx=512, lampe=tiny_config(context_length=600, provenance="me"),
                      n_threads=2, n_batch=64)
    assert kept.load(same, TOKENS) == len(TOKENS)


def test_another_model_is_another_key(tiny: Tiny, kept: Readings, tmp_path: Path) -> None:
    path = tiny()
    llm = LampeLlama(path, n_ctx=512)
    llm.eval(TOKENS)
    assert kept.keep(llm) is not None
    assert kept.load(LampeLlama(tiny("other.gguf", seed=1), n_ctx=512), TOKENS) == 0
    # a tensor changed in place; whoever opened it before has another model than the file
    with open(path, "r+b") as file:
        file.seek(-5000, 2)
        file.write(b"\1\2\3\4")
    assert kept.keep(llm) is None
    assert kept.load(LampeLlama(path, n_ctx=512), TOKENS) == 0


def test_what_was_read_under_several_maps_is_not_kept(tiny: Tiny, kept: Readings) -> None:
    path = tiny()
    llm = LampeLlama(path, n_ctx=512)
    llm.eval(TOKENS[:100])
    llm.set_config(tiny_config(local_window=7))
    llm.eval(TOKENS[100:])
    assert kept.keep(llm) is None
    state = llm.save_state()
    llm.reset()
    llm.load_state(state)
    assert kept.keep(llm) is None
    llm.reset()
    llm.eval(TOKENS)
    assert kept.keep(llm) is not None
    prompt = LampeLlama(path, n_ctx=512, lampe=tiny_config(length_policy="prompt"))
    prompt.eval(TOKENS)
    assert kept.keep(prompt) is None


def test_a_state_of_the_other_kind_is_refused_and_nothing_is_left_of_it(
    tiny: Tiny, kept: Readings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lampe_gguf.readings import keeping

    monkeypatch.setattr(keeping, "key_of", lambda llm: {"all": "the same"})
    path = tiny()
    llm = LampeLlama(path, n_ctx=512)
    llm.eval(TOKENS)
    kept.keep(llm)
    said: list[str] = []
    kept.on_note = said.append
    off = LampeLlama(path, n_ctx=512, lampe=False)
    off.eval(NEXT)
    assert kept.load(off, TOKENS) == 0 and off.n_tokens == 0
    assert len(said) == 1 and "LaMPE on" in said[0] and "read anew" in said[0]
    off.eval(TOKENS)
    with pytest.raises(LampeError):
        off.eval([10**6])


def test_a_fingerprint_sees_time_size_and_samples(tmp_path: Path) -> None:
    path = tmp_path / "large.gguf"
    with open(path, "wb") as file:
        file.truncate(64 << 20)
    os.utime(path, (1, 1))
    before = fingerprint(path)

    def changed(place: int, time: int) -> bool:
        with open(path, "r+b") as file:
            file.seek(place)
            file.write(b"x")
        os.utime(path, (time, time))
        return fingerprint(path) != before

    last = (64 << 20) - SAMPLE
    between = last * 300 // (SAMPLES - 1) + SAMPLE + 100
    assert not changed(between, 1)  # no sample is of this byte
    assert changed(between, 2) and not changed(between, 1)  # but whoever wrote it changed the time
    assert changed(last * 300 // (SAMPLES - 1) + 100, 1)
    with open(path, "ab") as file:
        file.truncate((64 << 20) + 1)
    os.utime(path, (1, 1))
    assert fingerprint(path) != before


def test_all_parts_of_a_split_model_count(tmp_path: Path) -> None:
    names = [f"m-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    assert parts(tmp_path / names[0]) == [tmp_path / name for name in names]
    assert parts(tmp_path / "m.gguf") == [tmp_path / "m.gguf"]
