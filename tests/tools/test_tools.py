"""The build tools' own work on a small source archive: apply, refuse, refresh, keep times."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import bootstrap as bootstrap_file
import pytest
from patched import sdist as sources
from patched import wheel as wheels
from patched.refresh import least_diff, refresh
from patched.report import Failure, run
from patched.sdist import Sdist
from patched.series import parse_patch, patched_files, problems, read_series, split_lines
from patched.tree import Tree

FILE = "".join(f"line {n}\n" for n in range(1, 31))
VERSION = '__version__ = "0.3.36"\n'
DIFF = """\
Say which lines are ours, because the test needs one.
Not offered upstream.

--- a/vendor/llama.cpp/a.c
+++ b/vendor/llama.cpp/a.c
@@ -9,2 +9,3 @@
 line 9
+new line
 line 10
"""


@pytest.fixture
def source(tmp_path: Path) -> Sdist:
    path = tmp_path / "pkg-1.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, text in {
            "pkg-1/vendor/llama.cpp/a.c": FILE, "pkg-1/llama_cpp/__init__.py": VERSION,
        }.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = len(text), 1_000_000_000, 0o644
            archive.addfile(info, io.BytesIO(text.encode()))
    return Sdist(path)


@pytest.fixture
def patches(tmp_path: Path) -> Path:
    folder = tmp_path / "patches"
    (folder / "overlay" / "vendor" / "llama.cpp").mkdir(parents=True)
    (folder / "overlay" / "vendor" / "llama.cpp" / "new.c").write_text("int new;\n")
    (folder / "0001-line.patch").write_text(DIFF)
    (folder / "series").write_text("0001-line.patch\n")
    return folder


def test_series_and_overlay_are_laid(source: Sdist, patches: Path) -> None:
    assert problems(source, patches) == []
    files = patched_files(source, patches)
    assert files["vendor/llama.cpp/new.c"] == b"int new;\n"
    assert b"line 9\nnew line\nline 10\n" in files["vendor/llama.cpp/a.c"]


def test_the_stock_build_gets_fixes_alone(source: Sdist, patches: Path) -> None:
    assert patched_files(source, patches, fixes_only=True) == {}
    (patches / "0001-line.patch").rename(patches / "0001-fix-line.patch")
    (patches / "series").write_text("0001-fix-line.patch\n")
    assert list(patched_files(source, patches, fixes_only=True)) == ["vendor/llama.cpp/a.c"]
    assert len(patched_files(source, patches)) == 2


@pytest.mark.parametrize("old, new, message", [
    ("@@ -9,2 +9,3 @@", "@@ -8,2 +8,3 @@", "does not apply"),  # an offset
    (" line 10", " line ten", "does not apply"),  # fuzz
    ("Say which lines are ours, because the test needs one.\nNot offered upstream.\n", "",
     "says why"),
    ("Not offered upstream.\n", "", "whether it was offered upstream"),
    ("@@ -9,2 +9,3 @@", "@@ -9,5 +9,6 @@", "ends too early"),
    ("vendor/llama.cpp/a.c", "vendor/llama.cpp/b.c", "upstream does not have"),
])
def test_anything_inexact_is_refused(
    source: Sdist, patches: Path, old: str, new: str, message: str
) -> None:
    (patches / "0001-line.patch").write_text(DIFF.replace(old, new))
    found = problems(source, patches)
    assert len(found) == 1 and message in found[0]


def test_stray_and_colliding_files_are_refused(source: Sdist, patches: Path) -> None:
    (patches / "0002-stray.patch").write_text(DIFF)
    (patches / "overlay" / "vendor" / "llama.cpp" / "a.c").write_text("mine\n")
    found = " ".join(problems(source, patches))
    assert "not listed in patches/series" in found and "would replace an upstream file" in found


def test_refresh_gives_back_what_was_edited(source: Sdist, patches: Path, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    source.unpack(root)
    for path, data in patched_files(source, patches).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    assert refresh(source, patches, root).written in ([], ["0001-line.patch"])
    edited = (root / "vendor/llama.cpp/a.c").read_text().replace("line 20\n", "line twenty\n")
    (root / "vendor/llama.cpp/a.c").write_text(edited)
    (root / "vendor/llama.cpp/more.c").write_text("int more;\n")
    (root / "llama_cpp/__init__.py").write_text('__version__ = "0.3.36+lampe007"\n')
    done = refresh(source, patches, root)
    assert set(done.written) == {"0001-line.patch", "overlay/vendor/llama.cpp/more.c"}
    files = patched_files(source, patches)
    assert files["vendor/llama.cpp/a.c"].decode() == edited
    assert (patches / "0001-line.patch").read_text().startswith("Say which lines are ours")


def test_a_new_patch_was_not_offered_upstream(
    source: Sdist, patches: Path, tmp_path: Path
) -> None:
    (patches / "0001-line.patch").unlink()
    (patches / "series").write_text("")
    root = tmp_path / "tree"
    source.unpack(root)
    (root / "vendor/llama.cpp/a.c").write_text(FILE.replace("line 20", "line twenty"))
    refresh(source, patches, root, new=("twenty", "Write numbers as words, for the test."))
    [patch] = read_series(patches)
    assert patch.why == "Write numbers as words, for the test. Not offered upstream."
    assert problems(source, patches) == []


def test_a_diff_fits_one_place_and_git_agrees(tmp_path: Path) -> None:
    block = b"open\n{\n  value\n}\n"
    old = block * 3
    new = block + block.replace(b"value", b"other") + block
    diff = least_diff("src/x.c", old, new)
    [hunk] = parse_patch("0001-x.patch", diff).files[0].hunks
    lines = tuple(split_lines(old))
    fits = [at for at in range(len(lines)) if lines[at : at + len(hunk.old)] == hunk.old]
    assert fits == [hunk.start] and len(hunk.old) > 3
    (tmp_path / "src").mkdir()
    (tmp_path / "src/x.c").write_bytes(old)
    (tmp_path / "x.patch").write_bytes(diff)
    subprocess.run(["git", "apply", "x.patch"], cwd=tmp_path, check=True)
    assert (tmp_path / "src/x.c").read_bytes() == new


def test_a_wheel_holds_its_record_and_libraries_are_replaced_in_place(
    source: Sdist, tmp_path: Path
) -> None:
    tree = Tree(tmp_path / "t")
    tree.open(source)
    for path, text in {"PKG-INFO": "Name: x\nVersion: 0.3.36\nSummary: y\n", "LICENSE.md": "MIT",
                       "vendor/llama.cpp/LICENSE": "MIT"}.items():
        (tree.src / path).write_text(text)
    (tree.build / "bin").mkdir(parents=True)
    library = tree.build / "bin" / "libllama.so"
    library.write_bytes(b"one")
    wheel = wheels.pack(tree, "0.3.36+lampe009", "abc", tmp_path / "out")
    site = tmp_path / "site"
    wheels.unpack(wheel, site)
    info = site / "llama_cpp_python-0.3.36+lampe009.dist-info"
    assert "Version: 0.3.36+lampe009\nSummary: y" in (info / "METADATA").read_text()
    for row in (info / "RECORD").read_text().splitlines():
        name, digest, size = row.split(",")
        data = (site / name).read_bytes()
        hashed = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        assert name.endswith("RECORD") or (digest, size) == (f"sha256={hashed}", str(len(data)))
    assert wheels.installed_key(site, "0.3.36+lampe009") == "abc"
    assert wheels.copy_over(tree, site, "0.3.36+lampe009") == []
    library.write_bytes(b"two")
    with (site / "llama_cpp/lib/libllama.so").open("rb") as loaded:
        changed = wheels.copy_over(tree, site, "0.3.36+lampe009")
        assert loaded.read() == b"one"  # a process that has it loaded goes on
    assert changed == ["llama_cpp/lib/libllama.so"]
    assert wheels.installed_key(site, "0.3.36+lampe009") == "edited"


def test_only_what_changes_gets_a_new_time(
    source: Sdist, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = Tree(tmp_path / "t")
    tree.open(source)
    wanted = {"vendor/llama.cpp/a.c": b"changed\n", "llama_cpp/__init__.py": VERSION.encode()}
    assert tree.lay(source, wanted) == 1
    file = tree.src / "vendor/llama.cpp/a.c"
    before = file.stat().st_mtime_ns
    assert tree.lay(source, wanted) == 0 and file.stat().st_mtime_ns == before
    file.write_text("edited by hand\n")
    with pytest.raises(Failure, match="edits that patches/ lacks"):
        tree.lay(source, wanted)
    assert tree.lay(source, {}, discard=True) == 1
    assert file.read_text() == FILE


def test_cmake_lists_the_sources_anew_when_one_comes_or_goes(
    source: Sdist, tmp_path: Path
) -> None:
    tree = Tree(tmp_path / "t")
    tree.open(source)
    listing = tree.src / "vendor/llama.cpp/CMakeLists.txt"
    wanted = {"vendor/llama.cpp/CMakeLists.txt": b"file(GLOB sources *.c)\n"}
    tree.lay(source, wanted)

    def looked_again(files: dict[str, bytes]) -> bool:
        os.utime(listing, (1, 1))
        tree.lay(source, files)
        return listing.stat().st_mtime > 1

    assert not looked_again(wanted)
    more = {**wanted, "vendor/llama.cpp/src/new.c": b"one\n"}
    assert looked_again(more)
    assert not looked_again({**more, "vendor/llama.cpp/src/new.c": b"two\n"})
    assert looked_again(wanted)


def test_edits_stay_while_the_rest_is_laid(source: Sdist, tmp_path: Path) -> None:
    tree = Tree(tmp_path / "t")
    tree.open(source)
    laid = {"vendor/llama.cpp/a.c": b"laid\n", "vendor/llama.cpp/b.c": b"laid\n"}
    tree.lay(source, laid)
    file = tree.src / "vendor/llama.cpp/a.c"
    file.write_text("edited by hand\n")
    (tree.src / "vendor/llama.cpp/mine.c").write_text("new\n")
    newer = {**laid, "vendor/llama.cpp/b.c": b"newer\n"}
    assert tree.lay(source, newer, keep=True) == 1
    assert file.read_text() == "edited by hand\n"
    assert (tree.src / "vendor/llama.cpp/mine.c").exists()
    assert (tree.src / "vendor/llama.cpp/b.c").read_text() == "newer\n"
    # the edit is still one: what it began with has not moved on
    assert tree.edits() == ["vendor/llama.cpp/a.c", "vendor/llama.cpp/mine.c"]
    for patches in ({**newer, "vendor/llama.cpp/a.c": b"theirs\n"},
                    {"vendor/llama.cpp/b.c": b"newer\n"},
                    {**newer, "vendor/llama.cpp/mine.c": b"theirs\n"}):
        with pytest.raises(Failure, match="have changed"):
            tree.lay(source, patches, keep=True)
    assert file.read_text() == "edited by hand\n"
    # once patches/ says the same, it is no edit any more
    held = {**newer, "vendor/llama.cpp/a.c": b"edited by hand\n",
            "vendor/llama.cpp/mine.c": b"new\n"}
    assert tree.lay(source, held) == 0 and tree.edits() == []


def test_another_archive_than_the_pinned_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAMPE_GGUF_CACHE", str(tmp_path))
    home = tmp_path / "sdist"
    home.mkdir()
    (home / sources.SDIST).write_bytes(b"something else")
    brought: list[list[object]] = []
    monkeypatch.setattr(sources, "run", lambda command, label, **_: brought.append(command))
    with pytest.raises(Failure, match="pinned SHA-256"):
        sources.fetch()
    assert "--require-hashes" in brought[0]
    assert not (home / sources.SDIST).exists()


def test_no_compiler_is_said_before_anything_is_made(tmp_path: Path) -> None:
    script = Path(bootstrap_file.__file__)
    env = {"PATH": str(tmp_path), "LAMPE_GGUF_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, str(script), "setup"], env=env, capture_output=True, text=True
    )
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: there is no C++ compiler; install one")
    assert done.stderr.count("\n") == 1 and not (tmp_path / "cache").exists()


def test_why_pip_and_the_build_fail_is_told_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAMPE_GGUF_CACHE", str(tmp_path))
    offline = "WARNING: Retrying after NewConnectionError\nERROR: No matching distribution found"
    assert "network" in str(sources.explain_pip(offline))
    assert sources.explain_pip("ERROR: a bug") is None
    script = "print('cc1plus: No space left on device'); raise SystemExit(3)"
    with pytest.raises(Failure, match="the disk is full"):
        run([sys.executable, "-c", script], "Trying")
    with pytest.raises(Failure, match="Trying failed with exit code 3; the whole output is in"):
        run([sys.executable, "-c", "raise SystemExit(3)"], "Trying")
