"""How much memory is free, on this machine and on its devices."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
UNKNOWN_SHARE = 0.5  # of all memory, where a system does not say what is free of it


def free_memory(meminfo: Path = MEMINFO, cgroup: Path = CGROUP) -> int | None:
    """Bytes that a new program may take, None where the system does not say.

    On Linux what the kernel calls available, or less where a container has a limit; elsewhere a
    part of all memory.
    """
    try:
        text = meminfo.read_text(encoding="ascii")
    except OSError:
        return _part_of_all()
    found = re.search(r"^MemAvailable:\s*(\d+) kB", text, re.MULTILINE)
    if found is None:
        return _part_of_all()
    return min(int(found[1]) * 1024, *_container(cgroup))


def _container(cgroup: Path) -> list[int]:
    """What a container's limit leaves; what it keeps of files can be dropped."""
    far = 1 << 62
    try:
        limit = (cgroup / "memory.max").read_text(encoding="ascii").strip()
        if limit == "max":
            return [far]
        used = int((cgroup / "memory.current").read_text(encoding="ascii"))
        stat = (cgroup / "memory.stat").read_text(encoding="ascii")
        dropped = re.search(r"^inactive_file (\d+)", stat, re.MULTILINE)
        return [max(0, int(limit) - used + (int(dropped[1]) if dropped else 0))]
    except (OSError, ValueError):
        return [far]


def _part_of_all() -> int | None:
    try:
        pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
    return int(pages * page * UNKNOWN_SHARE) if pages > 0 and page > 0 else None


def free_by_device(host: int | None) -> Mapping[str, int | None]:
    """Free bytes by device as ggml names it; "Host" is the processor's memory, `host`."""
    from ..backend.doctor import device_memory

    return {**device_memory(), "Host": host}
