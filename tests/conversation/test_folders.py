"""Folders and patterns of documents: which files, in which order, under which names."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import call, tiny_config
from made_documents import archive, pdf

from lampe_gguf import LampeError, UsageError, ask
from lampe_gguf.conversation import gather as module
from lampe_gguf.conversation.documents import as_documents, read_documents
from lampe_gguf.conversation.gather import gather, natural


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "docs"
    (place / "sub" / ".git").mkdir(parents=True)
    for name in ("b10.txt", "b9.txt", "A1.md", "sub/x.txt", ".hidden", "sub/.git/config"):
        (place / name).write_text(f"text of {name}")
    (place / "report.pdf").write_bytes(pdf(["One page."]))
    (place / "program").write_bytes(b"\x7fELF" + bytes(90))
    (place / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (place / "sub" / "data.zip").write_bytes(archive({"a": "b"}))
    (place / "empty.txt").touch()
    return place


IN_ORDER = ["A1.md", "b9.txt", "b10.txt", "report.pdf", "sub/x.txt"]


def test_a_folder(folder: Path) -> None:
    notes: list[str] = []
    found = read_documents([str(folder)], to_ask=True, on_note=notes.append)
    assert [each.name for each in found] == IN_ORDER
    assert found[1].text == "text of b9.txt" and found[3].text == "[page 1]\nOne page."
    assert notes[0].startswith("not read: empty.txt is empty")
    assert notes[1] == "A1.md: 13 characters"
    assert notes[-1] == "not read of the folders: 2 hidden, 3 without text"


def test_numbers_sort_by_their_value() -> None:
    names = ["a10", "a9", "B1", "a09", "\u00b2", "a", "10", "9"]
    assert sorted(names, key=natural) == ["9", "10", "a", "a09", "a9", "a10", "B1", "\u00b2"]


def test_patterns(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert [each.path for each in gather(["b*.txt"]).files] == ["b9.txt", "b10.txt"]
    deep = [each.label.replace(os.sep, "/") for each in gather(["**/*.txt"]).files]
    assert deep == ["b9.txt", "b10.txt", "empty.txt", "sub/x.txt"]
    # a folder that a pattern names is read as one that the shell has named; each file once
    both = gather(["s*", "b9.txt", "b*.txt"]).files
    assert [each.label for each in both] == ["x.txt", "b9.txt", "b10.txt"]
    (folder / "[a]*.txt").write_text("a name like a pattern")
    assert [each.path for each in gather(["[a]*.txt"]).files] == ["[a]*.txt"]


def test_names_that_would_be_the_same_are_paths(folder: Path) -> None:
    other = folder.parent / "other"
    other.mkdir()
    (other / "A1.md").write_text("another")
    labels = [each.label for each in gather([str(folder), str(other)]).files]
    assert str(folder / "A1.md") in labels and str(other / "A1.md") in labels
    assert "b9.txt" in labels


def test_nothing_to_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LampeError, match="no file is named like .*none"):
        gather([str(folder / "none*")])
    empty = folder.parent / "empty"
    empty.mkdir()
    with pytest.raises(LampeError, match="the folder .*empty has no documents; give one"):
        gather([str(empty)])
    (empty / ".a").write_text("x")
    with pytest.raises(LampeError, match="but 1 hidden files and 0 without text"):
        gather([str(empty)])
    (empty / "b.txt").touch()
    with pytest.raises(LampeError, match="b.txt is empty"):
        read_documents([str(empty)], to_ask=True)
    with pytest.raises(UsageError, match="only once"):
        gather(["-", "-"])
    with pytest.raises(LampeError, match="cannot read .*missing.txt"):
        read_documents([str(folder / "missing.txt")], to_ask=True)
    with pytest.raises(LampeError, match="no file is named like"):
        gather(["a\0*"])
    monkeypatch.setattr(module, "MOST_FILES", 2)
    with pytest.raises(LampeError, match="more than 2 documents; name a folder within it"):
        gather([str(folder)])


@pytest.mark.skipif(os.name != "posix", reason="pipes and links of Unix")
def test_pipes_and_circles_of_a_folder(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    os.symlink(folder, folder / "sub" / "circle")
    assert [each.label for each in gather([str(folder)]).files if each.label != "empty.txt"
            ] == IN_ORDER


def test_a_folder_for_ask_and_a_library(tiny: Callable[..., Path], folder: Path) -> None:
    model = tiny(lampe=tiny_config(context_length=4096))
    done = call("ask", model, "?", "--doc", folder, "--doc", folder / "b*.txt", "--max-tokens", 2)
    assert done.returncode == 0 and "report.pdf: 1 page, 18 characters" in done.stderr
    assert done.stderr.count("b9.txt") == 1
    notes: list[str] = []
    answer = ask(model, "?", folder, max_tokens=2, on_note=notes.append)
    assert [each.name for each in answer.documents] == IN_ORDER and len(notes) >= 6
    assert [each.name for each in as_documents(folder, to_ask=True)] == IN_ORDER
    (folder / "cut.pdf").write_bytes(b"%PDF-1.4 and no more")  # the others are read all the same
    done = call("ask", model, "?", "--doc", folder, "--max-tokens", 2)
    assert done.returncode == 0 and "not read: cut.pdf is damaged" in done.stderr
    done = call("chat", model, "--max-tokens", 2, stdin=f"/doc {folder}\n?\n")
    assert "docs goes along with your next message" in done.stdout


def test_a_folder_within_that_is_closed_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.scandir

    def scandir(path: str) -> object:
        if os.path.basename(path) == "sub":  # a mode does not stop root
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    notes: list[str] = []
    found = read_documents([str(folder)], to_ask=True, on_note=notes.append)
    assert [each.name for each in found] == IN_ORDER[:-1]
    assert notes[0] == f"not read: cannot read the folder {folder}/sub: Permission denied"
