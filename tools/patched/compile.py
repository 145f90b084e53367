"""Configure and compile a tree: which compiler, which flags, which targets."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .devices import require
from .places import cache_dir, venv_bin
from .report import Failure, run
from .tree import Tree

_FLAGS = {
    "CMAKE_BUILD_TYPE": "Release",
    # One file per library: a wheel holds no links, and two copies would load as two libraries.
    "CMAKE_PLATFORM_NO_VERSIONED_SONAME": "ON",
    "LLAVA_BUILD": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_OPENSSL": "OFF",
    # The page comes from our own tools (page.py): nothing is downloaded while it compiles.
    "LLAMA_BUILD_UI": "OFF",
    "LLAMA_USE_PREBUILT_UI": "OFF",
    # Else upstream asks git about whatever repository the cache happens to lie in.
    "LLAMA_BUILD_NUMBER": "0",
    "LLAMA_BUILD_COMMIT": "sdist",
    "GGML_CCACHE": "OFF",
    # Other machines' devices (RPC); ggml opens no connection until a program names a peer.
    "GGML_RPC": "ON",
    # ggml's own threads: OpenMP's look for work for so long that beside another program they write
    # at a quarter of their speed (patches/README.md).
    "GGML_OPENMP": "OFF",
}
# Configured always, so that taking the server in or leaving it out compiles no library again.
_SERVER_FLAGS = {
    "LLAMA_BUILD_TOOLS": "ON",
    "LLAMA_BUILD_SERVER": "ON",
    # The program is installed beside the libraries, and finds them there.
    "CMAKE_BUILD_RPATH_USE_ORIGIN": "ON",
}
# the server, what says how much memory it will take, and what lends this machine to another
RPC_PROGRAM = "ggml-rpc-server"
SERVER_PROGRAMS = ("llama-server", "llama-fit-params", RPC_PROGRAM)


@dataclass(frozen=True)
class Toolchain:
    """The programs of a build; `ccache` is None where there is none.

    flags       for CMake, which come after this module's own
    portable    what is made runs on other processors too: which one this is makes no difference,
                and the compiler is Clang under another name
    """

    compiler: Path
    compiler_version: str
    cmake: Path
    ninja: Path
    ccache: Path | None
    flags: tuple[str, ...] = ()
    portable: bool = False


def find_program(name: str) -> Path | None:
    """A program of the checkout's virtual environment, else of the PATH."""
    found = shutil.which(name, path=str(venv_bin())) or shutil.which(name)
    return Path(found) if found else None


def find_compiler() -> tuple[Path, str]:
    """The C++ compiler ($CXX, c++, g++, clang++) and the first line of its version."""
    for name in (os.environ.get("CXX"), "c++", "g++", "clang++"):
        words = shlex.split(name) if name else []
        found = shutil.which(words[-1]) if words else None
        if found:
            asked = subprocess.run([found, "--version"], capture_output=True, text=True)
            if asked.returncode == 0 and asked.stdout:
                return Path(found), asked.stdout.splitlines()[0]
    raise Failure(
        "there is no C++ compiler; install one (Debian, Ubuntu: apt install g++; "
        "Fedora: dnf install gcc-c++; macOS: xcode-select --install)."
    )


def find_toolchain(device: str) -> Toolchain:
    """Every program that the build needs; raises Failure with the missing one named."""
    require(device)
    compiler, version = find_compiler()
    return Toolchain(compiler, version, *find_builders())


def find_builders() -> tuple[Path, Path, Path | None]:
    """cmake, ninja and, where it is there, ccache; raises Failure with the missing one named."""
    found = {name: find_program(name) for name in ("cmake", "ninja")}
    for name, path in found.items():
        if path is None:
            raise Failure(
                f"{name} is missing; 'python3 tools/bootstrap.py setup' installs it in .venv."
            )
    assert found["cmake"] and found["ninja"]
    return found["cmake"], found["ninja"], find_program("ccache")


def cmake_flags(device: str) -> list[str]:
    """The -D flags of a build; `device` is 'cpu', 'cuda', 'metal' or 'vulkan'.

    $CMAKE_ARGS comes last and so wins.
    """
    flags = dict(_FLAGS)
    if device != "cpu":
        flags[f"GGML_{device.upper()}"] = "ON"
    given = shlex.split(os.environ.get("CMAKE_ARGS", ""))
    return _as_options(flags) + given


def _as_options(flags: Mapping[str, str]) -> list[str]:
    return [f"-D{name}={value}" for name, value in flags.items()]


def processor() -> str:
    """What tells this processor from another: the code is compiled for this machine alone."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        wanted = ("model name", "flags", "Features", "CPU part", "isa")
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))
    if sys.platform == "darwin":
        asked = subprocess.run(
            ["sysctl", "machdep.cpu.brand_string", "hw.optional"], capture_output=True, text=True
        )
        return asked.stdout
    return platform.processor()


def fingerprint(tools: Toolchain, device: str) -> str:
    """A hash of everything but the sources that decides what the compiler produces."""
    parts = [
        *cmake_flags(device),
        *tools.flags,
        tools.compiler_version,
        "" if tools.portable else processor(),
        platform.machine(),
        *(os.environ.get(name, "") for name in ("CFLAGS", "CXXFLAGS", "LDFLAGS", "CUDACXX")),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _environment(tools: Toolchain, tree: Tree) -> dict[str, str]:
    env = dict(os.environ)
    if tools.ccache:
        env.setdefault("CCACHE_DIR", str(cache_dir() / "ccache"))
        env.setdefault("CCACHE_MAXSIZE", "2G")
        # Paths relative to the tree: the stock and the patched tree share what they compile.
        env["CCACHE_BASEDIR"] = str(tree.root)
        env["CCACHE_SLOPPINESS"] = "time_macros"
        # -march=native means another thing on another processor.
        name = hashlib.sha256(processor().encode()).hexdigest()[:16]
        env["CCACHE_NAMESPACE"] = "portable" if tools.portable else name
        if tools.portable:
            env["CCACHE_COMPILERTYPE"] = "clang"
            env["CCACHE_COMPILERCHECK"] = f"string:{tools.compiler_version}"
    return env


def _explain(output: str) -> str | None:
    if "C compiler cannot create executables" in output or "is not able to compile" in output:
        return "the C++ compiler cannot build a program; reinstall it (Debian: apt install g++)."
    if "internal compiler error: Killed" in output or "Killed signal terminated" in output:
        return "the compiler ran out of memory; set CMAKE_BUILD_PARALLEL_LEVEL=1 and try again."
    if "CUDA::cublas" in output and "was not found" in output:
        return "the CUDA toolkit lacks cuBLAS; install that part of it too."
    if "Could NOT find Vulkan" in output:
        return "--vulkan needs the Vulkan headers and loader (Debian: apt install libvulkan-dev)."
    return None


def compile_tree(
    tree: Tree, tools: Toolchain, device: str, label: str, *, server: bool = False
) -> None:
    """Bring the libraries below tree.build/bin up to date with tree.src, and llama-server too."""
    env = _environment(tools, tree)
    stamp = tree.build / "lampe-fingerprint"
    # The programs' paths too: the build tree names them, and another checkout has its own.
    current = "\n".join([fingerprint(tools, device), str(tools.cmake), str(tools.ccache),
                         *_as_options(_SERVER_FLAGS)])
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != current:
        shutil.rmtree(tree.build, ignore_errors=True)
        tree.build.mkdir()
        command: list[str | Path] = [tools.cmake, "-Wno-dev", "-G", "Ninja", "-S", tree.src]
        command += ["-B", tree.build, f"-DCMAKE_MAKE_PROGRAM={tools.ninja}"]
        command += [*_as_options(_SERVER_FLAGS), *cmake_flags(device), *tools.flags]
        if tools.ccache:
            languages = ["C", "CXX", "CUDA"] if device == "cuda" else ["C", "CXX"]
            command += [f"-DCMAKE_{each}_COMPILER_LAUNCHER={tools.ccache}" for each in languages]
        run(command, f"Configuring {label}", env=env, explain=_explain)
        stamp.write_text(current, encoding="utf-8")
    ninja: list[str | Path] = [tools.ninja, "-C", tree.build]
    if jobs := os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL"):
        ninja += ["-j", jobs]
    # The one target that everything installed hangs from; "all" would take many times longer.
    run([*ninja, "llama"], f"Compiling {label}", env=env, explain=_explain)
    if server:
        run([*ninja, *programs_of(tree)], f"Compiling the server, {label}", env=env,
            explain=_explain)


def programs_of(tree: Tree) -> list[str]:
    """The programs of a tree that is configured: CMAKE_ARGS=-DGGML_RPC=OFF leaves one out."""
    cache = (tree.build / "CMakeCache.txt").read_text(encoding="utf-8")
    rpc = re.search(r"^GGML_RPC:\w+=(.*)$", cache, re.MULTILINE)
    has_rpc = rpc is not None and rpc[1].upper() in ("ON", "1", "TRUE", "YES", "Y")
    return [name for name in SERVER_PROGRAMS if has_rpc or name != RPC_PROGRAM]
