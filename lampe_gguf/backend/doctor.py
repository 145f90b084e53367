"""Is the backend the right one, and what would run?"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import LampeError
from . import api


@dataclass(frozen=True)
class Report:
    """What was found; `problem` is None where all is right."""

    ok: bool
    problem: str | None
    version: str | None = None
    library: str | None = None
    devices: list[str] = field(default_factory=list)
    cpu_features: list[str] = field(default_factory=list)
    path: str | None = None


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
    return Report(
        ok=problem is None,
        problem=problem,
        version=api.version(),
        library=api.library_path(),
        devices=[f"{name}: {description}" for _, name, description in devices],
        cpu_features=_cpu_features(module),
        path=None if problem else _path(devices),
    )


def _devices() -> list[tuple[int, str, str]]:
    """Address, name and description of each."""
    import ctypes
    import os

    # ggml's own library: llama_cpp declares little of it
    folder = os.path.dirname(api.library_path())
    names = [name for name in os.listdir(folder) if name.split(".")[0] in ("libggml", "ggml")]
    if not names:
        return []
    ggml = ctypes.CDLL(os.path.join(folder, sorted(names)[0]))
    base_names = [n for n in os.listdir(folder) if n.split(".")[0] in ("libggml-base", "ggml-base")]
    base = ctypes.CDLL(os.path.join(folder, sorted(base_names)[0]))
    ggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    ggml.ggml_backend_dev_get.restype = ctypes.c_void_p
    ggml.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    found: list[tuple[int, str, str]] = []
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
