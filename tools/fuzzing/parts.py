"""A GGUF file in parts that a fuzzer puts together wrongly: made by hand, by no writer's rules."""

from __future__ import annotations

import dataclasses
import random
import struct
from pathlib import Path

STRING, ARRAY = 8, 9
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<B",
           10: "<Q", 11: "<q", 12: "<d"}
NUMBERS = (0, 1, 2, 3, 7, 8, 31, 32, 33, 64, 255, 256, 4095, 4096, 65535, 65536, (1 << 20) + 1,
           (1 << 28), (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 62), (1 << 63) - 1,
           1 << 63, (1 << 64) - 1)
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-300, 1e-30, 1e30, 3e38, 1e300, float("inf"),
          float("-inf"), float("nan"))
TEXTS = (b"", b"llama", b"causal", b"prompt", b"lampe", b"selfextend", b"yarn", b"none",
         b"\x1b[2J\r\n\0x", b"\xff\xfe\x80", "naïve 你好".encode(), b"n" * 300, b"w" * 100_000)


def text(data: bytes) -> bytes:
    """A string as it stands in a file."""
    return struct.pack("<Q", len(data)) + data


def scalar(rng: random.Random, kind: int) -> bytes:
    """A value of a type, often one at the edge of it."""
    form = SCALARS[kind]
    size = struct.calcsize(form)
    if kind in (6, 12):
        number = rng.choice(FLOATS) if rng.random() < 0.7 else rng.uniform(-1e6, 1e6)
        return struct.pack(form, number if kind == 12 or abs(number) < 3.5e38 else float("inf"))
    number = rng.choice(NUMBERS) if rng.random() < 0.7 else rng.getrandbits(8 * size)
    return struct.pack("<Q", number % (1 << 64))[:size] if kind != 7 else bytes([number & 1])


def value(rng: random.Random, kind: int) -> bytes:
    """A value as it stands after its type."""
    if kind == STRING:
        return text(rng.choice(TEXTS))
    if kind != ARRAY:
        return scalar(rng, kind)
    element = rng.choice((*SCALARS, STRING))
    count = rng.choice((0, 1, 2, 3, 40, 1025))
    items = b"".join(value(rng, element) for _ in range(count if element != STRING else count % 7))
    if element == STRING:
        count %= 7
    return struct.pack("<IQ", element, count) + items


@dataclasses.dataclass
class Pair:
    """A key, the number of its type, and its value as it stands in a file."""

    key: bytes
    kind: int
    data: bytes

    def encode(self) -> bytes:
        return text(self.key) + struct.pack("<I", self.kind) + self.data


@dataclasses.dataclass
class Tensor:
    """An entry of the list of tensors; the offset counts from the start of the data."""

    name: bytes
    shape: tuple[int, ...]
    kind: int
    offset: int

    def encode(self) -> bytes:
        shape = struct.pack(f"<{len(self.shape)}Q", *self.shape)
        return (text(self.name) + struct.pack("<I", len(self.shape)) + shape
                + struct.pack("<IQ", self.kind, self.offset))


@dataclasses.dataclass
class Parts:
    """`data` is all that follows the list of tensors and its padding."""

    pairs: list[Pair]
    tensors: list[Tensor]
    data: bytes
    version: int = 3
    alignment: int = 32
    more_pairs: int = 0  # the counts in the file, off by so many
    more_tensors: int = 0

    def encode(self) -> bytes:
        counts = (len(self.tensors) + self.more_tensors, len(self.pairs) + self.more_pairs)
        head = b"GGUF" + struct.pack("<I", self.version)
        head += b"".join(struct.pack("<Q", count % (1 << 64)) for count in counts)
        head += b"".join([pair.encode() for pair in self.pairs])
        head += b"".join([tensor.encode() for tensor in self.tensors])
        return head + bytes(-len(head) % self.alignment) + self.data


def read_parts(path: Path) -> Parts:
    """The parts of a whole file."""
    from lampe_gguf.container.reader import GGUFFile

    raw = path.read_bytes()
    with GGUFFile(path) as file:
        pairs = [Pair(pair.key.encode(), int(pair.type), raw[pair.value_offset : pair.end])
                 for pair in file.pairs.values()]
        tensors = [Tensor(each.name.encode(), each.shape, each.type, each.offset)
                   for each in file.tensors]
        return Parts(pairs, tensors, raw[file.data_offset :], file.version, file.alignment)
