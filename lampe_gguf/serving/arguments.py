"""From a model and a few wishes to llama-server's arguments."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..backend.cores import usable_cores
from ..errors import UsageError
from ..model import metadata
from ..model.choose import ModelFile

LOOPBACK = "127.0.0.1"
PORT = 8080
SLOTS = 2
PLAIN_N_CTX = 4096  # for a file that names no window, and without LaMPE
# Tokens read in one go: between two of them a client that has left is noticed, and progress told.
READ_BATCH = 256

# what is ours to say, and where: before the "--"
OURS = {
    "-m": "MODEL", "--model": "MODEL", "--host": "--host", "--port": "--port",
    "-c": "--ctx", "--ctx-size": "--ctx", "-np": "--parallel", "--parallel": "--parallel",
    "--api-key": "--api-key", "--api-key-file": "--api-key", "-t": "--threads",
    "--threads": "--threads", "--rpc": "--rpc",
}


@dataclass(frozen=True)
class Wishes:
    """What a user asks of a server.

    ctx      tokens of context for each slot; None: as many as there is memory for
    slots    conversations at a time, each with a context of its own
    rpc_servers  HOST:PORT of machines to compute with, as LampeLlama has them
    extra    llama-server's own options
    """

    host: str = LOOPBACK
    port: int = PORT
    api_key: str = ""
    ctx: int | None = None
    slots: int = SLOTS
    threads: int | None = None
    use_lampe: bool = True
    rpc_servers: Sequence[str] = ()
    extra: Sequence[str] = field(default=())

    def check(self) -> None:
        """Raise UsageError where it must not be served like this."""
        if not is_loopback(self.host) and not self.api_key:
            raise UsageError(
                f"--host {self.host} lets other machines in; set a key with LLAMA_API_KEY in the "
                "environment (or --api-key), or leave --host out")
        for option in self.extra:
            name = option.partition("=")[0]
            if name in OURS:
                raise UsageError(f"{name} is not for llama-server alone; give {OURS[name]} before "
                                 "the --")
        if self.extra and not self.extra[0].startswith("-"):
            raise UsageError(f"{self.extra[0]!r:.80} is no option; after MODEL come options, and "
                             "llama-server's own after a --")


def is_loopback(host: str) -> bool:
    """Whether a server there is reached from this machine alone."""
    if host == "localhost" or host.endswith(".sock"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Mapping:
    """How positions are mapped: the overrides that say so, the longest context, and notes."""

    overrides: dict[str, int | float | str]
    limit: int
    notes: list[str]


def mapping(file: ModelFile, use_lampe: bool) -> Mapping:
    """What llama-server is told of LaMPE: nothing for a converted file, for a plain one all.

    Raises LampeError where LaMPE cannot extend the model, or its metadata cannot be used.
    """
    arch = file.info.architecture
    own = file.own_config
    if not use_lampe:
        window = own.window if own else file.info.window
        off: dict[str, int | float | str] = {metadata.prefix(arch) + "version": 0} if own else {}
        return Mapping(off, window or PLAIN_N_CTX, [])
    config = file.config
    overrides: dict[str, int | float | str] = {}
    notes = []
    if own is None:
        overrides = metadata.as_overrides(arch, config)
        notes.append(f"{file.path.name} carries no LaMPE metadata; using what 'lampe-gguf convert' "
                     f"would write ({config.provenance})")
    if config.length_policy == "prompt":
        # nobody tells the backend how long a prompt will be, and what is cached must stay right
        overrides[metadata.prefix(arch) + "length_policy"] = "causal"
        notes.append("the length policy \"prompt\" cannot be kept where prompts share what was "
                     "read; using \"causal\"")
    return Mapping(overrides, config.context_length, notes)


def override(values: dict[str, int | float | str]) -> list[str]:
    """--override-kv and its value, [] where there is none. No value has a comma."""
    names = {int: "int", float: "float", str: "str"}
    said = ",".join(f"{key}={names[type(value)]}:{value}" for key, value in values.items())
    return ["--override-kv", said] if said else []


def reading(wishes: Wishes, mapped: Mapping) -> list[str]:
    """The options that decide how the model is read, and so what memory it takes."""
    options = ["--batch-size", str(READ_BATCH), "--ubatch-size", str(READ_BATCH)]
    if wishes.rpc_servers:
        options += ["--rpc", ",".join(wishes.rpc_servers)]
    return [*options, *override(mapped.overrides), *wishes.extra]


def arguments(
    file: ModelFile, wishes: Wishes, options: Sequence[str], n_ctx: int, cache_mib: int
) -> list[str]:
    """All of llama-server's arguments; the key is not among them, for others can read them.

    options    what reading() gave
    n_ctx      tokens of context for each slot
    cache_mib  of the processor's memory for prompts that no slot holds any more
    """
    found = ["--model", str(file.path), "--alias", file.path.name,
             "--host", wishes.host, "--port", str(wishes.port),
             "--ctx-size", str(n_ctx * wishes.slots), "--parallel", str(wishes.slots),
             "--cache-ram", str(cache_mib), "--fit", "off",
             # a page of some other site must not talk to it from the browser of this machine
             "--cors-origins", "localhost"]
    threads = wishes.threads or usable_cores()
    if threads:
        found += ["--threads", str(threads),
                  "--threads-batch", str(wishes.threads or _processors() or threads)]
    return [*found, *options]


def _processors() -> int | None:
    """How many this process may run on, two for a core that runs two threads."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def base_url(wishes: Wishes) -> str:
    """Where a program on this machine finds the server."""
    host = {"0.0.0.0": LOOPBACK, "::": "[::1]"}.get(wishes.host, wishes.host)
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    return f"http://{host}:{wishes.port}"
