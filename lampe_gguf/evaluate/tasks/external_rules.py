"""For each task of the three benchmarks: its metric, its longest answer, what to ask.

Metrics and lengths of answers are the benchmarks', with these departures: ROUGE is rouge-score's,
Chinese is compared by characters and not by words, code with difflib; L-Eval's open questions,
which it has a model judge, get ROUGE-L; of an InfiniteBench answer, the first letter that stands
alone is the choice, and the first or last number the number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rule:
    """How a task is asked and scored; `chat` False: the prompt is to be continued."""

    metric: str
    max_tokens: int
    instruction: str = ""
    prefix: str = ""
    chat: bool = True

    def expected(self, answer: Any) -> tuple[str, ...]:
        """An L-Eval answer as the metric wants it."""
        text = str(answer).strip()
        if self.metric in ("choice_any", "choice_all"):
            return ("".join(sorted(set(re.findall("[A-D]", text.split()[0])))),)
        if self.metric == "last_number":
            return tuple(re.findall(r"-?\d+(?:\.\d+)?", text.replace(",", ""))[-1:])
        return (text,)


_SHORT = "Answer the question in a few words, and explain nothing."
_ANSWER = " Answer:"
_SUM = "Write a summary of the text."

LONGBENCH = {
    **dict.fromkeys(("narrativeqa", "qasper"), Rule("f1", 128, _SHORT, _ANSWER)),
    "multifieldqa_en": Rule("f1", 64, _SHORT, _ANSWER),
    "multifieldqa_zh": Rule("f1_characters", 64, _SHORT, _ANSWER),
    **dict.fromkeys(("hotpotqa", "2wikimqa", "musique"), Rule("f1", 32, _SHORT, _ANSWER)),
    "dureader": Rule("rouge_characters", 128, "Answer the question.", _ANSWER),
    "gov_report": Rule("rouge", 512, _SUM, " Summary:"),
    "qmsum": Rule("rouge", 512, "Answer the question about the meeting in some sentences.",
                  _ANSWER),
    "multi_news": Rule("rouge", 512, _SUM, " Summary:"),
    "vcsum": Rule("rouge_characters", 512, _SUM, " Summary:"),
    "trec": Rule("classified_line", 64, "Name the type of each question. Some examples:",
                 chat=False),
    "triviaqa": Rule("f1_line", 32, "Answer each question from its passage. Some examples:",
                     chat=False),
    "samsum": Rule("rouge_line", 128, "Sum up each dialogue. Some examples:", chat=False),
    "lsht": Rule("classified_line", 64, "Name the class of each piece of news. Some examples:",
                 chat=False),
    "passage_count": Rule("share_of_numbers", 32, "How many different paragraphs are there, once "
                          "those that repeat another are left out? Give only the number.",
                          _ANSWER),
    "passage_retrieval_en": Rule("share_of_numbers", 32, "Which paragraph is the following a "
                                 "summary of? Say \"Paragraph\" and its number.", _ANSWER),
    "passage_retrieval_zh": Rule("share_of_numbers", 32, "Which paragraph is the following a "
                                 "summary of? Give its number.", _ANSWER),
    **dict.fromkeys(("lcc", "repobench-p"), Rule("similarity", 64, chat=False)),
}

INFINITEBENCH = {
    "passkey": Rule("first_number", 6),
    "number_string": Rule("first_number", 12),
    "kv_retrieval": Rule("contains", 50),
    "longbook_sum_eng": Rule("rouge_sum", 1200, _SUM),
    "longbook_choice_eng": Rule("first_letter", 40, "Choose the right answer: give its letter.",
                                " Answer:"),
    "longbook_qa_eng": Rule("f1", 40, _SHORT, _ANSWER),
    "longbook_qa_chn": Rule("f1_characters", 40, _SHORT, _ANSWER),
    "longdialogue_qa_eng": Rule("any_word", 40, "Which character's name is hidden in the dialogue "
                                "behind $$MASK$$? Give only the name.", _ANSWER),
    "math_find": Rule("first_number", 3),
    "math_calc": Rule("numbers", 30000),
    "code_run": Rule("last_number", 5),
    "code_debug": Rule("first_letter", 5, "Choose the function with the error: give its letter.",
                       " Answer:"),
}


def leval_rule(evaluation: str, source: str, answer: str) -> Rule:
    """The rule of an L-Eval record, by its field `evaluation`, its task and the kind of answer."""
    kind = evaluation.lower()
    if kind.startswith("exam"):
        if re.fullmatch(r"\(?[A-D]{1,4}(?:[.):,].*)?", answer.strip(), re.DOTALL):
            many = "coursera" in source.lower()
            return Rule("choice_all" if many else "choice_any", 32,
                        "Choose the right answer: give its letter, or all letters that are right."
                        if many else "Choose the right answer: give its letter.", " Answer:")
        if "[fact:" in answer:
            return Rule("loyalty", 64, "Say True or False by the document alone, then, in the form "
                        "[fact: True] or [fact: False], whether it is so in the real world.")
        if re.search(r"\d", answer) and "gsm" in source.lower():
            return Rule("last_number", 256, "Work it out, and end with the number.")
        return Rule("contains_unspaced", 64, "Give only the answer.", _ANSWER)
    if kind.startswith("f1"):
        return Rule("f1", 128, _SHORT, _ANSWER)
    return Rule("rouge", 512, "Answer in full.")
