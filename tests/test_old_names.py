"""Modules under the names they had before they moved into rooms: the same ones, with a warning."""

from __future__ import annotations

import importlib
import importlib.util
import pickle
import subprocess
import sys
import warnings

import pytest

import lampe_gguf
from lampe_gguf.old_names import FUNCTIONS, OLD_NAMES

NEEDS = {"hf": "torch", "gguf_file": "gguf"}


@pytest.mark.parametrize("old", OLD_NAMES)
def test_an_old_name_is_the_new_module(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = NEEDS.get(old)
    if needed is not None and importlib.util.find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed, which lampe_gguf.{OLD_NAMES[old]} needs")
    name, new = f"lampe_gguf.{old}", importlib.import_module(f"lampe_gguf.{OLD_NAMES[old]}")
    monkeypatch.delitem(sys.modules, name, raising=False)
    if "." in old:
        importlib.import_module(f"lampe_gguf.{old.partition('.')[0]}")
    with pytest.warns(DeprecationWarning) as said:
        found = importlib.import_module(name)
    # of a package, which holds nothing but modules, only those are the same
    assert found is new or (found.__path__ == [] and found.__doc__ == new.__doc__)
    assert [str(each.message) for each in said] == [
        f"{name} is lampe_gguf.{OLD_NAMES[old]} now, and its old name will go in the next release"]


def test_an_old_name_hides_no_new_one() -> None:
    for old in OLD_NAMES:
        first = old.partition(".")[0]
        assert first not in lampe_gguf.__all__
        found = importlib.machinery.PathFinder.find_spec(
            f"lampe_gguf.{first}", lampe_gguf.__path__)
        assert found is None, found


@pytest.mark.parametrize("line", [
    "import lampe_gguf.config; lampe_gguf.config.LampeConfig",
    "from lampe_gguf.config import LampeConfig",
    "from lampe_gguf import config; config.LampeConfig",
    "from lampe_gguf.tasks.words import __doc__",
])
def test_the_warning_names_the_line_that_imports(line: str) -> None:
    done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # Python shows such warnings where they are the main program's
    assert done.stderr.count("DeprecationWarning") == 1 + line.count("tasks.")
    assert "<string>:1: DeprecationWarning: lampe_gguf." in done.stderr


def test_what_is_not_there_is_not_found() -> None:
    for name in ("nonsense", "commands.nonsense", "tasks.nonsense", "method.nonsense"):
        with pytest.raises(ModuleNotFoundError, match="nonsense"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(f"lampe_gguf.{name}")
    for old, new in FUNCTIONS.items():
        for name in (old, f"{old}.job"):
            with pytest.raises(ModuleNotFoundError, match=f"function now; .* lampe_gguf.{new}"):
                importlib.import_module(f"lampe_gguf.{name}")
    assert importlib.util.find_spec("lampe_gguf.nonsense") is None


@pytest.mark.parametrize("verb", ["convert", "strip", "inspect"])
def test_a_verb_by_its_old_name(verb: str) -> None:
    module = importlib.import_module(f"lampe_gguf.{verb}")
    with pytest.warns(DeprecationWarning, match=f"is {verb}_gguf now") as said:
        assert getattr(module, verb) is getattr(lampe_gguf, f"{verb}_gguf")
    assert said[0].filename == __file__
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = module.nonsense


def test_nothing_is_loaded_before_an_old_name_is_asked_for() -> None:
    code = "import sys, lampe_gguf; print([m for m in sys.modules if m.startswith('lampe_gguf.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_pickle_of_before_can_be_read() -> None:
    config = lampe_gguf.default_config(8192)
    new, old = b"lampe_gguf.method.config", b"lampe_gguf.config"
    data = pickle.dumps(config, protocol=0).replace(new, old)
    with pytest.warns(DeprecationWarning):
        sys.modules.pop("lampe_gguf.config", None)
        assert pickle.loads(data) == config
