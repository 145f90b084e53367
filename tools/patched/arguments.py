"""What the tools ask of numbers on their command lines."""

from __future__ import annotations

import argparse


def count(text: str) -> int:
    """A whole number above 0, for argparse; ArgumentTypeError says what else it was."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return number
