#!/usr/bin/env python3
"""Long texts of different kinds for the studies: from Python itself and from Debian's packages.

    .venv/bin/python tools/measure/texts.py essays > essays.txt
    .venv/bin/python tools/measure/texts.py perl --skip 30000 > perl.txt  # all but its beginning

    pydoc      what help() shows: the language reference                 (Python)
    perl       Perl's manuals                                            (perl-doc)
    handbook   the Debian Administrator's Handbook                       (debian-handbook)
    essays     An Anarchist FAQ: argument in long sentences, quotations  (anarchism)
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from arguments import run, tool

from lampe_gguf.errors import LampeError

MANUALS = ("perlintro perlreftut perldsc perlsyn perlsub perlop perlretut perlobj perlootut "
           "perlipc perlunitut perlfaq4 perlfaq6 perlguts perlxs perlre perlfunc").split()
DOCS = Path("/usr/share/doc")
ESSAY_CHAPTERS = 60
KINDS = ("pydoc", "perl", "handbook", "essays")


def text_of(kind: str) -> str:
    """The whole text of a kind; LampeError where its package is missing."""
    if kind == "pydoc":
        from pydoc_data.topics import topics

        return "\n\n".join(topics[name] for name in sorted(topics))
    if kind == "perl":
        found = {path.stem: path for path in Path("/usr/share/perl").glob("*/pod/*.pod")}
        pages = [found[name] for name in MANUALS if name in found]
        return _joined("perl-doc", [_pod(_read(page)) for page in pages if len(pages) > 1])
    if kind == "handbook":
        pages = sorted((DOCS / "debian-handbook/html/en-US").glob("*.html"))
        return _joined("debian-handbook", [_html(_read(page)) for page in pages])
    if kind == "essays":
        pages = sorted((DOCS / "anarchism/html").glob("sec*.html"))[:ESSAY_CHAPTERS]
        return _joined("anarchism", [_html(_read(page)) for page in pages])
    raise LampeError(f"there is no text {kind!r}; it is one of {', '.join(KINDS)}")


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _joined(package: str, parts: list[str]) -> str:
    if not parts:
        raise LampeError(f"the package {package} is missing: apt-get install {package}")
    return re.sub(r"\n{3,}", "\n\n", "\n\n".join(parts))


def _pod(source: str) -> str:
    """Perl's documentation without its marks."""
    source = re.sub(r"^=(encoding|over|back|cut|pod|begin|end|for)\b.*$", "", source, flags=re.M)
    source = re.sub(r"^=(head\d|item)\s*", "", source, flags=re.M)
    for _ in range(3):  # marks stand in marks
        source = re.sub(r"[BCEFILSXZ]<+\s?([^<>]*?)\s?>+", r"\1", source)
    return source


class _Words(HTMLParser):
    """What a page says, a paragraph a line; its menus, scripts and styles left out."""

    SKIPPED = ("script", "style", "nav", "head")
    BLOCKS = ("p", "div", "li", "h1", "h2", "h3", "h4", "blockquote", "tr", "br", "dd", "dt")

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.skipping = 0
        self.literal = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.skipping += tag in self.SKIPPED
        self.literal += tag == "pre"
        if tag in self.BLOCKS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self.skipping -= tag in self.SKIPPED and self.skipping > 0
        self.literal -= tag == "pre" and self.literal > 0
        if tag in self.BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self.skipping:
            self.parts.append(data if self.literal else re.sub(r"\s+", " ", data))


def _html(source: str) -> str:
    page = _Words()
    page.feed(source)
    page.close()
    return re.sub(r" *\n[ \n]*", "\n", "".join(page.parts)).strip()


@tool(__doc__)
@click.argument("kind", type=click.Choice(KINDS))
@click.option("--skip", type=click.IntRange(0), default=0, help="Characters to leave out first.")
def main(kind: str, skip: int) -> None:
    """Write a text to standard output."""
    sys.stdout.buffer.write(text_of(kind)[skip:].encode())


if __name__ == "__main__":
    run(main)
