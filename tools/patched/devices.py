"""What a build for each device needs, and whether this machine has it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .report import Failure

DEVICES = ("cuda", "metal", "vulkan")
VULKAN_HEADERS = (1, 3, 272)  # the first with VK_EXT_layer_settings, which llama.cpp uses
USUAL_NVCC = Path("/usr/local/cuda/bin/nvcc")
HEADER_FOLDERS = ("/usr/include", "/usr/local/include")


@dataclass(frozen=True)
class Kit:
    """The tools for one device: their name, and what of them is missing, with what to do."""

    name: str
    missing: str | None = None
    started: bool = False  # some of it is there


def find_kit(device: str) -> Kit:
    """Look for what `device` needs; the first piece that lacks is named."""
    return {"cuda": _cuda, "metal": _metal, "vulkan": _vulkan}[device]()


def require(device: str) -> None:
    """Raise Failure with the missing piece named, before anything is fetched or compiled."""
    if device == "cpu":
        return
    kit = find_kit(device)
    if kit.missing:
        raise Failure(f"--{device} needs {kit.missing}.")


def describe(device: str) -> list[str]:
    """What will be built, and what else this machine could build, a line each."""
    chosen = "the processor alone" if device == "cpu" else find_kit(device).name
    if device == "cpu" and sys.platform == "darwin":
        chosen = "the processor and Metal"  # which ggml builds on a Mac unless it is told not to
    lines = [f"building for {chosen}"]
    for other in DEVICES:
        kit = find_kit(other)
        if other == device or (kit.missing and not kit.started):
            continue
        if kit.missing:
            lines.append(f"--{other} is not possible yet: it needs {kit.missing}")
        else:
            lines.append(f"--{other} is possible too: {kit.name}")
    return lines


def _given(name: str) -> list[str]:
    """What $CMAKE_ARGS says of a variable."""
    flags = shlex.split(os.environ.get("CMAKE_ARGS", ""))
    return [flag.partition("=")[2] for flag in flags if re.match(rf"-D{name}(:\w+)?=", flag)]


def _cuda() -> Kit:
    nvcc = os.environ.get("CUDACXX") or shutil.which("nvcc")
    if nvcc is None and USUAL_NVCC.exists():
        nvcc = str(USUAL_NVCC)
    if nvcc is None:
        return Kit("CUDA", "NVIDIA's compiler nvcc: install the CUDA toolkit")
    try:
        version = subprocess.run([nvcc, "--version"], capture_output=True, text=True)
        tried = subprocess.run([nvcc, "--dryrun", "-E", "-x", "cu", os.devnull],
                               capture_output=True, text=True)
    except OSError:
        return Kit("CUDA", f"NVIDIA's compiler, and {nvcc} does not run: mend $CUDACXX", True)
    number = re.search(r"release (\d+\.\d+)", version.stdout)
    name = f"CUDA {number[1]}" if number else "CUDA"
    # the program may be a script that calls the real one, which says where it is
    here = re.search(r"^#\$ _HERE_=(.*)$", tried.stderr, re.MULTILINE)
    roots = [Path(root) for root in _given("CUDAToolkit_ROOT")]
    root = Path(here[1]).parent if here else Path(nvcc).resolve().parent.parent
    roots.append(root)
    # a distribution's package has them apart
    roots += [Path(folder).parent for folder in HEADER_FOLDERS]
    places = [place for root in roots for place in (root, *root.glob("targets/*"))]
    if not any((place / "include" / "cublas_v2.h").is_file() for place in places):
        return Kit(name, f"cuBLAS, and {root} has no cublas_v2.h: install that part of the "
                         "CUDA toolkit too", True)
    return Kit(name)


def _metal() -> Kit:
    if sys.platform != "darwin":
        return Kit("Metal", "a Mac")
    if shutil.which("xcrun") is None:
        return Kit("Metal", "Apple's compilers: xcode-select --install", True)
    return Kit("Metal")


def _vulkan() -> Kit:
    headers = _vulkan_headers()
    glslc = shutil.which("glslc")
    name = "Vulkan"
    if headers is not None:
        name = f"Vulkan {_dotted(headers[1])}"
    some = headers is not None or glslc is not None
    if glslc is None:
        return Kit(name, "glslc: install the Vulkan SDK (Debian: apt install glslc)", some)
    if headers is None:
        return Kit(name, "the Vulkan headers and loader: install the Vulkan SDK (Debian: apt "
                         "install libvulkan-dev)", some)
    folder, version = headers
    if version < VULKAN_HEADERS:
        # Debian 12's, for one: the compiler would say it after minutes, and unclearly
        return Kit(name, f"headers of {_dotted(VULKAN_HEADERS)} or newer, and those in {folder} "
                         f"are {_dotted(version)}: install a newer Vulkan SDK, or unpack newer "
                         "headers and name their folder with "
                         "CMAKE_ARGS=-DVulkan_INCLUDE_DIR=FOLDER", some)
    return Kit(name)


def _dotted(version: tuple[int, int, int]) -> str:
    return ".".join(map(str, version))


def _vulkan_headers() -> tuple[Path, tuple[int, int, int]] | None:
    """The folder that CMake will take them from, and their version."""
    sdk = [f"{os.environ['VULKAN_SDK']}/include"] if "VULKAN_SDK" in os.environ else []
    for folder in [*_given("Vulkan_INCLUDE_DIR"), *sdk, *HEADER_FOLDERS]:
        header = Path(folder) / "vulkan" / "vulkan_core.h"
        if not header.is_file():
            continue
        text = header.read_text(encoding="utf-8")
        found = re.search(
            r"define VK_HEADER_VERSION_COMPLETE VK_MAKE_API_VERSION\(0, (\d+), (\d+)", text)
        patch = re.search(r"define VK_HEADER_VERSION (\d+)", text)
        if found and patch:
            return Path(folder), (int(found[1]), int(found[2]), int(patch[1]))
    return None
