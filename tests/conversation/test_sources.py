"""Where words of an answer stand: named where the match is strong, and never else."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lampe_gguf import Chat, Document, LampeLlama, ask
from lampe_gguf.conversation.sources import MOST, Source, find_sources

PAGES = {
    1: "Report on the harbour. Confidential, for members of the board only. The harbour was built "
       "in 1931 by two brothers.",
    2: "Report on the harbour. Confidential, for members of the board only. In March the pump of\n"
       "the northern dock failed twice because sand had blocked its inlet, and was mended.",
    3: "Report on the harbour. Confidential, for members of the board only. Costs came to 4120 "
       "crowns for sand filters in the northern dock.",
}
REPORT = Document("report.pdf", "\n\n".join(f"[page {n}]\n{text}" for n, text in PAGES.items()))
LETTER = Document("letter.txt", "Dear Anna, the wedding will be at Rosendal church on 4 June.")


def test_the_page_is_named() -> None:
    found = find_sources("It broke: the pump of the northern dock failed twice in spring.",
                         [LETTER, REPORT])
    assert found == [Source("report.pdf", 2, "the pump of the northern dock failed twice")]
    assert found[0].said() == (
        'see report.pdf, page 2: "the pump of the northern dock failed twice"')


def test_a_document_without_pages() -> None:
    found = find_sources("The WEDDING will be at Rosendal church, she writes.", [LETTER, REPORT])
    assert [each.said() for each in found] == [
        'see letter.txt: "The WEDDING will be at Rosendal church"']


def test_several_the_longest_first() -> None:
    answer = ("The wedding will be at Rosendal church on 4 June. The pump of the northern dock "
              "failed twice. Costs came to 4120 crowns for sand filters in the northern dock.")
    assert [(each.document, each.page) for each in find_sources(answer, [REPORT, LETTER])] == [
        ("report.pdf", 3), ("letter.txt", None), ("report.pdf", 2)]


def test_no_source_is_named_for_little() -> None:
    documents = [REPORT, LETTER]
    for answer in (
        "", "yes", "The pump failed.",
        "Sand blocked the inlet of a pump in March.",  # its own words
        "It will be at the one in the of",  # links between words
        "Confidential, for members of the board only.",  # on every page
        "[page 2] [page 2] [page 2]", "\u6cf5\u574f\u4e86\u4e24\u6b21" * 9,
    ):
        assert find_sources(answer, documents) == [], answer
    # the question's own words prove nothing
    question = "What failed twice because sand had blocked its inlet?"
    answer = "I do not know what failed twice because sand had blocked its inlet."
    assert find_sources(answer, documents) and not find_sources(answer, documents, question)


def test_a_long_document_takes_no_time() -> None:
    letters = random.Random(1)
    words = [f"word{letters.randrange(3000)}" for _ in range(400_000)]
    text = " ".join(words)
    start = time.monotonic()
    found = find_sources(" ".join(words[300_000:300_200]), [Document("long.txt", text)])
    assert len(found) == 1 and len(found) <= MOST
    same = find_sources("a b c d e " * 100, [Document("same.txt", "a b c d e " * 2000)])
    assert same == [] and time.monotonic() - start < 20


def test_ask_and_chat_look_for_them(
    tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def find(answer: str, documents: list[Document], question: str) -> list[Source]:
        seen.append((answer, documents, question))
        return [Source("letter.txt", None, "at Rosendal church")]

    monkeypatch.setattr("lampe_gguf.conversation.ask.find_sources", find)
    monkeypatch.setattr("lampe_gguf.conversation.chat.find_sources", find)
    model = tiny()
    answer = ask(model, "Where?", LETTER, max_tokens=2, seed=1)
    assert [each.document for each in answer.sources] == ["letter.txt"]
    assert seen == [(answer.text, [LETTER], "Where?")]
    shown: list[str] = []
    with LampeLlama(str(model), n_ctx=512, verbose=False) as llm:
        chat = Chat(llm, shown.append, max_tokens=2, pending=[LETTER])
        chat.answer("Where?")
        chat.answer("When?")  # of the documents that were read before
        assert seen[-1] == (chat.turns[-1].answer, [LETTER], "When?")
    assert shown.count('[see letter.txt: "at Rosendal church"]\n') == 2
