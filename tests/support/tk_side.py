"""Runs the README's window and types into it: this file, the program, the model, a document."""

from __future__ import annotations

import subprocess
import sys
import time
import tkinter
import tkinter.filedialog
from collections.abc import Callable
from pathlib import Path
from typing import Any

SECONDS = 100


def drive(names: dict[str, Any], document: str) -> None:
    window, text = names["window"], names["text"]
    said: list[str] = []

    def until(what: str, holds: Callable[[], object]) -> None:
        end = time.monotonic() + SECONDS
        while not holds():
            assert time.monotonic() < end, (what, window.title(), text.get("1.0", "end"))
            window.update()
            if said[-1:] != [window.title()]:
                said.append(window.title())
            time.sleep(0.005)

    def press(*command: object) -> None:
        subprocess.run(["xdotool", *map(str, command)], check=True, timeout=20)

    def click(widget: Any) -> None:
        window.update()
        press("mousemove", widget.winfo_rootx() + widget.winfo_width() // 2,
              widget.winfo_rooty() + widget.winfo_height() // 2, "click", 1)

    buttons = {each["text"]: each for each in window.winfo_children()
               if isinstance(each, tkinter.Button)}
    tkinter.filedialog.askopenfilenames = lambda: (document,)  # type: ignore[assignment,misc]
    until("it is open", lambda: window.title() == "ready")
    window.title("")
    click(buttons["Add documents"])
    until("it was counted", lambda: window.title() == "ready")
    names["line"].focus_force()
    press("type", "Why?")
    press("key", "Return")
    until("it reads", lambda: window.title().startswith("reading ") and "left" in window.title())
    click(buttons["Stop"])
    start = time.monotonic()
    until("it stopped", lambda: names["dialogue"].unsent == "Why?" and window.title() == "ready")
    stopped_after = time.monotonic() - start
    names["line"].focus_force()
    press("type", "Who?")
    press("key", "Return")
    until("it answered", lambda: names["dialogue"].turns and window.title() == "ready")
    shown = text.get("1.0", "end")
    assert names["dialogue"].turns[0].answer.strip() in shown, shown
    assert "> Why?" in shown and "> Who?" in shown, shown
    assert any(each.startswith("loading ") for each in said), said
    assert stopped_after < 2, stopped_after
    print("driven")


program, *arguments = sys.argv[1:3]
document = sys.argv[3]
names: dict[str, Any] = {}
tkinter.Tk.mainloop = lambda self, n=0: drive(names, document)  # type: ignore[method-assign]
sys.argv = [program, *arguments]
exec(compile(Path(program).read_text(encoding="utf-8"), program, "exec"), names)
