"""Facts in real text and lines of a register: where they stand, what serves whom, the commands."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import call, tiny_config

from lampe_gguf.backend.llama import LampeLlama
from lampe_gguf.backend.vocabulary import vocabulary
from lampe_gguf.errors import LampeError, UsageError
from lampe_gguf.evaluate.asking import Observer
from lampe_gguf.evaluate.needles import needles
from lampe_gguf.evaluate.suite import Suite
from lampe_gguf.evaluate.tasks.answering import answer
from lampe_gguf.evaluate.tasks.item import Count, Item
from lampe_gguf.evaluate.tasks.journal import Result
from lampe_gguf.evaluate.tasks.kv import kv
from lampe_gguf.evaluate.tasks.lines import lines
from lampe_gguf.evaluate.tasks.needles import FACT
from lampe_gguf.evaluate.tasks.needles import needles as hidden
from lampe_gguf.evaluate.tasks.prompting import Prompter
from lampe_gguf.evaluate.tasks.report import quarters

Tiny = Callable[..., Path]
TEXT = " ".join(f"The {i} birds sang. So they did!\n\n" if i % 4 else f"And {i} sat, on a wall."
                for i in range(3000))
MAPS = ("lampe", "64/16", "jetlong:24", "rope")


@pytest.fixture
def model(tiny: Tiny) -> Path:
    return tiny("m.gguf", window=128, lampe=tiny_config(
        window=128, local_window=16, max_mapping_length=64.0, context_length=8192))


def words(text: str) -> int:
    return len(text.split())


def test_facts_stand_evenly_between_sentences_and_each_is_asked_for() -> None:
    items = list(hidden(3000, words, text=TEXT, seed=3))
    context = items[0].context
    assert len(items) == 20 and {item.context for item in items} == {context}
    assert 2900 < words(context) <= 3000
    for i, item in enumerate(items):
        fact = FACT.format(name=item.id, digits=item.expected[0])
        assert context.count(item.id) == 1 and item.chat is False
        at = context.index(fact)
        assert context[:at].rstrip(" \n")[-1:] in (".", "!") and context[at - 1] in " \n"
        assert item.depth == pytest.approx(at / len(context), abs=1e-4)
        assert item.depth == pytest.approx((i + 0.5) / 20, abs=0.01)
        assert item.text.endswith(f"\n\n\n{fact[: -len(item.expected[0]) - 2]}")
    # nothing of the text is lost, and nothing else is added
    bare = re.sub(r"The special magic number for \S+ is \d{7}\. ", "", context)
    assert TEXT.startswith(bare)


def test_a_seed_draws_other_names_and_numbers_and_leaves_the_places() -> None:
    one, same, other = (list(hidden(2000, words, text=TEXT, seed=s)) for s in (1, 1, 2))
    assert one == same
    assert not {i.id for i in one} & {i.id for i in other}
    assert not {i.expected for i in one} & {i.expected for i in other}
    for a, b in zip(one, other, strict=True):
        assert a.depth == pytest.approx(b.depth or 0, abs=0.003)


def test_a_text_is_not_begun_anew() -> None:
    with pytest.raises(LampeError, match="too short for 9,000 tokens"):
        list(hidden(9000, words, text=TEXT[:20000]))
    with pytest.raises(LampeError, match="a text with 20 facts needs"):
        list(hidden(64, words, text=TEXT))


def test_a_register_is_read_once_for_twenty_lines() -> None:
    items = list(lines(1500, words, limit=23, seed=0))
    assert [item.id for item in items] == [str(i) for i in range(23)]
    assert [len({item.context for item in part}) for part in (items[:20], items[20:], items)] == [
        1, 1, 2]
    for item in items:
        name = re.search(r"in line (\S+)\?", item.after)
        assert name is not None
        assert f"\nline {name[1]}: REGISTER_CONTENT is <{item.expected[0]}>" in "\n" + item.context
        assert item.prefix.endswith(f"{name[1]} is <") and 1 <= int(item.expected[0]) <= 50000
    names = re.findall(r"line (\S+):", items[0].context)
    assert len(names) == len(set(names)) > 200
    depths = [item.depth for item in items[:20]]
    assert depths == pytest.approx([(i + 0.5) / 20 for i in range(20)], abs=0.01)


def two_texts(length: int, count: Count) -> Iterator[Item]:
    """Three questions about one text, two about another that begins like it."""
    for i in range(5):
        text = TEXT[: length // 2] + (TEXT[-60:] if i > 2 else "")
        yield Item("t", str(i), length, "Read: ", text, f" Q{i}?", ("1",), "contains", 6)


def asked(model: Path, **options: object) -> list[Result]:
    given = {"methods": MAPS, "raw": True, "read_with": "lampe", **options}
    return list(Suite(model, two_texts, (600,), **given).run())  # type: ignore[arg-type]


def test_one_reading_serves_all_maps(model: Path) -> None:
    found = asked(model)
    assert len(found) == 4 * 5
    for result in found:  # as if each text was read with the one, and each question with the other
        item = list(two_texts(600, len))[int(result.id)]
        with vocabulary(model) as vocab:
            prompter = Prompter(vocab, raw=True)
            prompt, text = prompter.tokens(item), prompter.before_question(item)
            # nothing of another method's question is kept, where it begins like this one
            assert result.read == len(prompt) - text
            assert bytes(vocab.detokenize(prompt[text:].tolist())).decode().strip() == (
                item.after.strip())
        with LampeLlama(model, n_ctx=700) as llm:
            llm.eval(prompt[:text].tolist())
            how = Suite(model, two_texts, (600,)).setting_of(result.method, 600)
            llm.set_config(how.lampe)
            assert answer(llm, prompt, 6)[0] == result.answer
    alone = asked(model, read_with=None)
    assert [r.answer for r in alone] != [r.answer for r in found]
    assert [r.answer for r in alone if r.method == "lampe"] == [
        r.answer for r in found if r.method == "lampe"]


def test_what_cannot_share_reads_for_itself(model: Path, tiny: Tiny) -> None:
    found = asked(model, methods=("truncate", "yarn", "lampe"))
    assert [r.method for r in found] == ["lampe"] * 5 + ["truncate"] * 5 + ["yarn"] * 5
    assert [r.answer for r in found] == [r.answer for method in ("lampe", "truncate", "yarn")
                                         for r in asked(model, methods=(method,), read_with=None)]
    path = tiny("p.gguf", window=64, lampe=tiny_config(window=64, length_policy="prompt"))
    notes: list[str] = []
    suite = Suite(path, two_texts, (300,), ("lampe",), raw=True, read_with="lampe")
    whole = [r.read == r.prompt_tokens for r in suite.run(Observer(note=notes.append))]
    assert all(whole) and len(notes) == 1


def test_the_work_is_known_before_it_is_done(model: Path) -> None:
    totals, done = list[int](), list[int]()
    suite = Suite(model, two_texts, (600,), (*MAPS, "truncate"), raw=True, read_with="lampe")
    list(suite.run(Observer(outlook=totals.append, work=done.append)))
    most_written = 6 * 5 * 5
    assert totals[-1] - most_written <= sum(done) <= totals[-1]


def test_only_what_is_missing_is_asked(model: Path, tmp_path: Path) -> None:
    journal = tmp_path / "j.jsonl"
    first = asked(model, methods=("lampe", "64/16"), resume=journal)
    both = asked(model, methods=("lampe", "64/16", "rope"), resume=journal)
    by_key = {result.key: result for result in first}  # their seconds are the first run's, too
    assert {r.key: r for r in both if r.method != "rope"} == by_key and len(both) == 15
    with pytest.raises(UsageError, match="read_with 'lampe' and now it is 'rope'"):
        asked(model, resume=journal, read_with="rope")


@pytest.mark.parametrize("options, said", [
    ({"methods": ("lampe", "magic")}, "there is no method 'magic'"),
    ({"methods": ("48/",)}, "there is no map '48/'"),
    ({"read_with": "truncate"}, "serves no other method"),
    ({"read_with": "magic"}, "there is no method 'magic'"),
])
def test_methods_that_there_are_not(model: Path, options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        asked(model, **options)


def test_the_function(model: Path) -> None:
    seen, results = list[tuple[int, int]](), list[Result]()
    found = needles(model, TEXT, 1500, methods=["lampe", "64/16", "truncate"], facts=4,
                    on_progress=lambda done, total: seen.append((done, total)),
                    on_result=results.append)
    assert [each.method for each in found] == ["lampe", "64/16", "truncate"]
    assert all(each.places == found[0].places and len(each.found) == 4 for each in found)
    assert [f for each in found for f in each.found] == [r.score == 1 for r in results]
    assert found[1].parameters["max_mapping_length"] == 64
    assert seen[-1][0] <= seen[-1][1] and len(seen) > 12


def test_quarters_of_the_text() -> None:
    base = Result("needles", 512, "lampe", "a", "", 0.1, "first_number", ["1"], "1", 1.0, 9, 9, 0.1)
    made = [base, replace(base, depth=0.6), replace(base, depth=0.7, score=0.0),
            replace(base, depth=1.0), replace(base, method="rope", score=0.0)]
    rows = quarters(made, ["rope", "lampe"]).splitlines()
    assert re.split(r"  +", rows[1].strip()) == [
        "512", "rope", "0 of 1", "0 of 1", "0 of 0", "0 of 0", "0 of 0"]
    assert re.split(r"  +", rows[2].strip()) == [
        "512", "lampe", "3 of 4", "1 of 1", "0 of 0", "1 of 2", "1 of 1"]


def test_the_commands(model: Path, tmp_path: Path) -> None:
    text, plot, journal = tmp_path / "t.txt", tmp_path / "p.png", tmp_path / "j.jsonl"
    text.write_text(TEXT)
    command = ["eval", "needles", model, "--text", text, "--lengths", "800,1200", "--facts", "4",
               "--methods", "lampe,64/16,truncate", "--resume", journal]
    done = call(*command, "--plot", plot)
    assert done.returncode == 0, done.stderr
    assert "4th" in done.stdout and len(re.findall(r"\d of 4", done.stdout)) == 6
    assert plot.read_bytes().startswith(b"\x89PNG")
    before = journal.read_bytes()
    found = json.loads(call(*command, "--json").stdout)
    assert len(found["results"]) == 24 and journal.read_bytes() == before
    assert {each["metric"] for each in found["results"]} == {"first_number"}
    done = call("eval", "lines", model, "--lengths", "1500", "--limit", "3", "--raw", "--read-with",
                "lampe", "--methods", "lampe,rope")
    assert done.returncode == 0 and "lines" in done.stdout and "of 3" in done.stdout, done.stderr
    short = call("eval", "needles", model, "--text", text, "--lengths", "400000")
    assert short.returncode == 1 and "the text is too short" in short.stderr


def test_pairs_share_a_reading_too(model: Path) -> None:
    suite = Suite(model, lambda n, count: kv(n, count, limit=4, seed=0), (4096,),
                  ("lampe", "64/16"), raw=True, read_with="lampe")
    results = list(suite.run())
    assert len(results) == 8 and max(result.read for result in results) < 400
