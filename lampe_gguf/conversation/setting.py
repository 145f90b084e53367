"""With which model, values and sampling a conversation is had."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..backend import api
from ..method.config import LampeConfig
from ..shown import shown

if TYPE_CHECKING:
    from ..backend.llama import LampeLlama

END = 1 << 20  # bytes of a model's file that its fingerprint is made of


@dataclass(frozen=True)
class Model:
    """A model's file: where it is, and what tells it from others.

    path               absolute
    name, architecture what its metadata say, "" where they do not
    fingerprint        SHA-256 of how many weights it has, their size, and the last MiB of them: the
                       same before and after converting, other for another quantisation
    """

    path: str
    name: str
    architecture: str
    fingerprint: str

    @property
    def shown(self) -> str:
        """Its name and file, for a sentence."""
        file = shown(os.path.basename(self.path))
        return f"{shown(self.name)} ({file})" if self.name else file


@dataclass(frozen=True)
class Setting:
    """With what a conversation is had.

    values       the LampeConfig in force as JSON has it, None for plain RoPE
    n_ctx        context length, tokens
    max_tokens, temperature, seed  as Chat has them
    """

    model: Model
    values: dict[str, Any] | None
    n_ctx: int
    max_tokens: int
    temperature: float
    seed: int | None

    def as_json(self) -> dict[str, Any]:
        """For a file; from_json reads it."""
        return {
            "model": dataclasses.asdict(self.model),
            "values": self.values,
            "n_ctx": self.n_ctx,
            "sampling": {"max_tokens": self.max_tokens, "temperature": self.temperature,
                         "seed": self.seed},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Setting:
        """What as_json made; ValueError, KeyError, TypeError or AttributeError for what is none."""
        model, sampling = value["model"], value["sampling"]
        names = [field.name for field in dataclasses.fields(Model)]
        seed, values = sampling["seed"], value["values"]
        return cls(
            Model(*(_text(model[name]) for name in names)),
            None if values is None else dict(values),
            int(value["n_ctx"]),
            int(sampling["max_tokens"]),
            float(sampling["temperature"]),
            None if seed is None else int(seed),
        )

    @property
    def config(self) -> LampeConfig | None:
        """`values` as far as this version knows their names; None for plain RoPE."""
        if self.values is None:
            return None
        known = {field.name for field in dataclasses.fields(LampeConfig)}
        return LampeConfig(**{name: value for name, value in self.values.items() if name in known})


def model_of(llm: LampeLlama) -> Model:
    """What tells the open model from others; reads one MiB of its file."""
    module, handle = api.llama_cpp(), llm._model.model
    path = os.path.abspath(os.fsdecode(llm.model_path))
    numbers = module.llama_model_n_params(handle), module.llama_model_size(handle)
    digest = hashlib.sha256(repr(numbers).encode())
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - END))
            digest.update(file.read(END))
    except OSError:
        pass  # it has gone since it was opened: the numbers have to do
    name, architecture = (str(llm.metadata.get(f"general.{key}", ""))
                          for key in ("name", "architecture"))
    return Model(path, name, architecture, digest.hexdigest())


def values_of(config: LampeConfig | None) -> dict[str, Any] | None:
    """A configuration as JSON has it."""
    if config is None:
        return None
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return values


def differences(then: Setting, now: Setting) -> list[str]:
    """Sentences about what is not as it was when a conversation was had before."""
    if then.model.fingerprint != now.model.fingerprint:
        return [f"this conversation was had with {then.model.shown}; {now.model.shown} goes on "
                "with it"]
    if (then.values is None) != (now.values is None):
        if then.values is None:
            return ["this conversation was had with plain RoPE and goes on with LaMPE; add "
                    "--no-lampe to go on as it was"]
        return ["this conversation was had with LaMPE and goes on with plain RoPE"]
    before, after = then.config, now.config
    if before is None or after is None:
        return []
    old, new = before.effective(), after.effective()
    changed = [f"{name} was {shown(old.get(name))} and is {shown(value)}"
               for name, value in new.items() if old.get(name) != value]
    if not changed:
        return []
    return [f"the model's values are not those of the conversation so far: {', '.join(changed)}"]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(value)
    return value
