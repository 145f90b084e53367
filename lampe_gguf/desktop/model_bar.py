"""The model that is open: its name, how far it reads, and what convert would write into it."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from lampe_gguf import Examined, LampeConfig, Opened

from .labels import Elided
from .words import joined, one_line

NONE = "No model is open"
HOW = "Ctrl+O opens one: a converted file, or any GGUF"


def reach(found: Opened | Examined) -> str:
    """How far it reads, and with what."""
    window = "window not said" if found.window is None else f"window {found.window:,} tokens"
    if found.config is None:
        return f"{window}, LaMPE off"
    return f"{window}, reads up to {found.config.context_length:,}"


def source(found: Opened | Examined) -> str:
    """Whether the file was converted; else that its values are what convert would write."""
    if found.is_converted:
        return "converted"
    if found.config is None:
        return "plain"
    return "not converted: used with what convert would write, no file is changed"


def values(config: LampeConfig) -> list[tuple[str, str]]:
    """What stands in a converted file, or would, as people call it."""
    return [
        ("method", config.method),
        ("window W", f"{config.window:,} tokens"),
        ("longest input", f"{config.context_length:,} tokens"),
        ("local window", f"{config.local_window:,} tokens keep their distance"),
        ("tail window", f"{config.tail_window:,} tokens keep it, shifted"),
        ("mapped into at most", f"{config.max_mapping_length:,.0f} positions"),
        ("length policy", config.length_policy),
        ("where from", one_line(config.provenance) or "not said"),
    ]


class ModelBar(QWidget):
    """At the top of the window."""

    wanted = Signal()
    asked = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.name = Elided(is_strong=True)
        self.about = Elided(is_faint=True)
        self.values = QPushButton("Values…")
        self.values.setAccessibleName("LaMPE values of the model")
        self.values.setToolTip("What convert wrote into the file, or would write (Ctrl+I)")
        self.values.clicked.connect(self.asked)
        self.open = QPushButton("Open model…")
        self.open.setAccessibleName("Open a model")
        self.open.setToolTip("Open a model (Ctrl+O)")
        self.open.clicked.connect(self.wanted)
        lines = QVBoxLayout()
        lines.setSpacing(0)
        lines.addWidget(self.name)
        lines.addWidget(self.about)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(lines, 1)
        layout.addWidget(self.values)
        layout.addWidget(self.open)
        self.show_model(None)

    def show_model(self, found: Opened | Examined | None, doing: str = "") -> None:
        """`doing`: what is being done to it now, as "loading"."""
        self.values.setEnabled(found is not None and found.config is not None)
        if found is None:
            self.name.setText(NONE)
            self.about.setText(doing or HOW)
            return
        self.name.setText(one_line(found.name) or "a model without a name")
        attention = f"{found.attention} attention" if isinstance(found, Opened) else ""
        self.about.setText(joined([doing, reach(found), source(found),
                                   attention if found.config is not None else ""]))
