"""Ask one question about documents of any length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .documents import Document, as_message
from .length import OnProgress
from .reply import Reply
from .session import context_for, longest_input, open_model, tokens_to_ask


@dataclass(frozen=True)
class Answer:
    """What came out; seconds are wall-clock, `path` is the attention that ran."""

    text: str
    prompt_tokens: int
    answer_tokens: int
    seconds_reading: float
    seconds_answering: float
    n_ctx: int
    path: str
    compression: float


def ask(
    model: Path,
    question: str,
    documents: list[Document],
    *,
    max_tokens: int = 256,
    temperature: float = 0.2,
    seed: int | None = None,
    threads: int | None = None,
    n_ctx: int | None = None,
    use_lampe: bool = True,
    on_text: Callable[[str], None] = lambda text: None,
    on_count: OnProgress | None = None,
    on_progress: OnProgress | None = None,
    on_note: Callable[[str], None] = lambda text: None,
) -> Answer:
    """Read the documents and answer the question, handing out the answer as it comes.

    on_text      called with each piece of the answer
    on_count     called with (characters, all of them) while the documents are counted
    on_progress  called with (tokens, all of them) while they are read
    on_note      called with a sentence where the file carries no LaMPE metadata

    Raises LampeError where the text does not fit, or the model or the values are refused.
    """
    n_needed = tokens_to_ask(
        model, documents, question, use_lampe=use_lampe, n_answer=max_tokens, n_ctx=n_ctx,
        on_progress=on_count,
    )
    length = n_ctx or context_for(n_needed, longest_input(model, use_lampe)[0])
    message = as_message(documents, question)
    llm = open_model(
        model, n_ctx=length, use_lampe=use_lampe, threads=threads, on_note=on_note,
        progress=on_progress,
    )
    reply = Reply(llm, [{"role": "user", "content": message}], max_tokens, temperature, seed)
    for text in reply:
        on_text(text)
    plan = llm.plan()
    return Answer(
        text=reply.text,
        prompt_tokens=reply.prompt_tokens,
        answer_tokens=reply.answer_tokens,
        seconds_reading=reply.seconds_reading,
        seconds_answering=reply.seconds_answering,
        n_ctx=llm.n_ctx(),
        path=llm.path,
        compression=plan.length / plan.mapping_length if plan is not None else 1.0,
    )
