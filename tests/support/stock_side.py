"""What both backends are asked to compute; run as a script under upstream's own llama_cpp."""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np


def all_logits(llm: Any, tokens: list[int], batches: list[int] | None = None) -> np.ndarray:
    """Logits after each token, [n_tokens, n_vocab], the prompt split into the given batches."""
    n_vocab = llm.n_vocab()
    rows, start = [], llm.n_tokens
    sizes = batches or [min(llm.n_batch, len(tokens) - at)
                        for at in range(0, len(tokens), llm.n_batch)]
    assert sum(sizes) == len(tokens)
    at = 0
    for size in sizes:
        llm._batch.set_batch(batch=tokens[at : at + size], n_past=start + at, logits_all=True)
        llm._ctx.decode(llm._batch)
        rows.append(np.ctypeslib.as_array(llm._ctx.get_logits(), shape=(size, n_vocab)).copy())
        at += size
    llm.n_tokens = start + at
    return np.concatenate(rows)


def context_logits(
    model: Any, tokens: list[int], flash_attn: int, prepare: Callable[[Any], None] = lambda _: None,
    **options: Any,
) -> tuple[np.ndarray, bytes]:
    """Logits [n_tokens, n_vocab] of a context made through the C API, and its saved state.

    flash_attn  llama_flash_attn_type: -1 leaves it to llama.cpp, which Llama cannot
    prepare     called with the context, before it reads
    """
    from llama_cpp import llama_cpp as lib

    params = lib.llama_context_default_params()
    params.n_ctx, params.flash_attn_type = 1024, flash_attn
    params.n_threads = params.n_threads_batch = 2
    for name, value in options.items():
        setattr(params, name, value)
    context = lib.llama_init_from_model(model, params)
    assert context
    batch = lib.llama_batch_init(len(tokens), 0, 1)
    try:
        prepare(context)
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, i, 1
            batch.seq_id[i][0], batch.logits[i] = 0, True
        assert lib.llama_decode(context, batch) == 0
        n_vocab = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
        rows = np.ctypeslib.as_array(lib.llama_get_logits(context), shape=(len(tokens), n_vocab))
        state = (ctypes.c_uint8 * lib.llama_state_get_size(context))()
        size = lib.llama_state_get_data(context, state, len(state))
        return rows.copy(), bytes(state)[:size]
    finally:
        lib.llama_batch_free(batch)
        lib.llama_free(context)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Root mean square difference, in standard deviations of the logits; hidden tokens aside."""
    shown = a[0] > -1e30
    return float(np.sqrt(((a - b)[:, shown] ** 2).mean()) / a[:, shown].std())


def logits_to_file(model: str, tokens: list[int], out: str, **options: Any) -> str:
    """Save all logits and return the version of the backend that made them."""
    import llama_cpp

    llm = llama_cpp.Llama(model, verbose=False, **options)
    np.save(out, all_logits(llm, tokens))
    return str(llama_cpp.__version__)


def context_to_file(model: str, tokens: list[int], out: str, flash_attn: int) -> str:
    """Save what context_logits gives, as `logits` and `state`; returns the backend's version."""
    import llama_cpp

    llm = llama_cpp.Llama(model, n_ctx=256, verbose=False)
    logits, state = context_logits(llm.model, tokens, flash_attn)
    np.savez(out, logits=logits, state=np.frombuffer(state, np.uint8))
    return str(llama_cpp.__version__)


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](**json.loads(sys.argv[2]))))
