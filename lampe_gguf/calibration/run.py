"""The calibration itself: what is read in which order, and what follows from it."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UsageError
from ..method.config import LampeConfig
from ..method.fields import MAX_PROVENANCE_BYTES
from ..shown import duration
from .choice import choose_schedule, flat
from .reading import OnTokens, Reader
from .report import HeldOut, Report
from .search import FloatArray, is_worse, paired_difference, propose

if TYPE_CHECKING:
    from ..backend.llama import LampeLlama

OnStage = Callable[[str], None]  # called with what is being looked for

MAX_TRIALS = 6  # readings a search may take
HELD_OUT = "held-out"
FITTED = "fitted"


class OutOfTime(Exception):
    """The budget does not hold another reading."""


@dataclass
class Clock:
    """How long a reading takes, and how much time is left.

    deadline    when to be done, seconds of time.monotonic; None: when there is nothing left to do
    reading     seconds of one reading: an estimate, then the slowest so far
    reserve     readings that must still fit, those of the held-out text
    """

    deadline: float | None
    reading: float
    reserve: int = 0
    measured: bool = False

    def check(self) -> None:
        if self.deadline is None:
            return
        if time.monotonic() + (1 + self.reserve) * self.reading > self.deadline:
            raise OutOfTime

    def took(self, seconds: float) -> None:
        self.reading = max(self.reading, seconds) if self.measured else seconds
        self.measured = True


class Calibration:
    """Readings of one model on one text, each done once and saved.

    segments  name -> tokens, as long as the longest length of the ladder
    path      where the report is saved after each of them, None: nowhere
    """

    def __init__(
        self,
        llm: LampeLlama,
        report: Report,
        segments: dict[str, list[int]],
        path: Path | None,
        clock: Clock,
        on_tokens: OnTokens,
        on_stage: OnStage,
    ) -> None:
        task = report.task
        self.report = report
        self.path = path
        self.clock = clock
        self.on_tokens = on_tokens
        self.on_stage = on_stage
        self.readers = {
            name: Reader(llm, tokens, task.lengths, task.tail) for name, tokens in segments.items()
        }
        self.beyond = np.array([x > report.window for x in task.lengths])

    def losses(self, segment: str, config: LampeConfig) -> FloatArray:
        """Those of a reading, done now unless it was done before."""
        known = self.report.losses(segment, config)
        if known is not None:
            return known
        self.clock.check()
        reader = self.readers[segment]
        start = time.monotonic()
        found = reader.losses_of(config, self.on_tokens)
        seconds = time.monotonic() - start
        self.clock.took(seconds)
        self.report.seconds += seconds
        self.report.add(segment, config, found)
        self.save()
        return found

    def save(self) -> None:
        """The report as far as it got."""
        if self.path is not None:
            self.report.save(self.path)

    @contextlib.contextmanager
    def until_out_of_time(self, what: str, found: Mapping[int, FloatArray]) -> Iterator[None]:
        """A search that ends with the time, and says so."""
        try:
            yield
        except OutOfTime:
            tried = "one value" if len(found) == 1 else f"{len(found)} values"
            self.report.reasons.append(f"{what} was sought among {tried}: out of time")

    def find_local_window(self, base: LampeConfig) -> int:
        """s1 of the least loss beyond the window, with nothing compressed inside it (m = W)."""
        self.on_stage("the local window")
        window = base.window
        found: dict[int, FloatArray] = {}

        def trial(local_window: int) -> None:
            losses = self.losses(FITTED, flat(base, window, local_window))
            found[local_window] = losses[self.beyond]

        with self.until_out_of_time("the local window", found):
            for local_window in (window // 2, window // 16, 3 * window // 4):
                trial(local_window)
            while len(found) < MAX_TRIALS:
                values = {x: y.mean(axis=1) for x, y in found.items()}
                candidate = propose(values, window // 8)
                if candidate is None:
                    break
                trial(candidate)
        if not found:
            raise OutOfTime
        return min(found, key=lambda x: float(found[x].mean()))

    def find_mapping_lengths(
        self, base: LampeConfig, local_window: int
    ) -> dict[int, FloatArray]:
        """Losses of constant mapping lengths, m -> [n_lengths, pieces] (method: section 1)."""
        self.on_stage("the mapping length of each length")
        window = base.window
        found: dict[int, FloatArray] = {}

        def trial(m: int) -> None:
            found[m] = self.losses(FITTED, flat(base, m, local_window))

        with self.until_out_of_time("the mapping length", found):
            for m in (window, window // 2, 3 * window // 4, window // 4):
                trial(m)
            while len(found) < MAX_TRIALS + 2:
                values = {x: y.mean(axis=1) for x, y in found.items()}
                candidate = propose(values, window // 16)
                if candidate is None:
                    break
                trial(candidate)
        return found

    def find_extras(self, config: LampeConfig) -> LampeConfig:
        """Each of a few other changes, kept where it pays beyond the text's own noise."""
        self.on_stage("tail window, attention factor, length policy")
        changes: list[dict[str, Any]] = [
            {"tail_window": 0},
            {"attention_factor": 1.03},
            {"length_policy": "prompt"},
        ]
        for change in changes:
            (name, value), = change.items()
            changed = dataclasses.replace(config, **change)
            try:
                before, after = self.losses(FITTED, config), self.losses(FITTED, changed)
            except OutOfTime:
                self.report.reasons.append(f"{name} was not tried: out of time")
                continue
            # under `prompt` only the longest length was read as it would be
            rows = slice(-1, None) if name == "length_policy" else self.beyond
            better, error = paired_difference(before[rows], after[rows])
            pays = is_worse(before[rows], after[rows])
            self.report.reasons.append(
                f"{name} = {value}: loss {-better:+.4f} +- {error:.4f} nats a token against "
                f"{getattr(config, name)}, {'taken' if pays else 'not taken'}"
            )
            if pays:
                config = changed
        return config

    def compare(self, baseline: LampeConfig, rivals: Mapping[str, LampeConfig]) -> None:
        """Put those that were read of the held-out text into the report, against the baseline."""
        base = self.report.losses(HELD_OUT, baseline)
        if base is None:
            return
        for name, config in rivals.items():
            found = self.report.losses(HELD_OUT, config)
            if found is None:
                continue
            # under `prompt` only the longest length is read as it would be
            rows = np.isfinite(found).all(axis=1)
            self.report.held_out.append(HeldOut(
                name, self.report.perplexities(HELD_OUT, config),
                *paired_difference(found[rows], base[rows]),
            ))

    def decide(self, baseline: LampeConfig, candidate: LampeConfig) -> LampeConfig | None:
        """The candidate where it is better than the baseline on text it was not found on.

        None where there is no time to see.
        """
        self.on_stage("the held-out text")
        self.clock.reserve = 0
        reasons = self.report.reasons
        try:
            base = self.losses(HELD_OUT, baseline)
            found = self.losses(HELD_OUT, candidate)
        except OutOfTime:
            reasons.append(
                "there was no time for the held-out text, so the safe values stay; give more "
                "--budget and --resume"
            )
            self.compare(baseline, {"baseline": baseline, "calibrated": candidate})
            return None
        rows = np.isfinite(found).all(axis=1)
        difference, error = paired_difference(found[rows], base[rows])
        rivals = {"baseline": baseline, "calibrated": candidate}
        jetlong = dataclasses.replace(
            baseline, method="jetlong", local_window=baseline.window // 4, tail_window=0,
            max_mapping_length=float(baseline.window), short_length=0, short_mapping_length=0,
        )
        with contextlib.suppress(OutOfTime):
            self.losses(HELD_OUT, jetlong)
            rivals["jetlong"] = jetlong
        self.compare(baseline, rivals)
        if candidate.effective() == baseline.effective():
            return baseline
        if difference > 0:
            reasons.append(
                f"on the held-out text the calibrated values lose {difference:.4f} +- {error:.4f} "
                "nats a token, so the safe values stay"
            )
            return baseline
        sure = is_worse(base[rows], found[rows])
        reasons.append(
            f"on the held-out text the calibrated values gain {-difference:.4f} +- {error:.4f} "
            f"nats a token{'' if sure else ', which is within the noise: the safe values stay'}"
        )
        return candidate if sure else baseline


def carry_out(work: Calibration, baseline: LampeConfig, safe: LampeConfig) -> None:
    """Fill in the report's points, fit, reasons and configuration, as far as the time allows.

    baseline  what convert would write
    safe      the defaults for the window, which the search starts from

    Ctrl-C passes through; what was read by then is saved.
    """
    report = work.report
    work.clock.reserve = 2
    report.points, report.held_out, report.reasons, report.fit = [], [], [], None
    try:
        local_window = work.find_local_window(safe)
    except OutOfTime:
        raise UsageError(
            f"--budget holds not even the {1 + work.clock.reserve} readings of about "
            f"{duration(work.clock.reading)} that any calibration takes; give more, or a smaller "
            "--max-length"
        ) from None
    found = work.find_mapping_lengths(safe, local_window)
    if local_window == safe.local_window and len(found) < 2:
        report.reasons.append("nothing but the safe values was read: give more --budget and "
                              "--resume")
        chosen = None
    else:
        candidate = choose_schedule(report, safe, local_window, found)
        chosen = work.decide(baseline, work.find_extras(candidate))
    if chosen is None:
        report.config = baseline
        work.save()
        return
    report.config = dataclasses.replace(chosen, context_length=baseline.context_length)
    read = f"{', '.join(report.text_names)} to {report.task.lengths[-1]} tokens"
    said = f"calibrated on {read}"
    if report.config == baseline:
        known = safe if safe.effective() == baseline.effective() else baseline
        said = f"{known.provenance}; none better found on {read}"
    said = said.encode()[:MAX_PROVENANCE_BYTES].decode("utf-8", "ignore")
    report.config = dataclasses.replace(report.config, provenance=said)
    report.complete = True
    work.save()
