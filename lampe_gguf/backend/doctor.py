"""Is the backend the right one, and what would run?"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..errors import LampeError
from . import api, programs, variant


@dataclass(frozen=True)
class Report:
    """What was found; `problem` is None where all is right.

    build   "native: ..." or "portable: ...", what of the processor's backend was loaded
    variant the variant of a portable build that was, as "icelake"; None of a native build
    server  the path of llama-server, or how to get it
    page    "yes", or how llama-server gets its page
    peer    the path of ggml-rpc-server, with which this machine computes for another, or how to
            get it
    """

    ok: bool
    problem: str | None
    version: str | None = None
    library: str | None = None
    devices: list[str] = field(default_factory=list)
    cpu_features: list[str] = field(default_factory=list)
    path: str | None = None
    build: str | None = None
    variant: str | None = None
    server: str | None = None
    page: str | None = None
    peer: str | None = None


def examine() -> Report:
    """Look at the installed backend without opening a model; raises nothing."""
    try:
        module = api.llama_cpp()
    except LampeError as error:
        return Report(ok=False, problem=str(error))
    problem = None
    try:
        api.require_patched()
    except LampeError as error:
        problem = str(error)
    devices = _devices()
    processor = next((device for device, name, _ in devices if name == "CPU"), None)
    folder = os.path.dirname(api.library_path())
    build, loaded = _build(folder, processor)
    if problem is None and processor is None:
        problem = api.why_no_backend() or f"{folder} has no backend for the processor"
    return Report(
        ok=problem is None,
        problem=problem,
        version=api.version(),
        library=api.library_path(),
        devices=[f"{name}: {description}" for _, name, description in devices],
        cpu_features=_cpu_features(module),
        path=None if problem else _path(devices),
        build=build,
        variant=loaded,
        **_server(),
    )


def _build(folder: str, processor: int | None) -> tuple[str | None, str | None]:
    """What kind of build it is, and the variant that runs."""
    there = variant.variants_in(folder)
    library = None
    if processor is not None:
        library = variant.loaded_library(_library("ggml-base"), processor)
    found = variant.variant_of(library) if library else None
    if there:
        kind = f"portable: {found or 'none'} of {len(there)} variants"
    elif found is not None:
        kind = "native: compiled for the processor that built it"
    else:
        return None, None
    return kind, found or None


def _server() -> dict[str, str]:
    found = {}
    for name, program in (("server", programs.SERVER), ("peer", programs.PEER)):
        try:
            found[name] = str(programs.find_program(program))
        except LampeError as error:
            found[name] = str(error)
        else:
            if program == programs.SERVER:
                found["page"] = programs.why_no_page() or "yes"
    return found


def device_memory() -> dict[str, int]:
    """Free bytes of each device but the processor, by its name."""
    base = _library("ggml-base")
    base.ggml_backend_dev_memory.argtypes = [
        ctypes.c_void_p, ctypes.POINTER(ctypes.c_size_t), ctypes.POINTER(ctypes.c_size_t)]
    base.ggml_backend_dev_memory.restype = None
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    found: dict[str, int] = {}
    for device, name, _ in _devices():
        base.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
        if name != "CPU":
            found[name] = free.value
    return found


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """llama.cpp says what it loads; llama-cpp-python hands that on to standard error."""
    logger = logging.getLogger("llama-cpp-python")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _library(name: str) -> Any:
    """One of ggml's own: llama_cpp declares little of them. None where there is none."""
    folder = os.path.dirname(api.library_path())
    names = [file for file in os.listdir(folder) if file.split(".")[0] in (f"lib{name}", name)]
    return ctypes.CDLL(os.path.join(folder, sorted(names)[0])) if names else None


def _devices() -> list[tuple[int, str, str]]:
    """Address, name and description of each."""
    ggml, base = _library("ggml"), _library("ggml-base")
    if ggml is None:
        return []
    ggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    ggml.ggml_backend_dev_get.restype = ctypes.c_void_p
    ggml.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    found: list[tuple[int, str, str]] = []
    with _silence():
        api.llama_cpp().llama_backend_init()  # loads those that are libraries of their own
    for function in ("name", "description"):
        getattr(base, f"ggml_backend_dev_{function}").restype = ctypes.c_char_p
        getattr(base, f"ggml_backend_dev_{function}").argtypes = [ctypes.c_void_p]
    for index in range(ggml.ggml_backend_dev_count()):
        device = ggml.ggml_backend_dev_get(index)
        name = base.ggml_backend_dev_name(device).decode()
        found.append((device, name, base.ggml_backend_dev_description(device).decode()))
    return found


def _cpu_features(module: object) -> list[str]:
    info: bytes = module.llama_print_system_info()  # type: ignore[attr-defined]
    pairs = (part.split("=") for part in info.decode().replace("CPU :", "").split("|"))
    return [pair[0].strip() for pair in pairs if len(pair) == 2 and pair[1].strip() == "1"]


def _path(devices: list[tuple[int, str, str]]) -> str:
    """What each device that can hold layers would run; the device itself says so."""
    said = {}
    for device, name, _ in devices:
        if not name.startswith("BLAS"):  # helps the processor and holds no layers
            said[name] = "fused" if api.device_supports_fused(device) else "portable"
    return ", ".join(f"{path} on {name}" for name, path in said.items())
