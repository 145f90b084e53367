"""What PyInstaller is told: run with a stand-in for it, which says what it was asked."""

from __future__ import annotations

import importlib
import pkgutil
import runpy
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lampe_gguf
from lampe_gguf.backend import freezing

ROOT = Path(lampe_gguf.__file__).parents[1]


def collect(name: str, filter: Callable[[str], bool]) -> list[str]:  # noqa: A002
    """As PyInstaller's, which asks the filter about folders first and then looks inside."""
    package = importlib.import_module(name)
    found = [name] if filter(name) else []
    for each in pkgutil.iter_modules(package.__path__, name + "."):
        if each.ispkg and filter(each.name):
            found += collect(each.name, filter)
        elif filter(each.name):
            found.append(each.name)
    return found


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], dict[str, Any]]:
    """Runs a hook where llama_cpp is a folder with llama-server in it."""
    package = tmp_path / "site" / "llama_cpp"
    (package / "lib").mkdir(parents=True)
    (package / "lib" / "llama-server").touch()
    stand_in = types.ModuleType("PyInstaller.utils.hooks")
    given: dict[str, Any] = {
        "collect_dynamic_libs": lambda name: [(f"{name}/lib/libllama.so", f"{name}/lib")],
        "copy_metadata": lambda name: [(name, f"{name}.dist-info")],
        "get_package_paths": lambda name: (str(package.parent), str(package)),
        "collect_submodules": collect,
    }
    for name, value in given.items():
        setattr(stand_in, name, value)
    for name in ("PyInstaller", "PyInstaller.utils"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "PyInstaller.utils.hooks", stand_in)
    [folder] = freezing.hook_dirs()
    return lambda name: runpy.run_path(str(Path(folder) / f"hook-{name}.py"))


def test_libraries_server_and_record_go_along(hooks: Callable[[str], dict[str, Any]]) -> None:
    found = hooks("llama_cpp")
    folders = {Path(path).name: folder for path, folder in found["binaries"]}
    assert folders == {"libllama.so": "llama_cpp/lib", "llama-server": "llama_cpp/lib"}
    assert found["datas"] == [("llama-cpp-python", "llama-cpp-python.dist-info")]


def test_modules_that_no_import_names_go_along(hooks: Callable[[str], dict[str, Any]]) -> None:
    found = hooks("lampe_gguf")["hiddenimports"]
    for name in ("backend.llama", "conversation.ask", "cli.convert", "container.writer"):
        assert f"lampe_gguf.{name}" in found
    for name in ("huggingface", "plot", "attention.plot", "backend.freezing"):
        assert f"lampe_gguf.{name}" not in found
    assert not any(name.startswith("lampe_gguf.huggingface.") for name in found)


def test_pyinstaller_finds_the_hooks_by_the_entry_point() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    line = project.partition("[project.entry-points.pyinstaller40]\n")[2].splitlines()[0]
    module, function = line.partition(" = ")[2].strip('"').split(":")
    assert getattr(importlib.import_module(module), function)() == [
        str(Path(freezing.__file__).parent)]
