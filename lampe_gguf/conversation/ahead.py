"""Read documents before anybody asks about them, and keep what was read."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..errors import LampeError
from ..model.choose import read_file
from ..readings.keeping import Readings
from ..readings.store import Reading
from .documents import Text, as_documents, as_message
from .length import OnProgress
from .prefix import OTHERS, ends, read_documents
from .prompt import chat_tokens
from .session import context_for, longest_input, open_model, tokens_to_ask


@dataclass(frozen=True)
class Ahead:
    """The reading that is kept now; `is_new` is false where it was kept before."""

    entry: Reading
    is_new: bool
    kept_tokens: int
    seconds_loading: float
    seconds_keeping: float


def read_ahead(
    model: str | os.PathLike[str],
    documents: Text | Sequence[Text],
    *,
    readings: Readings,
    threads: int | None = None,
    n_ctx: int | None = None,
    use_lampe: bool = True,
    on_count: OnProgress | None = None,
    on_progress: OnProgress | None = None,
    on_note: Callable[[str], None] = lambda text: None,
) -> Ahead:
    """Have a model read documents and keep that, for ask and chat to go on from.

    The options are those of `ask`. Raises LampeError as that does, and where nothing is kept,
    with the reason.
    """
    reasons: list[str] = []
    kept = Readings(readings.folder, readings.max_bytes, 1, reasons.append, readings.on_progress)
    file = read_file(model)
    read = as_documents(documents, to_ask=True, on_note=on_note)
    n_needed = tokens_to_ask(
        file, read, OTHERS[0], use_lampe=use_lampe, n_ctx=n_ctx, on_progress=on_count,
        can_cut=False)  # where to cut follows from the question
    length = n_ctx or context_for(n_needed, longest_input(file, use_lampe)[0])
    messages = [{"role": "user", "content": as_message(read, OTHERS[0])}]
    with open_model(
        file, n_ctx=length, use_lampe=use_lampe, threads=threads, on_note=on_note,
        progress=on_progress,
    ) as llm:
        prompt = chat_tokens(llm._model, messages)
        last = ends(llm, messages, read, prompt)[-1][1]
        before = kept.entry_of(llm, prompt[:last])
        if before is not None:
            return Ahead(before, False, last, 0.0, 0.0)
        config = llm.lampe_config
        if config is not None and config.length_policy == "prompt":
            raise LampeError("with the length policy \"prompt\" what is read depends on how long a "
                             "prompt is; convert the model with --length-policy causal")
        done = read_documents(llm, messages, read, prompt[:last], kept)
        entry = done.entry
        if entry is None and not reasons:  # it is the beginning of another
            entry = kept.keep(llm, [each.name for each in read])
        if entry is None:
            raise LampeError(reasons[-1] if reasons else "what was read is not kept: the model's "
                             "file changed meanwhile; try again")
        for reason in reasons:
            on_note(reason)
        return Ahead(entry, True, done.kept_tokens, done.seconds_loading, done.seconds_keeping)
