"""lampe-gguf chat"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from ..container import paths
from ..shown import counted, visible
from .console import OutputError, out, say
from .options import DOC, FIT, generation_options, kept_readings, readings_options
from .progress import progress_line
from .stopping import answering

if TYPE_CHECKING:
    from ..conversation.chat import Chat

HELP = """Chat with MODEL; /help lists the commands inside.

What is said is kept as it goes, documents included: whatever ends the program, --resume last goes
on. 'lampe-gguf chats' lists what is kept. With --resume, MODEL is the one of before where it is
left out, and so are the context length, the temperature, the seed and the longest answer.

What was read of documents is kept on disk, for you alone ('lampe-gguf readings' lists it), and need
not be read again in the next chat or by ask; --no-readings keeps nothing.

\b
Examples:
  lampe-gguf chat model.lampe.gguf
  lampe-gguf chat model.lampe.gguf --doc book.txt --n-ctx 32768
  lampe-gguf chat --resume last
"""

DEFAULT_N_CTX = 16384  # besides the documents
MOST_SHOWN = 400  # characters of what was said before


@click.command(name="chat", help=HELP)
@click.argument("model", required=False, type=click.Path(path_type=Path))
@click.option("--doc", "docs", multiple=True, metavar="FILE", help=DOC)
@FIT
@click.option("--resume", metavar="CHAT",
              help="Go on with a chat: last, its id, or a file that /save wrote.")
@click.option("--no-journal", is_flag=True, help="Keep nothing of what is said.")
@generation_options
@readings_options
@click.pass_context
def command(
    ctx: click.Context, model: Path | None, docs: tuple[str, ...], fit: str | None,
    resume: str | None, no_journal: bool, max_tokens: int, temperature: float, seed: int | None,
    threads: int | None, n_ctx: int | None, rpc: tuple[str, ...], no_lampe: bool,
    readings_max: int | None, no_readings: bool,
) -> int:
    from ..conversation import shelf
    from ..conversation.chat import Chat
    from ..conversation.documents import Document, read_documents
    from ..conversation.fit import fit_documents
    from ..conversation.kept import Conversation
    from ..conversation.session import longest_input, open_model, tokens_to_ask
    from ..errors import LampeError, UsageError
    from ..model.choose import read_file

    journal = None
    kept = Conversation()
    if resume is not None:
        kept, journal = shelf.go_on(resume, keep=not no_journal, on_note=say)
    before = kept.setting
    if model is None:
        if resume is None:
            raise click.MissingParameter("It may be left out with --resume last.", ctx=ctx,
                                         param=ctx.command.params[0], param_hint="'MODEL'")
        if before is None:
            raise UsageError(
                f"{resume} does not say which model it is of; name one: lampe-gguf chat MODEL "
                f"--resume {resume}"
            )
        model = Path(before.model.path)
        if not paths.exists(model):
            raise LampeError(
                f"the model of this chat, {model}, is no longer there; name it: lampe-gguf chat "
                f"MODEL --resume {resume}"
            )
    with progress_line("opening", "parts") as on_part:
        documents = read_documents(docs, to_ask=True, on_progress=on_part, on_note=say)
    file = read_file(model)
    use_lampe = not no_lampe
    n_ctx_before = None if before is None else before.n_ctx
    said = [] if n_ctx_before else [Document("", turn.line) for turn in kept.turns]
    n_documents = 0
    if documents or said:
        with progress_line("counting", "characters") as on_progress:
            if fit is not None:  # with room for a question and its answer
                documents = fit_documents(
                    file, documents, "", fit, use_lampe=not no_lampe, n_ctx=n_ctx,
                    n_answer=2 * max_tokens, on_progress=on_progress, on_note=say)
            n_documents = tokens_to_ask(
                file, [*said, *documents], "", use_lampe=use_lampe, n_ctx=n_ctx,
                on_progress=on_progress)
    if n_ctx is None:
        n_ctx = (n_ctx_before or DEFAULT_N_CTX) + n_documents
        limit, _ = longest_input(file, use_lampe)
        n_ctx = n_ctx if limit is None else min(n_ctx, limit)
    llm = open_model(file, n_ctx=n_ctx, use_lampe=use_lampe, threads=threads, on_note=say,
                     rpc_servers=rpc)

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

    if resume is not None:
        chat = Chat.resume(llm, kept, show=show, on_note=say)
        chat.journal = journal
        show(_where_it_stands(chat))
    else:
        chat = Chat(llm, show)
    for name, value in (("max_tokens", max_tokens), ("temperature", temperature), ("seed", seed)):
        if before is None or ctx.get_parameter_source(name) is not ParameterSource.DEFAULT:
            setattr(chat, name, value)
    chat.on_note = say
    chat.pending += documents
    if resume is None and not no_journal:
        chat.keep(say)
    if chat.pending:
        which = "next" if chat.turns else "first"
        goes = "goes" if len(chat.pending) == 1 else "go"
        show(f"{counted(len(chat.pending), 'document')} {goes} along with your {which} message\n")
    show("/help lists the commands\n")
    with (
        llm, answering(), progress_line("reading", "tokens") as llm.progress,
        kept_readings(no_readings, readings_max) as chat.readings,
    ):
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
            except KeyboardInterrupt:  # what it interrupted is not done; the chat goes on
                show("\n")
    if sys.stdin.isatty() and chat.journal is not None and chat.journal.is_there:
        say(f"kept; lampe-gguf chat --resume {chat.journal.id} goes on with it")
    return 1 if lost else 0


def _where_it_stands(chat: Chat) -> str:
    """What to know to go on: how many turns there are, and how the last one ended."""
    text = f"going on after {counted(len(chat.turns), 'turn')}"
    if chat.turns:
        last = chat.turns[-1]
        text += f", the last of them:\n> {_begin(last.line)}\n{_begin(last.answer)}"
    if chat.unsent is not None:
        text += "\nyour last line has no answer yet, /retry sends it again:\n> "
        text += _begin(chat.unsent)
    return text + "\n"


def _begin(text: str) -> str:
    return text if len(text) <= MOST_SHOWN else text[:MOST_SHOWN] + " ..."


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
