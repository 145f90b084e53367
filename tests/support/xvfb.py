"""A screen that nobody sees, for windows and real key events."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator

PROGRAMS = ("Xvfb", "xdotool")


def missing_programs() -> list[str]:
    return [each for each in PROGRAMS if shutil.which(each) is None]


@contextlib.contextmanager
def screen(size: str = "1100x800x24") -> Iterator[dict[str, str]]:
    """The environment for programs on a screen of their own."""
    read, write = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", size, "-nolisten", "tcp"],
        pass_fds=(write,), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(write)
    try:
        with open(read) as found:
            number = found.readline().strip()  # the server's choice, once it can be used
        assert number, "Xvfb has not started"
        yield {**os.environ, "DISPLAY": f":{number}"}
    finally:
        server.terminate()
        server.wait()
