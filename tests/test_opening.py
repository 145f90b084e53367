"""Why a model was not opened: the reason of this failure, by name, with what to do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import tiny_config
from llama_cpp import llama_cpp as C

from lampe_gguf.errors import LampeError
from lampe_gguf.runtime import LampeLlama

Tiny = Callable[..., Path]


def reason(path: Path, **options: Any) -> str:
    with pytest.raises(LampeError) as caught:
        LampeLlama(path, **options)
    return str(caught.value)


def test_a_quantised_cache_of_values_without_flash_attention(tiny: Tiny) -> None:
    options = {"n_ctx": 64, "lampe": False, "type_v": C.GGML_TYPE_Q8_0}
    words = "a quantised cache of values (type_v) needs flash attention"
    said = reason(tiny(), flash_attn=False, **options)
    assert said.startswith(words) and "flash_attn=True" in said
    LampeLlama(tiny(), flash_attn=True, **options).close()


ALL_LOGITS = """
import resource, sys
from lampe_gguf import LampeError, LampeLlama

LampeLlama(sys.argv[1]).close()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, resource.getrlimit(resource.RLIMIT_AS)[1]))
LampeLlama(sys.argv[1]).close()
try:
    LampeLlama(sys.argv[1], logits_all=True)
except LampeError as error:
    print(error)
LampeLlama(sys.argv[1]).close()
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux tells what is in use")
def test_no_memory_for_all_logits_is_said_with_their_size(tiny: Tiny) -> None:
    path = tiny(lampe=tiny_config(context_length=2**16), n_layer=1, n_vocab=8192)
    done = subprocess.run(
        [sys.executable, "-c", ALL_LOGITS, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "(65,536 x 8,192 numbers, 2.0 GiB)" in done.stdout
    assert "read_logits()" in done.stdout and "smaller n_ctx" in done.stdout
