"""The streamed container: spans, kernel copies that stop short, files of either version."""

from __future__ import annotations

import errno
import os
import re
import struct
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest

from lampe_gguf.container import copying
from lampe_gguf.container import reader as gguf_file
from lampe_gguf.container.reader import GGUFFile
from lampe_gguf.convert import convert_gguf as convert
from lampe_gguf.errors import LampeError
from lampe_gguf.inspect import inspect_gguf as inspect
from lampe_gguf.model.architectures import QUALIFYING, REASONS, qualifies
from lampe_gguf.strip import strip_gguf as strip


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def pair(key: str, value: str | int) -> bytes:
    if isinstance(value, str):
        return string(key) + struct.pack("<I", 8) + string(value)
    return string(key) + struct.pack("<II", 4, value)


def by_hand(*pairs: bytes, version: int = 3, alignment: int = 32) -> bytes:
    """A file with one tensor of four floats, put together from the format's description."""
    head = b"GGUF" + struct.pack("<IQQ", version, 1, len(pairs)) + b"".join(pairs)
    head += string("t") + struct.pack("<IQIQ", 1, 4, 0, 0)
    return head + bytes(-len(head) % alignment) + struct.pack("<4f", 1, 2, 3, 4)


LLAMA = (pair("general.architecture", "llama"), pair("llama.context_length", 4096))


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("alignment", [32, 64, 4096])
def test_versions_and_alignments(tmp_path: Path, version: int, alignment: int) -> None:
    source, target, back = (tmp_path / name for name in ("a.gguf", "b.gguf", "c.gguf"))
    pairs = (*LLAMA, pair("general.alignment", alignment))
    source.write_bytes(by_hand(*pairs, version=version, alignment=alignment))
    convert(source, target)
    reader = gguf.GGUFReader(str(target))
    assert reader.fields["GGUF.version"].contents() == version
    assert reader.data_offset % alignment == 0
    assert reader.tensors[0].data.tolist() == [1, 2, 3, 4]
    strip(target, back)
    assert back.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("pairs, message", [
    ((*LLAMA, pair("llama.context_length", 8192)), "llama.context_length twice"),
    ((*LLAMA, pair("general.alignment", 48)), "not a power of two"),
    ((*LLAMA, string("x") + struct.pack("<I", 99)), "unknown type 99"),
    ((*LLAMA, string("x") + struct.pack("<IQ", 8, 1 << 62)), "bytes where"),
    ((*LLAMA, string("x") + struct.pack("<IIQ", 9, 8, 1 << 62)), "bytes where"),
    ((*LLAMA, string("x") + struct.pack("<IIQ", 9, 9, 1)), "array of arrays"),
    ((LLAMA[1],), "does not say its architecture"),
])
def test_hostile_headers(tmp_path: Path, pairs: tuple[bytes, ...], message: str) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(by_hand(*pairs))
    with pytest.raises(LampeError, match=message) as caught:
        convert(path)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["x.gguf"]


def test_missing_data_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(by_hand(*LLAMA)[:-1])
    with pytest.raises(LampeError, match="tensor t ends 16 bytes"):
        GGUFFile(path)


@pytest.mark.parametrize("code", [errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP])
@pytest.mark.parametrize("after", [0, 1])
def test_copies_that_the_kernel_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, after: int
) -> None:
    calls = 0

    def short(source: int, target: int, count: int, at: int, to: int) -> int:
        nonlocal calls
        calls += 1
        if calls > after:
            raise OSError(code, os.strerror(code))
        return os.pwrite(target, os.pread(source, min(count, 1000), at), to)

    monkeypatch.setattr(copying.os, "copy_file_range", short)
    assert copied(tmp_path) and calls == after + 1


def test_copies_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(source: int, target: int, count: int, at: int, to: int) -> int:
        return os.pwrite(target, os.pread(source, min(count, 7001), at), to)

    monkeypatch.setattr(copying.os, "copy_file_range", short)
    assert copied(tmp_path)


def test_writes_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.pwrite
    monkeypatch.setattr(copying.os, "pwrite", lambda fd, data, at: whole(fd, data[:3000], at))
    monkeypatch.delattr(copying.os, "copy_file_range", raising=False)
    assert copied(tmp_path)


def test_a_reserve_that_is_refused_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"")
    with open(tmp_path / "out", "rb") as closed_to_writing:
        copying.reserve(closed_to_writing.fileno(), 1000)
    assert (tmp_path / "out").stat().st_size == 0


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has fallocate")
def test_room_is_reserved_before_the_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    copy = copying.os.copy_file_range

    def look(source: int, target: int, *rest: int) -> int:
        sizes.append(os.fstat(target).st_size)
        return copy(source, target, *rest)

    monkeypatch.setattr(copying.os, "copy_file_range", look)
    (tmp_path / "a.gguf").write_bytes(by_hand(*LLAMA))
    convert(tmp_path / "a.gguf")
    assert set(sizes) == {(tmp_path / "a.lampe.gguf").stat().st_size}


def copied(folder: Path) -> bool:
    data = np.random.default_rng(1).bytes(100_003)
    (folder / "in").write_bytes(data)
    steps: list[int] = []
    with open(folder / "in", "rb") as source, open(folder / "out", "wb") as target:
        copying.copy_range(source.fileno(), 11, target.fileno(), 5, 100_003 - 11, steps.append)
    return (folder / "out").read_bytes() == bytes(5) + data[11:] and sum(steps) == 100_003 - 11


def test_a_source_that_shrinks_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"abc")
    with open(tmp_path / "in", "rb") as source, open(tmp_path / "out", "wb") as target:
        with pytest.raises(LampeError, match="became shorter"):
            copying.copy_range(source.fileno(), 0, target.fileno(), 0, 4)


def test_no_architecture_is_classified_twice() -> None:
    assert not QUALIFYING & set(REASONS)
    for reason in REASONS.values():
        assert re.match(r"(its|it|some) ", reason) and not reason.endswith(".")


def test_the_architectures_of_gguf_are_classified() -> None:
    # an independent list; a newer gguf may name a few that the pinned backend does not have
    names = set(gguf.MODEL_ARCH_NAMES.values())
    missing = names - QUALIFYING - set(REASONS)
    assert len(missing) < len(names) / 10, sorted(missing)


def test_granite_without_rope() -> None:
    key = "granite.rope.scaling.finetuned"
    assert qualifies("granite", {}) is None and qualifies("granite", {key: True}) is None
    assert qualifies("granite", {key: False}) == "it has no RoPE"


LONG = (1 << 20) + 1  # bytes: more than this program decodes of one value


def test_long_values_that_nobody_needs_are_carried_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.gguf"
    strings = string("vendor.words") + struct.pack("<IIQ", 9, 8, 4) + 4 * string("w" * LONG)
    path.write_bytes(by_hand(
        pair("tokenizer.huggingface.json", "j" * LONG), *LLAMA,
        pair("tokenizer.chat_template", "t" * LONG), strings,
        string("llama.blob") + struct.pack("<IIQ", 9, 0, LONG) + bytes(LONG),
        string("vendor.short") + struct.pack("<I", 8) + string("x"),
    ))
    asked = []
    decode = GGUFFile._decode
    monkeypatch.setattr(
        GGUFFile, "_decode", lambda file, pair: asked.append(pair.key) or decode(file, pair)
    )
    assert inspect(path).config == convert(path).config
    assert set(asked) == {"general.architecture", "llama.context_length"}
    strip(tmp_path / "a.lampe.gguf", tmp_path / "b.gguf")
    assert (tmp_path / "b.gguf").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("key, value", [
    ("general.architecture", string("llama" * LONG)),
    ("llama.rope.dimension_sections", struct.pack("<IQ", 0, LONG) + bytes(LONG)),
])
def test_a_limit_says_that_it_is_ours(tmp_path: Path, key: str, value: bytes) -> None:
    path = tmp_path / "a.gguf"
    kind = 8 if key.startswith("general") else 9
    others = [each for each in LLAMA if key.encode() not in each]
    path.write_bytes(by_hand(*others, string(key) + struct.pack("<I", kind) + value))
    with pytest.raises(LampeError, match=f"{key} in .* takes .* up to 1,048,576") as caught:
        convert(path)
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("value", [
    struct.pack("<I", 8) + string("n" * LONG),
    struct.pack("<IIQ", 9, 0, LONG) + bytes(LONG),
    struct.pack("<Id", 12, 1.0),
])
@pytest.mark.parametrize("key", ["general.name", "general.basename"])
def test_a_name_that_is_none_stops_nothing(tmp_path: Path, key: str, value: bytes) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(by_hand(*LLAMA, string(key) + value))
    assert inspect(path).model.name == ""
    strip(convert(path).outputs[0], tmp_path / "b.gguf")
    assert (tmp_path / "b.gguf").read_bytes() == path.read_bytes()


def test_more_entries_than_this_program_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(by_hand(*LLAMA))
    monkeypatch.setattr(gguf_file, "MAX_ENTRIES", 1)
    with pytest.raises(LampeError, match="has 2 metadata keys, .* up to 1; the file itself may"):
        convert(path)


def without_tensors(*pairs: bytes, rest: int = 0) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs)) + b"".join(pairs) + bytes(rest)


@pytest.mark.parametrize("alignment", [32, 1 << 13, 1 << 28, 1 << 31])
@pytest.mark.parametrize("rest", [0, 1, 5, 28, 5000])
def test_alignment_alone_makes_no_bytes(tmp_path: Path, alignment: int, rest: int) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(without_tensors(*LLAMA, pair("general.alignment", alignment), rest=rest))
    made = convert(path).outputs[0]
    assert made.stat().st_size < path.stat().st_size + 5000
    assert gguf.GGUFReader(str(made)).fields["llama.context_length"].contents() == 4096
    strip(made, tmp_path / "b.gguf")
    assert (tmp_path / "b.gguf").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("encoded, name", [
    (struct.pack("<IQ", 10, 32), "uint64"), (struct.pack("<Ii", 5, 32), "int32"),
    (struct.pack("<I", 8) + string("32"), "string"), (struct.pack("<IIQI", 9, 4, 1, 32), "array"),
    (struct.pack("<If", 6, 32), "float32"), (struct.pack("<I?", 7, True), "bool"),
])
def test_an_alignment_of_a_wrong_type(tmp_path: Path, encoded: bytes, name: str) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(by_hand(*LLAMA, string("general.alignment") + encoded))
    with pytest.raises(LampeError, match=f"general.alignment is of the type {name}, not uint32"):
        convert(path)
