"""Ask one question about documents of any length."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..model.choose import read_file
from ..readings.keeping import Readings
from .documents import Text, WasRead, as_documents, as_message
from .fit import fit_documents
from .length import OnProgress
from .reply import Reply
from .session import context_for, longest_input, open_model, tokens_to_ask
from .sources import Source, find_sources


@dataclass(frozen=True)
class Answer:
    """What came out; seconds are wall-clock, `path` is the attention that ran.

    compression      tokens for each position that they were mapped into, 1 for plain RoPE
    kept_tokens      of the prompt, that were not read but loaded from a kept reading
    seconds_loading  that this took
    seconds_keeping  that it took to keep what was read
    documents        what was read of each document, and what was left out or cut
    sources          where words of the answer stand in them, found by comparing; often none
    """

    text: str
    prompt_tokens: int
    answer_tokens: int
    seconds_reading: float
    seconds_answering: float
    n_ctx: int
    path: str
    compression: float
    kept_tokens: int = 0
    seconds_loading: float = 0.0
    seconds_keeping: float = 0.0
    documents: tuple[WasRead, ...] = ()
    sources: tuple[Source, ...] = ()


def ask(
    model: str | os.PathLike[str],
    question: str,
    documents: Text | Sequence[Text] = (),
    *,
    max_tokens: int = 256,
    temperature: float = 0.2,
    seed: int | None = None,
    threads: int | None = None,
    n_ctx: int | None = None,
    use_lampe: bool = True,
    readings: Readings | bool | str | os.PathLike[str] | None = None,
    fit: str | None = None,
    rpc_servers: Sequence[str] = (),
    on_text: Callable[[str], None] = lambda text: None,
    on_count: OnProgress | None = None,
    on_progress: OnProgress | None = None,
    on_note: Callable[[str], None] = lambda text: None,
) -> Answer:
    """Have a model read documents and answer a question about them.

    documents    texts (str), files or folders (Path: text, PDF, DOCX, ODT, EPUB, HTML), or
                 Documents, which have names; one or several
    max_tokens   longest answer, tokens
    temperature  0 for the likeliest answer
    seed         for the same answer again; None: another one every time
    threads      of the processor; None: all to read, one for each core to write
    n_ctx        context length to open, tokens; None: what documents, question and answer need
    use_lampe    False: plain RoPE, to see the difference
    readings     keep what was read of the documents, and load it the next time: True for the usual
                 folder, or a folder, or Readings; None writes nothing anywhere
    fit          what does not fit is cut: "newest" keeps the documents' ends, "spread" pieces from
                 everywhere; None refuses it
    rpc_servers  HOST:PORT of machines to compute with, as LampeLlama has them
    on_text      called with each piece of the answer
    on_count     called with (characters, all of them) while the documents are counted
    on_progress  called with (tokens, all of them) while they are read
    on_note      called with a sentence about what was read of each file and what was cut, and where
                 the model carries no LaMPE metadata: what convert_gguf would write is used then

    The model is opened for as long as this takes. What reads as a control token in a text stays
    text. Raises LampeError where the text does not fit, or the model or a value is refused, and
    before the model is opened where that can be told. The positions: method, sections 1 to 3.

    >>> from pathlib import Path
    >>> from lampe_gguf import ask
    >>> answer = ask("model.gguf", "What is this about?", Path("book.txt"), max_tokens=16)
    >>> len(answer.text) > 0, answer.answer_tokens <= 16
    (True, True)
    """
    kept = Readings.of(readings)
    file = read_file(model)
    read = as_documents(documents, to_ask=True, on_note=on_note)
    if fit is not None:
        read = fit_documents(
            file, read, question, fit, use_lampe=use_lampe, n_answer=max_tokens, n_ctx=n_ctx,
            on_progress=on_count, on_note=on_note,
        )
    n_needed = tokens_to_ask(
        file, read, question, use_lampe=use_lampe, n_answer=max_tokens, n_ctx=n_ctx,
        on_progress=on_count,
    )
    length = n_ctx or context_for(n_needed, longest_input(file, use_lampe)[0])
    messages = [{"role": "user", "content": as_message(read, question)}]
    with open_model(
        file, n_ctx=length, use_lampe=use_lampe, threads=threads, on_note=on_note,
        progress=on_progress, rpc_servers=rpc_servers,
    ) as llm:
        reply = Reply(
            llm, messages, max_tokens, temperature, seed, documents=read, readings=kept
        )
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
            kept_tokens=reply.kept_tokens,
            seconds_loading=reply.seconds_loading,
            seconds_keeping=reply.seconds_keeping,
            documents=tuple(map(WasRead.of, read)),
            sources=tuple(find_sources(reply.text, read, question)),
        )
