"""An answer that ends early says so, on standard error."""

from __future__ import annotations

import io
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from lampe_gguf.backend.llama import LampeLlama
from lampe_gguf.cli import main as cli
from lampe_gguf.conversation.reply import early_end

CUT = "cut at 3 tokens; --max-tokens N lets it go on\n"
NOTHING = "the model answered nothing; ask another question, or a larger model\n"


@pytest.fixture
def model(tiny: Callable[..., Path]) -> Path:
    return tiny("m.gguf")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have every model answer that, and end there."""

    def answer(text: str) -> None:
        def generate(
            self: LampeLlama, tokens: list[int], **options: Any
        ) -> Generator[int, None, None]:
            self.eval(tokens)
            yield from self.tokenize(text.encode(), False, False)
            yield self.token_eos()

        monkeypatch.setattr(LampeLlama, "generate", generate)

    return answer


@pytest.mark.parametrize("text, said", [("abcdef", CUT), ("", NOTHING), (" ", NOTHING), ("a", "")])
@pytest.mark.parametrize("command", ["ask", "ask --json", "chat"])
def test_how_an_answer_ended(
    model: Path, script: Callable[[str], None], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, command: str, text: str, said: str,
) -> None:
    script(text)
    name, *options = command.split()
    monkeypatch.setattr("sys.stdin", io.StringIO("" if name == "ask" else "Why?\n"))
    question = ["Why?"] if name == "ask" else []
    assert cli.main([name, str(model), *question, "--max-tokens", "3", *options]) == 0
    shown = capsys.readouterr()
    notes = [note for note in (CUT, NOTHING) if note in shown.err]
    assert notes == [said] * bool(said)
    assert "cut at" not in shown.out and "answered nothing" not in shown.out


def test_one_token_is_one() -> None:
    assert early_end("a", 1, 1) == "cut at 1 token; --max-tokens N lets it go on"
    assert early_end("a", 1, 2) is None
