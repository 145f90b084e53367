#!/usr/bin/env python3
"""Run the portable wheel on processors that are not here, by QEMU, and say what each loads.

    python3 tools/device/processors.py WHEEL [PROCESSOR ...] [--json FILE] [--small | --tests K]

For each processor: the variant of ggml's CPU backend that the wheel loads there is the expected
one, the operator's tests pass on it, and SmolLM2 writes 16 tokens beyond a small window, the same
as on this machine. A table says so, with tokens per second (of the emulator, and of one thread, by
the time that it computed).

  here         this machine itself, no emulator: what the others are compared with
  VARIANT      this machine with one variant alone, as "skylakex": those that QEMU cannot emulate,
               and x64, on whose processors NumPy does not run
  Nehalem, SandyBridge, IvyBridge, Opteron_G5, Haswell, Skylake-Server, Icelake-Server,
  EPYC         x86-64 as QEMU emulates it, which has no AVX-512
  cortex-a57, neoverse-n1, a64fx, max
               64-bit ARM, with the wheel for aarch64

Needs Debian's qemu-user, and SmolLM2 (bootstrap.py setup). The wheel is installed into a virtual
environment of its own, in the cache; for ARM it is unpacked beside a Python that is fetched there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import time
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from patched.aarch64 import Python, emulated_python, missing_programs
from patched.places import CHECKOUT, best_python, cache_dir, venv_python
from patched.report import Failure, guarded, run
from patched.sdist import explain_pip
from patched.smollm2 import smollm2
from patched.zig import TARGETS

# what each loads: of x86-64, QEMU emulates no AVX-512, whatever the model has
EXPECTED = {
    "x86_64": {
        "Nehalem": "sse42", "SandyBridge": "sandybridge",
        "IvyBridge": "ivybridge", "Opteron_G5": "piledriver", "Haswell": "haswell",
        "Skylake-Server": "haswell", "Icelake-Server": "haswell", "EPYC": "haswell",
    },
    # A64FX has SVE and no dot products, which every variant above the first asks for
    "aarch64": {
        "cortex-a57": "armv8.0_1", "neoverse-n1": "armv8.2_2", "a64fx": "armv8.0_1",
        "max": "armv9.2_2",
    },
}
HERE = "here"
PACKAGES = ("numpy", "gguf>=0.19", "click>=8.1", "pytest>=8", "jinja2", "diskcache",
            "typing-extensions")
SIDE = CHECKOUT / "tools" / "device" / "processors_side.py"
TESTS = CHECKOUT / "tests" / "operator" / "test_lampe_op.py"
# 36 of 144, with every plan, rotation and type of cache, that an emulator does in minutes
SMALL = ("(plans and 1-) or (grouped and 1-) or sees_nothing or (sequences and 5-) or "
         "(rotations and 2-) or (cache_types and f32)")


@dataclass
class Row:
    """What came of one processor."""

    processor: str
    expected: str
    variant: str = "-"
    tests: str = "not run"
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    reading: float = 0.0  # tokens per second
    writing: float = 0.0
    problem: str = ""

    @property
    def ok(self) -> bool:
        return not self.problem


@dataclass(frozen=True)
class Place:
    """Where a wheel is installed, and the command that runs a Python there."""

    python: Python
    libraries: Path
    machine: str


def machine_of(wheel: Path) -> str:
    """The kind of processor that a wheel's name says."""
    for machine in TARGETS:
        if wheel.name.endswith(f"{machine}.whl"):
            return machine
    raise Failure(f"{wheel.name} is no portable wheel; make one with 'tools/backend.py wheel'.")


def emulator(machine: str) -> str:
    """QEMU's program for a kind of processor; Failure with what to install."""
    for name in (f"qemu-{machine}", f"qemu-{machine}-static"):
        if found := shutil.which(name):
            return found
    raise Failure(f"qemu-{machine} is missing; install it with 'apt-get install qemu-user'.")


def install(wheel: Path) -> Place:
    """Install the wheel where nothing else is, and say how its Python is run."""
    machine = machine_of(wheel)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()[:16]
    folder = cache_dir() / "processors" / f"{machine}-{digest}"
    if machine == "aarch64":
        return _unpack(wheel, folder)
    python = venv_python(folder)
    stamp = folder / "installed"
    if not stamp.exists():
        shutil.rmtree(folder, ignore_errors=True)
        run([best_python(), "-m", "venv", folder], "Making a virtual environment")
        pip: list[str | Path] = [python, "-m", "pip", "install", "--quiet"]
        run([*pip, *PACKAGES], "Installing NumPy, gguf, click and pytest", explain=explain_pip)
        run([*pip, "--no-deps", "--no-index", wheel], "Installing the wheel", explain=explain_pip)
        stamp.touch()
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1"}
    site = next(folder.glob("lib/python3*/site-packages"))
    return Place(Python([str(python)], env), site / "llama_cpp" / "lib", machine)


def _unpack(wheel: Path, folder: Path) -> Place:
    if missing := missing_programs():
        raise Failure(missing)
    python = emulated_python()
    if not folder.exists():
        scratch = folder.with_suffix(".partial")
        shutil.rmtree(scratch, ignore_errors=True)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(scratch)
        command: list[str | Path] = [best_python(), "-m", "pip", "install", "--quiet", "--no-deps"]
        # markupsafe's compiled part is this machine's: it does without
        run([*command, "--target", scratch, "jinja2", "markupsafe", "diskcache",
             "typing-extensions"],
            "Fetching what the bindings need", explain=explain_pip)
        os.replace(scratch, folder)
    env = {**python.env,
           "PYTHONPATH": os.pathsep.join([str(folder), python.env["PYTHONPATH"]])}
    return Place(Python(python.command, env), folder / "llama_cpp" / "lib", "aarch64")


def command_for(place: Place, processor: str) -> list[str]:
    """What runs Python on a processor."""
    if processor == HERE or processor in TARGETS[place.machine].variants:
        return place.python.command
    if place.machine == "aarch64":  # the command runs QEMU already
        return [place.python.command[0], "-cpu", processor, *place.python.command[1:]]
    return [emulator("x86_64"), "-cpu", processor, *place.python.command]


def alone(libraries: Path, variant: str, folder: Path) -> Path:
    """A folder with one variant of the libraries, so that no other can be loaded."""
    target = folder / variant
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for path in libraries.glob("*.so"):
        if not path.name.startswith("libggml-cpu-") or path.name == f"libggml-cpu-{variant}.so":
            shutil.copyfile(path, target / path.name)
    return target


def examine(place: Place, processor: str, model: Path | None, *, tests: bool,
            choice: str) -> Row:
    """Ask one processor what it loads, have it write, and run the operator's tests on it."""
    expected = EXPECTED[place.machine].get(processor, processor)
    row = Row(processor, "" if processor == HERE else expected)
    env = dict(place.python.env)
    command = command_for(place, processor)
    libraries = place.libraries
    if processor in TARGETS[place.machine].variants:
        libraries = alone(place.libraries, processor, cache_dir() / "processors" / "alone")
        env["LLAMA_CPP_LIB_PATH"] = str(libraries)
    try:
        label = f"SmolLM2 on {processor}" if model else f"What {processor} loads"
        said = run([*command, SIDE, *([model] if model else [])], label, env=env)
        found = json.loads(said.splitlines()[-1])
        row.variant, row.text = found["variant"] or "none", found["text"]
        row.tokens = found["tokens"]
        row.reading, row.writing = found["reading"], found["writing"]
        if row.expected and row.variant != row.expected:
            row.problem = f"loaded {row.variant} instead of {row.expected}"
        if tests:
            row.tests = _test(command, env, libraries, row, choice)
    except (Failure, ValueError, KeyError, IndexError) as error:
        row.problem = str(error) or type(error).__name__
    return row


def _test(command: list[str], env: dict[str, str], libraries: Path, row: Row, choice: str) -> str:
    env = {**env, "LAMPE_GGML_LIB_DIR": str(libraries), "LAMPE_GGML_VARIANT": row.variant,
           "OPENBLAS_NUM_THREADS": "1"}
    said = run([*command, "-m", "pytest", "-p", "no:cacheprovider", str(TESTS),
                *(["-k", choice] if choice else [])],
               f"Testing the op on {row.processor}", env=env, cwd=CHECKOUT)
    return next((line for line in reversed(said.splitlines()) if "passed" in line),
                "passed").strip("= ")


def table(rows: list[Row]) -> str:
    """The rows as a table in Markdown."""
    lines = ["| processor | variant | operator's tests | first 16 tokens | reading, tokens/s | "
             "writing, tokens/s |", "|---|---|---|---|---|---|"]
    reference = rows[0].tokens if rows else []
    for row in rows:
        tokens = "-" if not row.tokens else "the same" if row.tokens == reference else "others"
        lines.append(f"| {row.processor} | {row.variant} | {row.tests} | {tokens} | "
                     f"{row.reading:.2f} | {row.writing:.2f} |")
    return "\n".join(lines)


def main() -> int:
    """Run every processor asked for; returns 1 unless all did what was expected."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("processor", nargs="*",
                        help="default: here, then all that QEMU emulates of the wheel's kind")
    parser.add_argument("--model", type=Path, help="another model (default: SmolLM2)")
    parser.add_argument("--no-model", action="store_true",
                        help="leave SmolLM2 out, which takes an emulator ten minutes")
    parser.add_argument("--no-tests", action="store_true", help="leave the operator's tests out")
    parser.add_argument("--tests", metavar="K", default="",
                        help="only the tests that pytest's -k picks by this")
    parser.add_argument("--small", dest="tests", action="store_const", const=SMALL,
                        help="a small set of the tests: 36, where an emulator takes long")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the rows as JSON too")
    options = parser.parse_args()
    if not options.wheel.is_file():
        raise Failure(f"there is no wheel {options.wheel}.")
    machine = machine_of(options.wheel)
    known = [HERE, *TARGETS[machine].variants, *EXPECTED[machine]]
    for name in options.processor:
        if name not in known:
            parser.error(f"there is no processor {name!r}; choose from {', '.join(known)}")
    wanted = [each for each in options.processor or EXPECTED[machine] if each != HERE]
    model = None if options.no_model else options.model or smollm2()
    place = install(options.wheel.resolve())
    rows: list[Row] = []
    for processor in (HERE, *wanted):  # on ARM "here" is QEMU's own choice
        start = time.monotonic()
        row = examine(place, processor, model, tests=not options.no_tests, choice=options.tests)
        if rows and row.tokens != rows[0].tokens and not row.problem:
            row.problem = "writes other tokens than this machine"
        rows.append(row)
        print(f"{processor}: {row.problem or 'as expected'} "
              f"({time.monotonic() - start:.0f} s)", file=sys.stderr, flush=True)
        if options.json:
            options.json.write_text(json.dumps([asdict(each) for each in rows], indent=1),
                                    encoding="utf-8")
    print(table(rows))
    return int(not all(row.ok for row in rows))


if __name__ == "__main__":
    sys.exit(guarded(main))
