"""Tools, tests and pictures that a text names are where it says."""

from __future__ import annotations

import re
from pathlib import Path

from device import on_device
from patched.ggml import op_tests

CHECKOUT = Path(__file__).resolve().parents[2]
# what follows one of the two folders; a name with a gap ({name}, *) is no path yet
NAMED = re.compile(r"(?<![\w/.-])(?:tests|tools)/[\w/-]+\.(?:py|cpp|c|png|json)\b")
KINDS = {".py", ".md", ".toml", ".cpp", ".h", ".cuh", ".cu"}
ROOMS = ("lampe_gguf", "tests", "tools", "patches")


def missing(text: str) -> set[str]:
    return {name for name in NAMED.findall(text) if not (CHECKOUT / name).exists()}


def test_what_is_named_is_there() -> None:
    texts = [path for room in ROOMS for path in (CHECKOUT / room).rglob("*")
             if path.suffix in KINDS and path.is_file() and path != Path(__file__)]
    texts += [CHECKOUT / "README.md", CHECKOUT / "pyproject.toml", CHECKOUT / ".ci" / "run"]
    wrong = {path.relative_to(CHECKOUT).as_posix(): names for path in texts
             if (names := missing(path.read_text(encoding="utf-8")))}
    assert len(texts) > 200 and wrong == {}


def test_what_is_not_there_is_found() -> None:
    assert missing("`tools/none.py`, tests/none/test_none.py and tools/bootstrap.py") == {
        "tools/none.py", "tests/none/test_none.py"}


def test_the_tools_find_the_tests_that_they_run() -> None:
    assert {Path(path).name for path in op_tests()} >= {
        "test_lampe_op.py", "test_lampe_op_layouts.py", "test_lampe_op_precision.py"}
    assert {Path(path).name for path in op_tests("cuda_op")} >= {
        "test_cuda_op.py", "test_cuda_op_few.py"}
    assert on_device.TESTS
    for name in on_device.TESTS:
        assert (CHECKOUT / "tests" / "backend" / f"test_{name}.py").exists()
