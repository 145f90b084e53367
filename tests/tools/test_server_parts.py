"""llama-server and its page as parts of the build: taken in, left out, and why there is none."""

from __future__ import annotations

import argparse
import io
import os
import stat
import tarfile
import time
import zipfile
from pathlib import Path

import pytest
from patched import compile as compiling
from patched import page as pages
from patched import parts
from patched import wheel as wheels
from patched.report import Failure
from patched.sdist import Sdist
from patched.tree import Tree


@pytest.mark.parametrize("given, wanted", [
    (None, parts.Parts(True, True)), ("", parts.Parts(True, True)),
    ("page", parts.Parts(True, True)),
    ("plain", parts.Parts(True, False)), ("none", parts.Parts(False, False)),
])
def test_the_environment_says_what_is_built(
    monkeypatch: pytest.MonkeyPatch, given: str | None, wanted: parts.Parts
) -> None:
    monkeypatch.delenv(parts.VARIABLE, raising=False)
    if given is not None:
        monkeypatch.setenv(parts.VARIABLE, given)
    assert parts.chosen() == wanted


def test_an_option_holds_for_what_is_started_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(parts.VARIABLE, "page")
    parser = argparse.ArgumentParser()
    parts.add_options(parser)
    parts.remember(parser.parse_args([]))
    assert os.environ[parts.VARIABLE] == "page"
    parts.remember(parser.parse_args(["--no-server"]))
    assert os.environ[parts.VARIABLE] == "none"
    monkeypatch.setenv(parts.VARIABLE, "yes")
    with pytest.raises(Failure, match="'yes'; it must be one of page, plain, none"):
        parts.chosen()


@pytest.mark.parametrize("said, built", [
    ("GGML_RPC:BOOL=ON", True), ("GGML_RPC:BOOL=1", True), ("GGML_RPC:UNINITIALIZED=OFF", False),
    ("GGML_RPC_RDMA:BOOL=ON", False),
])
def test_a_build_without_rpc_has_no_program_for_it(
    tmp_path: Path, said: str, built: bool
) -> None:
    tree = Tree(tmp_path)
    tree.build.mkdir()
    (tree.build / "CMakeCache.txt").write_text(f"CMAKE_X:BOOL=ON\n{said}\n", encoding="utf-8")
    programs = compiling.programs_of(tree)
    assert (compiling.RPC_PROGRAM in programs) == built
    assert "llama-server" in programs


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A tree that was compiled with the server once."""
    tree = Tree(tmp_path / "t")
    for path in ("PKG-INFO", "LICENSE.md", "vendor/llama.cpp/LICENSE"):
        (tree.src / path).parent.mkdir(parents=True, exist_ok=True)
        (tree.src / path).write_text("Name: x\nVersion: 1\n")
    (tree.build / "bin").mkdir(parents=True)
    for name in ("libllama.so", "libllama-common.so", "libmtmd.so", "libllama-server-impl.so",
                 "llama-server", "llama-fit-params", "llama-gguf-hash"):
        (tree.build / "bin" / name).write_bytes(name.encode())
    return tree


def test_a_wheel_holds_the_server_or_nothing_of_it(tree: Tree, tmp_path: Path) -> None:
    full = {Path(name).name for name in wheels.package_files(tree, server=True)}
    assert {"llama-server", "llama-fit-params", "libllama-common.so", "libmtmd.so"} <= full
    assert "llama-gguf-hash" not in full
    assert [*wheels.package_files(tree, server=False)] == ["llama_cpp/lib/libllama.so"]


def test_the_server_can_be_run_where_it_is_installed(tree: Tree, tmp_path: Path) -> None:
    wheel = wheels.pack(tree, "1", "key", tmp_path / "out", server=True, no_page="no Node")
    with zipfile.ZipFile(wheel) as archive:
        mode = archive.getinfo("llama_cpp/lib/llama-server").external_attr >> 16
        assert stat.S_ISREG(mode) and mode & 0o111  # what pip asks
    site = tmp_path / "site"
    wheels.unpack(wheel, site)
    server = site / "llama_cpp" / "lib" / "llama-server"
    assert os.access(server, os.X_OK)
    record = site / "llama_cpp_python-1.dist-info" / wheels.RECORD_NAME
    assert '"no_page": "no Node"' in record.read_text()
    (tree.build / "bin" / "llama-server").write_bytes(b"new")
    assert wheels.copy_over(tree, site, "1", server=True) == ["llama_cpp/lib/llama-server"]
    assert server.read_bytes() == b"new" and os.access(server, os.X_OK)
    assert wheels.installed_key(site, "1") == "edited"
    assert '"no_page": "no Node"' in record.read_text()


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sdist:
    """A source with a page, a cache of its own, and an empty PATH."""
    monkeypatch.setenv("LAMPE_GGUF_CACHE", str(tmp_path / "cache"))
    (tmp_path / "path").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    path = tmp_path / "pkg-1.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name in ("package.json", "package-lock.json", "src/app.html"):
            info = tarfile.TarInfo(f"pkg-1/{pages.SOURCE}{name}")
            info.size = 2
            archive.addfile(info, io.BytesIO(b"{}"))
    return Sdist(path)


def program(folder: Path, name: str, script: str) -> None:
    path = folder / "path" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_no_page_without_node_and_no_failed_build(source: Sdist, tmp_path: Path) -> None:
    assert "there is no Node (the page needs Node 20.19" in pages.make_page(source).why_not
    program(tmp_path, "node", "echo v20.20.2")
    assert "there is no npm" in pages.make_page(source).why_not
    program(tmp_path, "npm", "exit 1")
    program(tmp_path, "node", "echo v18.3.0")
    assert "Node is v18.3.0 (the page needs" in pages.make_page(source).why_not


def test_a_page_is_made_once(source: Sdist, tmp_path: Path) -> None:
    program(tmp_path, "node", "echo v22.1.0")
    program(tmp_path, "npm", f'echo "$1 $(/bin/ls)" >> {tmp_path}/calls\n'
                             '[ "$1" = ci ] && exit 0\n'
                             'cd "$LLAMA_UI_OUT_DIR/.." && /bin/mkdir "$LLAMA_UI_OUT_DIR"\n'
                             'echo hi > "$LLAMA_UI_OUT_DIR/index.html"')
    made = pages.make_page(source)
    assert made.folder and (made.folder / "index.html").read_text() == "hi\n" and made.key
    calls = (tmp_path / "calls").read_text()
    assert calls.startswith("ci ") and "package-lock.json" in calls and "\nrun " in calls
    assert pages.make_page(source) == made and (tmp_path / "calls").read_text() == calls
    assert [path.name for path in made.folder.parent.iterdir()] == [made.key]
    tree = Tree(tmp_path / "t")
    pages.lay(made, tree)
    dist = tree.src / pages.SOURCE / "dist"
    assert (dist / "index.html").exists()
    pages.lay(pages.Page(None), tree)
    assert not dist.exists()


def test_what_failed_is_tried_again_later(source: Sdist, tmp_path: Path) -> None:
    program(tmp_path, "node", "echo v22.1.0")
    program(tmp_path, "npm", f"echo x >> {tmp_path}/calls; echo ENOTFOUND; exit 1")
    made = pages.make_page(source)
    assert made.folder is None and "could not reach its registry" in made.why_not
    assert pages.make_page(source) == made and (tmp_path / "calls").read_text() == "x\n"
    failed = next((tmp_path / "cache" / "pages").glob("*.failed"))
    before = time.time() - 2 * 3600
    os.utime(failed, (before, before))
    assert pages.make_page(source) == made and (tmp_path / "calls").read_text() == "x\nx\n"
