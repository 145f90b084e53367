"""A folder of wheels with a page that pip reads: all that a machine needs that has no compiler."""

from __future__ import annotations

import html
import os
import shutil
import tempfile
from pathlib import Path
from urllib.parse import quote

from .places import CHECKOUT, best_python, patched_version
from .report import Failure, run
from .sdist import explain_pip, sha256
from .tree import write_if_changed

PAGE = "index.html"


def publish(folder: Path, *wheels: Path) -> Path:
    """Lay wheels of the backend and one of lampe-gguf into `folder`; returns its page.

    Other wheels that lie there stay. The wheel of lampe-gguf asks for this very backend, so that
    pip takes no other in its place and says so where there is none for the machine.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for wheel in wheels:
        target = folder / wheel.name
        beside = target.with_suffix(".partial")
        shutil.copyfile(wheel, beside)
        os.replace(beside, target)
    package_wheel(folder)
    return write_page(folder)


def package_wheel(folder: Path) -> Path:
    """Make the wheel of lampe-gguf, which needs no compiler, in `folder`."""
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "source"
        source.mkdir()
        for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
            shutil.copyfile(CHECKOUT / name, source / name)
        shutil.copytree(CHECKOUT / "lampe_gguf", source / "lampe_gguf",
                        ignore=shutil.ignore_patterns("__pycache__"))
        project = source / "pyproject.toml"
        project.write_text(pinned(project.read_text(encoding="utf-8")), encoding="utf-8")
        command: list[str | Path] = [best_python(), "-m", "pip", "wheel", "--no-deps"]
        command += ["--wheel-dir", scratch]
        run([*command, source], "Making the wheel of lampe-gguf", explain=explain_pip)
        made = next(iter(Path(scratch).glob("lampe_gguf-*.whl")), None)
        if made is None:
            raise Failure("pip made no wheel of lampe-gguf; try again.")
        target = folder / made.name
        shutil.move(made, target)
    return target


def pinned(project: str) -> str:
    """pyproject.toml with the dependency on llama-cpp-python narrowed to the patched build."""
    stock = f'"llama-cpp-python=={patched_version().partition("+")[0]}"'
    if project.count(stock) != 1:
        raise Failure(f"pyproject.toml does not say {stock} once.")
    return project.replace(stock, f'"llama-cpp-python=={patched_version()}"')


def write_page(folder: Path) -> Path:
    """Write the page that lists every wheel in `folder` with its SHA-256; returns its path."""
    rows = [
        f'<a href="{quote(wheel.name)}#sha256={sha256(wheel)}">{html.escape(wheel.name)}</a><br>'
        for wheel in sorted(folder.glob("*.whl"))
    ]
    page = folder / PAGE
    text = "\n".join(["<!DOCTYPE html>", "<title>lampe-gguf</title>", *rows, ""])
    write_if_changed(page, text.encode())
    return page
