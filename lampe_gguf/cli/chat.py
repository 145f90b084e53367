"""lampe-gguf chat"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

import click

from ..shown import visible
from .console import OutputError, out, say
from .options import generation_options
from .progress import progress_line
from .stopping import answering

HELP = """Chat with MODEL; /help lists the commands inside.

\b
Examples:
  lampe-gguf chat model.lampe.gguf
  lampe-gguf chat model.lampe.gguf --doc book.txt --n-ctx 32768
"""

DEFAULT_N_CTX = 16384  # besides the documents


@click.command(name="chat", help=HELP)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--doc", "docs", multiple=True, metavar="FILE", help="A text to talk about.")
@generation_options
def command(
    model: Path, docs: tuple[str, ...], max_tokens: int, temperature: float, seed: int | None,
    threads: int | None, n_ctx: int | None, no_lampe: bool,
) -> int:
    from ..conversation.chat import Chat
    from ..conversation.documents import read_documents
    from ..conversation.session import longest_input, open_model, tokens_to_ask
    from ..errors import LampeError
    from ..model.choose import read_file

    documents = read_documents(docs, to_ask=True)
    for document in documents:
        if (damage := document.damage()) is not None:
            say(damage)
    n_documents = 0
    file = read_file(model)
    if documents:
        with progress_line("counting", "characters") as on_progress:
            n_documents = tokens_to_ask(
                file, documents, "", use_lampe=not no_lampe, n_ctx=n_ctx, on_progress=on_progress)
    if n_ctx is None:
        n_ctx = DEFAULT_N_CTX + n_documents
        limit, _ = longest_input(file, not no_lampe)
        n_ctx = n_ctx if limit is None else min(n_ctx, limit)
    llm = open_model(
        file, n_ctx=n_ctx, use_lampe=not no_lampe, threads=threads, on_note=say)

    on_terminal = sys.stdout.isatty()
    lost: list[OutputError] = []

    def show(text: str) -> None:
        try:
            out(visible(text) if on_terminal else text, end="")
        except OutputError as error:
            if error.reader_is_gone:
                raise
            if not lost:  # the conversation is worth more than what cannot be shown of it
                say(f"error: {error}; the chat goes on, and /save keeps it")
            lost.append(error)

    chat = Chat(llm, show, max_tokens, temperature, seed, pending=documents)
    if documents:
        show(f"{len(documents)} document(s) go along with your first message\n")
    with llm, answering(), progress_line("reading", "tokens") as llm.progress:
        while True:
            try:
                line = _ask(chat.prompt(), show)
            except KeyboardInterrupt:
                show("\n")
                if _typed():
                    continue
                break
            except EOFError:
                show("\n")
                break
            try:
                if not chat.handle(line):
                    break
            except OutputError:
                raise
            except LampeError as error:
                say(f"error: {error}")
    return 1 if lost else 0


def _typed() -> str:
    """What was on the line that Ctrl-C interrupted, where lines can be edited."""
    readline = sys.modules.get("readline")
    return str(readline.get_line_buffer()) if readline is not None else ""


def _ask(prompt: str, show: Callable[[str], None]) -> str:
    if sys.stdin.isatty() and sys.stdout.isatty():
        with contextlib.suppress(ImportError):  # Windows edits lines by itself
            import readline  # noqa: F401  # input() edits lines with it and remembers them
        return input(prompt)
    show(prompt)
    try:
        line = sys.stdin.readline()
    except OSError:  # a terminal that has gone
        line = ""
    if not line:
        raise EOFError
    if not sys.stdin.isatty():
        show(line)
    return line
