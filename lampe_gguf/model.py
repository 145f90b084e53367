"""What a model's file says about itself, as far as LaMPE has to know."""

from __future__ import annotations

import dataclasses

from .errors import LampeError
from .gguf_file import GGUFFile, Value

MAX_ARRAY = 1024  # elements; longer arrays (vocabularies) say nothing about positions


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """Facts about one model; `window` in tokens, None where the file does not say.

    `values` holds every metadata value but long arrays.
    """

    architecture: str
    name: str
    window: int | None
    n_vocab: int | None
    n_tensors: int
    values: dict[str, Value]


def read_model(file: GGUFFile) -> ModelInfo:
    """Facts of an open file; raises LampeError where it describes no model."""
    arch = file.architecture
    values: dict[str, Value] = {}
    for key in file.pairs:
        if file.array_length(key) <= MAX_ARRAY:
            value = file.value(key)
            assert value is not None
            values[key] = value
    window = values.get(f"{arch}.context_length")
    if window is not None and (isinstance(window, bool) or not isinstance(window, int)):
        raise LampeError(f"{file.path} has a {arch}.context_length that is no whole number")
    n_vocab = file.array_length("tokenizer.ggml.tokens") or values.get(f"{arch}.vocab_size")
    return ModelInfo(
        architecture=arch,
        name=_name(values),
        window=window,
        n_vocab=n_vocab if isinstance(n_vocab, int) else None,
        n_tensors=len(file.tensors),
        values=values,
    )


def _name(values: dict[str, Value]) -> str:
    """Name and base name together: files differ in which of them names the family."""
    name, base = (str(values.get(f"general.{key}", "")) for key in ("name", "basename"))
    if base.lower() in name.lower():
        return name
    return f"{name} ({base})" if name else base
