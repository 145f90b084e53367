"""Tasks on models: prompts, what is shared, what is kept, and the commands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PROGRAM, call, tiny_config
from tiny_model import make_tiny_model

from lampe_gguf.backend.llama import LampeLlama
from lampe_gguf.backend.vocabulary import vocabulary
from lampe_gguf.cli import main as cli
from lampe_gguf.errors import FieldError, LampeError, UsageError
from lampe_gguf.evaluate import asking
from lampe_gguf.evaluate import suite as suite_module
from lampe_gguf.evaluate.asking import Observer
from lampe_gguf.evaluate.suite import Suite
from lampe_gguf.evaluate.tasks.answering import answer
from lampe_gguf.evaluate.tasks.item import Count, Item, draw
from lampe_gguf.evaluate.tasks.journal import Result
from lampe_gguf.evaluate.tasks.niah import niah
from lampe_gguf.evaluate.tasks.prompting import Prompter, common
from lampe_gguf.evaluate.tasks.report import cells, grid, table

Tiny = Callable[..., Path]


def questions(length: int, count: Count, n: int = 3) -> Iterator[Item]:
    """About one text of random letters, which all of them share."""
    rng = draw(5, length)
    text = "".join(rng.choice("abcdefghij ") for _ in range(length - 30))
    for i in range(n):
        yield Item("letters", str(i), length, "Read: ", text, f" Q{i}?", ("a",), "contains", 6)


@pytest.fixture
def model(tiny: Tiny) -> Path:
    return tiny("m.gguf", window=64, lampe=tiny_config(window=64))


def run(model: Path, **options: Any) -> list[Result]:
    options = {"lengths": (128, 256), "methods": ("lampe", "truncate"), "raw": True, **options}
    return list(Suite(model, options.pop("generate", questions), **options).run())


def test_every_method_gets_the_same_questions(model: Path) -> None:
    methods = suite_module.METHODS
    found = run(model, lengths=(128,), methods=methods)
    assert len(found) == len(methods) * 3
    prompts = {m: [r.prompt for r in found if r.method == m] for m in methods}
    assert all(prompts[m] == prompts["lampe"] for m in methods if m != "truncate")
    assert not set(prompts["truncate"]) & set(prompts["lampe"])
    assert all(r.prompt_tokens <= 64 - 6 for r in found if r.method == "truncate")


def test_what_questions_share_is_read_once_and_answers_stay_the_same(model: Path) -> None:
    found = run(model, methods=("lampe",))
    for first, *rest in (found[:3], found[3:]):
        assert first.read == first.prompt_tokens
        assert all(0 < r.read <= 4 for r in rest), [r.read for r in rest]
    for result in found:
        llm = LampeLlama(model, n_ctx=256)
        with vocabulary(model) as vocab:
            items = {i.id: i for i in questions(result.length, len)}
            prompt = Prompter(vocab, raw=True).tokens(items[result.id])
        assert answer(llm, prompt, 6)[0] == result.answer
        llm.close()


def test_under_the_policy_prompt_every_prompt_is_read_whole(tiny: Tiny) -> None:
    path = tiny("p.gguf", window=64, lampe=tiny_config(window=64, length_policy="prompt"))
    notes: list[str] = []
    made = Suite(path, questions, (128,), ("lampe", "rope"), raw=True)
    found = list(made.run(Observer(note=notes.append)))
    assert [r.read == r.prompt_tokens for r in found] == [True, True, True, True, False, False]
    assert len(notes) == 1 and "policy is 'prompt'" in notes[0]


def test_a_cut_prompt_keeps_its_beginning_and_the_question(model: Path) -> None:
    item = next(iter(questions(256, len)))
    with vocabulary(model) as vocab:
        for raw, room in ((True, 50), (False, 120)):
            prompter = Prompter(vocab, raw)
            whole, (cut,) = prompter.tokens(item), prompter.cut([item], room + 6)
            assert len(cut) == room < len(whole)
            text = vocab.detokenize(cut.tolist(), special=True).decode()
            assert "Read: " in text and " Q0?" in text
            kept = common(whole, cut)
            assert np.array_equal(cut[kept:], whole[len(whole) - room + kept :])
            assert np.array_equal(prompter.cut([item], len(whole) + 6)[0], whole)
        with pytest.raises(LampeError, match="the model's window leaves 10"):
            Prompter(vocab, True).cut([item], 16)


def test_questions_about_one_text_are_left_the_same_part_of_it(model: Path) -> None:
    one = next(iter(questions(256, len)))
    other, apart = Item(**{**vars(one), "after": " What is it that the letters say?"}), Item(
        **{**vars(one), "context": "x" + one.context})
    with vocabulary(model) as vocab:
        prompter = Prompter(vocab, True)
        first, second, third = prompter.cut([one, other, apart], 100)
        shared = common(first, second)
        assert len(second) == 94 and len(third) == 94 > len(first)
        assert shared >= len(first) - len(vocab.tokenize(one.after.encode(), False, False)) - 1
    found = run(model, lengths=(300,), methods=("truncate",), generate=lambda n, count: [
        one, Item(**{**vars(other), "id": "1"})])
    assert found[1].read <= len(other.after) + 2 < found[1].prompt_tokens


def test_the_answers_beginning_follows_the_template(model: Path) -> None:
    item = Item("t", "1", 99, "Hello", "", "", ("a",), "contains", 5, prefix=" It is")
    with vocabulary(model) as vocab:
        def text(raw: bool, **changes: Any) -> str:
            tokens = Prompter(vocab, raw).tokens(Item(**{**vars(item), **changes})).tolist()
            return str(vocab.detokenize(tokens, special=True).decode()).strip()

        assert text(False).endswith("<|im_end|>\n<|im_start|>assistant\nIt is")
        assert text(True) == text(False, chat=False) == "Hello It is"


def test_nothing_answered_is_asked_again(model: Path, tmp_path: Path) -> None:
    journal = tmp_path / "j.jsonl"
    first = run(model, lengths=(128,), resume=journal)
    before = journal.read_bytes()
    assert run(model, lengths=(128,), resume=journal) == first
    assert journal.read_bytes() == before
    more = run(model, resume=journal)
    assert [r for r in more if r.length == 128] == first and len(more) == 12
    assert journal.read_bytes().startswith(before)
    # and a question that has changed is another
    other = run(model, lengths=(128,), resume=journal, generate=lambda n, count: (
        Item(**{**vars(i), "after": "?"}) for i in questions(n, count)))
    assert not {r.prompt for r in other} & {r.prompt for r in more}


def test_a_line_that_was_cut_off_is_dropped(model: Path, tmp_path: Path) -> None:
    journal = tmp_path / "j.jsonl"
    run(model, lengths=(128,), resume=journal)
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-20])
    again = run(model, lengths=(128,), resume=journal)
    lines = journal.read_text().splitlines()
    assert len(again) == 6 and len([json.loads(line) for line in lines]) == 7
    journal.write_bytes(b'{"journal": "lam')
    assert len(run(model, lengths=(128,), resume=journal)) == 6


def test_a_damaged_line_is_said_and_asked_again(model: Path, tmp_path: Path) -> None:
    journal, notes = tmp_path / "j.jsonl", list[str]()
    run(model, lengths=(128,), resume=journal)
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:3], b"\0" * 40 + b"\n", *lines[4:]]))
    suite = Suite(model, questions, (128,), raw=True, resume=journal)
    assert len(list(suite.run(Observer(note=notes.append)))) == 6
    assert len(notes) == 1 and notes[0].startswith(f"line 4 of {journal} is damaged")


def test_a_journal_of_something_else_is_refused(model: Path, tmp_path: Path) -> None:
    journal = tmp_path / "j.jsonl"
    run(model, lengths=(128,), resume=journal)
    with pytest.raises(UsageError, match="begun with raw True and now it is False"):
        run(model, lengths=(128,), resume=journal, raw=False)
    other = tmp_path / "other.jsonl"
    run(model, lengths=(128,), resume=other, choices={"local_window": 12})
    for choices in ({}, {"local_window": None}, {"local_window": 13}):
        with pytest.raises(UsageError, match="begun with local_window 12 and now it is"):
            run(model, lengths=(128,), resume=other, choices=choices)
    make_tiny_model(model, window=64, lampe=tiny_config(window=64, local_window=9))
    with pytest.raises(UsageError, match="local_window=8 .* now it is .*local_window=9 "):
        run(model, lengths=(128,), resume=journal)
    for content in ("important\n", "important", '{"a": 1}\n', '{"journal": "another", '
                    '"settings": {}}\n{"task": 1}\n'):
        journal.write_text(content)
        with pytest.raises(LampeError, match="not a journal"):
            run(model, lengths=(128,), resume=journal)
        assert journal.read_text() == content
    with pytest.raises(LampeError, match="cannot use"):
        run(model, lengths=(128,), resume=tmp_path / "no" / "j.jsonl")


def test_an_interruption_keeps_what_was_answered(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = tmp_path / "j.jsonl"
    done = []

    def interrupted(*arguments: Any, **options: Any) -> tuple[str, int]:
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(1)
        return answer(*arguments, **options)

    monkeypatch.setattr(asking, "answer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(model, resume=journal)
    assert len(journal.read_text().splitlines()) == 1 + 4
    monkeypatch.setattr(asking, "answer", answer)
    again = run(model, resume=journal)
    assert len(again) == 12 and len(journal.read_text().splitlines()) == 1 + 12


def test_wrong_requests_are_refused(model: Path) -> None:
    seen: list[Result] = []
    with pytest.raises(FieldError, match="local_window is 64"):  # before anything is read
        seen += Suite(model, questions, (128,), ("truncate", "lampe"), raw=True,
                      choices={"local_window": 64}).run()
    assert not seen
    with pytest.raises(UsageError, match="no method 'rop'"):
        run(model, methods=("rop",))
    with pytest.raises(LampeError, match="more than 128"):
        run(model, lengths=(128,), generate=lambda n, c: (
            Item(**{**vars(i), "max_tokens": 100}) for i in questions(n, c)))


def result(score: float, **changes: Any) -> Result:
    values = {
        "task": "t", "length": 64, "method": "lampe", "id": "1", "prompt": "x", "depth": None,
        "metric": "contains", "expected": ["a"], "answer": "a", "score": score,
        "prompt_tokens": 9, "read": 9, "seconds": 2.0,
    }
    return Result(**{**values, **changes})


def test_cells_count_hits_and_average_the_rest() -> None:
    hits = [result(1.0)] * 8 + [result(0.0)] * 2
    (cell,) = cells(hits)
    assert (cell.n, cell.score, cell.seconds) == (10, 0.8, 2.0)
    assert (cell.low, cell.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    shares = [result(s, metric="recall") for s in (0.25, 0.75)]
    (cell,) = cells(shares)
    assert cell.score == 0.5 and 0.25 <= cell.low < cell.high <= 0.75
    (cell,) = cells([result(1.0, metric="recall")] * 5)
    assert (cell.low, cell.high) == pytest.approx((0.5655, 1), abs=1e-4)


def test_tables_have_a_row_for_each_length_and_the_mean_of_tasks() -> None:
    found = [result(1.0), result(0.0, method="rope"), result(0.5, task="u", metric="recall"),
             result(1.0, task="u", length=128, method="rope")]
    lines = [line.split("  ") for line in table(cells(found), ["lampe", "rope"]).splitlines()]
    rows = [[part.strip() for part in line if part.strip()] for line in lines]
    assert rows[0] == ["task", "tokens", "n", "lampe", "rope"]
    assert rows[1][:4] == ["t", "64", "1", "1.00 (0.21 to 1.00)"]
    assert rows[3][-2:] == ["-", "1.00 (0.21 to 1.00)"]
    assert rows[4] == ["mean of tasks", "64", "0.75", "0.00"]
    needles = [result(1.0, depth=0.5), result(0.0, depth=0.0)]
    assert [line.split() for line in grid(cells(needles, by_depth=True), ["lampe"]).splitlines()] \
        == [["tokens", "depth", "lampe"], ["64", "0", "0.00"], ["64", "0.5", "1.00"]]


def test_needles_with_the_models_own_tokenizer(smollm2_path: Path) -> None:
    from lampe_gguf.evaluate.tasks.haystack import haystack

    with vocabulary(smollm2_path) as vocab:
        prompter = Prompter(vocab)
        for length in (512, 4096):
            items = list(niah(length, prompter.count, hay=haystack(), depths=(0, 0.5, 1),
                              limit=1, seed=3))
            for item in items:
                tokens = prompter.tokens(item)
                assert length - 150 <= len(tokens) + item.max_tokens <= length
                text = vocab.detokenize(tokens.tolist(), special=True).decode()
                assert item.expected[0] in text and text.endswith(item.prefix.strip())


def test_a_real_model_finds_a_passkey(smollm2_path: Path, tmp_path: Path) -> None:
    journal, picture = tmp_path / "j.jsonl", tmp_path / "p.png"
    done = call("eval", "passkey", smollm2_path, "--lengths", 128, "--limit", 2, "--raw",
                "--threads", 1, "--resume", journal, "--json", "--plot", picture)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [(c["method"], c["n"]) for c in found["cells"]] == [("lampe", 2), ("truncate", 2)]
    assert all(c["score"] >= 0.5 for c in found["cells"])
    assert len(found["results"]) == 4 and found["parameters"]["lampe"]["128"]["window"] == 8192
    assert picture.read_bytes().startswith(b"\x89PNG")
    text = call("eval", "passkey", smollm2_path, "--lengths", 128, "--limit", 2, "--raw",
                "--resume", journal)
    assert "passkey     128  2" in text.stdout and "truncate" in text.stdout


def test_an_answer_that_is_kept_is_known_wherever_ctrl_c_falls(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = suite_module.Journal.add

    def kept_and_stopped(journal: Any, result: Result) -> None:
        keep(journal, result)
        raise KeyboardInterrupt

    monkeypatch.setattr(suite_module.Journal, "add", kept_and_stopped)
    journal = tmp_path / "j.jsonl"
    suite = Suite(model, questions, (128,), raw=True, resume=journal)
    with pytest.raises(KeyboardInterrupt):
        list(suite.run())
    assert len(suite.results) == len(journal.read_text().splitlines()) - 1 == 1


def test_ctrl_c_shows_what_is_there(smollm2_path: Path, tmp_path: Path) -> None:
    journal = tmp_path / "j.jsonl"
    process = subprocess.Popen(
        [*PROGRAM, "eval", "kv", str(smollm2_path), "--lengths", "256", "--limit", "40",
         "--threads", "1", "--resume", str(journal)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    until = time.monotonic() + 60
    while time.monotonic() < until and (
        not journal.exists() or journal.read_bytes().count(b"\n") < 2
    ):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    lines = journal.read_text().splitlines()
    assert process.returncode == 130 and len(lines) >= 2
    assert all(json.loads(line) for line in lines)
    assert f"{len(lines) - 1} answers are in {journal}" in err and "stopped" in err
    assert "Traceback" not in err
    assert "kv" in out and "256" in out


def test_commands_teach(tmp_path: Path) -> None:
    for name in ("needles", "passkey", "niah", "kv", "lines", "documents", "ruler", "tasks"):
        done = call("eval", name, "--help")
        assert done.returncode == 0 and "Example" in done.stdout and "truncate" in done.stdout
    assert "passkey" in call("eval", "--help").stdout


@pytest.mark.parametrize("arguments, code, words", [
    (["passkey", "nosuch.gguf"], 1, "nosuch.gguf"),
    (["passkey", "{m}", "--lengths", "128,x"], 2, "not a valid integer"),
    (["passkey", "{m}", "--lengths", "8"], 2, "not in the range"),
    (["passkey", "{m}", "--lengths", ","], 2, "it is empty"),
    (["niah", "{m}", "--methods", "lampe,nope"], 2, "no method 'nope'"),
    (["niah", "{m}", "--text", "nosuch.txt"], 1, "cannot read nosuch.txt"),
    (["ruler", "{m}", "--tasks", "vt,nope"], 2, "no task 'nope'"),
    (["ruler", "{m}", "--tasks", "qa_1"], 2, "--qa-passages"),
    (["ruler", "{m}", "--qa-passages", "nosuch"], 1, "cannot read nosuch"),
    (["niah", "{m}", "--lengths", "64"], 1, "give a greater length"),
    (["kv", "{m}", "--lengths", "512", "--methods", "truncate"], 1, "leave out --methods truncate"),
])
def test_errors_are_one_sentence(model: Path, arguments: list[str], code: int, words: str) -> None:
    done = call("eval", *(a.format(m=model) for a in arguments))
    assert done.returncode == code, done.stderr
    assert words in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_an_error_keeps_what_was_answered(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = []

    def failing(*arguments: Any, **options: Any) -> tuple[str, int]:
        if len(done) == 2:
            raise LampeError("there is no memory left")
        done.append(1)
        return answer(*arguments, **options)

    monkeypatch.setattr(asking, "answer", failing)
    arguments = ["eval", "passkey", str(model), "--raw", "--lengths", "512", "--limit", "3",
                 "--methods", "lampe"]
    assert cli.main(arguments) == 1
    out, err = capsys.readouterr()
    assert "2 answers; with --resume FILE" in err and "there is no memory left" in err
    assert "lampe" in out and "512" in out


def test_ruler_leaves_out_what_the_passages_cannot_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from lampe_gguf.cli import eval_tasks

    asked: list[str] = []

    def run_tasks(model: Path, generate: Any, lengths: Any, **options: Any) -> None:
        asked.extend(item.task for item in generate(2000, lambda text: len(text) // 4))

    monkeypatch.setattr(eval_tasks, "run_tasks", run_tasks)
    passages = tmp_path / "squad.jsonl"
    passages.write_text(json.dumps({"question": "Who?", "context": "It was Ann.",
                                    "answers": {"text": ["Ann"]}}))
    arguments = ["eval", "ruler", "m.gguf", "--limit", "1", "--qa-passages", str(passages)]
    assert cli.main(arguments) == 0
    assert f"no question in {passages}: qa_2" in capsys.readouterr().err
    assert "qa_1" in asked and "qa_2" not in asked and len(asked) == 12
    assert cli.main([*arguments, "--tasks", "qa_2"]) == 2
