"""Just enough of ggml through ctypes to run one attention operator on NumPy arrays.

The libraries are those of the installed llama_cpp; LAMPE_GGML_LIB_DIR names another folder with
libggml-base and libggml-cpu in it (a development or sanitizer build). Of a portable build the
variant that suits this processor is taken, or the one that LAMPE_GGML_VARIANT names.
ggml_device.py runs the same on other devices.
"""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

F32, F16, Q4_0, Q8_0, I32, BF16 = 0, 1, 2, 8, 26, 30
TYPES = {"f32": F32, "f16": F16, "q4_0": Q4_0, "q8_0": Q8_0, "bf16": BF16}
STORABLE = tuple(TYPES)  # what keys and values can be kept in
_QUANT = {"q8_0": gguf.GGMLQuantizationType.Q8_0, "q4_0": gguf.GGMLQuantizationType.Q4_0}
ROPE_NORM, ROPE_NEOX = 0, 2
STATUS_SUCCESS = 0

_TENSOR = ctypes.c_void_p


class InitParams(ctypes.Structure):
    _fields_ = [
        ("mem_size", ctypes.c_size_t),
        ("mem_buffer", ctypes.c_void_p),
        ("no_alloc", ctypes.c_bool),
    ]


class _ComputePlan(ctypes.Structure):
    _fields_ = [
        ("work_size", ctypes.c_size_t),
        ("work_data", ctypes.c_void_p),
        ("n_threads", ctypes.c_int),
        ("threadpool", ctypes.c_void_p),
        ("abort_callback", ctypes.c_void_p),
        ("abort_callback_data", ctypes.c_void_p),
        ("use_ref", ctypes.c_bool),
    ]


def stored(data: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """The raw bytes of an f32 array in a ggml type, and the values that those stand for."""
    if kind == "f32":
        return data, data
    if kind == "f16":
        half = data.astype(np.float16)
        return half, half.astype(np.float32)
    if kind == "bf16":
        raw = (data.view(np.uint32) >> 16).astype(np.uint16)
        return raw, (raw.astype(np.uint32) << 16).view(np.float32)
    raw = gguf.quantize(data, _QUANT[kind])
    return raw, gguf.dequantize(raw, _QUANT[kind]).astype(np.float32)


def library_dir() -> Path:
    """The folder that holds libggml-base and libggml-cpu; FileNotFoundError when there is none."""
    override = os.environ.get("LAMPE_GGML_LIB_DIR")
    if override:
        return Path(override)
    import importlib.util

    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("llama_cpp is not installed and LAMPE_GGML_LIB_DIR is not set")
    return Path(spec.origin).parent / "lib"


def _named(name: str) -> str:
    return {"darwin": f"lib{name}.dylib", "win32": f"{name}.dll"}.get(
        sys.platform, f"lib{name}.so"
    )


def cpu_library(folder: Path) -> str:
    """Name of the processor's library: "ggml-cpu", or "ggml-cpu-icelake" of a portable build.

    libggml-base must be loaded.
    """
    if variant := os.environ.get("LAMPE_GGML_VARIANT"):
        return f"ggml-cpu-{variant}"
    if (folder / _named("ggml-cpu")).exists():
        return "ggml-cpu"
    best, found = 0, "ggml-cpu"
    start, end = _named("ggml-cpu-*").split("*")
    for path in sorted(folder.glob(_named("ggml-cpu-*"))):
        score = ctypes.CDLL(str(path)).ggml_backend_score()
        if score > best:
            best, found = score, f"ggml-cpu-{path.name[len(start):-len(end)]}"
    return found


def _load(folder: Path, name: str) -> ctypes.CDLL:
    pattern = _named(name)
    path = folder / pattern
    if not path.exists():
        raise FileNotFoundError(f"no {pattern} in {folder}")
    return ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)


class Ggml:
    """The ggml functions that the tests and benchmarks call."""

    def __init__(self, folder: Path | None = None) -> None:
        folder = folder or library_dir()
        self.base = _load(folder, "ggml-base")
        self.cpu = _load(folder, cpu_library(folder))
        self.has_lampe_attn = hasattr(self.base, "ggml_lampe_attn")

        i64, size, i32, f32 = ctypes.c_int64, ctypes.c_size_t, ctypes.c_int, ctypes.c_float
        self._declare(self.base, "ggml_init", _TENSOR, [InitParams])
        self._declare(self.base, "ggml_free", None, [_TENSOR])
        self._declare(self.base, "ggml_tensor_overhead", size, [])
        self._declare(self.base, "ggml_graph_overhead", size, [])
        self._declare(self.base, "ggml_row_size", size, [i32, i64])
        self._declare(self.base, "ggml_nbytes", size, [_TENSOR])
        self._declare(self.base, "ggml_get_data", ctypes.c_void_p, [_TENSOR])
        self._declare(self.base, "ggml_new_tensor_4d", _TENSOR, [_TENSOR, i32] + [i64] * 4)
        self._declare(
            self.base, "ggml_view_4d", _TENSOR, [_TENSOR, _TENSOR] + [i64] * 4 + [size] * 4
        )
        self._declare(self.base, "ggml_permute", _TENSOR, [_TENSOR, _TENSOR] + [i32] * 4)
        self._declare(self.base, "ggml_new_graph", _TENSOR, [_TENSOR])
        self._declare(self.base, "ggml_build_forward_expand", None, [_TENSOR, _TENSOR])
        self._declare(
            self.base, "ggml_flash_attn_ext", _TENSOR, [_TENSOR] * 5 + [f32] * 3
        )
        if self.has_lampe_attn:
            self._declare(
                self.base, "ggml_lampe_attn", _TENSOR,
                [_TENSOR] * 9 + [f32, f32, i32, ctypes.c_bool]
            )
        self._declare(self.cpu, "ggml_cpu_init", None, [])
        self._declare(self.cpu, "ggml_graph_plan", _ComputePlan, [_TENSOR, i32, _TENSOR])
        self._declare(
            self.cpu, "ggml_graph_compute", i32, [_TENSOR, ctypes.POINTER(_ComputePlan)]
        )
        self.cpu.ggml_cpu_init()

    @property
    def multiplies_integers(self) -> bool:
        """Whether attention over a cache of 16 bits or fewer runs in integers here."""
        def has(feature: str) -> bool:
            return bool(getattr(self.cpu, f"ggml_cpu_has_{feature}")())

        return has("avx512_vnni") if has("avx512") else has("fma") and has("avx_vnni")

    def context(self, n_bytes: int) -> Context:
        """A place for tensors of `n_bytes` in all."""
        return Context(self, n_bytes)

    @staticmethod
    def _declare(library: ctypes.CDLL, name: str, result: object, arguments: list) -> None:
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments

    def supports_op(self, tensor: int) -> bool:
        """Whether the CPU device says that it computes this node."""
        self._declare(self.cpu, "ggml_backend_cpu_reg", _TENSOR, [])
        self._declare(self.base, "ggml_backend_reg_dev_get", _TENSOR, [_TENSOR, ctypes.c_size_t])
        self._declare(self.base, "ggml_backend_dev_supports_op", ctypes.c_bool, [_TENSOR, _TENSOR])
        device = self.base.ggml_backend_reg_dev_get(self.cpu.ggml_backend_cpu_reg(), 0)
        return bool(self.base.ggml_backend_dev_supports_op(device, tensor))


class Context:
    """Tensors from arrays and one graph, freed at the end of the `with` block.

    Every tensor lies in memory of its own, so that a sanitizer sees a step over its end.
    """

    def __init__(self, ggml: Ggml, n_bytes: int, no_alloc: bool = False) -> None:
        self.ggml = ggml
        self._tensors: list[int] = []
        overhead = 64 * ggml.base.ggml_tensor_overhead() + 2 * ggml.base.ggml_graph_overhead()
        self._ctx = ggml.base.ggml_init(InitParams(n_bytes + overhead + 65536, None, no_alloc))
        if not self._ctx:
            raise MemoryError("ggml_init failed")

    def __enter__(self) -> Context:
        return self

    def __exit__(self, *_: object) -> None:
        for each in [self._ctx, *self._tensors]:
            self.ggml.base.ggml_free(each)

    def tensor(self, type_: int, ne: tuple[int, ...], data: np.ndarray | None = None) -> int:
        """A tensor of ggml dimensions `ne` (fastest first); `data` holds its raw bytes."""
        ne = ne + (1,) * (4 - len(ne))
        n_bytes = self.ggml.base.ggml_row_size(type_, ne[0]) * ne[1] * ne[2] * ne[3]
        room = self.ggml.base.ggml_tensor_overhead() + -(-n_bytes // 16) * 16
        own = self.ggml.base.ggml_init(InitParams(room, None, False))
        self._tensors.append(own)
        tensor = self.ggml.base.ggml_new_tensor_4d(own, type_, *ne)
        if data is not None:
            raw = np.ascontiguousarray(data)
            assert raw.nbytes == n_bytes, (raw.nbytes, n_bytes)
            ctypes.memmove(self.ggml.base.ggml_get_data(tensor), raw.ctypes.data, n_bytes)
        return tensor

    def heads_first(self, tensor: int) -> int:
        """[d, n_head, n, n_stream] seen as [d, n, n_head, n_stream], as llama.cpp passes them."""
        return self.ggml.base.ggml_permute(self._ctx, tensor, 0, 2, 1, 3)

    def view(self, tensor: int, ne: tuple[int, ...], nb: tuple[int, int, int]) -> int:
        """A view from the start of `tensor`, with the strides (bytes) of its dimensions 1 to 3."""
        return self.ggml.base.ggml_view_4d(self._ctx, tensor, *ne, *nb, 0)

    def lampe_attn(self, *sources: int | None, scale: float, softcap: float, mode: int,
                   causal: bool = False, length_step: int = 0) -> int:
        """The operator; sources are q, k, v, mask, plan, k_pos, rope, sinks."""
        node: int = self.ggml.base.ggml_lampe_attn(
            self._ctx, *sources, scale, softcap, mode, causal)
        if length_step:
            self.ggml.base.ggml_lampe_attn_set_length_step(_TENSOR(node), length_step)
        return node

    def flash_attn(self, *sources: int | None, scale: float) -> int:
        """Stock flash attention; sources are q, k, v, mask."""
        return self.ggml.base.ggml_flash_attn_ext(self._ctx, *sources, scale, 0.0, 0.0)

    def build_graph(self, node: int | list[int]) -> int:
        """What computes a node, or several, for a backend to run."""
        graph: int = self.ggml.base.ggml_new_graph(self._ctx)
        for each in node if isinstance(node, list) else [node]:
            self.ggml.base.ggml_build_forward_expand(graph, each)
        return graph

    def graph(self, node: int | list[int], n_threads: int) -> Graph:
        """A graph that computes a node, or several, as often as it is called."""
        graph = self.build_graph(node)
        plan = self.ggml.cpu.ggml_graph_plan(graph, n_threads, None)
        work = np.full(max(plan.work_size, 1), 0xFF, dtype=np.uint8)  # f32 NaN everywhere
        plan.work_data = work.ctypes.data
        return Graph(self.ggml, graph, plan, work)

    def read(self, tensor: int, shape: tuple[int, ...]) -> np.ndarray:
        """The f32 values of a contiguous tensor, copied; `shape` is slowest first."""
        count = int(np.prod(shape))
        data = (ctypes.c_float * count).from_address(self.ggml.base.ggml_get_data(tensor))
        return np.ctypeslib.as_array(data).reshape(shape).copy()


@dataclass
class Graph:
    """A planned graph with its workspace, which starts as NaN to catch reads of unset memory."""

    ggml: Ggml
    handle: int
    plan: _ComputePlan
    work: np.ndarray

    def compute(self, times: int = 1) -> None:
        for _ in range(times):
            status = self.ggml.cpu.ggml_graph_compute(self.handle, ctypes.byref(self.plan))
            assert status == STATUS_SUCCESS, status

    @property
    def work_size(self) -> int:
        """Bytes of workspace, of all threads."""
        return int(self.plan.work_size)
