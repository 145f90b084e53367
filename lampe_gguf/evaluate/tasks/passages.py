"""Questions about passages, from a JSONL like SQuAD's or HotpotQA's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ...errors import LampeError


@dataclass(frozen=True)
class Question:
    """A question, the passages that answer it, and the answers that count."""

    text: str
    passages: tuple[str, ...]
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Passages:
    """Questions of one passage, of several, and all passages, each once."""

    single: tuple[Question, ...]
    several: tuple[Question, ...]
    texts: tuple[str, ...]


def read_passages(records: Iterable[tuple[str, dict[str, Any]]]) -> Passages:
    """From (where it stands, record) pairs with question, context or passages, and answers.

    context  a text (SQuAD), [title, [sentence, ...]] pairs or {"title": [...], "sentences":
             [[...], ...]} (HotpotQA), or a list of texts; or "ctxs" with title and text of
             each, of which those marked "isgold" count ("Lost in the Middle")
    answers  a text or several, also as "answer" or under "text" (SQuAD)
    LampeError for a record in no such form.
    """
    questions: list[Question] = []
    for where, record in records:
        text = record.get("question")
        passages = _passages(record.get("context", record.get("passages", record.get("ctxs"))))
        answers = _answers(record.get("answers", record.get("answer")))
        if not isinstance(text, str) or not passages or not answers:
            raise LampeError(
                f"{where} is no question about passages; give records with question, context and "
                "answers"
            )
        questions.append(Question(text, passages, answers))
    return Passages(
        single=tuple(each for each in questions if len(each.passages) == 1),
        several=tuple(each for each in questions if len(each.passages) > 1),
        texts=tuple(dict.fromkeys(text for each in questions for text in each.passages)),
    )


def _passages(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,) if value.strip() else ()
    if isinstance(value, dict):
        titles, sentences = value.get("title"), value.get("sentences")
        if not isinstance(titles, list) or not isinstance(sentences, list):
            return ()
        value = list(zip(titles, sentences, strict=False))
    if not isinstance(value, list):
        return ()
    marked = [each for each in value if isinstance(each, dict) and each.get("isgold")]
    found = []
    for each in marked or value:
        if isinstance(each, str):
            found.append(each)
        elif isinstance(each, dict) and isinstance(each.get("text"), str):
            found.append("\n".join(filter(None, [str(each.get("title") or ""), each["text"]])))
        elif isinstance(each, (list, tuple)) and len(each) == 2:
            title, body = each
            found.append(f"{title}\n{''.join(map(str, body))}")
    return tuple(found)


def _answers(value: Any) -> tuple[str, ...]:
    if isinstance(value, dict):
        value = value.get("text")
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list):
        return ()
    return tuple(dict.fromkeys(str(each) for each in value if str(each).strip()))
