"""What somebody sees who runs bootstrap.py for the first time."""

from __future__ import annotations

import os
import subprocess
import sys

from patched.places import CHECKOUT

# setup without its work, and a demonstration of one line
DEMO = """
import sys
sys.path.insert(0, "tools")
import bootstrap
for name in ("make_venv", "install_package", "install_window"):
    setattr(bootstrap, name, lambda *given: None)
bootstrap.patched_version = lambda: "0"
ran = bootstrap.subprocess.run
bootstrap.subprocess.run = lambda command: ran([sys.executable, "-c", "print('demonstrated')"])
sys.argv = ["bootstrap.py", "demo"]
sys.exit(bootstrap.main())
"""


def test_what_is_ready_is_said_before_the_demonstration_begins() -> None:
    environment = {name: value for name, value in os.environ.items()
                   if name != "PYTHONUNBUFFERED"}
    done = subprocess.run([sys.executable, "-c", DEMO], cwd=CHECKOUT, capture_output=True,
                          text=True, env=environment)
    assert done.returncode == 0, done.stderr
    first, *_, last = done.stdout.splitlines()
    assert first.startswith("ready: ") and last == "demonstrated"


def test_what_is_installed_beside_the_checkout_is_said_before() -> None:
    done = subprocess.run([sys.executable, "tools/bootstrap.py", "test", "--help"], cwd=CHECKOUT,
                          capture_output=True, text=True)
    said = " ".join(done.stdout.split())
    assert "as root on Debian and Ubuntu, apt-get installs a screen" in said
