"""RULER's questions: the passages that answer one, among many that do not."""

from __future__ import annotations

import random
from collections.abc import Sequence

from .passages import Passages, Question
from .ruler_parts import Parts


def asked_by(task: str, passages: Passages) -> Sequence[Question]:
    """The questions of a task: those of one passage (qa_1), those of several (qa_2)."""
    return passages.single if task == "qa_1" else passages.several


def question(task: str, passages: Passages, i: int, rng: random.Random) -> Parts | None:
    """Question i of a task; None beyond the last."""
    questions = asked_by(task, passages)
    if i >= len(questions):
        return None
    asked = questions[i]
    others = [text for text in passages.texts if text not in asked.passages]
    rng.shuffle(others)
    places = [rng.random() for _ in asked.passages]

    def build(n: int) -> str:
        texts = others[:n]
        for place, text in zip(places, asked.passages, strict=True):
            texts.insert(round(place * len(texts)), text)
        return "\n\n".join(f"Document {k}:\n{text}" for k, text in enumerate(texts, 1))

    how = "Give only the answer."
    return Parts(
        before=f"Answer the question at the end from the documents below. {how}\n\n",
        build=build,
        after=f"\n\nAnswer the question from the documents above. {how}\n\n"
              f"Question: {asked.text}",
        prefix=" Answer:",
        expected=asked.answers,
        most=len(others),
    )
