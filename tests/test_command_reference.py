"""The command reference says what --help says."""

from __future__ import annotations

import make_reference
import pytest
from conftest import call

from lampe_gguf.cli.main import COMMANDS

PAGES = make_reference.pages()


@pytest.mark.parametrize("name", PAGES)
def test_the_reference_has_not_drifted(name: str) -> None:
    text = (make_reference.FOLDER / name).read_text(encoding="utf-8")
    assert text == PAGES[name], (
        "run .venv/bin/python tools/make_reference.py and commit what it writes"
    )


def test_the_reference_holds_every_command() -> None:
    all_pages = "\n".join(PAGES.values())
    asked = [[name] for name in COMMANDS] + [["eval", "ppl"], ["eval", "kv"]]
    for command in asked:
        path = " ".join(["lampe-gguf", *command])
        assert f"\n## {path}\n" in all_pages
        # the words of what a user gets, wherever they are wrapped; a list of commands is cut there
        said = call(*command, "--help").stdout.partition("Commands:")[0]
        assert " ".join(said.split()) in " ".join(all_pages.split()), path
