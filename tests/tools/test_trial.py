"""The series tried on another release: what applies, what has moved, and which hunks fail where."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import backend
import pytest
from patched import sdist as sources
from patched import trial
from patched.places import PATCHES, UPSTREAM_VERSION
from patched.report import Failure
from patched.sdist import Sdist
from patched.series import overlay_files, read_series

A = "vendor/llama.cpp/a.c"
LINES = [f"line {n}\n" for n in range(1, 31)]
DIFF = f"""\
Say which lines are ours, because the test needs one.
Not offered upstream.

--- a/{A}
+++ b/{A}
@@ -9,2 +9,3 @@
 line 9
+new line
 line 10
@@ -20,3 +21,3 @@
 line 20
-line 21
+line twenty-one
 line 22
"""


def archive(path: Path, files: dict[str, bytes]) -> Sdist:
    with tarfile.open(path, "w:gz") as made:
        for name, data in files.items():
            info = tarfile.TarInfo(f"pkg-1/{name}")
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return Sdist(path)


@pytest.fixture
def patches(tmp_path: Path) -> Path:
    folder = tmp_path / "patches"
    (folder / "overlay").mkdir(parents=True)
    (folder / "overlay" / "new.c").write_text("int new;\n")
    (folder / "0001-line.patch").write_text(DIFF)
    (folder / "series").write_text("0001-line.patch\n")
    return folder


def tried(tmp_path: Path, patches: Path, lines: list[str]) -> str:
    source = archive(tmp_path / "pkg-1.tar.gz", {A: "".join(lines).encode()})
    [result], taken = trial.try_series(source, patches)
    assert taken == []
    return str(result)


@pytest.mark.parametrize("lines, said", [
    (LINES, "applies"),
    (["more\n"] * 3 + LINES, "applies with offset, 3 lines at most"),
    (LINES[2:15] + LINES[10:15] + LINES[15:], "applies with offset, 3 lines at most"),
    # what stands twice is taken where the hunk before it leads
    (["more\n"] * 9 + LINES + LINES, "applies with offset, 9 lines at most"),
    (LINES[:12] + LINES[19:22] + LINES[12:], "applies with offset, 3 lines at most"),
    (LINES[:20] + ["line of theirs\n"] + LINES[21:],
     "FAILS, 1 of 2 hunks\n"
     f"    {A}, line 20: hunk 2 of 2: line 21 is 'line of theirs', not 'line 21'"),
    (LINES[:20] + ["line twenty-one\n"] + LINES[21:],
     f"FAILS, 1 of 2 hunks\n    {A}, line 20: hunk 2 of 2: what it makes stands there already"),
    (LINES[:12],
     f"FAILS, 1 of 2 hunks\n    {A}, line 20: hunk 2 of 2: half or more of its lines are gone"),
    (LINES[:21], f"FAILS, 1 of 2 hunks\n    {A}, line 20: hunk 2 of 2: the file ends with line 21"),
    # a hunk does not stand before the one that it follows
    (LINES[19:22] + LINES[:15],
     f"FAILS, 1 of 2 hunks\n    {A}, line 20: hunk 2 of 2: half or more of its lines are gone"),
], ids=["as it is", "moved", "up and down", "twice", "before", "another line", "there already",
        "gone", "end of file", "order"])
def test_each_hunk(tmp_path: Path, patches: Path, lines: list[str], said: str) -> None:
    assert tried(tmp_path, patches, lines) == f"0001-line.patch: {said}"


def test_a_file_that_is_gone_and_one_that_has_come(tmp_path: Path, patches: Path) -> None:
    source = archive(tmp_path / "pkg-1.tar.gz", {"new.c": b"int theirs;\n"})
    [result], taken = trial.try_series(source, patches)
    assert len(result.failed) == 2 and result.failed[0].endswith("there is no such file")
    assert taken == ["new.c"]


def try_command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, backend.__file__, "try", *map(str, arguments)],
                          capture_output=True, text=True)


def test_the_pinned_release_takes_every_patch_as_it_is() -> None:
    done = try_command(UPSTREAM_VERSION)
    assert done.returncode == 0, done.stdout + done.stderr
    n = len(read_series(PATCHES))
    assert done.stdout.count(": applies\n") == n
    assert f"{n} of {n} patches apply, 0 with offset, 0 fail; upstream has 0 of" in done.stdout


def test_one_broken_hunk_is_named(tmp_path: Path) -> None:
    """The pinned release, but for one line of the first hunk of a patch, and one file of ours."""
    series = read_series(PATCHES)
    files = dict(sources.fetch().read({diff.path for patch in series for diff in patch.files}))
    # of few lines, one less is too many to say which
    [*_, broken] = [each for each in series if len(each.files[0].hunks[0].old) > 4]
    diff = broken.files[0]
    hunk = diff.hunks[0]
    lines = files[diff.path].split(b"\n")
    lines[hunk.start] += b" // theirs"
    files[diff.path] = b"\n".join(lines)
    ours = next(iter(overlay_files(PATCHES)))
    path = tmp_path / "llama_cpp_python-9.tar.gz"
    archive(path, files)
    done = try_command(path)
    assert done.returncode == 1 and done.stdout.count("FAILS") == 1
    n_hunks = sum(len(each.hunks) for each in broken.files)
    assert f"{broken.name}: FAILS, 1 of {n_hunks} hunks" in done.stdout
    assert f"{diff.path}, line {hunk.start + 1}: hunk 1 of {len(diff.hunks)}: line " in done.stdout
    assert "// theirs" in done.stdout
    assert "1 fail; upstream has 0 of" in done.stdout
    archive(path, {**sources.fetch().read(files), ours: b""})
    done = try_command(path)
    assert done.returncode == 1 and "0 fail; upstream has 1 of" in done.stdout
    assert f"overlay/{ours}: upstream has this file now" in done.stdout


def test_what_is_no_release(tmp_path: Path) -> None:
    for what in ("nonsense", tmp_path / "no.tar.gz", tmp_path):
        done = try_command(what)
        assert done.returncode == 1 and "is neither a version" in done.stderr
    (tmp_path / "text.tar.gz").write_text("no archive")
    done = try_command(tmp_path / "text.tar.gz")
    assert done.returncode == 1 and "is no source distribution" in done.stderr


def test_a_release_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMPE_GGUF_CACHE", str(tmp_path))
    asked: list[list[str]] = []

    def pip(command: list[str], label: str, **_: object) -> None:
        asked.append([str(each) for each in command])
        folder = Path(command[command.index("--dest") + 1])
        archive(folder / "llama_cpp_python-9.9.tar.gz", {A: b""})

    monkeypatch.setattr(trial, "run", pip)
    for _ in range(2):
        assert trial.find_source("9.9").names() == {A}
    assert len(asked) == 1 and asked[0][-1] == "llama-cpp-python==9.9"
    monkeypatch.setattr(trial, "run", lambda *_, **__: "")
    with pytest.raises(Failure, match="brought no source distribution"):
        trial.find_source("9.8")
    assert trial._explain_pip("ERROR: No matching distribution found") == (
        "there is no such release of llama-cpp-python, or none as source.")
    offline = "NewConnectionError\nERROR: No matching distribution found"
    assert "network" in str(trial._explain_pip(offline))
