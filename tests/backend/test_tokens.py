"""Numbers that are no token are refused by name, wherever tokens are taken."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# in a process of its own: what is wrong ends it
USE = """
import sys
from lampe_gguf import LampeError, LampeLlama
llm = LampeLlama(sys.argv[1], n_ctx=64)
llm.eval([5, 6])
for bad in (llm.n_vocab(), 99999, -1, 2**32 + 5):
    try:
        {use}
    except LampeError as error:
        assert f"there is no token {bad}: the vocabulary has 384 tokens" in str(error), error
    else:
        sys.exit("taken")
    assert llm.n_tokens == 2
"""


@pytest.mark.parametrize("use", [
    "llm.detokenize([5, bad])", "llm.tokenizer().decode([bad])", "llm.tokenizer_.detokenize([bad])",
    "llm._model.token_get_text(bad)", "llm._model.token_get_attr(bad)",
    "llm._model.token_get_score(bad)", "llm._model.token_to_piece(bad)",
    "llm.eval([5, bad])", "list(llm.read_logits([5, bad]))", "next(llm.generate([5, 6, bad]))",
    "llm.create_completion([5, 6, bad], max_tokens=2)",
    "llm.create_completion('word', max_tokens=2, logit_bias={{bad: 1.0}})",
    "llm.create_completion('word', max_tokens=2, stream=True, logit_bias={{str(bad): 1.0}})",
])
def test_no_token_is_named(tiny: Callable[..., Path], use: str) -> None:
    code = USE.replace("{use}", use.replace("{{", "{").replace("}}", "}"))
    done = subprocess.run([sys.executable, "-c", code, str(tiny())], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
