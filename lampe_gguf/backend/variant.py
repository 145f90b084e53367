"""Which build of the processor's backend is loaded: this machine's own, or one of many variants.

A native build has one library for the processor, compiled for the machine that built it. A
portable one has a library for each set of instructions, and ggml loads the best that runs here.
"""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path
from typing import Any

_NAME = re.compile(r"(?:lib)?ggml-cpu(?:-(?P<variant>.+))?\.(?:so|dylib|dll)")


def variant_of(library: str | os.PathLike[str]) -> str | None:
    """The variant that a library of the processor's backend is, "" of a native build.

    None where the name is that of no such library.
    """
    found = _NAME.fullmatch(Path(library).name)
    return found and (found["variant"] or "")


def variants_in(folder: str | os.PathLike[str]) -> list[str]:
    """The variants that lie in a folder, sorted; none of a native build."""
    found = (variant_of(name) for name in os.listdir(folder))
    return sorted(name for name in found if name)


def loaded_library(base: Any, device: int) -> str | None:
    """The file that holds the code of a device, None where the system does not say.

    base    ggml-base, as ctypes has loaded it
    device  its address (ggml_backend_dev_t)
    """
    base.ggml_backend_dev_backend_reg.restype = ctypes.c_void_p
    base.ggml_backend_dev_backend_reg.argtypes = [ctypes.c_void_p]
    base.ggml_backend_reg_get_proc_address.restype = ctypes.c_void_p
    base.ggml_backend_reg_get_proc_address.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    backend = base.ggml_backend_dev_backend_reg(device)
    inside = base.ggml_backend_reg_get_proc_address(backend, b"ggml_backend_set_n_threads")
    return _file_of(inside) if inside else None


class _Found(ctypes.Structure):
    """Dl_info of the C library"""

    _fields_ = [("file", ctypes.c_char_p), ("base", ctypes.c_void_p),
                ("symbol", ctypes.c_char_p), ("address", ctypes.c_void_p)]


def _file_of(address: int) -> str | None:
    """The library that an address of code lies in."""
    if os.name == "nt":
        return _file_on_windows(address)
    found = _Found()
    try:
        ask = ctypes.CDLL(None).dladdr
    except (AttributeError, OSError):
        return None
    ask.argtypes = [ctypes.c_void_p, ctypes.POINTER(_Found)]
    return os.fsdecode(found.file) if ask(address, ctypes.byref(found)) and found.file else None


def _file_on_windows(address: int) -> str | None:
    kernel: Any = getattr(ctypes, "windll").kernel32  # noqa: B009  (there is none elsewhere)
    module = ctypes.c_void_p()
    from_address, keep_count = 4, 2
    if not kernel.GetModuleHandleExW(
        from_address | keep_count, ctypes.c_void_p(address), ctypes.byref(module)
    ):
        return None
    name = ctypes.create_unicode_buffer(32768)
    return name.value if kernel.GetModuleFileNameW(module, name, len(name)) else None
