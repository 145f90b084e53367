"""A conversation with a model, and with documents, in the terminal."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .atomic import write_file
from .documents import Document, as_message, read_document
from .errors import LampeError
from .reply import Reply

if TYPE_CHECKING:
    from .runtime import LampeLlama

COMMANDS = """\
/doc FILE   read a document, to talk about it
/stats      how much of the context is used, and how it is mapped
/reset      forget the conversation
/save FILE  save the conversation as JSON
/quit       leave (so does Ctrl-D)
Ctrl-C stops an answer and drops a line; at an empty prompt it leaves."""

Show = Callable[[str], None]


@dataclass
class Chat:
    """One conversation; `show` gets the answers as they come and what commands have to say."""

    llm: LampeLlama
    show: Show
    max_tokens: int = 256
    temperature: float = 0.2
    seed: int | None = None
    messages: list[dict[str, str]] = field(default_factory=list)
    pending: list[Document] = field(default_factory=list)
    last_rate: float = 0.0

    def prompt(self) -> str:
        """What stands before the user's line: tokens used of the context."""
        return f"[{self.llm.n_tokens:,} of {self.llm.n_ctx():,} tokens] > "

    def handle(self, line: str) -> bool:
        """Do what one line says; False when it ends the conversation. Raises LampeError."""
        line = line.strip()
        if line.startswith("/"):
            return self._command(*line.split(maxsplit=1))
        if line:
            self._answer(line)
        return True

    def _command(self, name: str, argument: str = "") -> bool:
        if name in ("/quit", "/exit"):
            return False
        if name == "/doc":
            if not argument:
                raise LampeError("name the document: /doc FILE")
            document = read_document(argument, replace=True)
            self.pending.append(document)
            if (damage := document.damage()) is not None:
                self.show(f"{damage}\n")
            self.show(f"{document.name} goes along with your next message\n")
        elif name == "/stats":
            self.show(self.stats() + "\n")
        elif name == "/reset":
            self.messages.clear()
            self.pending.clear()
            self.llm.reset()
            self.last_rate = 0.0
            self.show("forgotten\n")
        elif name == "/save":
            if not argument:
                raise LampeError("name the file: /save FILE")
            if Path(argument).exists():
                raise LampeError(f"{argument} exists already; name another file")
            self.save(Path(argument))
            self.show(f"saved {argument}\n")
        elif name == "/help":
            self.show(COMMANDS + "\n")
        else:
            raise LampeError(f"there is no command {name}; /help lists them")
        return True

    def _answer(self, line: str) -> None:
        message = {"role": "user", "content": as_message(self.pending, line)}
        reply = Reply(
            self.llm, [*self.messages, message], self.max_tokens, self.temperature, self.seed
        )
        stream = iter(reply)
        try:
            for text in stream:
                self.show(text)
        except KeyboardInterrupt:
            self.show(" [stopped]")
        finally:
            stream.close()
        self.show("\n")
        if reply.answer_tokens > 1:
            self.last_rate = (reply.answer_tokens - 1) / max(1e-9, reply.seconds_answering)
        # an answer that was stopped is part of what was said
        self.messages += [message, {"role": "assistant", "content": reply.text}]
        self.pending.clear()

    def stats(self) -> str:
        """Context use, speed of the last answer, and the plan in force."""
        used, total = self.llm.n_tokens, self.llm.n_ctx()
        lines = [f"context    {used:,} of {total:,} tokens ({100 * used / total:.0f} %)"]
        lines.append(f"attention  {self.llm.path}")
        plan = self.llm.plan()
        if plan is not None and plan.is_identity:
            lines.append("mapping    none needed yet: plain RoPE")
        elif plan is not None:
            lines.append(
                f"mapping    {plan.length:,} tokens into {plan.mapping_length:,} positions"
            )
        if self.last_rate:
            lines.append(f"speed      {self.last_rate:.1f} tokens/s in the last answer")
        return "\n".join(lines)

    def save(self, path: Path) -> None:
        """Write the conversation as JSON, whole or not at all; LampeError where that fails."""
        text = json.dumps({"messages": self.messages}, indent=2, ensure_ascii=False)
        write_file(path, text.encode(), force=True)
