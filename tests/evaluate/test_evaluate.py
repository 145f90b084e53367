"""Perplexity: what is read, and the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import call, tiny_config

from lampe_gguf.backend.llama import LampeLlama
from lampe_gguf.backend.vocabulary import beginning, excerpt, read_tokens, vocabulary
from lampe_gguf.cli import main as cli
from lampe_gguf.errors import LampeError
from lampe_gguf.evaluate.perplexity import perplexity, score

Tiny = Callable[..., Path]


@pytest.fixture
def model(tiny: Tiny) -> Path:
    return tiny("m.gguf", window=64, lampe=tiny_config(window=64))


def test_an_error_keeps_the_perplexities_found(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(*arguments: Any, **options: Any) -> Any:
        if options["method"] == "rope":
            raise LampeError("there is no memory left")
        return perplexity(*arguments, **options)

    monkeypatch.setattr("lampe_gguf.cli.eval.perplexity", failing)
    text = tmp_path / "t.txt"
    text.write_text("letters and spaces. " * 20)
    assert cli.main(["eval", "ppl", str(model), "--text", str(text), "--lengths", "99",
                     "--methods", "lampe,rope", "--json"]) == 1
    out, err = capsys.readouterr()
    assert "there is no memory left" in err
    assert '"lampe"' in out and '"rope"' not in out


def test_options_are_checked_before_anything_is_read(model: Path, tmp_path: Path) -> None:
    text = tmp_path / "t.txt"
    text.write_text("letters and spaces. " * 20)
    late = call("eval", "ppl", model, "--text", text, "--lengths", "99", "--methods",
                "lampe,linear", "--factor", "0.5")
    assert late.returncode == 2 and "the factor is 0.5" in late.stderr and not late.stdout


def test_what_is_cut_begins_as_texts_do(tiny: Tiny) -> None:
    model = tiny("bos.gguf", window=64, lampe=tiny_config(window=64), add_bos=True)
    text = "what is it that letters and spaces say to a model of chance? " * 4
    with vocabulary(model) as vocab:
        begin = beginning(vocab)
        tokens = read_tokens(vocab, text, 100)
    assert begin == tokens[0] == 1
    piece = excerpt(tokens, 36, 100, begin)
    assert piece == [1, *tokens[37:]] and excerpt(tokens, 36, 100, None) == tokens[36:]
    llm = LampeLlama(model, lampe=False, n_ctx=64)
    want = np.exp(score(llm, piece).mean())
    other = np.exp(score(llm, tokens[36:]).mean())
    llm.close()
    found = perplexity(model, text, 100, method="truncate")
    assert found.all == pytest.approx(want, rel=1e-3) != pytest.approx(other, rel=1e-3)
    plain = tiny("plain.gguf", window=64, lampe=tiny_config(window=64))
    with vocabulary(plain) as vocab:
        assert beginning(vocab) is None
    assert beginning(SimpleNamespace(add_bos_token=lambda: True, token_bos=lambda: -1)) is None


def test_ppl_of_several_methods_and_lengths(model: Path, tmp_path: Path) -> None:
    book, picture = tmp_path / "book.txt", tmp_path / "p.png"
    book.write_text("It was a dark and stormy night. " * 6, encoding="utf-8")
    done = call("eval", "ppl", model, "--text", book, "--lengths", "100,150",
                "--methods", "lampe,truncate", "--json", "--plot", picture)
    assert done.returncode == 0, done.stderr
    runs = json.loads(done.stdout)["runs"]
    assert [(r["method"], r["tokens"]) for r in runs] == [
        ("lampe", 100), ("truncate", 64), ("lampe", 150), ("truncate", 64)]
    single = call("eval", "ppl", model, "--text", book, "--lengths", "150", "--json")
    (run,) = json.loads(single.stdout)["runs"]
    assert run["all"] == pytest.approx(runs[2]["all"], rel=1e-5)
    assert picture.read_bytes().startswith(b"\x89PNG")
    shown = call("eval", "ppl", model, "--text", book, "--lengths", 100, "--methods", "rope,yarn")
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert lines[0][:3] == ["length", "method", "all"] and len(lines) == 3
    assert [line[:2] for line in lines[1:]] == [["100", "rope"], ["100", "yarn"]]


@pytest.mark.parametrize("arguments, words", [
    ([], "Missing option '--lengths'"),
    (["--length", "9", "--lengths", "9"], "give --lengths alone"),
    (["--length", "9", "--method", "rope", "--methods", "rope"], "give --methods alone"),
    (["--length"], "'--lengths' requires an argument"),
])
def test_ppl_wants_one_way_of_saying_it(model: Path, arguments: list[str], words: str) -> None:
    done = call("eval", "ppl", model, "--text", "nosuch", *arguments)
    assert done.returncode == 2 and words in done.stderr
