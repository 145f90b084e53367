"""How many processor cores there are to write with."""

from __future__ import annotations

import os
from pathlib import Path

CPUS = Path("/sys/devices/system/cpu")


def usable_cores(cpus: Path = CPUS) -> int | None:
    """Cores that this process may run on, each counted once however many threads it runs.

    None where the system does not say (anything but Linux).
    """
    try:
        allowed = os.sched_getaffinity(0)
        shared = {
            (cpus / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text().strip()
            for cpu in allowed
        }
    except (AttributeError, OSError):
        return None
    return len(shared)
