"""convert and strip, on tiny models and on the real one, checked with the gguf package's reader."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from lampe_gguf.container import copying
from lampe_gguf.convert import convert_gguf as convert
from lampe_gguf.errors import FieldError, LampeError, UsageError
from lampe_gguf.model.architectures import QUALIFYING, REASONS, qualifies
from lampe_gguf.model.presets import PRESETS
from lampe_gguf.strip import strip_gguf as strip

PREFIX = "llama.rope.scaling.lampe."


@pytest.fixture
def plain(tiny: Callable[..., Path]) -> Path:
    return tiny("plain.gguf", lampe=None)


def contents(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Metadata values and SHA-256 of each tensor, read by the gguf package."""
    reader = gguf.GGUFReader(str(path))
    values = {
        name: field.contents() for name, field in reader.fields.items()
        if not name.startswith("GGUF.")
    }
    sums = {t.name: hashlib.sha256(np.ascontiguousarray(t.data).tobytes()).hexdigest()
            for t in reader.tensors}
    return values, sums


def assert_converted(source: Path, target: Path) -> dict[str, Any]:
    before, sums = contents(source)
    after, new_sums = contents(target)
    assert new_sums == sums
    assert {k: v for k, v in after.items() if not k.startswith(PREFIX)} == before
    return {k[len(PREFIX):]: v for k, v in after.items() if k.startswith(PREFIX)}


def test_everything_else_is_carried_over(plain: Path) -> None:
    done = convert(plain, local_window=5)
    assert done.outputs == [plain.with_name("plain.lampe.gguf")]
    found = assert_converted(plain, done.outputs[0])
    assert found["local_window"] == 5 and found["window"] == 32 and found["version"] == 1
    assert found["max_mapping_length"] == 16.0 and found["length_policy"] == "causal"
    assert "set by hand: local_window=5" in found["provenance"]


def test_the_real_model(smollm2_path: Path, tmp_path: Path) -> None:
    done = convert(smollm2_path, tmp_path / "out.gguf")
    found = assert_converted(smollm2_path, tmp_path / "out.gguf")
    assert found["provenance"].startswith("preset smollm2-135m")
    assert (found["window"], found["context_length"]) == (8192, 32768)
    assert not done.replaced
    strip(tmp_path / "out.gguf", tmp_path / "back.gguf")
    assert (tmp_path / "back.gguf").read_bytes() == smollm2_path.read_bytes()


def test_converting_twice_replaces(plain: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one.gguf", tmp_path / "two.gguf"
    convert(plain, one, local_window=5)
    assert convert(one, two, local_window=6).replaced
    assert assert_converted(plain, two)["local_window"] == 6
    strip(two, tmp_path / "back.gguf")
    assert (tmp_path / "back.gguf").read_bytes() == plain.read_bytes()


def test_existing_output_needs_force_and_input_may_be_output(plain: Path) -> None:
    original = plain.read_bytes()
    with pytest.raises(UsageError, match="--force"):
        convert(plain, plain)
    assert plain.read_bytes() == original
    keep = plain.with_name("keep.gguf")
    shutil.copy(plain, keep)
    convert(plain, plain, force=True)
    assert_converted(keep, plain)


def split(plain: Path, folder: Path) -> list[Path]:
    """The model as three parts, as llama.cpp's splitter names and marks them."""
    reader = gguf.GGUFReader(str(plain))
    paths = []
    for number in range(3):
        path = folder / f"model-{number + 1:05d}-of-00003.gguf"
        writer = gguf.GGUFWriter(str(path), "llama")
        if number == 0:
            for name, field in reader.fields.items():
                if name.startswith("GGUF.") or name == "general.architecture":
                    continue
                kind = field.types[0]
                sub = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
                writer.add_key_value(name, field.contents(), kind, sub)
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", 3)
        writer.add_int32("split.tensors.count", len(reader.tensors))
        for tensor in reader.tensors[number::3]:
            writer.add_tensor(tensor.name, tensor.data)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        paths.append(path)
    return paths


def test_split_models(plain: Path, tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    parts = split(plain, folder)
    done = convert(parts[0])
    assert [p.name for p in done.outputs] == [
        f"model.lampe-{n:05d}-of-00003.gguf" for n in (1, 2, 3)
    ]
    assert_converted(parts[0], done.outputs[0])
    for part, output in zip(parts[1:], done.outputs[1:], strict=True):
        assert output.read_bytes() == part.read_bytes()
        assert os.path.samefile(part, output)  # a link costs no room
    with pytest.raises(UsageError, match="first part"):
        convert(parts[1])
    parts[2].unlink()
    with pytest.raises(LampeError, match="missing"):
        convert(parts[0], folder / "again.gguf")
    assert not list(folder.glob("again*"))


def leftovers(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("cut", [0, 3, 7, 20, 400, 2000, -1, -5000])
def test_truncated_files_leave_nothing_behind(plain: Path, cut: int) -> None:
    data = plain.read_bytes()
    plain.write_bytes(data[:cut])
    before = leftovers(plain.parent)
    with pytest.raises(LampeError, match="cut short|empty|not a GGUF"):
        convert(plain)
    assert leftovers(plain.parent) == before


@pytest.mark.parametrize("data, message", [
    (b"PK\x03\x04 a zip file", "not a GGUF"),
    (b"GGUF\x00\x00\x00\x03" + bytes(40), "big-endian"),
    (b"GGUF\x01\x00\x00\x00" + bytes(40), "version 1"),
    (b"GGUF\x03\x00\x00\x00" + b"\xff" * 40, "claims"),
    (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
])
def test_files_that_are_no_model(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(data)
    with pytest.raises(LampeError, match=message):
        convert(path)
    assert leftovers(tmp_path) == {"x.gguf"}


def test_random_damage_never_escapes_as_another_error(plain: Path) -> None:
    data = bytearray(plain.read_bytes())
    rng = np.random.default_rng(5)
    out = plain.with_name("out.gguf")
    for _ in range(150):
        damaged = data.copy()
        for at in rng.integers(0, 9000, 4):
            damaged[at] = rng.integers(256)
        plain.write_bytes(damaged)
        try:
            convert(plain, out, force=True)
        except LampeError:
            pass
    assert leftovers(plain.parent) <= {"plain.gguf", "out.gguf"}


def test_full_disk_leaves_nothing_behind(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(copying.os, "copy_file_range", full)
    with pytest.raises(LampeError, match="disk is full"):
        convert(plain)
    assert leftovers(plain.parent) == {"plain.gguf"}


def test_interruption_leaves_nothing_behind(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(copying.os, "copy_file_range", stop)
    with pytest.raises(KeyboardInterrupt):
        convert(plain)
    assert leftovers(plain.parent) == {"plain.gguf"}


def test_without_the_kernels_help(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(*_: Any) -> int:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(copying.os, "copy_file_range", cannot)
    assert_converted(plain, convert(plain).outputs[0])


def test_bad_values_are_refused(plain: Path) -> None:
    with pytest.raises(FieldError, match="tail_window is 1; it must be 0"):
        convert(plain, local_window=31)
    with pytest.raises(UsageError, match="preset"):
        convert(plain, preset="llama3")
    with pytest.raises(UsageError, match="no preset"):
        convert(plain, preset="nonsense")
    assert leftovers(plain.parent) == {"plain.gguf"}


def test_published_preset_by_name_and_window(tiny: Callable[..., Path]) -> None:
    path = tiny("l2.gguf", lampe=None, window=4096, name="Llama 2 7B Chat", n_vocab=32000)
    assert convert(path).config == PRESETS["llama2"]


@pytest.mark.parametrize("arch", sorted(REASONS))
def test_architectures_that_do_not_qualify(tmp_path: Path, arch: str) -> None:
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(str(path), arch)
    writer.add_uint32(f"{arch}.context_length", 4096)
    writer.add_tensor("t", np.zeros(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(LampeError, match=f"cannot extend a {arch} model: "):
        convert(path)


def test_qualifying_depends_on_the_file_too() -> None:
    assert "llama" in QUALIFYING and qualifies("llama", {}) is None
    assert "M-RoPE" in str(qualifies("glm4", {"glm4.rope.dimension_sections": [8, 12, 12, 0]}))
    assert "sliding" in str(qualifies("phi3", {
        "phi3.attention.sliding_window": 2047, "phi3.context_length": 4096}))
    assert "ALiBi" in str(qualifies("baichuan", {"baichuan.block_count": 40}))
    assert "odd" in str(qualifies("llama", {"llama.rope.dimension_count": 33}))
    assert "unknown" in str(qualifies("brandnew", {}))


def test_a_converted_file_is_its_own_target(tiny: Callable[..., Path]) -> None:
    path = convert(tiny("m.gguf", lampe=None)).outputs[0]
    with pytest.raises(UsageError, match="exists already"):
        convert(path)
    again = convert(path, force=True, local_window=9)
    assert again.outputs == (path,) or again.outputs == [path]
    assert again.replaced and list(path.parent.glob("*.lampe.lampe.gguf")) == []
