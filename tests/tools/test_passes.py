"""How the tests themselves are run: by a process for each processor, and some of them alone."""

from __future__ import annotations

import os

import bootstrap
import pytest
from conftest import share


def test_a_process_for_each_processor_and_those_that_measure_time_alone() -> None:
    together, alone = bootstrap.passes([], 2)
    assert together[together.index("-n") + 1] == "2" and together[-2:] == ["-m", "not alone"]
    assert alone == ["-m", "alone"]
    assert bootstrap.passes([], 64)[0][1] == "8"


def test_one_processor_or_somebodys_wishes_are_one_run() -> None:
    assert bootstrap.passes([], 1) == [[]]
    assert bootstrap.passes(["tests/method", "-x"], 16) == [["tests/method", "-x"]]


@pytest.mark.parametrize("count, shares", [
    (1, [[2, 3, 5]]), (2, [[2, 5], [3]]), (3, [[2], [3], [5]]), (4, [[2, 3, 5]] * 4),
])
def test_workers_share_the_processors(count: int, shares: list[list[int]]) -> None:
    assert [share([2, 3, 5], number, count) for number in range(count)] == shares


def test_a_worker_keeps_to_its_share(request: pytest.FixtureRequest) -> None:
    worker = getattr(request.config, "workerinput", None)
    if worker is None or not hasattr(os, "sched_setaffinity"):
        pytest.skip("one process runs all tests here")
    usable = os.sched_getaffinity(os.getppid())  # who started the workers has all of them
    number = int(worker["workerid"].removeprefix("gw"))
    assert sorted(os.sched_getaffinity(0)) == share(sorted(usable), number, worker["workercount"])
