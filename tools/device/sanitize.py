#!/usr/bin/env python3
"""Test the fused op's kernels under sanitizers: addresses and undefined behaviour, or threads.

    python tools/device/sanitize.py [--cuda | [--thread] [--target avx2]] [-- PYTEST ARGUMENTS]

Builds ggml-base and ggml-cpu alone, from the pinned source with patches/ laid onto it, in the
cache; compiles our own files with all warnings as errors; runs tests/operator/test_lampe_op*.py on
them.
With --target: with the instructions of another processor, which this one has to have.
With --cuda: the CUDA kernels, compiled for the processor, on tests/operator/test_cuda_op*.py.
The exit code is 0 when all tests passed, 2 for wrong options, 1 when something could not be built
or run; else it is pytest's. Linux with GCC or Clang.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from patched.compile import Toolchain, find_toolchain
from patched.ggml import check_warnings, compile_libraries, lay, op_tests
from patched.places import CHECKOUT, best_python
from patched.report import Failure, guarded
from patched.tree import locked_tree

from device.cross import TARGETS, obstacle

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


def cmake_flags(kind: str, target: str) -> list[str]:
    """What makes CMake build with a sanitizer, for this processor or as another."""
    flags = f"{KINDS[kind][0]} -fno-omit-frame-pointer -g1 -O1"
    return [
        "-DCMAKE_BUILD_TYPE=None",
        f"-DCMAKE_C_FLAGS={flags}",
        f"-DCMAKE_CXX_FLAGS={flags}",
        *(TARGETS[target].flags() if target else []),
    ]


def preload(tools: Toolchain, name: str) -> str:
    """Path of a sanitizer's runtime library."""
    asked = subprocess.run(
        [tools.compiler, f"-print-file-name={name}"], capture_output=True, text=True
    )
    found = Path(asked.stdout.strip())
    if not found.is_absolute():
        raise Failure(f"{tools.compiler.name} has no {name}; install its sanitizer runtime.")
    return str(found.resolve())


def test(arguments: list[str], env: dict[str, str]) -> int:
    """Run pytest; returns its exit code."""
    command = [str(best_python()), "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=CHECKOUT, env=env).returncode


def main() -> int:
    """Build, compile with warnings, test; returns pytest's exit code."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--thread", dest="kind", action="store_const", const="thread",
                        default="address", help="look for data races instead")
    parser.add_argument("--cuda", action="store_true",
                        help="the CUDA kernels, for addresses and undefined behaviour")
    parser.add_argument("--target", choices=[name for name in TARGETS if not TARGETS[name].march],
                        help="with the instructions of another processor, as in cross.py")
    parser.add_argument("pytest", nargs="*", help="arguments for pytest, after --")
    options = parser.parse_args()
    if sys.platform != "linux":
        raise Failure("sanitizers are run on Linux only.")
    if options.cuda and options.kind == "thread":
        parser.error("--cuda and --thread exclude each other: its threads are one.")
    if options.cuda and options.target:
        parser.error("--cuda and --target exclude each other: its kernels have no target.")
    if options.target and (reason := obstacle(TARGETS[options.target])):
        raise Failure(f"{options.target} cannot be run: {reason}")
    tools = find_toolchain("cpu")
    if options.cuda:
        env = {**os.environ, **OPTIONS, "LAMPE_EMULATED_SANITIZE": "1",
               "LD_PRELOAD": preload(tools, KINDS["address"][1])}
        return test([*op_tests("cuda_op"), *options.pytest], env)
    runtime = preload(tools, KINDS[options.kind][1])
    with locked_tree("sanitize") as tree:
        lay(tree)
        name = f"{options.kind}-{options.target}" if options.target else options.kind
        title = f"{options.kind} sanitizer"
        if options.target:
            title += f", {TARGETS[options.target].title}"
        folder = compile_libraries(tree, tools, name, title,
                                   cmake_flags(options.kind, options.target))
        print(f"{check_warnings(tree, name)} files of ours compile without a warning")
        env = {
            **os.environ, **OPTIONS, "LAMPE_GGML_LIB_DIR": str(folder), "LD_PRELOAD": runtime,
            "OPENBLAS_NUM_THREADS": "1",
        }
        return test([*op_tests(), *options.pytest], env)


if __name__ == "__main__":
    sys.exit(guarded(main))
