#!/usr/bin/env python3
"""Upstream's own tests of llama-server, on its build and on the patched one.

    python3 tools/device/server_tests.py [--only PATTERN] [--json] [--model FILE]

Three sides: the stock build, the patched build, and that with LaMPE's metadata in the model, whose
map compresses from 128 tokens on. No hub is asked: a tiny random model stands in for every other,
so that what a model says is not compared. Many tests count the tokens of the model that they were
written for and fail on all sides; whether in the same words is told. Tests that want another kind
of model are left out. Fails where a test passes on the stock build and not on the patched one.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from patched import build, wheel
from patched import sdist as sources
from patched.parts import Parts
from patched.places import CHECKOUT, cache_dir, venv_bin, venv_python
from patched.report import Failure, guarded, run

ROOT = "vendor/llama.cpp/"
TESTS = f"{ROOT}tools/server/tests/"
READ = (TESTS, f"{ROOT}models/templates/", f"{ROOT}tools/server/README.md")
SIDES = ("stock", "patched", "patched, LaMPE on")
# what the small model cannot stand in for
CANNOT = {
    "test_vision_api.py": "an image projector",
    "test_lora.py": "an adapter",
    "test_rerank.py": "a reranker",
    "test_router.py": "models of a hub",
}
LIMIT = 3600  # seconds for one side
PER_TEST = "120"  # seconds
CONVERT = ["--window", "128", "--max-mapping-length", "96", "--local-window", "48",
           "--tail-window", "8", "--context-length", "8192", "--force"]


def programs() -> dict[str, Path]:
    """llama-server of each build."""
    stock = build.stock_folder(wanted=Parts()) / "llama_cpp"
    patched = wheel.site_packages(venv_python()) / "llama_cpp"
    found = {"stock": stock / "lib" / "llama-server", "patched": patched / "lib" / "llama-server"}
    for path in found.values():
        if not path.exists():
            raise Failure(f"there is no {path}; run 'python3 tools/backend.py build'.")
    return found


def unpacked() -> Path:
    """The folder of upstream's tests, with what they read around it."""
    source = sources.fetch()
    root = cache_dir() / "server-tests" / "source"
    wanted = [name for name in source.names() if name.startswith(READ)]
    for name, data in source.read(wanted).items():
        path = root / name.removeprefix(ROOT)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    tests = root / TESTS.removeprefix(ROOT)
    (tests / "tmp").mkdir(exist_ok=True)  # where what is downloaded lies, and slots are saved
    return tests


def environment(tests: Path) -> Path:
    """A Python with what the tests import; it is made once."""
    venv = cache_dir() / "server-tests" / "venv"
    python = venv_bin(venv) / "python"
    stamp = venv / "made-of"
    wanted = (tests / "requirements.txt").read_text(encoding="utf-8") + "pytest-timeout\n"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        run([sys.executable, "-m", "venv", "--clear", venv], "Making an environment for the tests")
        run([python, "-m", "pip", "install", "--quiet", "-r", tests / "requirements.txt",
             "pytest-timeout"], "Installing what the tests import")
        stamp.write_text(wanted, encoding="utf-8")
    return python


def models(given: str | None) -> dict[str, Path]:
    """The model of each side."""
    home = cache_dir() / "server-tests"
    plain, converted = home / "plain.gguf", home / "lampe.gguf"
    if given:
        plain = Path(given).resolve()
    else:
        make = ("import sys; sys.path.insert(0, sys.argv[1]); from tiny_model import "
                "make_tiny_model; make_tiny_model(sys.argv[2], window=2048, f16=True)")
        run([venv_python(), "-c", make, CHECKOUT / "tests" / "support", plain], "Making a model")
    run([venv_bin() / "lampe-gguf", "convert", plain, converted, *CONVERT], "Converting the model")
    return dict(zip(SIDES, (plain, plain, converted), strict=True))


def free_port() -> int:
    """A port that no program listens on: upstream's 8080 may be somebody's."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_side(
    side: str, program: Path, model: Path, python: Path, tests: Path, only: str | None
) -> dict[str, str]:
    """Outcome by test: "passed", "skipped", or "failed: " and the first line of why."""
    report = cache_dir() / "server-tests" / f"{SIDES.index(side)}.xml"
    report.unlink(missing_ok=True)
    command: list[str | Path] = [
        python, "-m", "pytest", "-p", "server_tests_plugin", "-m", "not slow", "-q",
        "--timeout", PER_TEST, f"--junitxml={report}", "-p", "no:cacheprovider"]
    command += [f"--ignore=unit/{name}" for name in CANNOT]
    command += ["-k", only] if only else []
    env = {**os.environ, "LLAMA_SERVER_BIN_PATH": str(program), "LAMPE_TESTS_MODEL": str(model),
           "PYTHONPATH": str(Path(__file__).resolve().parent), "OMP_WAIT_POLICY": "PASSIVE",
           "PORT": str(free_port())}
    try:
        subprocess.run(command, cwd=tests, env=env, timeout=LIMIT, stdout=sys.stderr.fileno())
    except subprocess.TimeoutExpired:
        raise Failure(f"{side}: not done after {LIMIT} s; give --only.") from None
    if not report.exists():
        raise Failure(f"{side}: pytest wrote no report; its words are above.")
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname', '').removeprefix('unit.')}::{case.get('name')}"
        found[name] = _outcome(case)
    return found


def _outcome(case: ElementTree.Element) -> str:
    for child in case:
        if child.tag in ("failure", "error"):
            words = (child.get("message") or "").splitlines() or [""]
            return f"failed: {words[0][:200]}"
        if child.tag == "skipped":
            return "skipped"
    return "passed"


def main() -> int:
    """Run the three sides and compare; 1 where the patched build fails what stock's passes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="PATTERN", help="tests to run, as pytest's -k has it")
    parser.add_argument("--model", metavar="FILE", help="another stand-in")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = programs()
    tests = unpacked()
    python = environment(tests)
    results = {side: run_side(side, found[side.split(",")[0]], model, python, tests, options.only)
               for side, model in models(options.model).items()}
    stock = results[SIDES[0]]
    worse = {side: [name for name, said in stock.items()
                    if said == "passed" and results[side].get(name) != "passed"]
             for side in SIDES[1:]}
    failed = {name: {each.get(name, "") for each in results.values()}
              for name, said in stock.items() if said.startswith("failed")}
    if options.json:
        print(json.dumps({"results": results, "left_out": CANNOT}, indent=2))
    else:
        for side, each in results.items():
            counts = Counter(said.partition(":")[0] for said in each.values())
            print(f"{side:<18} {counts['passed']} passed, {counts['failed']} failed, "
                  f"{counts['skipped']} skipped")
        alike = sum(len(words) == 1 for words in failed.values())
        print(f"{len(failed)} fail on the stock build, {alike} of them on all in the same words")
        for name, words in failed.items():
            print(f"{'alike' if len(words) == 1 else 'DIFFERENT'}: {name}")
        for name, why in CANNOT.items():
            print(f"left out: {name} (wants {why})")
        for side, names in worse.items():
            print(*(f"WORSE, {side}: {name}" for name in names), sep="\n")
    return int(any(worse.values()))


if __name__ == "__main__":
    sys.exit(guarded(main))
