"""What the budget of a calibration still holds."""

from __future__ import annotations

import time
from dataclasses import dataclass


class OutOfTime(Exception):
    """The budget does not hold another reading, or another question."""


@dataclass
class Clock:
    """How long things take, and how much time is left.

    deadline   when to be done, seconds of time.monotonic; None: when there is nothing left to do
    reading    seconds of reading the longest text: an estimate, then the slowest so far
    asking     seconds of asking under one map, likewise
    reserve    (readings, questions) that must still fit, those of the held-out text
    """

    deadline: float | None
    reading: float
    asking: float
    reserve: tuple[float, float] = (0.0, 0.0)
    measured: tuple[bool, bool] = (False, False)

    def check(self, readings: float, askings: float) -> None:
        """Raise OutOfTime unless so much fits, and the reserve behind it."""
        if self.deadline is None:
            return
        wanted = self.seconds(readings + self.reserve[0], askings + self.reserve[1])
        if time.monotonic() + wanted > self.deadline:
            raise OutOfTime

    def seconds(self, readings: float, askings: float) -> float:
        return readings * self.reading + askings * self.asking

    def took(self, readings: float, reading: float, asking: float) -> None:
        """What a part of a reading and the questions under one map took."""
        by_reading, by_asking = self.measured
        if readings > 0.1:  # less says little
            whole = reading / readings
            self.reading = max(self.reading, whole) if by_reading else whole
            by_reading = True
        self.asking = max(self.asking, asking) if by_asking else asking
        self.measured = by_reading, True
