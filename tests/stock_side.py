"""What both backends are asked to compute; run as a script under upstream's own llama_cpp."""

from __future__ import annotations

import json
import sys
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


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](**json.loads(sys.argv[2]))))
