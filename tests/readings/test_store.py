"""The folder of readings: nothing damaged is believed, nothing half is left, the bound holds."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import tiny_config
from reading_models import NEXT, TOKENS
from time_limit import time_limit

from lampe_gguf.backend.llama import LampeLlama
from lampe_gguf.errors import LampeError, UsageError
from lampe_gguf.readings import limit, store
from lampe_gguf.readings.keeping import Readings
from lampe_gguf.readings.store import Reading, Store

Tiny = Callable[..., Path]


def facts(**changes: Any) -> dict[str, Any]:
    return {"key": {"a": 1}, "tokens": 3, "documents": ("a",), "model": "m", "seconds": 1.0,
            **changes}


def add(kept: Store, data: bytes = b"state", **changes: Any) -> Reading:
    return kept.add(lambda path: path.write_bytes(data) and None, **facts(**changes))


def test_an_entry_comes_back_as_it_was_and_is_private(tmp_path: Path) -> None:
    kept = Store(tmp_path / "a" / "readings")
    assert kept.entries() == []
    one = add(kept, documents=("a", "b\udcff"))
    [found] = kept.entries()
    assert {**vars(found), "used": 0} == {**vars(one), "used": 0}
    assert abs(found.used - time.time()) < 60
    assert stat.S_IMODE(os.stat(kept.folder).st_mode) == 0o700
    assert [stat.S_IMODE(path.stat().st_mode) for path in kept.folder.iterdir()] == [0o600] * 2
    os.chmod(kept.folder, 0o755)
    add(kept)
    assert stat.S_IMODE(os.stat(kept.folder).st_mode) == 0o700


def test_those_used_longest_ago_make_room(tmp_path: Path) -> None:
    kept = Store(tmp_path / "r")
    ids = []
    for number in range(4):
        entry = add(kept, b"x" * 10)
        ids.append(entry.id)
        os.utime(kept.folder / f"{entry.id}.json", (number, number))
    kept.make_room(10, 40)
    assert [each.id for each in kept.entries()] == ids[:0:-1]
    kept.touch(next(each for each in kept.entries() if each.id == ids[1]))
    kept.make_room(20, 40)
    assert {each.id for each in kept.entries()} == {ids[1], ids[3]}
    kept.make_room(50, 40)
    assert kept.entries() == [] and list(kept.folder.iterdir()) == []


@pytest.mark.parametrize("change", [
    lambda data: data[:-1], lambda data: b"", lambda data: b"[]", lambda data: b"{}",
    lambda data: data.replace(b'"tokens": 3', b'"tokens": 4'), lambda data: b"\xff" + data,
    lambda data: data.replace(b'"format": 1', b'"format": 2'), lambda data: b"[" * 10**5,
])
def test_facts_that_were_changed_are_no_entry(
    tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    kept = Store(tmp_path / "r")
    path = kept.folder / f"{add(kept).id}.json"
    path.write_bytes(change(path.read_bytes()))
    assert kept.entries() == []
    kept.clean()
    assert list(kept.folder.iterdir()) == []


def test_facts_of_another_entry_are_no_entry(tmp_path: Path) -> None:
    kept = Store(tmp_path / "r")
    one, two = add(kept, b"one"), add(kept, b"two")
    os.replace(kept.folder / f"{one.id}.json", kept.folder / f"{two.id}.json")
    assert kept.entries() == []


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    kept = Store(tmp_path / "r")
    add(kept)
    for name in ("notes.json", "x.state", "README"):
        (kept.folder / name).write_text("mine")
    alone = kept.folder / "01234567.state"
    alone.write_text("between its two names, it may be")
    kept.clean()
    assert alone.exists()
    os.utime(alone, (1, 1))
    kept.clean()
    assert not alone.exists() and (kept.folder / "notes.json").exists()
    assert len(list(kept.folder.iterdir())) == 5


@pytest.mark.parametrize("text, size", [
    ("10G", 10**10), ("500 MB", 5 * 10**8), ("0", 0), ("1.5k", 1500), (" 2t ", 2 * 10**12),
])
def test_sizes_are_read(text: str, size: int) -> None:
    assert limit.parse_size(text) == size


def test_what_is_no_size_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("", "G", "10X", "-1", "1e3", "10 GiB"):
        with pytest.raises(UsageError, match="give one as 10G"):
            limit.parse_size(text)
    monkeypatch.setenv(limit.MOST, "lots")
    with pytest.raises(UsageError, match=r"\$LAMPE_GGUF_READINGS_MAX: 'lots' is no size"):
        Readings()
    monkeypatch.setenv(limit.MOST, "")
    monkeypatch.setenv(limit.FOLDER, "/somewhere")
    assert (Readings().max_bytes, Readings().folder) == (10**10, Path("/somewhere/readings"))


@pytest.fixture
def kept(tmp_path: Path) -> Readings:
    return Readings(tmp_path / "kept", 10**9, least=16)


def read(tiny: Tiny, kept: Readings) -> tuple[LampeLlama, Path, list[str]]:
    """A model that has read, the file that this was kept in, and what is said from here on."""
    llm = LampeLlama(tiny(), n_ctx=512)
    llm.eval(TOKENS)
    entry = kept.keep(llm, ["a text"])
    assert entry is not None and kept.entries()[0].id == entry.id
    said: list[str] = []
    kept.on_note = said.append
    return llm, kept.store.path(entry), said


@pytest.mark.parametrize("place", [0, 4, 8, 13, 1500, 5000, -1])
def test_a_changed_byte_is_found_wherever_it_is(tiny: Tiny, kept: Readings, place: int) -> None:
    llm, path, said = read(tiny, kept)
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    other = LampeLlama(llm.model_path, n_ctx=512)
    assert kept.load(other, [*TOKENS, *NEXT]) == 0 and other.n_tokens == 0
    if not 0 <= place < 12 + 4 * len(TOKENS):  # there, it is no state of these tokens at all
        assert len(said) == 1 and "is damaged; it is removed and read anew" in said[0]
        assert kept.entries() == []
    other.eval(TOKENS)
    assert kept.keep(other) is not None
    assert kept.load(LampeLlama(llm.model_path, n_ctx=512), TOKENS) == len(TOKENS)


@pytest.mark.parametrize("size", [0, 11, 12, 100, 10**5, -1])
def test_a_truncated_state_is_never_loaded(tiny: Tiny, kept: Readings, size: int) -> None:
    llm, path, said = read(tiny, kept)
    data = path.read_bytes()
    path.write_bytes(data[:size])
    assert kept.load(LampeLlama(llm.model_path, n_ctx=512), [*TOKENS, *NEXT]) == 0
    path.write_bytes(data + b"\0")
    assert kept.load(LampeLlama(llm.model_path, n_ctx=512), [*TOKENS, *NEXT]) == 0
    assert all("read anew" in each for each in said)


def test_it_goes_on_with_the_next_best_where_one_is_damaged(tiny: Tiny, kept: Readings) -> None:
    llm, path, _ = read(tiny, kept)
    llm.eval(NEXT)
    longer = kept.keep(llm)
    assert longer is not None
    with open(kept.store.path(longer), "r+b") as file:
        file.seek(-100, 2)
        file.write(b"?" * 50)
    other = LampeLlama(llm.model_path, n_ctx=512)
    assert kept.load(other, [*TOKENS, *NEXT]) == len(TOKENS)


def test_more_than_the_bound_is_not_kept(tiny: Tiny, kept: Readings) -> None:
    llm, path, said = read(tiny, kept)
    kept.max_bytes = path.stat().st_size - 100
    assert kept.keep(llm) is None
    assert len(said) == 1 and "--readings-max" in said[0]
    kept.max_bytes = path.stat().st_size + 100
    second = kept.keep(llm)
    assert [each.id for each in kept.entries()] == [second and second.id]


def refuse(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("where", ["the check", "the facts", "the rename", "the sync"])
def test_a_full_disk_loses_the_entry_alone(
    tiny: Tiny, kept: Readings, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    llm, path, said = read(tiny, kept)
    before = sorted(os.listdir(path.parent))
    if where == "the check":
        monkeypatch.setattr(store.shutil, "disk_usage",
                            lambda path: type("Usage", (), {"free": store.SPARE})())
    elif where == "the facts":
        monkeypatch.setattr(store, "write_all", refuse)
    elif where == "the rename":
        monkeypatch.setattr(os, "replace", refuse)
    else:
        monkeypatch.setattr(os, "fsync", refuse)
    assert kept.keep(llm) is None
    assert said == [f"what was read is not kept: the disk is full; the folder is {kept.folder} "
                    "($LAMPE_GGUF_CACHE names another)"]
    assert sorted(os.listdir(path.parent)) == before
    llm.eval(NEXT)


# a process of its own, that reads with a model and keeps it: argv is model and folder
KEEPING = f"""
import os, resource, signal, sys
from pathlib import Path
from lampe_gguf.backend.llama import LampeLlama
from lampe_gguf.readings import keeping, state, store
llm = LampeLlama(sys.argv[1], n_ctx=512)
llm.eval({TOKENS})
kept = keeping.Readings(Path(sys.argv[2]), 10**9, least=16, on_note=print)
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
%s
print("kept" if kept.keep(llm, ["a text"]) else "lost")
"""


def keeping(path: Path, folder: Path, change: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", KEEPING % change, str(path), str(folder)],
                          capture_output=True, text=True, timeout=120)


KILLS = {
    "while the state is written": "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n"
                                  "signal.signal(signal.SIGXFSZ, signal.SIG_DFL)",
    "before the checksum": "store.checksum = die",
    "before the facts": "store.write_all = die",
    "before the first name": "os.replace = die",
    "between the names": """
before, names = os.replace, []
def replace(a, b):
    before(a, b)
    names.append(b)
    if len(names) == 1:
        die()
os.replace = replace""",
}


@pytest.mark.parametrize("moment", KILLS)
def test_a_kill_leaves_nothing_that_is_believed(
    tiny: Tiny, kept: Readings, moment: str
) -> None:
    path = tiny()
    assert kept.folder is not None
    done = keeping(path, kept.folder, KILLS[moment])
    signals = (-signal.SIGKILL, -signal.SIGXFSZ)
    assert done.returncode in signals, (done.stdout, done.stderr[-500:])
    assert len(list(kept.folder.iterdir())) >= 1  # it was in the midst of it
    llm = LampeLlama(path, n_ctx=512)
    whole = kept.load(llm, TOKENS)
    llm.reset()
    llm.eval(TOKENS)
    assert kept.keep(llm, ["a text"]) is not None
    left = sorted(each.name for each in kept.folder.iterdir())
    # what was getting its names is finished by the next, which knows that both files are whole
    is_finished = "name" in moment
    n_entries = 2 if is_finished else 1
    assert len(left) == 2 * n_entries and not any(name.startswith(".") for name in left)
    assert whole == is_finished * len(TOKENS) and len(kept.entries()) == n_entries
    for entry in kept.entries():
        with kept.store.opened(entry) as fd:
            assert fd is not None and kept.store.is_whole(entry, fd)


def test_a_file_that_may_not_grow_loses_the_entry_alone(tiny: Tiny, kept: Readings) -> None:
    path = tiny()
    assert kept.folder is not None
    done = keeping(path, kept.folder,
                   "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))")
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.startswith("what was read is not kept: the disk took only 6")
    assert done.stdout.endswith("lost\n") and list(kept.folder.iterdir()) == []


def test_two_at_once(tiny: Tiny, kept: Readings) -> None:
    path = tiny()
    assert kept.folder is not None
    both = [subprocess.Popen([sys.executable, "-c", KEEPING % "", str(path), str(kept.folder)],
                             stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [each.communicate(timeout=120)[0] for each in both] == ["kept\n", "kept\n"]
    llm = LampeLlama(path, n_ctx=512)
    assert kept.load(llm, TOKENS) == len(TOKENS)
    for entry in kept.entries():
        with kept.store.opened(entry) as fd:
            assert fd is not None and kept.store.is_whole(entry, fd)


def test_what_is_removed_while_it_is_loaded_is_loaded(
    tiny: Tiny, kept: Readings, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm, path, said = read(tiny, kept)

    def remove(done: int, total: int) -> None:
        kept.store.remove(entry)

    [entry] = kept.entries()
    kept.on_progress = remove
    other = LampeLlama(llm.model_path, n_ctx=512)
    expected = len(TOKENS) if sys.platform == "linux" else 0
    assert kept.load(other, TOKENS) == expected and kept.entries() == []


def test_the_state_is_what_the_server_restores(tiny: Tiny, kept: Readings) -> None:
    """The file as llama_state_seq_save_file has it: magic, version, tokens."""
    _, path, _ = read(tiny, kept)
    data = path.read_bytes()
    head = [int.from_bytes(data[at : at + 4], "little") for at in (0, 4, 8)]
    assert head == [0x67677371, 3, len(TOKENS)]
    assert [int.from_bytes(data[12 + 4 * i : 16 + 4 * i], "little")
            for i in range(len(TOKENS))] == TOKENS
    assert json.loads(path.with_suffix(".json").read_text())["facts"]["documents"] == ["a text"]
    assert tiny_config().effective() == kept.entries()[0].key["lampe"]


@pytest.mark.skipif(os.name != "posix", reason="pipes of Unix")
def test_what_is_no_file_is_no_entry(tiny: Tiny, kept: Readings) -> None:
    llm, path, said = read(tiny, kept)
    facts_path = path.with_suffix(".json")
    facts_path.unlink()
    os.mkfifo(facts_path)
    with time_limit(10):  # who opens it waits for its other end
        assert kept.entries() == []
    assert kept.load(LampeLlama(llm.model_path, n_ctx=512), TOKENS) == 0
    assert not facts_path.exists()
    for make in (os.mkdir, os.mkfifo):
        assert kept.remove("all") == [] and (entry := kept.keep(llm)) is not None
        path = kept.store.path(entry)
        path.unlink()
        make(path)
        assert kept.load(LampeLlama(llm.model_path, n_ctx=512), TOKENS) == 0
        assert kept.entries() == []
    assert said == []


def test_a_state_without_its_tokens_is_removed(tiny: Tiny, kept: Readings) -> None:
    llm, path, said = read(tiny, kept)
    path.write_bytes(path.read_bytes()[:100])
    assert kept.load(LampeLlama(llm.model_path, n_ctx=512), TOKENS) == 0
    assert kept.entries() == [] and not path.exists()
    assert len(said) == 1 and "is damaged; it is removed and read anew" in said[0]


def test_a_folder_that_cannot_be_read_is_not_an_empty_one(tiny: Tiny, tmp_path: Path) -> None:
    place = tmp_path / "kept"
    place.write_text("a file")
    said: list[str] = []
    kept = Readings(place, 10**9, least=16, on_note=said.append)
    for look in (kept.entries, lambda: kept.remove("all")):
        with pytest.raises(LampeError, match=r"cannot list .*: Not a directory; .*_CACHE"):
            look()
    llm = LampeLlama(tiny(), n_ctx=512)
    assert kept.load(llm, TOKENS) == 0
    llm.eval(TOKENS)
    assert kept.keep(llm) is None
    assert said == [f"what was read is not kept: Not a directory; the folder is {place} "
                    "($LAMPE_GGUF_CACHE names another)"]


def test_another_users_folder(tiny: Tiny, kept: Readings, monkeypatch: pytest.MonkeyPatch) -> None:
    llm, _, said = read(tiny, kept)
    monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
    assert kept.load(LampeLlama(llm.model_path, n_ctx=512), TOKENS) == 0
    with pytest.raises(LampeError, match="it belongs to another user; give another folder"):
        kept.entries()
    assert kept.keep(llm) is None and "it belongs to another user" in said[0]


def test_one_that_stays_keeps_no_other_from_being_removed(
    tiny: Tiny, kept: Readings, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm, _, _ = read(tiny, kept)
    kept.keep(llm)
    stays = kept.store.path(kept.entries()[0])  # the one that is tried first

    def refuse(path: Path) -> None:
        if path == stays:
            raise PermissionError(errno.EACCES, "Permission denied")
        os.remove(path)

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(LampeError, match=f"cannot remove {stays}: Permission denied"):
        kept.remove("all")
    assert [entry.id for entry in kept.entries()] == [stays.stem]
