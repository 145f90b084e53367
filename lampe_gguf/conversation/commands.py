"""The commands of a chat, as a user types them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..container import paths
from ..errors import LampeError
from ..shown import counted, shown
from .documents import read_documents
from .length import count_up_to

if TYPE_CHECKING:
    from .chat import Chat

COMMANDS = """\
/doc FILE   read a document, or a folder of them, to talk about it
/stats      how much of the context is used, and how it is mapped
/drop [N]   forget the oldest turns (as many as needed, or N) and keep their documents
/drop doc   forget the documents and keep what was said
/reset      forget everything
/retry      send the line again that could not be answered
/save FILE  save the conversation, for --resume FILE
/quit       leave (so does Ctrl-D)
Ctrl-C stops an answer and drops a line; at an empty prompt it leaves."""


def obey(chat: Chat, name: str, argument: str = "") -> bool:
    """Do what a command says; False when it ends the conversation. Raises LampeError."""
    if name in ("/quit", "/exit"):
        return False
    if name == "/doc":
        _read(chat, argument)
    elif name == "/stats":
        chat.show(chat.stats() + "\n")
    elif name == "/reset":
        chat.reset()
        chat.show("forgotten\n")
    elif name == "/drop":
        _drop(chat, argument)
    elif name == "/retry":
        if chat.unsent is None:
            raise LampeError("there is no line that was not answered")
        chat.answer(chat.unsent)
    elif name == "/save":
        if not argument:
            raise LampeError("name the file: /save FILE")
        if paths.exists(Path(argument)):
            raise LampeError(f"{argument} exists already; name another file")
        chat.save(Path(argument))
        chat.show(f"saved {shown(argument)}\n")
    elif name == "/help":
        chat.show(COMMANDS + "\n")
    else:
        raise LampeError(f"there is no command {name}; /help lists them")
    return True


def _read(chat: Chat, name: str) -> None:
    if not name:
        raise LampeError("name the document: /doc FILE")
    notes: list[str] = []
    documents = read_documents([name], to_ask=True, on_note=notes.append)
    named = documents[0].name if len(documents) == 1 else shown(name)
    holds = chat.llm.n_ctx()
    count = count_up_to(chat.llm._model, [each.text for each in documents], holds)
    if count.is_too_long:
        part = float(f"{holds * count.characters / 2:.2g}")
        raise LampeError(
            f"{named} has about {count.tokens:,} tokens and the context holds "
            f"{holds:,}; give a part of it, of about {part:,.0f} characters, or start again "
            "with a larger --n-ctx"
        )
    chat.pending += documents
    for note in notes:
        chat.show(f"{note}\n")
    chat.show(f"{named} goes along with your next message\n")


def _drop(chat: Chat, argument: str) -> None:
    if argument in ("doc", "docs"):
        n_documents = chat.drop_documents()
        if not n_documents:
            raise LampeError("there is no document to forget")
        _show_dropped(chat, f"forgot {counted(n_documents, 'document')}")
        return
    if not chat.turns:
        raise LampeError("there is no turn to forget; /drop doc forgets documents")
    if argument and not (argument.isdecimal() and 0 < int(argument) <= len(chat.turns)):
        raise LampeError(
            f"/drop takes a number of turns, 1 to {len(chat.turns)}, or doc for the documents"
        )
    n_needed = None if chat.unsent is None else chat.n_to_drop()
    n = int(argument) if argument else max(1, n_needed or 0)
    chat.drop(n)
    _show_dropped(chat, f"forgot the oldest {counted(n, 'turn')}")


def _show_dropped(chat: Chat, what: str) -> None:
    kept = "; /retry sends your line" if chat.unsent is not None else ""
    chat.show(f"{what}, {chat.used:,} tokens are left{kept}\n")
