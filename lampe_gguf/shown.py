"""Text of a file, a name or a model, made safe to be shown."""

from __future__ import annotations

import json
import re
from typing import Any

NAME_LIMIT = 200  # characters of a key, a name, a value
MESSAGE_LIMIT = 2000  # of a whole sentence with such things in it

CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and newline
SURROGATES = re.compile("[\ud800-\udfff]")
NOT_ASCII = re.compile("[^\x00-\x7f]")


def shown(text: object, limit: int = NAME_LIMIT, keep: str = "") -> str:
    """One line of printable characters: what is none is escaped, as in a Python string.

    Control characters, newlines, changes of the writing direction, and bytes that are no text
    (as file names have them) could move the cursor, colour, or pretend. What is longer than
    `limit` loses its middle, and says how much.

    keep  characters that may stay
    """
    whole = str(text)
    short, left_out, end = whole, "", ""
    if len(whole) > limit:
        n_end = limit // 4
        short, end = whole[: limit - n_end], whole[len(whole) - n_end :]
        left_out = f" [{len(whole) - limit:,} characters left out] "
    return _escaped(short, keep) + left_out + _escaped(end, keep)


def _escaped(text: str, keep: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escape(c) for c in text)


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps a byte that is no text
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def title(text: object) -> str:
    """For a picture: short, and no formula for matplotlib."""
    return shown(text, 60).replace("$", "\\$")


def visible(text: str) -> str:
    """A model's answer for a terminal: text as it is, but control characters to be seen."""
    return CONTROLS.sub(lambda found: _escape(found[0]), text.replace("\r\n", "\n"))


def as_text(text: str) -> str:
    """The same text where it can be written as UTF-8, else with its stray bytes escaped."""
    return SURROGATES.sub(lambda found: _escape(found[0]), text)


def json_text(value: Any, indent: int | None = 2) -> str:
    """JSON in ASCII that every parser takes: bytes that are no text (of a path) are escaped."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    text = SURROGATES.sub(lambda found: "\\" + _escape(found[0]), text)
    return NOT_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], text)


def duration(seconds: float) -> str:
    """Seconds in words: "8 s", "2 min 05 s", "1 h 10 min"."""
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(count: float) -> str:
    """Bytes in words: "92 MB", "4.1 GB" (powers of 1000, as disks are sold)."""
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    if count >= 1e6:
        return f"{count / 1e6:.0f} MB"
    return f"{count / 1e3:.0f} kB"


def counted(count: int, noun: str) -> str:
    """How many there are: "1 document", "2 documents"."""
    return f"{count:,} {noun}" + "s" * (count != 1)


def quantity(count: float, unit: str, digits: int = 0) -> str:
    """An amount and its unit: bytes ("B") as size() has them, else "1,024 tokens"."""
    if unit == "B":
        return size(count)
    return f"{count:,.{digits if count < 100 else 0}f} {unit}"
