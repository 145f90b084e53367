"""A context of the patched backend: what its calls leave behind, successful or not."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import tiny_config
from llama_cpp import llama_cpp as C

from lampe_gguf.backend import api as backend
from lampe_gguf.backend.llama import LampeLlama
from lampe_gguf.errors import LampeError

Tiny = Callable[..., Path]

LONG = {"n_layer": 1, "n_head": 1, "n_head_kv": 1, "n_embd": 64, "n_ff": 64}  # tiny but for n_ctx


def test_the_version_of_the_header() -> None:
    version = C._lib.llama_lampe_version
    version.restype = ctypes.c_uint32
    assert version() == 4


# The reason of a failure


def load(path: Path, n_ctx: int = 512) -> str:
    """Why a plain program's opening of a model fails, as the C API says; "" where it does not."""
    model = C.llama_model_load_from_file(os.fsencode(path), C.llama_model_default_params())
    if model is None:
        return backend.last_error()
    params = C.llama_context_default_params()
    params.n_ctx = n_ctx
    context = C.llama_init_from_model(model, params)
    reason = "" if context else backend.last_error()
    if context:
        C.llama_free(context)
    C.llama_model_free(model)
    return reason


def test_each_failure_has_its_own_reason(tiny: Tiny, tmp_path: Path) -> None:
    good = tiny()
    assert "beyond the LaMPE context length" in load(good, 10**6)
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    assert "not within the file bounds" in load(cut)
    assert "LaMPE" in load(good, 10**6)
    missing = load(tmp_path / "missing.gguf")
    assert missing and "LaMPE" not in missing
    assert load(good) == ""
    assert backend.last_error() == ""


def test_a_context_that_llama_cpp_refuses_has_no_reason_of_another(tiny: Tiny) -> None:
    # it is refused before there is a context
    load(tiny(), 10**6)
    model = C.llama_model_load_from_file(
        os.fsencode(tiny("plain.gguf", lampe=None)), C.llama_model_default_params())
    params = C.llama_context_default_params()
    params.n_batch = params.n_ubatch = 0
    assert C.llama_init_from_model(model, params) is None
    assert backend.last_error() == ""
    C.llama_model_free(model)


def test_parameters_that_undo_the_model_are_warned_of(tiny: Tiny) -> None:
    code = ("import sys; from llama_cpp import Llama; "
            "Llama(sys.argv[1], n_ctx=256, rope_freq_base=float(sys.argv[2]), "
            "rope_freq_scale=float(sys.argv[3]), verbose=False)")

    def said(path: Path, base: float, scale: float) -> str:
        done = subprocess.run([sys.executable, "-c", code, str(path), str(base), str(scale)],
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stderr

    path = tiny(rope_freq_base=1e6)
    told = said(path, 10000, 0)
    assert "rope_freq_base = 10000 replaces the model's own 1e+06" in told
    assert "pass 0" in told
    assert "rope_freq_scale = 0.5 replaces the model's own 1" in said(path, 0, 0.5)
    assert "replaces" not in said(path, 0, 0)
    assert "replaces" not in said(path, 1e6, 1)
    # stock llama.cpp's own business
    assert "replaces" not in said(tiny("plain.gguf", lampe=None, rope_freq_base=1e6), 10000, 0)


# What the memory holds, and what was announced


class Sequences:
    """A context of several sequences, by llama.cpp's own functions."""

    def __init__(self, path: Path, n_seq: int = 2) -> None:
        self.model = C.llama_model_load_from_file(
            os.fsencode(path), C.llama_model_default_params())
        params = C.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_seq_max = 512 * n_seq, 256, n_seq
        params.kv_unified = True  # else keeping one sequence leaves the others
        self.context = C.llama_init_from_model(self.model, params)
        self.memory = C.llama_get_memory(self.context)

    def read(self, start: int, count: int, seq: int = 0) -> None:
        batch = C.llama_batch_init(count, 0, 1)
        batch.n_tokens = count
        for i in range(count):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = 5 + i % 50, start + i, 1
            batch.seq_id[i][0], batch.logits[i] = seq, i == count - 1
        assert C.llama_decode(self.context, batch) == 0
        C.llama_batch_free(batch)

    def length(self, seq: int = 0) -> int | None:
        plan = backend.get_sequence_plan(self.context, seq)
        return None if plan is None else plan.length

    def close(self) -> None:
        C.llama_free(self.context)
        C.llama_model_free(self.model)


@pytest.fixture
def sequences(tiny: Tiny) -> Iterator[Sequences]:
    opened = Sequences(tiny(lampe=tiny_config(length_policy="prompt")))
    yield opened
    opened.close()


def test_a_plan_is_of_what_the_memory_holds(sequences: Sequences) -> None:
    it = sequences
    assert it.length() is None
    it.read(0, 100)
    it.read(0, 60, seq=1)
    assert (it.length(0), it.length(1)) == (100, 60)
    C.llama_memory_seq_rm(it.memory, 0, 40, -1)
    assert (it.length(0), it.length(1)) == (40, 60)
    C.llama_memory_seq_keep(it.memory, 1)
    assert (it.length(0), it.length(1)) == (None, 60)
    C.llama_memory_clear(it.memory, True)
    assert (it.length(0), it.length(1)) == (None, None)


def nothing(it: Sequences) -> None:
    C.llama_memory_seq_rm(it.memory, 0, 50, -1)  # there are 50 only
    C.llama_memory_seq_rm(it.memory, 1, 0, -1)


def state(it: Sequences) -> None:
    size = C.llama_state_seq_get_size(it.context, 0)
    data = (ctypes.c_uint8 * size)()
    assert C.llama_state_seq_get_data(it.context, data, size, 0) == size
    assert C.llama_state_seq_set_data(it.context, data, size, 0) == size


@pytest.mark.parametrize("change, kept", [
    (nothing, True),
    (lambda it: C.llama_memory_clear(it.memory, False), False),
    (lambda it: C.llama_memory_seq_rm(it.memory, 0, 49, -1), False),
    (lambda it: C.llama_memory_seq_rm(it.memory, -1, 0, 10), False),
    (lambda it: C.llama_memory_seq_keep(it.memory, 1), False),
    (lambda it: C.llama_memory_seq_cp(it.memory, 1, 0, -1, -1), False),
    (lambda it: C.llama_memory_seq_add(it.memory, 0, 10, -1, -5), False),
    (lambda it: C.llama_memory_seq_div(it.memory, 0, 0, -1, 2), False),
    (state, False),
], ids=["nothing", "clear", "rm", "rm of all", "keep", "cp", "add", "div", "state"])
def test_what_was_announced_goes_with_what_was_read(
    sequences: Sequences, change: Callable[[Sequences], object], kept: bool
) -> None:
    it = sequences
    backend.set_prompt_length(it.context, 400)
    it.read(0, 50)
    assert it.length() == 400
    change(it)
    end = C.llama_memory_seq_pos_max(it.memory, 0) + 1
    it.read(end, 20)
    assert it.length() == (400 if kept else end + 20)


def test_an_announcement_before_a_clearing_is_withdrawn(sequences: Sequences) -> None:
    backend.set_prompt_length(sequences.context, 400)
    C.llama_memory_clear(sequences.memory, True)
    sequences.read(0, 30)
    assert sequences.length() == 30


# Where memory is short: what fails changes nothing, and nothing ends the process

LIMIT = """
import dataclasses, resource, sys
from conftest import tiny_config
from lampe_gguf.backend import api as backend
from lampe_gguf.errors import LampeError
from lampe_gguf.backend.llama import LampeLlama

def limit(extra):
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (used + extra, hard))

def refused(call):
    try:
        call()
    except LampeError as error:
        print(error)
        return True

options = dict(n_ctx=2**19, n_batch=32, n_ubatch=32, n_threads=1, n_threads_batch=1)
llm = LampeLlama(sys.argv[1], **options, {more})
{first}
before = llm.path, llm.lampe_config
limit({room})
assert refused(lambda: {call})
assert (llm.path, llm.lampe_config) == before
llm.eval([5, 6, 7])
print("went on")
"""

needs_statm = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="Linux tells what is in use")


def short_of_memory(script: str, path: Path) -> subprocess.CompletedProcess[str]:
    tests = Path(__file__).parents[1]
    env = {**os.environ, "GGML_NO_BACKTRACE": "1",
           "PYTHONPATH": os.pathsep.join(
               [str(tests), str(tests / "support"), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, env=env,
        timeout=120)


@needs_statm
@pytest.mark.parametrize("first, call", [
    ("", "backend.set_enabled(llm.ctx, False)"),
    ("backend.set_enabled(llm.ctx, False)", "backend.set_enabled(llm.ctx, True)"),
    ("", "llm.set_config(dataclasses.replace(llm.lampe_config, attention_factor=1.1))"),
    ("", "backend.set_path(llm.ctx, 'portable')"),
], ids=["off", "on", "other tables", "portable"])
def test_what_fails_for_memory_changes_nothing(tiny: Tiny, first: str, call: str) -> None:
    path = tiny(lampe=tiny_config(context_length=2**24), **LONG)
    done = short_of_memory(LIMIT.format(more="", call=call, first=first, room=2**20), path)
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.endswith("went on\n")


@needs_statm
def test_parameters_that_need_a_larger_graph_are_refused_before(tiny: Tiny) -> None:
    # on the portable path, every plan takes nodes of its own
    script = LIMIT.replace("n_batch=32, n_ubatch=32", "n_batch=512").format(
        more='attention="portable"', first="llm.eval([5, 6, 7])", room=2**20,
        call="llm.set_config(dataclasses.replace(llm.lampe_config, length_step=1))")
    path = tiny(lampe=tiny_config(context_length=2**24), **LONG)
    done = short_of_memory(script, path)
    assert done.returncode == 0, done.stderr[-500:]
    assert "not enough memory" in done.stdout
    assert done.stdout.endswith("went on\n")


TIGHT = """
import resource, sys
from lampe_gguf.backend.llama import LampeLlama

used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
hard = resource.getrlimit(resource.RLIMIT_AS)[1]
resource.setrlimit(resource.RLIMIT_AS, (used + {kib} * 1024, hard))
try:
    LampeLlama(sys.argv[1], n_ctx=4096, n_threads=1, n_threads_batch=1)
except BaseException:
    pass
"""


@needs_statm
@pytest.mark.parametrize("kib", [1280, 2560, 9216, 9728, 10240, 11264, 15360, 20480])
def test_opening_under_tight_memory_ends_no_process(tiny: Tiny, kib: int) -> None:
    # 127 is glibc's, where a thread's first exception finds no memory for what every thread needs
    path = tiny(lampe=tiny_config(context_length=2**24), **LONG)
    done = short_of_memory(TIGHT.format(kib=kib), path)
    assert done.returncode == 0, done.stderr[-500:]


def test_memory_for_what_grows_with_the_context_is_counted(tiny: Tiny) -> None:
    # 4 GiB of keys and values, 4 of positions, and 128 of a mask for 4,096 tokens at a time
    path = tiny(lampe=tiny_config(context_length=2**24), **LONG)
    with pytest.raises(LampeError) as refusal:
        LampeLlama(path, n_ctx=2**23 if available() < 2**34 else 0, n_batch=4096, n_ubatch=4096)
    assert "the KV cache, the positions and the mask of 4096 tokens at a time" in str(refusal.value)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert used < 4 * 2**20, f"{used} KiB were taken"


def available() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) * 1024


def test_a_context_that_measures_is_let_through(tiny: Tiny) -> None:
    # llama.cpp's fitting of a model to the devices asks for n_ctx_train, and takes no memory
    path = tiny(lampe=tiny_config(context_length=2**24), **LONG)
    params = C.llama_model_default_params()
    params.no_alloc, params.load_mode = True, C.LLAMA_LOAD_MODE_NONE
    model = C.llama_model_load_from_file(os.fsencode(path), params)
    wanted = C.llama_context_default_params()
    wanted.n_ctx = 0
    context = C.llama_init_from_model(model, wanted)
    assert context is not None, backend.last_error()
    assert C.llama_n_ctx(context) == 2**24
    C.llama_free(context)
    C.llama_model_free(model)


def test_tables_of_another_attention_factor_are_right(tiny: Tiny) -> None:
    # made when the parameters change, and taken back with them
    path = tiny()
    config = tiny_config()
    other = dataclasses.replace(config, attention_factor=1.2)
    tokens = list(range(5, 65))

    def logits(llm: LampeLlama) -> Any:
        llm.reset()
        llm.eval(tokens)
        pointer = C.llama_get_logits_ith(llm.ctx, -1)
        return np.ctypeslib.as_array(pointer, shape=(llm.n_vocab(),)).copy()

    first, second = LampeLlama(path, n_ctx=256), LampeLlama(path, lampe=other, n_ctx=256)
    plain, changed = logits(first), logits(second)
    assert not (plain == changed).all()
    for config_now, right in ((other, changed), (config, plain), (other, changed)):
        first.set_config(config_now)
        assert (logits(first) == right).all()
    first.close()
    second.close()


def test_switched_on_again_it_takes_the_path_that_was_asked_for(tiny: Tiny) -> None:
    llm = LampeLlama(tiny(), n_ctx=64, attention="portable")
    backend.set_enabled(llm.ctx, False)
    assert llm.path == "off"
    backend.set_enabled(llm.ctx, True)
    assert llm.path == "portable"
    llm.close()


def test_an_unknown_kind_of_rope_scaling_is_refused(tiny: Tiny) -> None:
    # upstream ends the process
    path = tiny("unknown.gguf", extra={"llama.rope.scaling.type": "cubic"})
    assert "unknown RoPE scaling type: 'cubic'" in load(path)


def test_there_is_room_for_all_that_a_rounded_context_holds(tiny: Tiny) -> None:
    with LampeLlama(tiny(), n_ctx=300, logits_all=True) as llm:
        assert llm.n_ctx() == 512
        llm.eval([3] * 500)
        assert llm.n_tokens == 500 and len(llm.scores) == 512
