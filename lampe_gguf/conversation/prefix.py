"""The documents of a prompt: where they end, and whether they are loaded or read."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..readings.keeping import Readings, is_cuttable, n_shared, shared
from ..readings.store import Reading
from .documents import Document, as_message
from .prompt import Message, chat_tokens

if TYPE_CHECKING:
    from ..backend.llama import LampeLlama

OTHERS = ("What", "A")  # beginnings of other questions, one of which begins unlike any question
MOST_ENDS = 8  # documents of one prompt after each of which a state is kept, where none can be cut


@dataclass
class Done:
    """Tokens of the prompt that were loaded, seconds beside reading, and what was kept now."""

    kept_tokens: int = 0
    seconds_loading: float = 0.0
    seconds_keeping: float = 0.0
    entry: Reading | None = None


def read_documents(
    llm: LampeLlama, messages: Sequence[Message], documents: Sequence[Document],
    prompt: Sequence[int], readings: Readings,
) -> Done:
    """Have the context hold the part of a prompt that its documents are, and keep it.

    messages   the conversation, whose last message begins with the documents
    prompt     its tokens
    What is left of the prompt is not read. Nothing is kept behind what was said before: a reading
    holds documents and no conversation. Raises as LampeLlama.eval does.
    """
    start = time.monotonic()
    done = Done(readings.load(llm, prompt))
    done.seconds_loading = time.monotonic() - start if done.kept_tokens else 0.0
    if any(each["role"] != "system" for each in messages[:-1]) or not documents:
        return done
    if len(prompt) - n_shared(llm, prompt) < readings.least:
        return done
    for number, end in ends(llm, messages, documents, prompt):
        if end - n_shared(llm, prompt) < readings.least:
            continue
        start = time.monotonic()
        stream = llm.generate(prompt[:end], temp=0.0)  # it knows what can stay of the context
        next(stream)
        stream.close()
        read = time.monotonic()
        names = [each.name for each in documents[:number]]
        same = readings.entry_of(llm, prompt[:end]) if is_cuttable(llm) else None
        if same is None:  # else another program was quicker
            same = readings.keep(llm, names, seconds=read - start)
        done.entry = same or done.entry
        done.seconds_keeping += time.monotonic() - read
    return done


def ends(
    llm: LampeLlama, messages: Sequence[Message], documents: Sequence[Document],
    prompt: Sequence[int],
) -> list[tuple[int, int]]:
    """Where to keep a state: (so many documents, so many tokens of the prompt).

    That is as far as the same documents with another question have the same tokens, whatever the
    template does. Behind the last document, where a state can be cut back to any token; else, as a
    state serves no prompt that leaves it before its end, behind each: one that has the first
    documents in common goes on from there.
    """
    numbers = [len(documents)]
    if not is_cuttable(llm) and len(documents) <= MOST_ENDS:
        numbers = list(range(1, len(documents) + 1))
    return [(number, _end(llm._model, messages, documents[:number], prompt)) for number in numbers]


def _end(
    model: Any, messages: Sequence[Message], documents: Sequence[Document], prompt: Sequence[int]
) -> int:
    said = messages[-1]["content"][len(as_message(list(documents), "")):]
    other = next(text for text in OTHERS if text[:1].lower() != said[:1].lower())
    content = as_message(list(documents), other)
    tokens = chat_tokens(model, [*messages[:-1], {**messages[-1], "content": content}])
    return shared(tokens, prompt)
