"""Attention weights from the running model, against the whole model in NumPy."""

from __future__ import annotations

import _thread
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attention_oracle import weights
from conftest import tiny_config

from lampe_gguf.attention.probe import Probe
from lampe_gguf.attention.state import get_state, transpose_values
from lampe_gguf.attention.stats import entropy
from lampe_gguf.backend.llama import LampeLlama
from lampe_gguf.errors import LampeError

TOKENS = [int(x) for x in np.random.default_rng(0).integers(259, 380, 90)]
QUERIES = [41, 42, 60, 88, 89]  # not a multiple of the probe's batch anywhere
N_LAYER, N_HEAD = 2, 4


@contextmanager
def opened(path: Path, on_rows: Any, **options: Any) -> Iterator[tuple[LampeLlama, Probe]]:
    llm = LampeLlama(path, n_ctx=256, n_threads=1, n_threads_batch=1, **options)
    probe = Probe(llm, on_rows)
    yield llm, probe
    probe.close()
    llm.close()


def collect(path: Path, first: int, **options: Any) -> dict[tuple[int, int], np.ndarray]:
    """Rows of QUERIES, with `first` tokens read by the fused context."""
    found: dict[tuple[int, int], np.ndarray] = {}

    def keep(layer: int, query: int, rows: np.ndarray) -> None:
        assert (layer, query) not in found
        found[layer, query] = rows.copy()

    with opened(path, keep, **options) as (llm, probe):
        assert llm.path in ("off", "fused") and probe.path in ("off", "portable")
        llm.eval(TOKENS[:first])
        probe.take_over(llm, len(TOKENS))
        probe.read(TOKENS[first:], QUERIES)
    assert sorted(found) == [(layer, query) for layer in range(N_LAYER) for query in QUERIES]
    return found


@pytest.mark.parametrize("policy", ["causal", "prompt", None])
def test_rows_are_those_of_the_model(tiny: Callable[..., Path], policy: str | None) -> None:
    config = tiny_config(length_policy=policy or "causal")
    path = tiny(lampe=config)
    options: dict[str, Any] = {} if policy else {"lampe": False}
    # under `prompt`, the fused context would have to be told of the whole length: read all here
    found = collect(path, 0 if policy == "prompt" else 37, **options)
    want = weights(path, TOKENS, config if policy else None,
                   len(TOKENS) if policy == "prompt" else None)
    for (layer, query), rows in found.items():
        assert rows.shape == (N_HEAD, query + 1)
        np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(rows, want[layer, query, :, : query + 1], atol=2e-3)
        np.testing.assert_allclose(
            entropy(rows), entropy(want[layer, query, :, : query + 1]), atol=5e-3)


def test_what_was_handed_over_is_as_if_read_here(tiny: Callable[..., Path]) -> None:
    path = tiny()
    here, handed = collect(path, 0), collect(path, 41)
    for name, rows in here.items():
        np.testing.assert_allclose(handed[name], rows, atol=2e-3)


def test_an_error_in_the_callback_comes_out(tiny: Callable[..., Path]) -> None:
    def fail(layer: int, query: int, rows: np.ndarray) -> None:
        raise ZeroDivisionError("from the callback")

    with opened(tiny(), fail) as (llm, probe):
        with pytest.raises(ZeroDivisionError, match="from the callback"):
            probe.read(TOKENS, QUERIES)
        probe.take_over(llm, len(TOKENS))
        probe.read(TOKENS)  # no queries, no error, and the context is whole
        llm.eval(TOKENS)
        here, there = probe.logits(), llm._ctx.get_logits()[: llm.n_vocab()]
        np.testing.assert_allclose(here, there, atol=2e-2)


def test_ctrl_c_comes_out(tiny: Callable[..., Path]) -> None:
    seen = []

    def interrupt(layer: int, query: int, rows: np.ndarray) -> None:
        seen.append(query)
        if len(seen) == 1:
            _thread.interrupt_main()
            end = time.monotonic() + 10
            while not probe._stop.value and time.monotonic() < end:
                time.sleep(0.01)  # until the main thread has seen it and says so

    with opened(tiny(), interrupt) as (llm, probe):
        with pytest.raises(KeyboardInterrupt):
            probe.read(TOKENS, QUERIES)
        assert len(seen) <= 3  # the second batch's queries, in the first layer alone
        probe.take_over(llm, len(TOKENS))
        seen.append(-1)
        probe.read(TOKENS, QUERIES)
        assert seen[-1] == QUERIES[-1]


def test_a_state_of_another_layout_is_refused(tiny: Callable[..., Path]) -> None:
    with opened(tiny(), None) as (llm, probe):
        llm.eval(TOKENS)
        state = get_state(llm.ctx)
        changed = state.copy()
        assert transpose_values(changed) == len(TOKENS)
        assert changed.size == state.size and (changed != state).any()
        for bad in (changed, state[:-2].copy(), np.append(state, state[:4])):
            with pytest.raises(LampeError, match="unknown layout"):
                transpose_values(bad)
