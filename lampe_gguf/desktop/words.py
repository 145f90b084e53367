"""Figures, times and progress in words, for people."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

from lampe_gguf import Progress

DOT = " · "
# what a stage is called: with its unit where the amount says something to people
STAGES = {
    "loading": ("Loading the model", ""),
    "opening": ("Opening the documents", ""),
    "counting": ("Counting the tokens", "characters"),
    "restoring": ("Taking up what was read before", ""),
    "reading": ("Reading", "tokens"),
}
LONG = 4000  # characters of one line that are shown


def some(count: int, what: str) -> str:
    """An amount: "1 page", "1,024 tokens"."""
    return f"{count:,} {what}{'s' * (count != 1)}"


def duration(seconds: float) -> str:
    """Seconds: "8 s", "2 min 05 s", "1 h 10 min"."""
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(count: float) -> str:
    """Bytes, in powers of 1000: "92 MB", "4.1 GB"."""
    for least, unit, digits in ((1e9, "GB", 1), (1e6, "MB", 0)):
        if count >= least:
            return f"{count / least:.{digits}f} {unit}"
    return f"{count / 1e3:.0f} kB"


def percent(share: float) -> str:
    """A share of one: "12 %", and "under 1 %" for what would round to nothing."""
    return f"{100 * share:.0f} %" if share >= 0.005 or not share else "under 1 %"


def rate(per_second: float) -> str:
    """Tokens a second."""
    return f"{per_second:,.0f} tokens/s" if per_second >= 10 else f"{per_second:.1f} tokens/s"


def progress(event: Progress) -> str:
    """What is being done, how far, how fast, and how long it still takes."""
    name, unit = STAGES.get(event.stage, (event.stage.capitalize(), ""))
    said = [name]
    if event.unit == "%":
        said[0] += f": {event.done} %"
    elif event.total and event.unit == "bytes":
        said[0] += f": {size(event.done)} of {size(event.total)}"
    elif event.total:
        said[0] += f": {event.done:,} of {event.total:,} {unit or event.unit}"
    if event.rate and event.unit == "tokens":
        said.append(rate(event.rate))
    if event.eta is not None:
        said.append(f"{duration(event.eta)} left")
    return DOT.join(said)


def joined(parts: Iterable[str]) -> str:
    """The parts that say something, with dots between them."""
    return DOT.join(part for part in parts if part)


def one_line(text: str) -> str:
    """The first line that is not empty, without what would not print."""
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return "".join(each if each.isprintable() else " " for each in first[:300])


def shortened(text: str, most: int = LONG) -> str:
    """A text without its middle where it is longer than `most` characters."""
    if len(text) <= most:
        return text
    end = most // 4
    return (f"{text[: most - end]}\n[... {some(len(text) - most, 'character')} left out here ...]\n"
            f"{text[-end:]}")


def moment(seconds: float) -> str:
    """A time in the past as people say it: "14:03" today, else "3 Nov", else "3 Nov 2024"."""
    now, then = time.localtime(), time.localtime(seconds)
    if (now.tm_year, now.tm_yday) == (then.tm_year, then.tm_yday):
        return time.strftime("%H:%M", then)
    day = f"{then.tm_mday} {time.strftime('%b', then)}"
    return day if now.tm_year == then.tm_year else f"{day} {then.tm_year}"


def file_name(path: str | os.PathLike[str]) -> str:
    """The last part of a path, made safe to show; a name that is no path as it is."""
    name = one_line(os.fspath(path))
    return os.path.basename(name.rstrip("/\\")) or name or "the file"
