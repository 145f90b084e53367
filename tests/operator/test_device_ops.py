"""Every op of the portable path, as CUDA's and Metal's own tables of supported ops see it.

Neither backend can run here. What they accept is a function in their source: it is compiled as it
is and asked about the very nodes that the portable path builds, with their types and strides.
"""

from __future__ import annotations

import ctypes
import re
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llama_cpp as C
import numpy as np
import pytest
from conftest import tiny_config
from llama_cpp._ggml import libggml
from patched import compile as compiling
from patched import sdist

from lampe_gguf.attention.probe import _Tensor
from lampe_gguf.backend import api as backend

Tiny = Callable[..., Path]
TOKENS = [int(t) for t in np.random.default_rng(2).integers(259, 380, 300)]
CONFIG = tiny_config(context_length=2048, length_step=128)
GGML = "vendor/llama.cpp/ggml"
N_SRC = 10
libggml.ggml_tensor_overhead.restype = ctypes.c_size_t
TENSOR_SIZE = libggml.ggml_tensor_overhead() - 32  # of struct ggml_object
KV = {"f32": 0, "f16": 1, "q8_0": 8, "q4_0": 2, "bf16": 30}
# the file, and the functions in it that decide
BACKENDS = {
    "CUDA": (f"{GGML}/src/ggml-cuda/ggml-cuda.cu",
             [r"static bool ggml_backend_cuda_device_supports_op\("]),
    "METAL": (f"{GGML}/src/ggml-metal/ggml-metal-device.m",
              [r"static bool ggml_metal_supports_mul_mat_op\(",
               r"bool ggml_metal_device_supports_op\("]),
}
Node = tuple[str, bytes]


@pytest.fixture(scope="session")
def supports(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, list[bytes]], list[bool]]:
    """Ask a backend about nodes."""
    source = sdist.fetch()
    folder = tmp_path_factory.mktemp("supports")
    headers = [name for name in source.names()
               if name.startswith((f"{GGML}/include/", f"{GGML}/src/")) and name.endswith(".h")
               and name.count("/") == 4]
    for name, data in source.read(headers).items():
        (folder / Path(name).name).write_bytes(data)
    compiler, _ = compiling.find_compiler()
    libraries = Path(C.__file__).parent / "lib"
    for name, (path, heads) in BACKENDS.items():
        text = source.read([path])[path].decode()
        parts = []
        for head in heads:
            found = re.search(rf"^{head}.*?^}}", text, re.MULTILINE | re.DOTALL)
            assert found is not None, f"{path} has no {head} any more"
            parts.append(found[0])
        (folder / "functions.inc").write_text("\n\n".join(parts))
        subprocess.run(
            [compiler, "-std=c++17", f"-D{name}", f"-I{folder}",
             Path(__file__).parents[1] / "support" / "supports_op.cpp", "-o", folder / name,
             f"-L{libraries}", "-lggml-base", f"-Wl,-rpath,{libraries}"],
            check=True,
        )

    def ask(name: str, nodes: list[bytes]) -> list[bool]:
        done = subprocess.run([folder / name], input=b"".join(nodes), capture_output=True,
                              check=True)
        answers = [line == b"1" for line in done.stdout.split()]
        assert len(answers) == len(nodes)
        return answers

    size = int(subprocess.run([folder / "CUDA", "size"], capture_output=True).stdout)
    assert size == TENSOR_SIZE
    return ask


def nodes_of(path: Path, type_k: str, n_seq: int) -> list[Node]:
    """Name of the op and all of its tensors, for each node of a prompt and of a token after it."""
    from lampe_gguf.backend.llama import LampeLlama

    found: list[Node] = []
    op_name = libggml.ggml_op_name
    op_name.restype = ctypes.c_char_p

    def on_node(address: int, ask: bool, _: Any) -> bool:
        if ask:
            tensor = _Tensor.from_address(address)
            pointers = list((ctypes.c_void_p * N_SRC).from_address(
                address + _Tensor.src.offset))
            sources = pointers[: pointers.index(None)] if None in pointers else pointers
            found.append((
                op_name(tensor.op).decode(),
                ctypes.string_at(address, TENSOR_SIZE) + struct.pack("i", len(sources))
                + b"".join(ctypes.string_at(source, TENSOR_SIZE) for source in sources),
            ))
        return False

    callback = C.ggml_backend_sched_eval_callback(on_node)
    llm = LampeLlama(path, n_ctx=512)
    params = C.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = 1024, 600, 600, n_seq
    params.kv_unified, params.type_k = n_seq == 1, KV[type_k]
    params.cb_eval = callback
    ctx = C.llama_init_from_model(llm.model, params)
    assert ctx, backend.last_error()
    backend.set_path(ctx, "portable")
    batch = C.llama_batch_init(600, 0, 1)
    for positions in (range(299), range(299, 300)):
        items = [(s, p) for s in range(n_seq) for p in positions]
        batch.n_tokens = len(items)
        for i, (s, p) in enumerate(items):
            batch.token[i], batch.pos[i], batch.logits[i] = TOKENS[p], p, 1
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, s
        assert C.llama_decode(ctx, batch) == 0
    C.llama_batch_free(batch)
    C.llama_free(ctx)
    llm.close()
    return found


@pytest.mark.parametrize("name", list(BACKENDS))
@pytest.mark.parametrize("arch, type_k, n_seq", [
    ("llama", "f16", 1), ("llama", "f16", 2), ("llama", "f32", 1), ("llama", "q8_0", 1),
    ("llama", "q4_0", 2), ("llama", "bf16", 1), ("gptneox", "f16", 1), ("gemma2", "f16", 1),
])
def test_every_op_is_one_that_the_device_takes(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, supports: Any, name: str, arch: str, type_k: str,
    n_seq: int,
) -> None:
    if (name, type_k) == ("METAL", "bf16"):
        pytest.skip("Macs without bfloat have no such cache, with LaMPE or without")
    # blocks of a few tokens
    monkeypatch.setenv("LLAMA_LAMPE_SCORES_MAX", str(100 * 2 * 4 * 4 * 512 * n_seq))
    extra = {"gemma2.attn_logit_softcapping": 20.0} if arch == "gemma2" else {}
    nodes = nodes_of(tiny(arch=arch, lampe=CONFIG, extra=extra), type_k, n_seq)
    ops = {op for op, _ in nodes}
    assert {"ROPE", "CONCAT", "SOFT_MAX", "MUL_MAT", "ADD", "VIEW"} <= ops
    assert "LAMPE_ATTN" not in ops
    answers = supports(name, [node for _, node in nodes])
    refused = {op for (op, _), taken in zip(nodes, answers, strict=True) if not taken}
    assert not refused


@pytest.mark.parametrize("name", list(BACKENDS))
def test_the_fused_op_is_one_that_it_does_not_take(
    tiny: Tiny, supports: Any, name: str
) -> None:
    # an op of that number is none that their sources name
    _, node = next(n for n in nodes_of(tiny(lampe=CONFIG), "f16", 1) if n[0] == "CONCAT")
    offset = _Tensor.op.offset
    unknown = node[:offset] + struct.pack("i", 10_000) + node[offset + 4:]
    assert supports(name, [node, unknown]) == [True, False]
