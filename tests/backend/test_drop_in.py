"""LampeLlama in the place of llama_cpp.Llama: the same names of the same kinds, `with`, pickles."""

from __future__ import annotations

import inspect
import itertools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import tiny_config
from llama_cpp import Llama

from lampe_gguf.backend.llama import LampeLlama
from lampe_gguf.errors import LampeError

Tiny = Callable[..., Path]
TOKENS = [int(t) for t in np.random.default_rng(11).integers(3, 350, 400)]
NAMES = [name for name in dir(Llama) if not name.startswith("__") or name == "__call__"]


def kind(cls: type, name: str) -> type:
    return type(inspect.getattr_static(cls, name))


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_of_the_kind_that_it_is_there(name: str) -> None:
    assert kind(LampeLlama, name) is kind(Llama, name)
    member = inspect.getattr_static(Llama, name)
    if inspect.isfunction(member):  # what can be passed there can be passed here
        ours = inspect.signature(getattr(LampeLlama, name)).parameters
        assert list(inspect.signature(member).parameters) == list(ours) or "options" in ours


def test_attributes_of_an_object_are_there_too(tiny: Tiny) -> None:
    path = str(tiny())
    theirs, ours = Llama(path, n_ctx=64, verbose=False), LampeLlama(path, n_ctx=64)
    for name, value in vars(theirs).items():
        assert name.startswith("_") or isinstance(getattr(ours, name), type(value)), name


def test_with_closes_it(tiny: Tiny) -> None:
    with LampeLlama(tiny(), n_ctx=64) as llm:
        llm.eval(TOKENS[:3])
    with pytest.raises(LampeError, match="the model is closed; open it again"):
        llm.eval(TOKENS[:3])


def again(llm: LampeLlama) -> LampeLlama:
    found = pickle.loads(pickle.dumps(llm))
    assert isinstance(found, LampeLlama)
    return found


@pytest.mark.parametrize("lampe", [False, None, "auto", tiny_config(local_window=5)])
def test_a_pickle_opens_with_the_same_values(tiny: Tiny, lampe: Any) -> None:
    llm = LampeLlama(tiny(), lampe=lampe, n_ctx=128, progress=lambda done, total: None)
    llm.eval(TOKENS[:100])
    found = again(again(llm))
    assert (found.path, found.lampe_config, found.n_ctx()) == (
        llm.path, llm.lampe_config, llm.n_ctx())
    assert found.progress is None
    found.eval(TOKENS[:100])
    assert found.plan() == llm.plan()


def test_a_pickle_keeps_what_was_set_and_what_was_given(tiny: Tiny) -> None:
    own = {"llama.rope.scaling.lampe.local_window": 6}
    llm = LampeLlama(tiny(), n_ctx=128, kv_overrides=own)
    assert llm.lampe_config is not None and llm.lampe_config.local_window == 6
    assert again(llm).lampe_config == llm.lampe_config
    llm.set_config(tiny_config(local_window=4, attention_factor=1.1))
    assert again(llm).lampe_config == tiny_config(local_window=4, attention_factor=1.1)
    given = LampeLlama(tiny(), lampe=tiny_config(local_window=5), n_ctx=128)
    given.set_config(tiny_config(local_window=7))
    assert again(again(given)).lampe_config == tiny_config(local_window=7)


@pytest.mark.parametrize("cls", [Llama, LampeLlama])
def test_a_draft_model_works_on_a_long_prompt(tiny: Tiny, cls: Callable[..., Llama]) -> None:
    from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

    path, prompt = str(tiny()), TOKENS[:20] * 10  # beyond a batch, and what to look up in it
    options: dict[str, Any] = {"n_ctx": 512, "n_batch": 64, "verbose": False}
    draft = LlamaPromptLookupDecoding(num_pred_tokens=10)
    plain, drafting = cls(path, **options), cls(path, draft_model=draft, **options)
    want, got = (list(itertools.islice(llm.generate(prompt, temp=0.0), 40))
                 for llm in (plain, drafting))
    assert got == want
    assert drafting.scores.shape[0] == 64  # and not the whole context
