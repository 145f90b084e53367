"""How long the desktop program's window is ever away: driven by keys, with a long PDF.

    .venv/bin/python tools/measure/desktop_pause.py [--tokens 12000] [--json]
    .venv/bin/python tools/measure/desktop_pause.py --pictures folder [--theme dark]

On a screen of its own (Xvfb, xdotool) it opens SmolLM2, adds a PDF of so many tokens, asks, lets
the answer be written, asks once more, goes to another conversation and back, and quits. A timer
in the program, due every 2 ms, says what it was late by, during what, and how much of that time its
thread computed itself: the rest it waited for a processor, which other programs may have, or for
Python's lock. Nothing that was read before is used.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import click
from arguments import COUNT, run, tool
from demo import model_path

from lampe_gguf import Session
from lampe_gguf.cli.console import out, say
from lampe_gguf.errors import LampeError
from measure import desktop_keys
from measure.texts import text_of

MARK = 50.0  # milliseconds
LINE, LINES = 90, 50  # characters of a line, lines of a page
READING = 1800.0  # seconds that a slow machine may take


def pdf(pages: Sequence[str]) -> bytes:
    """A PDF with these pages, a line of text for each of theirs."""
    count = len(pages)
    kids = " ".join(f"{4 + 2 * at} 0 R" for at in range(count))
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>",
               f"<< /Type /Pages /Count {count} /Kids [{kids}] >>".encode(),
               b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    for at, page in enumerate(pages):
        shown = page.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)").split("\n")
        text = "BT /F 10 Tf 14 TL 50 800 Td " + " ".join(f"({line}) '" for line in shown) + " ET"
        stream = text.encode("latin-1", "replace")
        objects += [f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents {5 + 2 * at} "
                    "0 R /Resources << /Font << /F 3 0 R >> >> >>".encode(),
                    b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream)]
    made, places = b"%PDF-1.4\n", []
    for number, each in enumerate(objects, 1):
        places.append(len(made))
        made += b"%d 0 obj\n%s\nendobj\n" % (number, each)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    return made + (b"xref\n0 %d\n0000000000 65535 f \n%strailer\n<< /Size %d /Root 1 0 R >>\n"
                   b"startxref\n%d\n%%%%EOF\n"
                   % (len(places) + 1, table, len(places) + 1, len(made)))


def write_book(path: Path, model: Path, tokens: int) -> int:
    """A PDF of about so many tokens, Python's language reference; gives how many it has."""
    lines = [line for each in text_of("pydoc").splitlines() for line in
             (textwrap.wrap(each, LINE) or [""])]
    wanted = tokens * 3.4 / LINE * 1.6
    with Session(model, n_ctx=512) as session:
        dialogue = session.dialogue()
        assert session.opening is not None
        session.opening.result()
        for _ in range(4):
            kept = lines[: int(wanted)]
            path.write_bytes(pdf(["\n".join(kept[at: at + LINES])
                                  for at in range(0, len(kept), LINES)]))
            (counted,) = dialogue.add(path).result()
            found = counted.tokens or 0
            if abs(found - tokens) < tokens // 100:
                break
            wanted *= tokens / max(1, found)
    return found


def save(folder: Path | None, screen: Path, name: str) -> None:
    """A PNG of the screen."""
    if folder is None:
        return
    from PIL import Image

    Image.fromarray(desktop_keys.picture(screen)).convert(
        "P", palette=Image.Palette.ADAPTIVE, colors=128).save(
            folder / f"{name}.png", optimize=True)


def drive(place: Path, model: Path, book: Path, pictures: Path | None, theme: str) -> Any:
    """The whole run; gives what the program says of its pauses."""
    report = place / "pauses.json"
    (place / "settings.ini").write_text(f"[General]\ntheme={theme}\n", encoding="utf-8")
    with desktop_keys.screen(place) as environment:
        environment["LAMPE_GGUF_PAUSES"] = str(report)
        with desktop_keys.program(environment, place, "--temperature", "0", "--max-tokens",
                                  "96") as keys:
            time.sleep(1)
            save(pictures, place, "empty")
            keys.choose("ctrl+o", "Open a model", model)
            keys.choose("ctrl+d", "Add documents", book)
            keys.until(lambda: book.name in keys.title())
            time.sleep(1)
            save(pictures, place, "documents")
            keys.type("What does the with statement do?")
            keys.press("Return")
            keys.until(lambda: keys.lines("said"), READING)
            start = time.monotonic()
            pictured = 0.0
            while not keys.lines("answered"):
                if time.monotonic() - start > READING:
                    raise LampeError(f"no answer after {READING:.0f} s")
                if pictures is not None and time.monotonic() - pictured > 5:
                    save(pictures, place, "reading")  # the last of them is kept
                    pictured = time.monotonic()
                time.sleep(0.5)
            time.sleep(1)
            save(pictures, place, "answer")
            keys.type("And what is yield for?")
            keys.press("ctrl+Return")
            keys.until(lambda: len(keys.lines("answered")) == 2, READING)
            keys.press("ctrl+n")
            time.sleep(0.5)
            keys.press("ctrl+Next")
            time.sleep(0.5)
            if keys.leave():
                raise LampeError("the window did not close as it should")
    return json.loads(report.read_text(encoding="utf-8"))


@tool(__doc__)
@click.option("--tokens", default=12_000, show_default=True, type=COUNT, help="Of the PDF.")
@click.option("--model", type=click.Path(path_type=Path), help="Another one than SmolLM2.")
@click.option("--pictures", type=click.Path(path_type=Path, file_okay=False),
              help="A folder for pictures of the window; taking them takes time, too.")
@click.option("--theme", default="light", type=click.Choice(["light", "dark"]),
              show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The figures as JSON.")
def main(tokens: int, model: Path | None, pictures: Path | None, theme: str, as_json: bool) -> int:
    """Run it and say what was measured."""
    model = model or model_path()
    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        pdf_tokens = write_book(place / "reference.pdf", model, tokens)
        say(f"a PDF of {pdf_tokens:,} tokens; driving the window")
        report = drive(place, model, place / "reference.pdf", pictures, theme)
    report["pdf_tokens"] = pdf_tokens
    report["load"] = os.getloadavg()[0]
    found = report["by_activity"]
    longest = max(each["pause"] for each in found.values())
    busiest = max(each["busiest"] for each in found.values())
    if as_json:
        out(json.dumps(report, indent=2))
        return int(longest >= MARK)
    out("milliseconds: the longest pause, of it computed, of it waiting for a processor")
    for doing, each in found.items():
        out(f"{each['pause']:8.1f} {each['computed']:8.1f} {each['queued']:8.1f}   at "
            f"{each['at']:6.1f} s  {doing or 'nothing runs'}")
    out(f"the longest pause was {longest:.1f} ms in {report['ticks']:,} looks, the mark is "
        f"{MARK:.0f} ms; in one go it computed {busiest:.1f} ms at most; load {report['load']:.1f}")
    return int(longest >= MARK)


if __name__ == "__main__":
    run(main)
