"""The calibration itself: what is read and asked in which order, and what follows from it."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import LampeError, UsageError
from ..evaluate.perplexity import plain_rope
from ..evaluate.reading import Reading, excerpts_of, fresh_ones
from ..method.config import LampeConfig
from ..shown import duration
from .choice import Found, choose_schedules, plain_inside
from .clock import Clock, OutOfTime
from .objective import Losses
from .report import FITTED, HELD_OUT, Report, name_of
from .search import Cell, flat, next_cell, shape
from .verdict import (
    decide,
    is_baseline,
    judged,
    loses,
    perplexity_says,
    provenance,
    say_rival,
)

OnStage = Callable[[str], None]  # called with what is being looked for

ATTENTION_FACTOR = 1.03
RIVALS = (4, 16)  # Jet-Long's local windows are these parts of W


class Calibration:
    """Losses of one model on two texts, each asked for once and saved.

    texts   segment -> tokens, as long as the longest length of the task, and the fresh ones behind
    path    where the report is saved after each map, None: nowhere
    """

    def __init__(
        self,
        reading: Reading | None,
        report: Report,
        texts: dict[str, list[int]],
        path: Path | None,
        clock: Clock,
        baseline: LampeConfig,
        on_stage: OnStage,
    ) -> None:
        self.reading = reading
        self.report = report
        self.texts = texts
        self.path = path
        self.clock = clock
        self.baseline = baseline
        self.on_stage = on_stage
        self.cut_short = False  # the search for a map: there are others that may be better

    def losses(self, segment: str, length: int, config: LampeConfig) -> Losses:
        """Those of one map at one length, asked for now unless they were before.

        The fitted text is read under the baseline, the held-out one under the map that is asked.
        """
        known = self.report.get(segment, length, config)
        if known is not None:
            return known
        read_with = self.baseline if segment == FITTED else config
        longest = self.report.task.lengths[-1]
        if self.reading is None:
            raise OutOfTime
        text = self.texts[segment]
        part = self.reading.missing(text[:length], read_with) / longest
        self.clock.check(part, 1)
        old, fresh = self.report.task.excerpts
        seconds = self.reading.read(text[:length], read_with)
        start = time.monotonic()
        found = Losses(*self.reading.losses(
            config, excerpts_of(text, length, old), fresh_ones(text, longest, fresh)))
        if not np.isfinite([*found.old, *found.fresh]).all():
            raise LampeError(
                f"the model gives no finite loss under {name_of(config)}: its file is damaged, or "
                "its values are")
        asking = time.monotonic() - start
        self.clock.took(part, seconds, asking)
        self.report.seconds += seconds + asking
        self.report.add(segment, length, config, found)
        self.save()
        return found

    def everywhere(self, segment: str, config: LampeConfig) -> None:
        """Ask under a map at every length; the longest first, which the others are cut from."""
        for length in reversed(self.report.task.lengths):
            self.losses(segment, length, config)

    def save(self) -> None:
        """The report as far as it got."""
        if self.path is not None:
            self.report.save(self.path)

    def find_maps(self, safe: LampeConfig) -> dict[Cell, Losses]:
        """Losses of the maps of the grid that are worth asking under, at the longest length."""
        self.on_stage("the map")
        report = self.report
        found: dict[Cell, Losses] = {}
        cell = next_cell(found, report.objective)
        try:
            while cell is not None:
                config = flat(safe, *shape(cell, report.window))
                found[cell] = self.losses(FITTED, report.beyond[0], config)
                cell = next_cell(found, report.objective)
        except OutOfTime:
            if not found:
                raise
            self.cut_short = True
            tried = "one" if len(found) == 1 else f"{len(found)}"
            report.reasons.append(f"the map was sought among {tried}: out of time")
        return found

    def ask_shorter(self, safe: LampeConfig, longest: dict[Cell, Losses]) -> Found:
        """Losses of the same maps at the other lengths beyond the window, most promising first."""
        self.on_stage("the map of shorter inputs")
        report = self.report
        found = {report.beyond[0]: longest}
        order = sorted(longest, key=lambda cell: report.objective.value(longest[cell]))
        for length in report.beyond[1:]:
            here: dict[Cell, Losses] = {}
            try:
                self.losses(FITTED, length, self.baseline)
                for cell in order:
                    config = flat(safe, *shape(cell, report.window))
                    here[cell] = self.losses(FITTED, length, config)
            except OutOfTime:
                report.reasons.append(
                    f"at {length:,} tokens {len(here)} of {len(order)} maps were asked under: out "
                    "of time")
            if here:
                found[length] = here
        return found

    def find_extras(self, config: LampeConfig) -> dict[str, Any]:
        """Each of a few other changes, kept where it pays beyond the text's own noise."""
        self.on_stage("tail window, attention factor")
        objective, length = self.report.objective, self.report.beyond[0]
        kept: dict[str, Any] = {}
        extras: dict[str, Any] = {"tail_window": 0, "attention_factor": ATTENTION_FACTOR}
        for name, value in extras.items():
            changed = dataclasses.replace(config, **{name: value})
            if changed == config:
                continue
            try:
                before = self.losses(FITTED, length, config)
                after = self.losses(FITTED, length, changed)
            except OutOfTime:
                self.report.reasons.append(f"{name} was not tried: out of time")
                continue
            more = objective.difference(after, before)
            pays = objective.is_worse(before, after)
            self.report.reasons.append(
                f"{name} = {value}: {more.mean:+.3f} +- {more.error:.3f} nats a token against "
                f"{getattr(config, name)}, {'taken' if pays else 'not taken'}")
            if pays:
                config = changed
                kept[name] = value
        return kept

    @property
    def plain(self) -> LampeConfig:
        return plain_rope(self.baseline.window, self.baseline.context_length)

    def rivals(self) -> list[LampeConfig]:
        """Jet-Long, with a wide local window and a narrow one."""
        window = self.baseline.window
        return [
            dataclasses.replace(
                self.baseline, method="jetlong", local_window=window // part, tail_window=0,
                max_mapping_length=float(window), short_length=0, short_mapping_length=0,
                attention_factor=1.0,
            ) for part in RIVALS
        ]

    def ask_rivals(self) -> LampeConfig:
        """The better of them at the longest length, as far as there was time to see."""
        self.on_stage("Jet-Long")
        found: dict[LampeConfig, Losses] = {}
        with contextlib.suppress(OutOfTime):
            for rival in self.rivals():
                found[rival] = self.losses(FITTED, self.report.beyond[0], rival)
        return self.report.objective.best(found) if found else self.rivals()[0]

    def keep_inside(self, config: LampeConfig) -> LampeConfig:
        """The map, as plain RoPE as far as the window goes where it would lose against it there."""
        if config.short_length:
            return config
        report, length = self.report, self.report.inside
        name = name_of(config)
        try:
            plain = self.losses(FITTED, length, self.plain)
            found = self.losses(FITTED, length, config)
        except OutOfTime:
            report.reasons.append(
                f"{name} was not tried inside the window, out of time: plain RoPE stays there")
            return plain_inside(config)
        more = report.objective.difference(found, plain)
        lost = report.objective.is_worse(found, plain)
        report.reasons.append(
            f"inside the window, {length:,} tokens, {name} has {more.mean:+.3f} +- "
            f"{more.error:.3f} nats a token against plain RoPE: "
            + ("plain RoPE stays there" if lost else "no loss beyond the noise"))
        return plain_inside(config) if lost else config

    def ask_inside(self, configs: Sequence[LampeConfig]) -> None:
        """The other maps inside the window, for the report, where there is time."""
        with contextlib.suppress(OutOfTime):
            for config in configs:
                self.losses(FITTED, self.report.inside, config)

    def read_held_out(
        self, finalists: Sequence[LampeConfig], rival: LampeConfig
    ) -> list[LampeConfig]:
        """Read the other text under each, as time allows; the finalists that were read under."""
        self.on_stage("the held-out text")
        done: list[LampeConfig] = []
        with contextlib.suppress(OutOfTime):
            self.everywhere(HELD_OUT, self.baseline)
            self.losses(HELD_OUT, self.report.inside, self.plain)
            for config in finalists:
                self.everywhere(HELD_OUT, config)
                done.append(config)
            self.everywhere(HELD_OUT, rival)
        return done


def carry_out(work: Calibration, safe: LampeConfig, context_length: int) -> None:
    """Fill in the report's points, fit, reasons and configuration, as far as the time allows.

    safe            the defaults for the window, which the maps of the grid differ from by L and s1
    context_length  of the configuration that is chosen

    Ctrl-C passes through; what was asked by then is saved.
    """
    report, baseline, clock = work.report, work.baseline, work.clock
    n_lengths = len(report.task.lengths)
    report.clear()
    clock.reserve = (2.0, 2.0 * n_lengths + 1)
    try:
        work.losses(FITTED, report.beyond[0], baseline)
        longest = work.find_maps(safe)
    except OutOfTime:
        needed = clock.seconds(1 + clock.reserve[0], 2 + clock.reserve[1])
        raise UsageError(
            "--budget holds not even the three readings and few questions that any calibration "
            f"takes, about {duration(needed)}; give more, or a smaller --max-length"
        ) from None
    extras = work.find_extras(
        flat(safe, *shape(report.objective.best(longest), report.window)))
    rival = work.ask_rivals()
    found = work.ask_shorter(safe, longest)
    maps = [flat(safe, *shape(cell, report.window)) for cell in longest]
    work.on_stage("inside the window")
    finalists = [dataclasses.replace(config, **extras)
                 for config in choose_schedules(report, safe, found)]
    finalists = [work.keep_inside(config) for config in finalists
                 if not loses(report, config, baseline)]
    finalists = [config for config in finalists if not is_baseline(report, config, baseline)]
    perplexity_says(report, [baseline, *maps])
    clock.reserve = (4.0, 4.0 * n_lengths + 1)
    work.ask_inside([baseline, *maps])
    clock.reserve = (0.0, 0.0)
    done = work.read_held_out(finalists, rival) if finalists else []
    chosen: LampeConfig | None = None
    if finalists or not work.cut_short:
        chosen = decide(report, baseline, work.plain, finalists, done)
    else:
        report.reasons.append("the search is not over: give more --budget and --resume")
    say_rival(report, chosen or baseline, rival)
    report.candidates = judged(report, FITTED, baseline, maps)
    report.held_out = judged(report, HELD_OUT, baseline, maps)
    report.config = dataclasses.replace(chosen or baseline, context_length=context_length)
    if chosen is not None:
        report.config = dataclasses.replace(
            report.config, provenance=provenance(report, chosen, baseline))
        report.complete = True
    work.save()
