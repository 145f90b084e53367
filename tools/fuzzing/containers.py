"""Mutated containers through convert and strip, with the gguf package's reader as the judge.

A file that is in order is converted; whatever else it is, nothing but a LampeError comes out, and
no file is left behind. What comes out is read by the official reader wherever the input is, with
the same values and tensors, is not much larger, and strip gives the input back to the byte.
"""

from __future__ import annotations

import hashlib
import random
import struct
import traceback
import warnings
from pathlib import Path
from typing import Any

from .parts import ARRAY, NUMBERS, SCALARS, STRING, Pair, Parts, Tensor, text, value

ARCHES = (b"llama", b"qwen2", b"phi3", b"gemma3", b"granite_swa", b"baichuan")
FIELDS = (b"context_length", b"block_count", b"rope.dimension_count", b"attention.causal",
          b"attention.sliding_window", b"rope.dimension_sections", b"rope.scaling.finetuned",
          b"attention.temperature_scale", b"vocab_size", b"rope.scaling.lampe.window",
          b"rope.scaling.lampe.padding")
GROWTH = 1 << 16  # bytes that metadata and padding may add


def whole_file(rng: random.Random) -> Parts:
    """A model in order: convert has to take it."""
    arch = rng.choice(ARCHES[:2])
    window = struct.pack("<I", rng.choice((512, 2048, 4096, 8192, 131072)))
    pairs = [Pair(b"general.architecture", STRING, text(arch)),
             Pair(arch + b".context_length", 4, window)]
    for number in range(rng.randrange(6)):
        kind = rng.choice((*SCALARS, STRING, ARRAY))
        pairs.append(Pair(b"vendor.key.%d" % number, kind, value(rng, kind)))
    n_tensors = rng.randrange(4)
    alignments = (None, 8, 32, 64, 4096) if n_tensors else (None, 32, 1 << 20, 1 << 28, 1 << 31)
    alignment = rng.choice(alignments)
    if alignment is not None:
        pairs.append(Pair(b"general.alignment", 4, struct.pack("<I", alignment)))
    rng.shuffle(pairs)
    if not n_tensors:
        return Parts(pairs, [], bytes(rng.choice((0, 1, 31))), rng.choice((2, 3)), 1)
    step, data, tensors = alignment or 32, b"", []
    for number in range(n_tensors):
        count = rng.choice((1, 4, 32, 100))
        tensors.append(Tensor(b"blk.%d.weight" % number, (count,), 0, len(data)))
        data += rng.randbytes(4 * count)
        data += bytes(-len(data) % step)
    return Parts(pairs, tensors, data, rng.choice((2, 3)), step)


def damage(parts: Parts, rng: random.Random) -> bytes:
    """The bytes of a file with something wrong in its structure, in its bytes, or in both."""
    for _ in range(rng.choice((0, 1, 1, 2))):
        rng.choice(_STRUCTURE)(parts, rng)
    data = bytearray(parts.encode())
    for _ in range(rng.choice((0, 0, 1, 1, 3))):
        rng.choice(_BYTES)(data, rng)
    return bytes(data)


def _another_value(parts: Parts, rng: random.Random) -> None:
    if parts.pairs:
        pair = rng.choice(parts.pairs)
        pair.kind = rng.choice((*SCALARS, STRING, ARRAY, pair.kind, pair.kind))
        pair.data = value(rng, pair.kind)


def _another_type(parts: Parts, rng: random.Random) -> None:
    if parts.pairs:
        rng.choice(parts.pairs).kind = rng.choice((*range(14), 1 << 31))


def _known_key(parts: Parts, rng: random.Random) -> None:
    kind = rng.choice((*SCALARS, STRING, STRING, ARRAY, ARRAY))
    own = [pair.data[8:] for pair in parts.pairs if pair.key == b"general.architecture"]
    fields = [rng.choice((*ARCHES, *own, *own)) + b"." + name for name in FIELDS]
    key = rng.choice((b"general.alignment", b"general.name", b"general.type", b"split.count",
                      b"split.no", *fields))
    parts.pairs.insert(rng.randrange(len(parts.pairs) + 1), Pair(key, kind, value(rng, kind)))


def _another_key(parts: Parts, rng: random.Random) -> None:
    if parts.pairs:
        keys = (b"", b"\xff\x80", b"k" * 65535, b"k" * 65536, rng.choice(parts.pairs).key)
        rng.choice(parts.pairs).key = rng.choice(keys)


def _another_architecture(parts: Parts, rng: random.Random) -> None:
    for pair in parts.pairs:
        if pair.key == b"general.architecture":
            pair.data = text(rng.choice((*ARCHES, b"bert", b"unknown", b"l" * 70_000)))


def _deep_array(parts: Parts, rng: random.Random) -> None:
    inner = struct.pack("<IQ", 4, 0)
    parts.pairs.append(Pair(b"vendor.deep", ARRAY, struct.pack("<IQ", ARRAY, 1) + inner))


def _counts(parts: Parts, rng: random.Random) -> None:
    off = rng.choice((-1, 1, rng.choice(NUMBERS)))
    if rng.random() < 0.5:
        parts.more_pairs = off
    else:
        parts.more_tensors = off


def _version(parts: Parts, rng: random.Random) -> None:
    parts.version = rng.choice((0, 1, 4, 0x03000000, 0xFFFFFFFF))


def _tensor(parts: Parts, rng: random.Random) -> None:
    if not parts.tensors:
        return
    tensor = rng.choice(parts.tensors)
    what = rng.randrange(4)
    if what == 0:
        tensor.name = rng.choice((b"", b"t" * 63, b"t" * 64, b"\xff", parts.tensors[0].name))
    elif what == 1:
        tensor.shape = tuple(rng.choice(NUMBERS) for _ in range(rng.randrange(6)))
    elif what == 2:
        tensor.kind = rng.choice((*range(45), *NUMBERS[-9:-4])) % (1 << 32)
    else:
        tensor.offset = rng.choice(NUMBERS)


def _no_tensors(parts: Parts, rng: random.Random) -> None:
    parts.tensors, parts.data = [], bytes(rng.choice((0, 1, 100)))


_STRUCTURE = (_another_value, _another_type, _known_key, _known_key, _another_key,
              _another_architecture, _deep_array, _counts, _version, _tensor, _no_tensors)


def _flip(data: bytearray, rng: random.Random) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.getrandbits(8)))


def _cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _move(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data) + 1)
    if rng.random() < 0.5:
        data[at:at] = rng.randbytes(rng.choice((1, 8, 100)))
    else:
        del data[at : at + rng.choice((1, 8, 100))]


def _number(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data) + 1)
    data[at : at + 8] = struct.pack("<Q", rng.choice(NUMBERS))


_BYTES = (_flip, _flip, _flip, _cut, _move, _number)


class Containers:
    """`taken` of the `tried` inputs were converted, and `compared` with the official reader."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found = folder
        self.tried = self.taken = self.compared = 0

    def try_one(self, rng: random.Random) -> str | None:
        for path in self.folder.iterdir():
            path.unlink()
        self.tried += 1
        parts = whole_file(rng)
        whole = rng.random() < 0.2
        source = self.folder / "in.gguf"
        source.write_bytes(parts.encode() if whole else damage(parts, rng))
        wrong = self._try(source, whole)
        left = {path.name for path in self.folder.iterdir()} - {"in.gguf", "out.gguf", "back.gguf"}
        return wrong or (f"left behind: {left}" if left else None)

    def _try(self, source: Path, whole: bool) -> str | None:
        from lampe_gguf.convert import convert_gguf as convert
        from lampe_gguf.errors import LampeError
        from lampe_gguf.inspect import as_text
        from lampe_gguf.inspect import inspect_gguf as inspect
        from lampe_gguf.strip import strip_gguf as strip

        out, back = self.folder / "out.gguf", self.folder / "back.gguf"
        carries = b".rope.scaling.lampe." in source.read_bytes()
        try:
            convert(source, out)
        except LampeError as error:
            if out.exists():
                return f"refused ({error}), and an output is there"
            return f"refused, and in order: {error}" if whole else self._inspect(source)
        except Exception:
            return f"convert: {traceback.format_exc()}"
        self.taken += 1
        size = source.stat().st_size
        if out.stat().st_size > 2 * size + GROWTH:
            return f"{size} bytes became {out.stat().st_size}"
        try:
            as_text(inspect(out))
            strip(out, back)
        except Exception:
            return f"inspect or strip of what convert wrote: {traceback.format_exc()}"
        if not carries and back.read_bytes() != plainly_padded(source):
            return "strip does not give the input back"
        before = official(source)
        if before is None:
            return None
        self.compared += 1
        after = official(out)
        if after is None:
            return "the official reader takes the input, and not the output"
        return None if after == before else f"{before} became {after}"

    def _inspect(self, source: Path) -> str | None:
        from lampe_gguf.errors import LampeError
        from lampe_gguf.inspect import as_text
        from lampe_gguf.inspect import inspect_gguf as inspect

        try:
            as_text(inspect(source))
        except LampeError:
            pass
        except Exception:
            return f"inspect: {traceback.format_exc()}"
        return None

    def close(self) -> None:
        pass


def plainly_padded(path: Path) -> bytes:
    """The bytes of a file with zeros before the data, where no reader looks."""
    from lampe_gguf.container.reader import GGUFFile

    data = path.read_bytes()
    with GGUFFile(path) as file:
        if not file.tensors:
            return data
        padding = bytes(file.data_offset - file.tensors_end)
        return data[: file.tensors_end] + padding + data[file.data_offset :]


def official(path: Path) -> dict[str, Any] | None:
    """Values but LaMPE's, and a digest of each tensor, by the gguf package; None: it refuses."""
    import gguf

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of shapes that overflow
            reader = gguf.GGUFReader(str(path))
            found: dict[str, Any] = {
                name: (field.types, repr(field.contents()))
                for name, field in reader.fields.items()
                if ".rope.scaling.lampe." not in name and name != "GGUF.kv_count"
            }
            for tensor in reader.tensors:
                digest = hashlib.sha256(tensor.data.tobytes()).hexdigest()
                found[f"tensor {tensor.name}"] = (tensor.tensor_type, list(tensor.shape), digest)
    except Exception:
        return None
    return found
