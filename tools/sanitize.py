#!/usr/bin/env python3
"""Test the fused op's CPU kernel under sanitizers: addresses and undefined behaviour, or threads.

Builds ggml-base and ggml-cpu alone, from the pinned source with patches/ laid onto it, in the
cache; compiles our own files with all warnings as errors; runs tests/test_lampe_op*.py on them.
Linux with GCC or Clang.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from patched import sdist as sources
from patched.compile import Toolchain, cmake_flags, find_toolchain
from patched.places import CHECKOUT, PATCHES, best_python
from patched.report import Failure, guarded, run
from patched.series import overlay_files, patched_files
from patched.tree import Tree, locked_tree

# what each kind is called by the compiler, and the runtime that has to be there before Python
KINDS = {
    "address": ("-fsanitize=address,undefined -fno-sanitize-recover=all", "libasan.so"),
    "thread": ("-fsanitize=thread", "libtsan.so"),
}
OPTIONS = {
    # Python itself never frees all it takes
    "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
}


def lay(tree: Tree) -> None:
    """Bring the tree to the pinned source with patches/ laid onto it."""
    source = sources.fetch()
    tree.open(source)
    tree.lay(source, patched_files(source, PATCHES), discard=True)


def compile_libraries(tree: Tree, tools: Toolchain, kind: str) -> Path:
    """Build the two libraries of ggml with a sanitizer; returns their folder."""
    build = tree.root / f"build-{kind}"
    flags = f"{KINDS[kind][0]} -fno-omit-frame-pointer -g1 -O1"
    command: list[str | Path] = [tools.cmake, "-G", "Ninja", "-S", tree.src, "-B", build]
    command += [
        f"-DCMAKE_MAKE_PROGRAM={tools.ninja}",
        *cmake_flags("cpu"),
        "-DCMAKE_BUILD_TYPE=None",
        f"-DCMAKE_C_FLAGS={flags}",
        f"-DCMAKE_CXX_FLAGS={flags}",
        "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON",
        # ggml's own threads: a sanitizer does not see how OpenMP's wait for each other
        "-DGGML_OPENMP=OFF",
    ]
    if tools.ccache:
        command += [f"-DCMAKE_{each}_COMPILER_LAUNCHER={tools.ccache}" for each in ("C", "CXX")]
    run(command, f"Configuring ggml for the {kind} sanitizer")
    run([tools.ninja, "-C", build, "ggml-base", "ggml-cpu"], f"Compiling ggml, {kind} sanitizer")
    return next(build.rglob("libggml-cpu.so")).parent


def check_warnings(tree: Tree, kind: str) -> int:
    """Compile our own files of ggml with all warnings as errors; returns how many there are."""
    database = tree.root / f"build-{kind}" / "compile_commands.json"
    ours = {str(tree.src / path) for path in overlay_files(PATCHES) if "/ggml/" in path}
    entries = [each for each in json.loads(database.read_text()) if each["file"] in ours]
    for each in entries:
        command = shlex.split(each["command"])
        # what only optimisation finds is left out: GCC 12 finds it in its own intrinsics;
        # upstream's headers define static functions that a file need not use
        command += ["-fsyntax-only", "-Wall", "-Wextra", "-Wno-unused-function", "-Werror"]
        done = subprocess.run(command, cwd=each["directory"], capture_output=True, text=True)
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            raise Failure(f"{Path(each['file']).name} has warnings.")
    return len(entries)


def preload(tools: Toolchain, name: str) -> str:
    """Path of a sanitizer's runtime library."""
    asked = subprocess.run(
        [tools.compiler, f"-print-file-name={name}"], capture_output=True, text=True
    )
    found = Path(asked.stdout.strip())
    if not found.is_absolute():
        raise Failure(f"{tools.compiler.name} has no {name}; install its sanitizer runtime.")
    return str(found.resolve())


def main() -> int:
    """Build, compile with warnings, test; returns pytest's exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--thread", dest="kind", action="store_const", const="thread",
                        default="address", help="look for data races instead")
    parser.add_argument("pytest", nargs="*", help="arguments for pytest, after --")
    options = parser.parse_args()
    if sys.platform != "linux":
        raise Failure("sanitizers are run on Linux only.")
    tools = find_toolchain("cpu")
    runtime = preload(tools, KINDS[options.kind][1])
    with locked_tree("sanitize") as tree:
        lay(tree)
        folder = compile_libraries(tree, tools, options.kind)
        print(f"{check_warnings(tree, options.kind)} files of ours compile without a warning")
        env = {
            **os.environ, **OPTIONS, "LAMPE_GGML_LIB_DIR": str(folder), "LD_PRELOAD": runtime,
            "OPENBLAS_NUM_THREADS": "1",
        }
        tests = sorted(str(path) for path in (CHECKOUT / "tests").glob("test_lampe_op*.py"))
        command = [str(best_python()), "-m", "pytest", "-p", "no:cacheprovider", *tests]
        return subprocess.run([*command, *options.pytest], cwd=CHECKOUT, env=env).returncode


if __name__ == "__main__":
    sys.exit(guarded(main))
