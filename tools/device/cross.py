#!/usr/bin/env python3
"""Test the fused op's CPU kernel on the instruction sets that this machine's own build leaves out.

    python tools/device/cross.py [TARGET ...] [--accuracy]

  avx2     x86-64 with AVX2, FMA and F16C, without AVX-512
  avxvnni  the same with AVX-VNNI, as Intel's processors since 2021 that have no AVX-512
  plain    x86-64 with no more than SSE2: the kernel's plain C, left to the compiler
  avx512   x86-64 with AVX-512, without VNNI: 32-bit floats where VNNI multiplies integers
  neon     64-bit ARM, run by QEMU
  sve      64-bit ARM with SVE, run by QEMU: NEON too, with an exponential of its own

For each target it builds ggml-base and ggml-cpu alone, from the pinned source with patches/ laid
onto it, in the cache; compiles our own files with all warnings as errors; makes sure from the
preprocessed kernel that the target's own code is what was compiled, and from the library that the
tests expect no integers; and runs tests/operator/test_lampe_op*.py on the libraries, by an ARM
Python for ARM. The exit code is 0 only when every target asked for was run and passed.

ARM needs Debian's g++-aarch64-linux-gnu and qemu-user; a Python for ARM is fetched into the cache.
Linux with GCC or Clang.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from patched.aarch64 import COMPILERS, Python, emulated_python, missing_programs
from patched.compile import Toolchain, find_toolchain
from patched.ggml import (
    build_folder,
    check_warnings,
    compile_libraries,
    lay,
    op_tests,
    preprocessed,
)
from patched.places import CHECKOUT, best_python
from patched.report import Failure, guarded, run
from patched.tree import Tree, locked_tree

# every switch of ggml that adds instructions to x86-64
SWITCHES = ("SSE42", "AVX", "AVX2", "BMI2", "FMA", "F16C", "AVX_VNNI", "AVX512", "AVX512_VBMI",
            "AVX512_VNNI", "AVX512_BF16", "AMX_TILE", "AMX_INT8", "AMX_BF16")
AVX2 = ("SSE42", "AVX", "AVX2", "BMI2", "FMA", "F16C")
KERNEL = "lampe-attn-tile.cpp"  # includes every header of the kernel that differs by target
VECTOR = re.compile(r"typedef (\w+) lampe_simd;|(struct) lampe_simd \{")
INTEGERS = "#define LAMPE_I16"
ASK = "import ggml_ctypes as g; print('integers', g.Ggml().multiplies_integers)"


@dataclass(frozen=True)
class Target:
    """An instruction set: how CMake is told, and what the kernel makes of it."""

    title: str
    vector: str  # what lampe_simd is there; 'struct' is plain C
    switches: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()  # of the processor, as Linux names it
    march: str = ""  # of ARM
    integers: bool = False  # what the kernel multiplies where the cache has 16 bits or fewer

    def flags(self) -> list[str]:
        """Flags for CMake, which come after all others and so win."""
        if self.march:
            c, cxx = COMPILERS
            return ["-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
                    f"-DCMAKE_C_COMPILER={c}", f"-DCMAKE_CXX_COMPILER={cxx}",
                    "-DGGML_NATIVE=OFF", f"-DGGML_CPU_ARM_ARCH={self.march}"]
        values = {each: "ON" if each in self.switches else "OFF" for each in SWITCHES}
        return ["-DGGML_NATIVE=OFF", *(f"-DGGML_{name}={on}" for name, on in values.items())]


TARGETS = {
    "avx2": Target("AVX2", "__m256", AVX2, ("avx2", "fma", "f16c", "bmi2")),
    "avxvnni": Target("AVX2 with VNNI", "__m256", (*AVX2, "AVX_VNNI"),
                      ("avx2", "fma", "f16c", "bmi2", "avx_vnni"), integers=True),
    "plain": Target("plain C", "struct"),
    "avx512": Target("AVX-512 without VNNI", "__m512", (*AVX2, "AVX512"),
                     ("avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl")),
    "neon": Target("NEON", "float32x4_t", march="armv8.2-a+dotprod+fp16"),
    "sve": Target("SVE", "float32x4_t", march="armv8.2-a+dotprod+fp16+sve"),
}


@dataclass
class Result:
    """What came of one target."""

    name: str
    state: str = "not run"
    detail: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.name:7} {self.state:8} {self.detail} ({self.seconds:.0f} s)"


def obstacle(target: Target) -> str:
    """Why this machine cannot run a target, in one sentence; '' if it can."""
    if target.march:
        return missing_programs()
    if platform.machine() != "x86_64":
        return "this machine is not x86-64."
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    found = re.search(r"^flags\s*:(.*)$", info, re.MULTILINE)
    lacking = [each for each in target.needs if not found or each not in found[1].split()]
    return f"this processor lacks {', '.join(lacking)}." if lacking else ""


def python_for(target: Target) -> Python:
    """The interpreter that can load the target's libraries; Failure where there can be none."""
    if reason := obstacle(target):
        raise Failure(reason)
    if target.march:
        return emulated_python()
    return Python([str(best_python())], dict(os.environ))


def check_code(tree: Tree, name: str, target: Target) -> None:
    """Make sure that the kernel was compiled to the code that the target is here for."""
    text = preprocessed(tree, name, KERNEL)
    found = {first or second for first, second in VECTOR.findall(text)}
    if found != {target.vector}:
        raise Failure(f"the kernel's vectors are {' and '.join(found) or 'not found'}, not "
                      f"{target.vector}; look at CFLAGS and CXXFLAGS.")
    if (INTEGERS in text) != target.integers:
        raise Failure(f"the kernel multiplies {'floats' if target.integers else 'integers'}, "
                      f"which this target is to leave out.")


def check_tolerance(python: Python, env: dict[str, str], title: str, integers: bool) -> None:
    """Make sure that the tests hold these libraries to the errors of what they multiply."""
    said = run([*python.command, "-c", ASK], f"Asking the library, {title}", env=env,
               cwd=CHECKOUT / "tests" / "support")
    if f"integers {integers}" not in said.splitlines():
        raise Failure(f"tests/support/ggml_ctypes.py expects "
                      f"{'floats' if integers else 'integers'} of this library.")


def test(build: Path, python: Python, env: dict[str, str], title: str) -> str:
    """Run the op's tests; returns the counts, in a Failure where a test failed."""
    report = build / "tests.xml"
    report.unlink(missing_ok=True)
    failure = None
    try:
        run([*python.command, "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={report}",
             *op_tests()], f"Testing the op, {title}", env=env, cwd=CHECKOUT)
    except Failure as error:
        failure = error
        if not report.exists():
            raise
    suites = ElementTree.parse(report).getroot().iter("testsuite")
    counts = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
    for suite in suites:
        for key in counts:
            counts[key] += int(suite.get(key, "0"))
    wrong = counts["failures"] + counts["errors"]
    passed = counts["tests"] - wrong - counts["skipped"]
    said = f"{passed} passed, {wrong} failed, {counts['skipped']} skipped"
    if failure or wrong or not passed:
        raise Failure(f"{said}; {failure}" if failure else f"{said}.")
    return said


def show_accuracy(python: Python, env: dict[str, str], title: str) -> None:
    """Print the errors of stock flash attention and of LaMPE on the target's libraries."""
    tool = CHECKOUT / "tools" / "measure" / "bench_attention.py"
    said = run([*python.command, tool, "--accuracy", "--json", "--shape", "smollm2-135m"],
               f"Measuring errors, {title}", env=env, cwd=CHECKOUT)
    for row in json.loads(said[said.index("[\n") :]):
        print(f"{title}: {row['queries']:3} queries, {row['kv']}, spread {row['spread']:.1f}: "
              f"relative error stock {row['stock']:.2e}, LaMPE {row['lampe']:.2e}", flush=True)


def run_target(tree: Tree, tools: Toolchain, name: str, python: Python, accuracy: bool) -> str:
    """Build, check and test one target; returns the counts, or raises Failure."""
    target = TARGETS[name]
    folder = compile_libraries(tree, tools, name, target.title, target.flags())
    count = check_warnings(tree, name)
    check_code(tree, name, target)
    env = {**python.env, "LAMPE_GGML_LIB_DIR": str(folder)}
    check_tolerance(python, env, target.title, target.integers)
    said = test(build_folder(tree, name), python, env, target.title)
    if accuracy:
        show_accuracy(python, env, target.title)
    return f"{said}; {count} files of ours compile without a warning; libraries in {folder}"


def main() -> int:
    """Run every target asked for; returns 1 unless all passed."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", nargs="*", help=f"{', '.join(TARGETS)}; default: all")
    parser.add_argument("--accuracy", action="store_true",
                        help="print the errors of stock and LaMPE too (slow under QEMU)")
    options = parser.parse_args()
    unknown = [name for name in options.target if name not in TARGETS]
    if unknown:
        parser.error(f"there is no target {unknown[0]!r}; choose from {', '.join(TARGETS)}")
    if sys.platform != "linux":
        raise Failure("other instruction sets are tested on Linux only.")
    tools = find_toolchain("cpu")
    results = []
    with locked_tree("cross") as tree:
        lay(tree)
        for name in dict.fromkeys(options.target or TARGETS):
            result = Result(name)
            results.append(result)
            start = time.monotonic()
            try:
                python = python_for(TARGETS[name])
                result.state = "failed"
                result.detail = run_target(tree, tools, name, python, options.accuracy)
                result.state = "passed"
            except Failure as failure:
                result.detail = str(failure)
            result.seconds = time.monotonic() - start
            if result.state != "passed":
                print(f"error: {name}: {result.detail}", file=sys.stderr, flush=True)
    print(*results, sep="\n")
    return int(any(each.state != "passed" for each in results))


if __name__ == "__main__":
    sys.exit(guarded(main))
