"""The metadata: Python and the backend accept and refuse the same fields, types and values."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llama_cpp as C
import make_fields
import numpy as np
import pytest
from conftest import tiny_config
from tiny_model import make_tiny_model

from lampe_gguf.backend import api as backend
from lampe_gguf.container.format import SCALARS, U64, ValueType
from lampe_gguf.container.reader import GGUFFile
from lampe_gguf.container.writer import encode_pair, write_gguf
from lampe_gguf.convert import convert_gguf
from lampe_gguf.errors import LampeError
from lampe_gguf.method.config import LampeConfig
from lampe_gguf.method.fields import FIELDS, MAX_F64, Field
from lampe_gguf.model import encoding, metadata
from lampe_gguf.strip import strip_gguf

PREFIX = metadata.prefix("llama")
# short_length and a group, so that the ranges of what depends on them show
CONFIG = tiny_config(short_length=16, short_mapping_length=14, provenance="tests")
INTEGERS = [kind for kind in metadata.WHOLE]


def encode(name: str, kind: ValueType, value: Any) -> bytes | None:
    """A pair of the file, None where the type cannot hold the value."""
    if kind is ValueType.ARRAY:
        head = encode_pair(PREFIX + name, ValueType.UINT32, 0)[:-8]
        return head + struct.pack("<IIQI", ValueType.ARRAY, ValueType.UINT32, 1, 7)
    if isinstance(value, bytes):
        head = encode_pair(PREFIX + name, ValueType.STRING, "")[:-8]
        return head + U64.pack(len(value)) + value
    try:
        return encode_pair(PREFIX + name, kind, value)
    except (struct.error, OverflowError):
        return None


def borders(field: Field, config: LampeConfig) -> list[Any]:
    """Below, at and above both ends of a range."""
    if field.kind == "name":
        return [*field.names, "", field.names[0].upper(), field.names[0] + "x"]
    if field.kind == "text":
        most = int(field.most.constant)
        return ["", "a" * most, "a" * (most + 1), "é" * (most // 2), "é" * (most // 2 + 1),
                b"\xff" * most, b"\xff" * (most + 1), "a" * 100_000]
    values = dataclasses.asdict(config)
    ends = [field.least.value(values), field.most.value(values), values[field.name]]
    if field.kind == "f64":
        with np.errstate(over="ignore"):
            near = [float(np.nextafter(end, way)) for end in ends for way in (-np.inf, np.inf)]
        return [0.0, -1.0, *ends, *near, MAX_F64, np.inf, -np.inf, np.nan]
    return [0, -1, 2**31, 2**32, 2**63, *(end + step for end in ends for step in (-1, 0, 1))]


def cases(field: Field, config: LampeConfig) -> Iterator[tuple[str, bytes]]:
    """Pairs of one field, named: every type with a value that the type can hold, or with each of
    the border values where the type is one that may be read."""
    for kind in ValueType:
        if kind in metadata.READABLE[field.kind]:
            tried = borders(field, config)
        elif kind is ValueType.STRING:
            tried = ["1", "causal", ""]
        else:
            tried = [1]
        for value in tried:
            if kind in INTEGERS and not isinstance(value, int):
                value = 1
            pair = encode(field.name, kind, value)
            if pair is not None:
                yield f"{kind.name} {value!r:.40}", pair


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """No log of the many loads."""
    C._logger.set_verbose(False)
    yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without LaMPE, as small as can be."""
    path = tmp_path_factory.mktemp("fields") / "base.gguf"
    return make_tiny_model(path, window=32, n_layer=1, head_dim=32, n_ff=32, n_head=2, n_head_kv=1)


def written(base: Path, path: Path, pairs: list[bytes]) -> Path:
    with GGUFFile(base) as source, open(path, "wb") as out:
        write_gguf(out.fileno(), source, list(source.pairs.values()), pairs)
    return path


def python_says(path: Path) -> str:
    with GGUFFile(path) as file:
        try:
            metadata.read(file, "llama")
        except LampeError as error:
            return str(error)
    return ""


def backend_says(path: Path) -> str:
    model = C.llama_model_load_from_file(str(path).encode(), C.llama_model_default_params())
    if not model:
        return backend.last_error() or "not loaded"
    C.llama_model_free(model)
    return ""


@pytest.mark.parametrize("field, method, short", [
    (field, method, short) for field in FIELDS for method in ("lampe", "selfextend")
    for short in (True, False) if field.zero or (method == "lampe" and short)
], ids=lambda value: getattr(value, "name", str(value)))
def test_both_accept_and_refuse_the_same(
    base: Path, tmp_path: Path, field: Field, method: str, short: bool
) -> None:
    config = dataclasses.replace(
        CONFIG, method=method, group_size=2, **({} if short else {
            "short_length": 0, "short_mapping_length": 0})).validate()
    pairs = dict(zip([each.name for each in FIELDS], encoding.encode("llama", config), strict=True))
    others = [pair for name, pair in pairs.items() if name != field.name]
    # one that is missing is no pair at all
    found = {}
    for label, pair in [("missing", b""), *cases(field, config)]:
        path = written(base, tmp_path / "m.gguf", [*others, *([pair] if pair else [])])
        ours, theirs = python_says(path), backend_says(path)
        assert (ours == "") == (theirs == ""), (label, ours, theirs)
        assert field.name in ours + theirs or not ours, (label, ours, theirs)
        found[label] = not ours
    assert any(found.values()) and not all(found.values())
    # as the table says; self-extend does not go without its groups
    without = method == "selfextend" and field.name == "group_size"
    assert found["missing"] is not (field.required or without)


def test_values_are_read_alike_whatever_their_width(base: Path, tmp_path: Path) -> None:
    pairs = dict(zip([each.name for each in FIELDS], encoding.encode("llama", CONFIG), strict=True))
    for name, kind, value in [("local_window", "INT8", 8), ("context_length", "INT64", 512),
                              ("length_step", "UINT16", 16), ("window", "UINT64", 32),
                              ("slope", "FLOAT32", 0.5), ("offset", "FLOAT32", -2.25)]:
        changed = encode(name, ValueType[kind], value)
        assert changed
        path = written(base, tmp_path / "m.gguf", list((pairs | {name: changed}).values()))
        want = dataclasses.replace(CONFIG, **{name: value})
        with GGUFFile(path) as file:
            assert metadata.read(file, "llama") == want
        model = C.llama_model_load_from_file(str(path).encode(), C.llama_model_default_params())
        assert backend.model_config(model, CONFIG.provenance) == want
        C.llama_model_free(model)


@pytest.mark.parametrize("version", [0, 2, 2**40])
def test_another_version_is_refused_whatever_its_keys(
    base: Path, tmp_path: Path, version: int
) -> None:
    pairs = dict(zip([each.name for each in FIELDS], encoding.encode("llama", CONFIG), strict=True))
    other = encode_pair(PREFIX + "version", ValueType.UINT64, version)
    unknown = [encode_pair(PREFIX + "unknown", ValueType.UINT32, 1),
               encode_pair(PREFIX + "local_window", ValueType.STRING, "wide")]
    del pairs["local_window"], pairs["window"]
    path = written(base, tmp_path / "m.gguf", [*unknown, *(pairs | {"version": other}).values()])
    assert f"version {version}, and this program reads version 1); convert again" in (
        python_says(path))
    if version < 2**32:
        assert backend_says(path) == (f"LaMPE metadata has version {version}, and this build "
                                      "reads version 1: convert the model again")
    strip_gguf(path, tmp_path / "back.gguf")
    assert python_says(tmp_path / "back.gguf") == ""
    assert convert_gguf(path, tmp_path / "new.gguf").replaced
    assert (python_says(tmp_path / "new.gguf"), backend_says(tmp_path / "new.gguf")) == ("", "")


def test_the_backend_is_made_from_the_table() -> None:
    assert make_fields.HEADER.read_text(encoding="utf-8") == make_fields.header()


def test_every_type_can_be_read_or_is_refused() -> None:
    assert set(SCALARS) | {ValueType.STRING, ValueType.ARRAY} == set(ValueType)
