"""Why a model was not opened: the reason of this failure, by name, with what to do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import tiny_config
from llama_cpp import Llama
from llama_cpp import llama_cpp as C

from lampe_gguf.backend import api as backend
from lampe_gguf.backend import peers
from lampe_gguf.backend.llama import LampeLlama
from lampe_gguf.errors import LampeError
from lampe_gguf.inspect import inspect_gguf

Tiny = Callable[..., Path]


def reason(path: Path, **options: Any) -> str:
    with pytest.raises(LampeError) as caught:
        LampeLlama(path, **options)
    return str(caught.value)


def in_a_thread(work: Callable[[], None]) -> None:
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


@pytest.mark.parametrize("where", [lambda work: work(), in_a_thread])
def test_a_failure_has_its_own_reason(
    tiny: Tiny, tmp_path: Path, where: Callable[[Callable[[], None]], None]
) -> None:
    good, bad = tiny(), tmp_path / "bad.gguf"
    bad.write_bytes(good.read_bytes()[:3000])

    def fail_twice() -> None:
        assert "beyond the LaMPE context length" in reason(good, n_ctx=10**6)
        damaged = reason(bad, n_ctx=512)
        assert "cut short or damaged" in damaged and str(bad) in damaged
        assert "beyond the LaMPE context length" in reason(good, n_ctx=10**6)
        options = {"n_ctx": 64, "lampe": False, "type_v": C.GGML_TYPE_Q8_0}
        assert "needs flash attention" in reason(good, flash_attn=False, **options)

    where(fail_twice)


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


class Library:
    """A llama.cpp with these of LaMPE's functions."""

    def __init__(self, **answers: int) -> None:
        def give(answer: int) -> Callable[[], int]:
            return lambda: answer

        for name, answer in answers.items():
            setattr(self, f"llama_lampe_{name}", give(answer))


@pytest.mark.parametrize("library, words", [
    (Library(), "is not the LaMPE build; run python3 tools/bootstrap.py setup"),
    (Library(last_error=0), "speaks version 1 of .* lampe-gguf version 4; run python3 tools/boot"),
    (Library(last_error=0, version=5), "speaks version 5 of .* lampe-gguf version 4; run python3"),
])
def test_a_build_of_another_version_is_refused_with_the_command(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, library: Library, words: str
) -> None:
    path = tiny()
    module = types.SimpleNamespace(_lib=library)
    monkeypatch.setattr(backend, "llama_cpp", lambda: module)
    assert not backend.is_patched()
    assert re.search(words, reason(path))


def test_the_installed_build_is_of_this_version() -> None:
    assert backend.abi_version() == backend.ABI_VERSION == 4 and backend.is_patched()


def test_a_damaged_file_is_named_and_what_is_wrong_with_it(tiny: Tiny, tmp_path: Path) -> None:
    whole = tiny().read_bytes()
    for data, words in ((whole[: len(whole) // 2], "cut short or damaged"), (b"", "is empty"),
                        (whole[:3000], "cut short or damaged"), (b"x" * 99, "not a GGUF file")):
        path = tmp_path / "bad.gguf"
        path.write_bytes(data)
        said = reason(path, n_ctx=64)
        assert str(path) in said and words in said


def test_the_vocabulary_alone(tiny: Tiny) -> None:
    path = str(tiny())
    theirs = Llama(path, vocab_only=True, verbose=False)
    for lampe in (None, False, "auto"):
        llm = LampeLlama(path, vocab_only=True, lampe=lampe)
        assert llm.tokenize(b"abc") == theirs.tokenize(b"abc") and llm.n_vocab() == 384


@pytest.mark.parametrize("n_batch", [0, -1])
def test_a_batch_of_no_tokens(tiny: Tiny, n_batch: int) -> None:
    assert reason(tiny(), n_batch=n_batch) == (
        f"n_batch is {n_batch}; give a number of tokens, at least 1")


@pytest.mark.parametrize("lampe", [None, False, "auto"])
def test_a_path_of_bytes(tiny: Tiny, lampe: Any) -> None:
    path = os.fsencode(tiny())
    assert LampeLlama(path, lampe=lampe, n_ctx=64).n_ctx() == 256
    assert inspect_gguf(path).converted  # type: ignore[arg-type]


def test_a_folder_is_said_to_be_one(tmp_path: Path) -> None:
    said = f"{tmp_path} is a folder; give the path of a GGUF file"
    assert reason(tmp_path) == said
    with pytest.raises(LampeError, match=f"^{re.escape(said)}$"):
        inspect_gguf(tmp_path)


@pytest.mark.parametrize("template", [
    "{% nonsense %}", "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "".join(f"{{% for x{n} in y %}}" for n in range(30)) + "{% endfor %}" * 30,
])
def test_a_template_that_cannot_be_compiled(tiny: Tiny, template: str) -> None:
    assert "the model's chat template cannot be read (" in reason(
        tiny(chat_template=template), n_ctx=64)


def test_what_is_no_failure_of_the_file_stays_what_it_is(tiny: Tiny) -> None:
    with pytest.raises(TypeError, match="has no len"):
        LampeLlama(tiny(), tensor_split=5, n_ctx=64)


@pytest.mark.skipif(peers.has_devices(), reason="there are devices")
def test_tensors_are_split_where_there_are_devices(tiny: Tiny) -> None:
    said = reason(tiny(), split_mode=C.LLAMA_SPLIT_MODE_TENSOR)
    assert "only the processor; pass another split_mode" in said
