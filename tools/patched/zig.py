"""Zig's Clang as the compiler of a build that runs elsewhere: any processor, an old C library.

It comes from PyPI (`ziglang`) with every C library's interface inside, so that nothing of this
system gets into what it makes. The C++ runtime is linked into each library.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .places import cache_dir, venv_python
from .report import Failure
from .tree import write_if_changed

PACKAGE = "ziglang==0.17.1"
# glibc of CentOS 7, and older than that of every distribution that is still looked after
GLIBC = "2.17"
# what Clang calls a processor's extension, and Zig's name for it where that is another
_ARM_FEATURES = {"fp16": "fullfp16"}


@dataclass(frozen=True)
class Target:
    """A kind of processor: its name in wheels and in CMake, and its variants in ggml's order."""

    machine: str
    variants: tuple[str, ...]

    @property
    def triple(self) -> str:
        return f"{self.machine}-linux-gnu.{GLIBC}"


TARGETS = {
    "x86_64": Target("x86_64", (
        "x64", "sse42", "sandybridge", "ivybridge", "piledriver", "haswell", "skylakex",
        "cannonlake", "cascadelake", "icelake", "cooperlake", "zen4", "alderlake",
        "sapphirerapids")),
    "aarch64": Target("aarch64", (
        "armv8.0_1", "armv8.2_1", "armv8.2_2", "armv8.2_3", "armv8.6_1", "armv8.6_2",
        "armv9.2_1", "armv9.2_2")),
}


def find_zig() -> tuple[list[str], str]:
    """The command of Zig in .venv, and its version; Failure with what to install."""
    python = venv_python() if venv_python().exists() else Path(sys.executable)
    command = [str(python), "-m", "ziglang"]
    # the program itself: starting Python for each file would take as long as some files
    asked = subprocess.run(
        [str(python), "-c", "import ziglang, os; print(os.path.dirname(ziglang.__file__))"],
        capture_output=True, text=True)
    if asked.returncode == 0:
        name = "zig.exe" if os.name == "nt" else "zig"
        command = [str(Path(asked.stdout.strip()) / name)]
    try:
        version = subprocess.run([*command, "version"], capture_output=True, text=True)
    except OSError:
        version = None
    if version is None or version.returncode:
        raise Failure(f"Zig's compiler is missing; install it with '{python} -m pip install "
                      f"{PACKAGE}'.")
    return command, version.stdout.strip()


def lay_programs(target: Target, zig: list[str], folder: Path) -> dict[str, Path]:
    """Write the small programs that CMake takes for a compiler and its kin; returns them by name.

    cc and c++ compile for the target, ar and ranlib are Zig's own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = " ".join(f"'{part}'" for part in zig)
    cache = cache_dir() / "zig"
    head = ("#!/bin/sh\n"
            f"export ZIG_GLOBAL_CACHE_DIR='{cache}' ZIG_LOCAL_CACHE_DIR='{cache}'\n")
    made = {}
    for name in ("cc", "c++", "ar", "ranlib"):
        path = folder / f"zig-{name}"
        call = f"exec {command} {name}"
        if name in ("cc", "c++"):
            call = _compiler(target, call)
        else:
            call += ' "$@"\n'
        write_if_changed(path, (head + call).encode())
        path.chmod(0o755)
        made[name] = path
    return made


def _compiler(target: Target, call: str) -> str:
    options = f"-target {target.triple} -g0"
    if target.machine != "aarch64":
        return f'{call} {options} "$@"\n'
    # Zig reads -march as the name of a processor; it wants -mcpu=generic+v8_2a+dotprod instead.
    # Not where it links: it would make a C++ library of its own for each
    renamed = "".join(f" -e 's/+{old}/+{new}/'" for old, new in _ARM_FEATURES.items())
    return (
        "links=yes\n"
        "for given do\n"
        "  case $given in -c|-S|-E) links= ;; esac\n"
        "done\n"
        "for given do\n"
        "  shift\n"
        "  case $given in\n"
        "    -march=armv*)\n"
        "      if [ $links ]; then continue; fi\n"
        "      given=-mcpu=generic+$(echo \"${given#-march=arm}\" |"
        f" sed -e 's/^\\(v[0-9]*\\)\\.\\([0-9]*\\)-a/\\1_\\2a/' -e 's/^\\(v[0-9]*\\)-a/\\1a/'"
        f"{renamed}) ;;\n"
        "  esac\n"
        '  set -- "$@" "$given"\n'
        "done\n"
        f'{call} {options} "$@"\n'
    )
