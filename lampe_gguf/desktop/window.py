"""The window: its parts, where they stand, and what each shows of what is going on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PySide6.QtCore import QByteArray, Qt, QUrl, Signal
from PySide6.QtGui import (
    QAction,
    QCloseEvent,
    QDragEnterEvent,
    QDropEvent,
    QGuiApplication,
    QKeySequence,
)
from PySide6.QtWidgets import (
    QApplication,
    QMainWindow,
    QMenu,
    QWidget,
)

from lampe_gguf import Document, Progress

from . import theme as themes
from .activity import Activity
from .chat_list import ChatList, title_of
from .composer import Composer
from .desk import Desk
from .dialogs import FILES, FOLDER, MARKDOWN, MODEL, choose, confirm, table
from .documents import Documents
from .keys import ACTS, key_rows
from .layout import lay_out
from .map_view import MapView
from .memory import Memory
from .model_bar import ModelBar, values
from .notice import ERROR, INFO, Notice, Way
from .talk import Talk
from .transcript import Said, Transcript
from .words import file_name, one_line

TITLE = "lampe-gguf"
SIZE, LEAST = (1140, 780), (780, 600)
PASTED = "pasted text"
MODEL_ENDING = ".gguf"
BEGIN = ("Open a model to begin: press Ctrl+O, or drop it on this window. A file that lampe-gguf "
         "converted will do, and so does any GGUF; nothing is written into it.")
ASK = ("Drop documents on this window, or press Ctrl+D. Then ask below; nothing leaves this "
       "machine. F1 shows all keys.")


class Window(QMainWindow):
    """`closed` comes when the session has ended, too."""

    closed = Signal()

    def __init__(self, desk: Desk, memory: Memory) -> None:
        super().__init__()
        self.desk = desk
        self.memory = memory
        self._is_leaving = self._has_left = False
        self.setWindowTitle(TITLE)
        self.setAcceptDrops(True)
        self.model_bar = ModelBar()
        self.chats = ChatList()
        self.transcript = Transcript()
        self.map = MapView()
        self.activity = Activity()
        self.notice = Notice()
        self.composer = Composer()
        self.documents = Documents()
        self.parts = lay_out(
            self.model_bar, self.chats, self.transcript,
            [self.map, self.notice, self.activity, self.composer], self.documents)
        self.setCentralWidget(self.parts)
        self._menus: dict[str, QMenu] = {}
        self._add_actions()
        self._connect()
        self.setMinimumSize(*LEAST)
        self.resize(*SIZE)
        place: QByteArray = memory.data("place")
        if not place.isEmpty():
            self.restoreGeometry(place)
        self.map.setVisible(memory.text("map") != "off")
        self.put_theme_on()
        self._turned()
        self.composer.line.setFocus()
        desk.list_chats()

    def _add_actions(self) -> None:
        self.actions_by_name: dict[str, QAction] = {}
        for act in ACTS:
            menu = self._menus.get(act.menu)
            if menu is None:
                menu = self._menus[act.menu] = self.menuBar().addMenu(act.menu)
            action = QAction(act.text, self)
            action.setShortcuts([QKeySequence(key) for key in act.keys])
            action.triggered.connect(getattr(self, act.do))
            menu.addAction(action)
            self.actions_by_name[act.do] = action
        self.menuBar().setAccessibleName("Menu")

    def _connect(self) -> None:
        desk = self.desk
        desk.changed.connect(self._show)
        desk.turned.connect(self._turned)
        desk.began.connect(self._began)
        desk.wrote.connect(self._wrote)
        desk.ended.connect(self._ended)
        desk.working.connect(self._work)
        desk.noted.connect(self._note)
        self.model_bar.wanted.connect(self.choose_model)
        self.model_bar.asked.connect(self.show_values)
        self.chats.wanted.connect(self.new_conversation)
        self.chats.chosen.connect(desk.turn_to)
        self.chats.unwanted.connect(self._confirm_removal)
        self.documents.wanted.connect(self.choose_documents)
        self.documents.unwanted.connect(desk.take_out)
        self.activity.stopped.connect(self.stop)
        self.composer.sent.connect(self._ask)
        self.composer.refused.connect(lambda why: self._note(f"{why}.", INFO, []))
        line = self.composer.line
        line.recalled.connect(self._recall)
        line.dropped.connect(self.take)
        line.pasted.connect(lambda text: desk.add([Document(PASTED, text)]))
        QGuiApplication.styleHints().colorSchemeChanged.connect(self.put_theme_on)

    # -- what is shown --

    def put_theme_on(self) -> None:
        """The theme that was chosen, or the system's."""
        theme = themes.chosen(self.memory.text("theme"))
        application = QApplication.instance()
        assert isinstance(application, QApplication)
        themes.put_on(application, self.parts, theme)
        self.transcript.set_theme(theme)
        self.map.set_theme(theme)
        for each in (self.chats.list, self.documents.list):
            each.colours = {"accent": theme.colour("accent")}

    def _show(self) -> None:
        """All but the transcript, which is written piece by piece."""
        desk, talk = self.desk, self.desk.current
        if desk.opened is not None:
            self.memory.keep(model=desk.opened.path)
        self.model_bar.show_model(desk.examined or desk.opened, desk.doing)
        self.chats.show_chats(desk.talks, desk.chats, talk)
        dialogue = talk.dialogue
        tokens = dict(dialogue.stretches)
        read = [(each, tokens.get(each.name)) for turn in dialogue.turns for each in turn.documents]
        self.documents.show_documents(dialogue.pending, read, talk.is_asking,
                                      desk.session.seconds_to_read)
        has_model = desk.opened is not None or bool(desk.doing)
        self.transcript.show_hint(ASK if has_model else BEGIN)
        self.composer.allow(
            "Open a model first (Ctrl+O)" if not has_model else
            "An answer is being written; Escape stops it" if talk.is_asking else
            "The documents are still being opened" if talk.adding else "")
        can = self.actions_by_name
        can["retry"].setEnabled(dialogue.unsent is not None and not talk.is_asking)
        can["copy_answer"].setEnabled(bool(self.transcript.last_answer()))
        can["choose_export"].setEnabled(bool(dialogue.turns))
        can["show_values"].setEnabled(self.model_bar.values.isEnabled())
        title = title_of(dialogue.title or talk.line,
                         [each.document.name for each in dialogue.pending])
        self.setWindowTitle(f"{one_line(title)[:60]} - {TITLE}")
        self._show_map()

    def _show_map(self) -> None:
        talk = self.desk.current
        opened = self.desk.opened
        length = full = talk.dialogue.used
        reading = self.desk.reading
        if reading is not None and reading[0] is talk:
            length, full = reading[1], reading[2]
        config = opened.config if opened is not None else None
        self.map.show_context(config, talk.dialogue.stretches, length, full)

    def _ask(self, line: str) -> None:
        self.notice.clear()
        self.desk.ask(line)

    def _turned(self) -> None:
        """Another conversation: its transcript is written from its beginning."""
        talk = self.desk.current
        self.notice.clear()
        turns = [Said(turn.line, tuple(file_name(each.name) for each in turn.documents),
                      turn.answer, talk.figures.get(number, ""))
                 for number, turn in enumerate(talk.dialogue.turns)]
        if talk.is_asking:
            turns.append(Said(talk.line, talk.documents, talk.written))
        elif talk.dialogue.unsent is not None:
            turns.append(Said(talk.dialogue.unsent, below="not answered yet"))
        self.transcript.show_turns(turns)
        self._show()

    def _began(self, talk: Talk) -> None:
        if talk is self.desk.current:
            self._turned()

    def _wrote(self, talk: Talk, text: str) -> None:
        if talk is self.desk.current:
            self.transcript.append(text)

    def _ended(self, talk: Talk) -> None:
        if talk is not self.desk.current:
            return
        below = talk.figures.get(len(talk.dialogue.turns) - 1, "")
        self.transcript.end("not answered yet" if talk.dialogue.unsent is not None else below)

    def _work(self, what: Progress | str | None) -> None:
        if what is None:
            self.activity.idle()
        elif isinstance(what, str):
            self.activity.busy(what)
        else:
            self.activity.show_progress(what)
        self._show_map()

    def _note(self, text: str, kind: str, ways: list[Way]) -> None:
        # an error stays until somebody has seen it to its end
        if kind == ERROR or self.notice.kind == INFO or not self.notice.text:
            self.notice.say(text, kind, ways)

    # -- what can be done --

    def _choose(self, title: str, what: str, then: Callable[[Any], None]) -> None:
        choose(self, title, what, self.memory.text("folder"), then,
               lambda folder: self.memory.keep(folder=folder))

    def choose_model(self) -> None:
        """Ask for a file, and open it."""
        self._choose("Open a model", MODEL, self.open_model)

    def open_model(self, path: str | Path) -> None:
        """Open a model; one that could be opened is opened the next time, too."""
        self.notice.clear()
        self.desk.open(path)

    def take(self, paths: list[str]) -> None:
        """What was dropped: open the model, and add the documents."""
        # by the name, for this thread opens no file; of a model in parts the first is opened
        models = sorted(path for path in paths if path.lower().endswith(MODEL_ENDING))
        documents = [path for path in paths if path not in models]
        if models:
            self.open_model(models[0])
        if documents:
            self.desk.add(documents)

    def show_values(self) -> None:
        """What stands in the file, or what convert would write."""
        found = self.desk.examined or self.desk.opened
        if found is not None and found.config is not None:
            title = "In the file" if found.is_converted else "What convert would write"
            table(self, title, values(found.config))

    def choose_documents(self) -> None:
        """Ask for files, and add them."""
        self._choose("Add documents", FILES, self.desk.add)

    def choose_folder(self) -> None:
        """Ask for a folder, and add what is in it."""
        self._choose("Add a folder", FOLDER, self.desk.add)

    def choose_export(self) -> None:
        """Ask for a place, and write the conversation there."""
        self._choose("Export as Markdown", MARKDOWN, self.export)

    def export(self, path: str) -> None:
        """Write the conversation as Markdown."""
        dialogue = self.desk.current.dialogue

        def take(events: list[Any]) -> None:
            (error,) = events
            if isinstance(error, OSError):
                self._note(f"{file_name(path)} cannot be written: {error.strerror}; choose "
                           "another place", ERROR, [("Export again", self.choose_export)])
            else:
                self._note(f"Written to {file_name(path)}", INFO, [])

        self.desk.relay.in_background(
            lambda: Path(path).write_text(dialogue.markdown(), encoding="utf-8"), take)

    def new_conversation(self) -> None:
        self.desk.new()
        self.composer.line.setFocus()

    def send(self) -> None:
        self.composer.enter()

    def retry(self) -> None:
        self.desk.retry()

    def stop(self) -> None:
        self.desk.stop()

    def copy_answer(self) -> None:
        QGuiApplication.clipboard().setText(self.transcript.last_answer())

    def previous_conversation(self) -> None:
        self._step(-1)

    def next_conversation(self) -> None:
        self._step(1)

    def _step(self, by: int) -> None:
        rows = self.chats.list.rows
        keys = [row.key for row in rows]
        if self.desk.current in keys:
            at = keys.index(self.desk.current) + by
            if 0 <= at < len(keys):
                self.desk.turn_to(keys[at])
        elif keys:
            self.desk.turn_to(keys[0])

    def remove_conversation(self) -> None:
        self._confirm_removal(self.desk.current)

    def _confirm_removal(self, which: Talk | str) -> None:
        row = next((row for row in self.chats.list.rows if row.key == which), None)
        if row is None:
            return
        confirm(self, f"Remove “{row.title[:80]}”, from the disk too?",
                lambda: self.desk.remove(which))

    def _recall(self) -> None:
        dialogue = self.desk.current.dialogue
        line = dialogue.unsent or (dialogue.turns[-1].line if dialogue.turns else "")
        self.composer.put(line)

    def write(self) -> None:
        self.composer.line.setFocus()

    def next_part(self) -> None:
        parts = [self.composer.line, self.chats.list, self.transcript.text, self.map,
                 self.documents.list]
        shown: list[QWidget] = [each for each in parts if each.isVisible()]
        here = QApplication.focusWidget()
        at = shown.index(here) + 1 if here in shown else 0
        shown[at % len(shown)].setFocus(Qt.FocusReason.ShortcutFocusReason)

    def turn_map(self) -> None:
        self.map.setVisible(self.map.isHidden())
        self.memory.keep(map="off" if self.map.isHidden() else "on")

    def change_theme(self) -> None:
        at = themes.CHOICES.index(self.memory.text("theme") or themes.SYSTEM)
        choice = themes.CHOICES[(at + 1) % len(themes.CHOICES)]
        self.memory.keep(theme=choice)
        self.put_theme_on()
        self._note({"system": "Light or dark as the system is", "light": "Always light",
                    "dark": "Always dark"}[choice], INFO, [])

    def show_keys(self) -> None:
        table(self, "Keys", key_rows())

    def leave(self) -> None:
        self.close()

    # -- events --

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if _paths(event.mimeData().urls()):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        paths = _paths(event.mimeData().urls())
        if paths:
            event.acceptProposedAction()
            self.take(paths)

    def closeEvent(self, event: QCloseEvent) -> None:
        """Go from the screen at once; the session ends in the meantime."""
        if self._has_left:
            event.accept()
            return
        event.ignore()
        if not self._is_leaving:
            self._is_leaving = True
            self.memory.keep(place=self.saveGeometry())
            self.hide()
            self.desk.close(self._left)

    def _left(self) -> None:
        self._has_left = True
        self.desk.relay.close()
        self.close()
        self.closed.emit()


def _paths(urls: list[QUrl]) -> list[str]:
    return [each.toLocalFile() for each in urls if each.isLocalFile()]
