"""ggml_ctypes on another device: a backend's, or the emulation of CUDA on the processor."""

from __future__ import annotations

import ctypes
import os
import sys
import weakref
from dataclasses import dataclass
from pathlib import Path

import ggml_ctypes as gg
import numpy as np

EMULATED = "emulated"
_P = ctypes.c_void_p


def open_ggml(device: str | None = None) -> gg.Ggml:
    """The processor (None), `EMULATED`, or a device by the name that ggml gives it, as CUDA0.

    Raises LookupError when there is no such device.
    """
    if device is None:
        return gg.Ggml()
    return EmulatedGgml() if device == EMULATED else DeviceGgml(device)


@dataclass
class Counted:
    """What the emulation saw of a call of the operator."""

    kernels: list[str]  # in the order of their launches
    copied: int  # bytes that asynchronous copies brought
    workspace: int  # bytes of the pool


class EmulatedGgml(gg.Ggml):
    """The CUDA source of the operator, compiled for the processor; all other nodes are views."""

    def __init__(self) -> None:
        super().__init__()
        from cuda_emulation import build

        self.emulation = ctypes.CDLL(
            str(build.build(sanitize=bool(os.environ.get("LAMPE_EMULATED_SANITIZE")))))
        self._declare(self.emulation, "lampe_emulated_supports", ctypes.c_int, [_P])
        self._declare(self.emulation, "lampe_emulated_compute", None, [_P])
        self._declare(self.emulation, "lampe_emulated_kernels", ctypes.c_char_p, [])
        self._declare(self.emulation, "lampe_emulated_copied", ctypes.c_uint64, [])
        self._declare(self.emulation, "lampe_emulated_workspace", ctypes.c_uint64, [])

    def supports_op(self, tensor: int) -> bool:
        return bool(self.emulation.lampe_emulated_supports(tensor))

    def context(self, n_bytes: int) -> gg.Context:
        return _EmulatedContext(self, n_bytes)

    def counted(self) -> Counted:
        """What the last node took."""
        return Counted(
            str(self.emulation.lampe_emulated_kernels(), "ascii").split(),
            self.emulation.lampe_emulated_copied(),
            self.emulation.lampe_emulated_workspace(),
        )


class _EmulatedContext(gg.Context):
    ggml: EmulatedGgml

    def graph(self, node: int | list[int], n_threads: int = 1) -> gg.Graph:
        return _EmulatedGraph(self.ggml, node if isinstance(node, list) else [node])


class _EmulatedGraph(gg.Graph):
    def __init__(self, ggml: EmulatedGgml, nodes: list[int]) -> None:
        self.emulation, self.nodes = ggml.emulation, nodes

    def compute(self, times: int = 1) -> None:
        for node in self.nodes * times:
            self.emulation.lampe_emulated_compute(node)


class DeviceGgml(gg.Ggml):
    """A backend's device, with tensors in its memory."""

    def __init__(self, device: str) -> None:
        super().__init__()
        name = {"darwin": "libggml.dylib", "win32": "ggml.dll"}.get(sys.platform, "libggml.so")
        registry = ctypes.CDLL(str(Path(gg.library_dir(), name)), mode=ctypes.RTLD_GLOBAL)
        self._declare(registry, "ggml_backend_dev_by_name", _P, [ctypes.c_char_p])
        for function, result, arguments in [
            ("ggml_backend_dev_init", _P, [_P, ctypes.c_char_p]),
            ("ggml_backend_free", None, [_P]),
            ("ggml_backend_dev_supports_op", ctypes.c_bool, [_P, _P]),
            ("ggml_backend_alloc_ctx_tensors", _P, [_P, _P]),
            ("ggml_backend_buffer_free", None, [_P]),
            ("ggml_backend_tensor_set", None, [_P, _P, ctypes.c_size_t, ctypes.c_size_t]),
            ("ggml_backend_tensor_get", None, [_P, _P, ctypes.c_size_t, ctypes.c_size_t]),
            ("ggml_backend_graph_compute_async", ctypes.c_int, [_P, _P]),
            ("ggml_backend_synchronize", None, [_P]),
            ("ggml_nelements", ctypes.c_int64, [_P]),
        ]:
            self._declare(self.base, function, result, arguments)
        self.device = registry.ggml_backend_dev_by_name(device.encode())
        if not self.device:
            raise LookupError(f"ggml has no device {device!r}")
        self.backend = self.base.ggml_backend_dev_init(self.device, None)
        if not self.backend:
            raise RuntimeError(f"ggml cannot use device {device!r}")
        weakref.finalize(self, self.base.ggml_backend_free, self.backend)

    def supports_op(self, tensor: int) -> bool:
        return bool(self.base.ggml_backend_dev_supports_op(self.device, tensor))

    def context(self, n_bytes: int) -> gg.Context:
        return _DeviceContext(self)


class _DeviceContext(gg.Context):
    ggml: DeviceGgml

    def __init__(self, ggml: DeviceGgml) -> None:
        super().__init__(ggml, 1 << 20, no_alloc=True)
        self._buffers: list[int] = []

    def __exit__(self, *error: object) -> None:
        self.ggml.base.ggml_backend_synchronize(self.ggml.backend)
        for each in self._buffers:
            self.ggml.base.ggml_backend_buffer_free(each)
        super().__exit__(*error)

    def _allocate(self, ctx: int, *needed: int) -> None:
        buffer = self.ggml.base.ggml_backend_alloc_ctx_tensors(ctx, self.ggml.backend)
        if buffer:  # else there was nothing to allocate, or no room for it
            self._buffers.append(buffer)
        if not all(self.ggml.base.ggml_get_data(each) for each in needed):
            raise MemoryError("the device has no memory left for a tensor")

    def tensor(self, type_: int, ne: tuple[int, ...], data: np.ndarray | None = None) -> int:
        ne = ne + (1,) * (4 - len(ne))
        base = self.ggml.base
        own = base.ggml_init(gg.InitParams(base.ggml_tensor_overhead(), None, True))
        self._tensors.append(own)
        tensor: int = base.ggml_new_tensor_4d(own, type_, *ne)
        self._allocate(own, tensor)
        if data is not None:
            raw = np.ascontiguousarray(data)
            assert raw.nbytes == base.ggml_nbytes(tensor), (raw.nbytes, ne)
            base.ggml_backend_tensor_set(tensor, raw.ctypes.data, 0, raw.nbytes)
        return tensor

    def graph(self, node: int | list[int], n_threads: int = 1) -> gg.Graph:
        self._allocate(self._ctx, *(node if isinstance(node, list) else [node]))
        return DeviceGraph(self.ggml, self.build_graph(node))

    def read(self, tensor: int, shape: tuple[int, ...]) -> np.ndarray:
        out = np.empty(shape, dtype=np.float32)
        self.ggml.base.ggml_backend_tensor_get(tensor, out.ctypes.data, 0, out.nbytes)
        return out


@dataclass(init=False)
class DeviceGraph(gg.Graph):
    """A graph of one backend."""

    def __init__(self, ggml: DeviceGgml, handle: int) -> None:
        self.ggml, self.handle = ggml, handle

    def compute(self, times: int = 1) -> None:
        """Compute it, several times in a row before the device is waited for."""
        assert isinstance(self.ggml, DeviceGgml)
        for _ in range(times):
            status = self.ggml.base.ggml_backend_graph_compute_async(
                self.ggml.backend, self.handle)
            assert status == gg.STATUS_SUCCESS, status
        self.ggml.base.ggml_backend_synchronize(self.ggml.backend)

    @property
    def work_size(self) -> int:
        return 0
