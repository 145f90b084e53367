"""RULER's questions: the passages that answer one, among many that do not."""

from __future__ import annotations

import random

from .passages import Passages
from .ruler_parts import Parts


def question(task: str, passages: Passages, i: int, rng: random.Random) -> Parts | None:
    """Question i of those of one passage (qa_1) or of several (qa_2); None beyond the last."""
    questions = passages.single if task == "qa_1" else passages.several
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
