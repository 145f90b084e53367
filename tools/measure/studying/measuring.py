"""One measurement after another of one model, each kept as it comes."""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from patched.places import cache_dir

from lampe_gguf.backend.llama import LampeLlama
from lampe_gguf.backend.vocabulary import beginning, excerpt, read_tokens
from lampe_gguf.cli.progress import Progress
from lampe_gguf.evaluate.asking import Observer
from lampe_gguf.evaluate.perplexity import BATCH, Setting, model_rope, score
from lampe_gguf.evaluate.recall import Recall, recall
from lampe_gguf.evaluate.suite import ALONE, Suite, method_setting
from lampe_gguf.evaluate.tasks.documents import documents
from lampe_gguf.evaluate.tasks.item import Count, Item
from lampe_gguf.evaluate.tasks.kv import kv
from lampe_gguf.evaluate.tasks.lines import lines
from lampe_gguf.evaluate.tasks.needles import needles
from lampe_gguf.evaluate.tasks.passages import Passages
from lampe_gguf.model.choose import ModelFile
from measure.studying.kept import Kept, Measured

MARGIN = 256  # tokens below a multiple of the window: questions and answers stay inside it
CHUNK = 256  # tokens whose mean loss is kept
CHARACTERS = 16  # of a text a token has at most, nearly always
TASKS = ("needles", "documents", "lines", "kv")
WHAT = ("perplexity", "recall", "needles", "lines", "kv")
OFFERED = (*WHAT, "documents")  # which needs passages
QUESTIONS = {"lines": 20, "kv": 10}  # needles: one for each of its facts
OWN = (*ALONE, "rope")  # read for themselves: a map too, where it cannot read so far
BY_POSITION = ("lampe", "jetlong", "rerope", "rope")  # what comes after a token changes nothing


@dataclass(frozen=True)
class Job:
    """A model, and how it is measured.

    read_with  the method that a text is read with, once for all maps; None: each for itself
    excerpts   of a text whose recall is measured
    """

    file: ModelFile
    kept: Kept
    threads: int | None = None
    read_with: str | None = "lampe"
    excerpts: int = 64

    def setting(self, method: str, length: int) -> Setting:
        """What a method means, at a length."""
        return method_setting(method, self.file.config, length, model_rope(self.file))

    def shared(self, method: str) -> str | None:
        """The method that reads for this one, None where it reads for itself."""
        return None if method in OWN else self.read_with

    def values(self, what: str, method: str, length: int, text: str) -> str:
        """A digest of what a measurement depends on, the model's file aside."""
        how = self.setting(method, length)
        given: list[Any] = [how.lampe.effective(), how.options, text[: length * CHARACTERS]]
        reads = None if what == "perplexity" else self.shared(method)
        if reads is not None:
            given.append(self.setting(reads, length).lampe.effective())
        if what == "recall":
            given.append(self.excerpts)
        return hashlib.sha256(json.dumps(given, default=str).encode()).hexdigest()[:12]


def length_of(window: int, windows: float) -> int:
    """Tokens of so many windows, the margin left out."""
    return int(window * windows) - MARGIN


def named(method: str, window: int) -> str:
    """A method with the model's own numbers: "jetlong:W/4" is "jetlong:2048" where W is 8,192."""
    return re.sub(r"W/(\d+)", lambda found: str(window // int(found[1])), method)


def stand_in(what: str, method: str, length: int, window: int) -> str:
    """The method that is measured for this one: inside the window, many are plain RoPE."""
    base = method.partition(":")[0]
    if length > window:
        return method
    if base in ALONE and what != "perplexity":
        return "truncate"  # which reads for itself, as they do
    if base in ALONE:
        return "rope"
    return "rope" if base in ("selfextend", "jetlong") else method


def missing(job: Job, what: str, label: str, text: str, length: int, methods: Sequence[str]
            ) -> dict[str, str]:
    """The methods that are still to be measured, with their values."""
    asked = dict.fromkeys(stand_in(what, each, length, job.kept.window) for each in methods)
    values = {each: job.values(what, each, length, text) for each in asked}
    return {each: digest for each, digest in values.items()
            if not job.kept.has((what, label, length, each), digest)}


def measure_perplexity(
    job: Job, kind: str, text: str, lengths: Sequence[int], methods: Sequence[str]
) -> None:
    """Read a text under each method, at each length: a method by position at the greatest alone.

    The mean loss of every CHUNK tokens is kept.
    """
    causal = job.file.config.length_policy == "causal"
    wanted: dict[str, set[int]] = {}
    for method in methods:
        for length in lengths:
            asked = stand_in("perplexity", method, length, job.kept.window)
            wanted.setdefault(asked, set()).add(length)
    for method, each in wanted.items():
        if causal and is_by_position(method):
            wanted[method] = {max(each)}
    for length in sorted(lengths):
        chosen = [method for method, each in wanted.items() if length in each]
        todo = missing(job, "perplexity", kind, text, length, chosen)
        for method, digest in todo.items():
            start = time.monotonic()
            losses = _losses(job, method, text, length)
            job.kept.add(Measured(
                "perplexity", kind, length, method, digest, {"losses": losses},
                round(time.monotonic() - start, 1), job.setting(method, length).parameters))


def is_by_position(method: str) -> bool:
    """Whether a longer reading holds a shorter one; not under the policy "prompt"."""
    return re.split("[:@]", method)[0] in BY_POSITION or "/" in method


def _losses(job: Job, method: str, text: str, length: int) -> list[float | None]:
    how = job.setting(method, length)
    first = max(0, length - job.kept.window) if method == "truncate" else 0
    options: dict[str, Any] = dict(how.options)
    if job.threads is not None:
        options |= {"n_threads": job.threads, "n_threads_batch": job.threads}
    with LampeLlama(job.file, lampe=how.lampe, n_ctx=length - first, n_batch=BATCH,
                    **options) as llm:
        tokens = read_tokens(llm, text, length)
        read = excerpt(tokens, first, length, beginning(llm._model))
        with Progress(f"{job.kept.model}: {method}, {length:,} tokens", length - first,
                      "tokens") as bar:
            nll = score(llm, read, lambda done, total: bar.advance(done - bar.done))
    whole = np.full(length, np.nan)
    whole[first + 1 :] = nll
    whole[first] = nll[0]  # nothing predicts the first token: the second counts for it
    means = whole[: length // CHUNK * CHUNK].reshape(-1, CHUNK).mean(axis=1)
    return [None if math.isnan(x) else round(float(x), 5) for x in means]


def by_reading(job: Job, todo: dict[str, str]) -> list[tuple[str | None, list[str]]]:
    """The methods that one reading serves, with the one that reads; then those without."""
    groups: dict[str | None, list[str]] = {}
    for method in todo:
        groups.setdefault(job.shared(method), []).append(method)
    return sorted(groups.items(), key=lambda group: group[0] is None)


def measure_recall(
    job: Job, kind: str, text: str, length: int, methods: Sequence[str]
) -> None:
    """Recall and unseen loss, excerpt by excerpt."""
    todo = missing(job, "recall", kind, text, length, methods)

    def keep(found: Recall) -> None:
        job.kept.add(Measured(
            "recall", kind, length, found.name, todo[found.name],
            {"old": [round(x, 5) for x in found.excerpts],
             "fresh": [round(x, 5) for x in found.fresh]},
            round(found.seconds_reading + found.seconds_asking, 1),
            {**found.parameters, "read_with": job.shared(found.name)}))

    for reads, names in by_reading(job, todo):
        with Progress(f"{job.kept.model}: recall, {length:,} tokens", 0, "tokens") as bar:

            def show(done: int, total: int, bar: Progress = bar) -> None:
                bar.total = total
                bar.advance(done - bar.done)

            recall(job.file, text, length, methods=names, read_with=reads or "lampe",
                   reread=reads is None, excerpts=job.excerpts, threads=job.threads,
                   on_progress=show, on_found=keep)


def measure_task(
    job: Job, task: str, kind: str, text: str, seed: int, length: int, methods: Sequence[str],
    passages: Passages | None = None,
) -> None:
    """Questions about a text that they share: right or not, by place.

    text      what needles are hidden in
    passages  what documents asks about
    """
    label = f"{kind}, seed {seed}" if task == "needles" else f"seed {seed}"
    given = "\n".join(passages.texts) if passages and task == "documents" else text
    todo = missing(job, task, label, given, length, methods)

    def generate(length: int, count: Count) -> Iterable[Item]:
        if task == "needles":
            return needles(length, count, text=text, seed=seed)
        if task == "documents" and passages is not None:
            return documents(length, count, passages=passages, seed=seed)
        made = lines if task == "lines" else kv
        return made(length, count, limit=QUESTIONS[task], seed=seed)

    for reads, names in by_reading(job, todo):
        start = time.monotonic()
        journal = _journal(job, task, label, length, reads)
        suite = Suite(Path(job.file), generate, [length], names, read_with=reads, raw=True,
                      threads=job.threads, resume=journal)
        _run(suite, f"{job.kept.model}: {task}")
        seconds = (time.monotonic() - start) / len(names)
        for method in names:
            mine = sorted((each for each in suite.results if each.method == method),
                          key=lambda each: each.depth or 0.0)
            job.kept.add(Measured(
                task, label, length, method, todo[method],
                {"places": [each.depth for each in mine], "scores": [each.score for each in mine]},
                round(seconds, 1), {**suite.parameters[method][length], "read_with": reads}))
        journal.unlink()


def _run(suite: Suite, label: str) -> None:
    with Progress(label, 0, "tokens") as bar:

        def outlook(total: int) -> None:
            bar.total = max(total, bar.done)

        def stage(text: str) -> None:
            bar.relabel(f"{label}, {text}")

        for _ in suite.run(Observer(outlook, bar.advance, stage)):
            pass


def _journal(job: Job, task: str, label: str, length: int, reads: str | None) -> Path:
    """Where answers are kept until all of a measurement's are there."""
    given = json.dumps([job.file.config.effective(), job.kept.size, reads], default=str)
    digest = hashlib.sha256(given.encode()).hexdigest()[:8]
    folder = cache_dir() / "study"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{job.kept.model}-{task}-{label.replace(', ', '-').replace(' ', '-')}-" \
                    f"{length}-{digest}.jsonl"
