"""What a model's file says about itself, as far as LaMPE has to know."""

from __future__ import annotations

import dataclasses

from ..container.format import SCALARS, Value, ValueType
from ..container.reader import GGUFFile
from .architectures import FIELDS, field

# what says the RoPE's frequencies, and how large a cache is
ROPE_FIELDS = (
    "attention.head_count", "attention.head_count_kv", "attention.key_length",
    "attention.value_length", "embedding_length", "rope.dimension_count", "rope.freq_base",
)

MOST_NAME = 1 << 10  # bytes


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """Facts about one model; `window` in tokens, None where the file does not say.

    `values` holds the metadata, by key, that architectures.py judges a model by, and what says
    its RoPE's frequencies and how large its cache is, as far as these are numbers.
    """

    architecture: str
    name: str
    window: int | None
    n_vocab: int | None
    n_tensors: int
    values: dict[str, Value]


def read_model(file: GGUFFile) -> ModelInfo:
    """Facts of an open file, from the few values that say them; all others are left alone.

    Raises LampeError where it describes no model, or one of these values is of a wrong type.
    """
    arch = file.architecture
    values: dict[str, Value] = {}
    numbers = (f"{arch}.{name}" for name in ROPE_FIELDS if name not in FIELDS)
    wanted = ("general.type", *(f"{arch}.{name}" for name in FIELDS),
              *(key for key in numbers if key in file.pairs and file.pairs[key].type in SCALARS))
    for key in wanted:
        value = file.value(key)
        if value is not None:
            values[key] = value
    n_vocab = file.array_length("tokenizer.ggml.tokens") or file.value(f"{arch}.vocab_size")
    return ModelInfo(
        architecture=arch,
        name=_name(file),
        window=field(arch, values, "context_length"),
        n_vocab=n_vocab if isinstance(n_vocab, int) else None,
        n_tensors=len(file.tensors),
        values=values,
    )


def _name(file: GGUFFile) -> str:
    """Name and base name together: files differ in which of them names the family."""
    name, base = (_text(file, f"general.{key}") for key in ("name", "basename"))
    if base.lower() in name.lower():
        return name
    return f"{name} ({base})" if name else base


def _text(file: GGUFFile, key: str) -> str:
    """A text that nothing depends on: "" where it is none, or longer than a name can be."""
    pair = file.pairs.get(key)
    if pair is None or pair.type is not ValueType.STRING:
        return ""
    return "" if pair.end - pair.value_offset > MOST_NAME else str(file.value(key))
