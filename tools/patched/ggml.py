"""ggml alone, built for the tests of the fused op: no llama, no wheel, any instruction set."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from . import sdist as sources
from .compile import Toolchain, cmake_flags
from .places import CHECKOUT, PATCHES
from .report import Failure, run
from .series import overlay_files, patched_files
from .tree import Tree


def op_tests(kind: str = "lampe_op") -> list[str]:
    """The test files that need no more than ggml's two libraries; cuda_op: of CUDA's kernels."""
    return sorted(str(path) for path in (CHECKOUT / "tests" / "operator").glob(f"test_{kind}*.py"))


def lay(tree: Tree) -> None:
    """Bring the tree to the pinned source with patches/ laid onto it."""
    source = sources.fetch()
    tree.open(source)
    tree.lay(source, patched_files(source, PATCHES), discard=True)


def build_folder(tree: Tree, name: str) -> Path:
    """Where the objects of one build lie."""
    return tree.root / f"build-{name}"


def compile_libraries(
    tree: Tree, tools: Toolchain, name: str, label: str, flags: Sequence[str]
) -> Path:
    """Build ggml-base and ggml-cpu with these flags for CMake; returns the libraries' folder."""
    build = build_folder(tree, name)
    command: list[str | Path] = [tools.cmake, "-G", "Ninja", "-S", tree.src, "-B", build]
    command += [
        f"-DCMAKE_MAKE_PROGRAM={tools.ninja}",
        *cmake_flags("cpu"),
        # ggml's own threads: a sanitizer does not see how OpenMP's wait for each other
        "-DGGML_OPENMP=OFF",
        *flags,
        "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON",
    ]
    if tools.ccache:
        command += [f"-DCMAKE_{each}_COMPILER_LAUNCHER={tools.ccache}" for each in ("C", "CXX")]
    run(command, f"Configuring ggml, {label}")
    run([tools.ninja, "-C", build, "ggml-base", "ggml-cpu"], f"Compiling ggml, {label}")
    return next(build.rglob("libggml-cpu.so")).parent


def _own_files(tree: Tree, name: str) -> Iterator[tuple[Path, list[str], str]]:
    """File, compiler command without its output, and working folder of each file of ours."""
    database = build_folder(tree, name) / "compile_commands.json"
    ours = {str(tree.src / path) for path in overlay_files(PATCHES) if "/ggml/" in path}
    for each in json.loads(database.read_text()):
        if each["file"] in ours:
            command = shlex.split(each["command"])
            at = command.index("-o")
            yield Path(each["file"]), command[:at] + command[at + 2 :], each["directory"]


def check_warnings(tree: Tree, name: str) -> int:
    """Compile our own files of ggml with all warnings as errors; returns how many there are."""
    count = 0
    for file, command, folder in _own_files(tree, name):
        # what only optimisation finds is left out: GCC 12 finds it in its own intrinsics;
        # upstream's headers define static functions that a file need not use
        command += ["-fsyntax-only", "-Wall", "-Wextra", "-Wno-unused-function", "-Werror"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            raise Failure(f"{file.name} has warnings.")
        count += 1
    return count


def preprocessed(tree: Tree, name: str, file_name: str) -> str:
    """What the compiler sees of one file of ours, macro definitions included."""
    for file, command, folder in _own_files(tree, name):
        if file.name == file_name:
            done = subprocess.run([*command, "-E", "-dD"], cwd=folder, capture_output=True,
                                  text=True)
            if done.returncode == 0:
                return done.stdout
    raise Failure(f"{file_name} cannot be preprocessed.")
