"""What is too much is refused by the backend, and its process goes on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import tiny_config
from random_model import RandomModel
from stock_side import distance
from test_llama_archs import CONFIG, TOKENS

from lampe_gguf.backend.llama import LampeLlama
from lampe_gguf.errors import LampeError

Tiny = Callable[..., Path]


def test_layers_without_attention() -> None:
    changes = {"attention.head_count": [4, 0], "attention.head_count_kv": [2, 0],
               "feed_forward_length": [384, 384]}
    with RandomModel("deci", CONFIG, **changes) as model:
        fused = model.logits(TOKENS, CONFIG, True)
        assert model.path == "fused"
        assert distance(fused, model.logits(TOKENS, CONFIG, False)) < 5e-3
        # the layout of such values cannot change
        got = model.logits(TOKENS, CONFIG, False, flash_attn=True)
        assert model.path == "portable" and distance(fused, got) < 5e-3
        got = model.logits(TOKENS, CONFIG, True, flash_attn=False)
        assert model.path == "portable" and "padded" in model.reason
        assert distance(fused, got) < 5e-3
        off = [model.logits(TOKENS, None, flash, flash_attn=flash) for flash in (True, False)]
        assert distance(*off) < 5e-3


@pytest.mark.parametrize("changes, words", [
    ({"rope.dimension_count": 128}, "it rotates more dimensions than a head has"),
    ({"attention.head_count_kv": 3}, "do not share its key heads evenly"),
])
def test_heads_that_the_operator_cannot_take(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RandomModel("qwen2", CONFIG, **changes)


def test_many_sequences_on_the_portable_path(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    # as a program that embeds asks for; the plans are no more than there are lengths
    monkeypatch.setenv("LLAMA_LAMPE_SCORES_MAX", "500000")  # small blocks, many of them
    path = tiny(lampe=tiny_config(window=64, context_length=4096, length_step=64))
    llm = LampeLlama(path, n_ctx=4096, n_batch=512, attention="portable", embedding=True)
    assert llm.path == "portable"
    llm.close()


def test_a_graph_that_nothing_could_hold_is_refused(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_LAMPE_SCORES_MAX", "1")
    steps = tiny_config(window=64, context_length=1024, length_step=1)
    with pytest.raises(LampeError, match="larger length steps or the fused path"):
        LampeLlama(tiny("steps.gguf", lampe=steps), n_ctx=1024, n_batch=512, attention="portable")
    # neither are parameters that would need one, and those before stay
    few = tiny_config(window=64, context_length=1024, length_step=512)
    llm = LampeLlama(tiny("few.gguf", lampe=few), n_ctx=1024, n_batch=512, attention="portable")
    with pytest.raises(LampeError, match="larger length steps"):
        llm.set_config(steps)
    llm.eval(TOKENS[:60])
    assert llm.plan() == few.plan(512)
    llm.close()


NO_ROOM = """
import resource, sys
from llama_cpp import llama_cpp as C
from lampe_gguf.backend.llama import LampeLlama

llm = LampeLlama(sys.argv[1], n_ctx=256, n_threads=1, n_threads_batch=1)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, resource.getrlimit(resource.RLIMIT_AS)[1]))

def decode(position):
    batch = C.llama_batch_init(1, 0, 1)
    batch.n_tokens, batch.token[0], batch.pos[0] = 1, 5, position
    batch.n_seq_id[0], batch.seq_id[0][0], batch.logits[0] = 1, 0, 1
    return C.llama_decode(llm.ctx, batch)

print(decode(8_000_000), decode(0), decode(1))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux tells what is in use")
def test_no_memory_for_positions_is_an_error(tiny: Tiny) -> None:
    path = tiny(lampe=tiny_config(context_length=2**24))
    done = subprocess.run(
        [sys.executable, "-c", NO_ROOM, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["-1", "0", "0"]
