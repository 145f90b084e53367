"""What a Python user is promised: documented, with examples that run, and quiet."""

from __future__ import annotations

import ast
import doctest
import importlib.util
import inspect
import os
import random
import string
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import lampe_gguf

NAMES = [name for name in lampe_gguf.__all__ if name != "__version__"]
NEEDS = {"enable_lampe": "transformers"}
# a calibration reads three times two windows at least: minutes for a model of 8,192 tokens
SMALL_WINDOW = {"calibrate"}


@pytest.fixture
def folder(
    tmp_path: Path, smollm2_path: Path, tiny: Callable[..., Path], request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """Where the examples run: the small model, and a book."""
    small = request.node.callspec.params.get("name") in SMALL_WINDOW
    model = tiny("random.gguf", window=256, lampe=None) if small else smollm2_path
    place = tmp_path / "place"
    place.mkdir()
    os.symlink(model, place / "model.gguf")
    letters = random.Random(0)
    text = "".join(letters.choice(string.ascii_lowercase + "  ") for _ in range(2000))
    (place / "book.txt").write_text(text, encoding="utf-8")
    monkeypatch.chdir(place)
    return place


@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_a_public_name(
    name: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    needed = NEEDS.get(name)
    if needed is not None and importlib.util.find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed")
    thing = getattr(lampe_gguf, name)
    found = doctest.DocTestFinder(recurse=False).find(thing, name, globs={})
    assert len(found) == 1 and found[0].examples, f"{name} has no example"
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    runner.run(found[0], out=said.append)
    assert runner.failures == 0, "".join(said)
    assert capfd.readouterr() == ("", "")  # what an example prints, the runner took


def test_every_public_name_is_documented_and_typed() -> None:
    for name in NAMES:
        thing = getattr(lampe_gguf, name)
        text = inspect.getdoc(thing)
        assert text and len(text.split()) > 5, name
        assert "Llama(" not in text[:10], f"{name} has no words of its own"
        if inspect.isfunction(thing):
            signature = inspect.signature(thing)
            untyped = [each.name for each in signature.parameters.values()
                       if each.annotation is each.empty]
            assert not untyped and signature.return_annotation is not signature.empty, name
            # every parameter that has a default, and may need words, has them
            if len(signature.parameters) > 3:
                said = [each for each in signature.parameters if each not in text]
                assert not set(said) - {"source", "target", "model", "question"}, (name, said)


def test_what_type_checkers_see_is_what_is_exported() -> None:
    """Lazy names stand twice: for Python in a table, for type checkers in imports."""
    tree = ast.parse(Path(lampe_gguf.__file__).read_text(encoding="utf-8"))
    seen = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            for each in node.names:
                seen[each.asname or each.name] = (node.module, each.name)
    assert seen.pop("find") == ("old_names", "find")
    assert seen == lampe_gguf._EXPORTS


def test_a_function_is_no_module() -> None:
    for name in NAMES:
        assert importlib.util.find_spec("lampe_gguf").submodule_search_locations
        package = Path(lampe_gguf.__file__).parent
        assert not (package / name).exists() and not (package / f"{name}.py").exists(), name


def test_without_torch_it_says_what_to_install() -> None:
    code = ("import sys; sys.modules['torch'] = None\nimport lampe_gguf\n"
            "from lampe_gguf import *\n"
            "try:\n    enable_lampe(None, None)\n"
            "except lampe_gguf.LampeError as error:\n    print(error)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f'{sys.executable} -m pip install "lampe-gguf[hf]"' in done.stdout, done.stderr
