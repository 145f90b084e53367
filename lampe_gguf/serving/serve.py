"""Have llama-server serve a model: everything between the wishes and the running process."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass

from ..backend import api, peers, programs
from ..errors import LampeError, UsageError
from ..model.again import longer
from ..model.choose import read_file
from . import arguments as args
from .free import free_by_device, free_memory
from .memory import MIB, Fitted, fit, measure, require_room
from .process import OnLine, Server, free_port

CACHE_MOST = 8192  # MiB of memory for prompts that no slot holds any more; llama-server's own
CACHE_SHARE = 0.5  # of what is left


@dataclass(frozen=True)
class Plan:
    """What will be started: arguments, where it is reached, and what it takes."""

    arguments: list[str]
    url: str
    wishes: args.Wishes
    fitted: Fitted
    cache: int  # bytes
    page: bool  # for browsers


def plan(
    model: str | os.PathLike[str], wishes: args.Wishes,
    on_note: Callable[[str], None] = lambda text: None,
) -> Plan:
    """Decide everything before anything is started.

    on_note  called with a sentence where something was chosen that the user may not expect
    Raises UsageError for wishes that make no sense, LampeError where the model, the port or the
    memory does not allow them.
    """
    wishes.check()
    programs.find_program(programs.SERVER)
    api.require_patched()
    file = read_file(model)
    mapped = args.mapping(file, wishes.use_lampe)
    if wishes.ctx is not None and wishes.ctx > mapped.limit:
        raise UsageError(
            f"--ctx is {wishes.ctx:,} and this model supports {mapped.limit:,} tokens"
            + (f"; convert it for more: {longer(file, wishes.ctx)}" if wishes.use_lampe
               else " without LaMPE"))
    wishes = dataclasses.replace(wishes, port=free_port(wishes.host, wishes.port))
    for note in mapped.notes:
        on_note(note)
    options = args.reading(wishes, mapped)
    # the reason where one cannot be used, which llama-server would only log
    free = {**free_by_device(free_memory()), **peers.free_memory(wishes.rpc_servers)}
    if wishes.ctx is None:
        fitted = fit(file.path, options, mapped.limit, wishes.slots, free)
    else:
        need = measure(file.path, options, wishes.ctx, wishes.slots)
        fitted = Fitted(wishes.ctx, need, free)
        require_room(fitted)
    cache = CACHE_MOST
    if fitted.left is not None:
        cache = min(CACHE_MOST, int(fitted.left * CACHE_SHARE) // MIB)
    found = args.arguments(file, wishes, options, fitted.n_ctx, cache)
    return Plan(found, args.base_url(wishes), wishes, fitted, cache * MIB,
                not programs.why_no_page())


def start(
    model: str | os.PathLike[str], planned: Plan, on_line: OnLine = lambda line: None
) -> Server:
    """Start it; `Server.wait_ready()` returns when it answers."""
    key = planned.wishes.api_key
    # a key of the environment counts too, and an empty one would be a key
    environment = {"LLAMA_API_KEY": key} if key else {}
    try:
        return Server(programs.find_program(programs.SERVER), planned.arguments, environment,
                      planned.url, read_file(model).path, on_line)
    except OSError as error:
        raise LampeError(f"llama-server cannot be started: {error.strerror}") from None
