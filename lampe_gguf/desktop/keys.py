"""Everything that can be done, by menu and by key: one table, for the window and for its help."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Act:
    """do: the name of the window's method; menu: where it stands; keys: how it is called."""

    do: str
    menu: str
    text: str
    keys: tuple[str, ...] = ()


ACTS = (
    Act("choose_model", "&Model", "&Open model…", ("Ctrl+O",)),
    Act("show_values", "&Model", "LaMPE &values…", ("Ctrl+I",)),
    Act("leave", "&Model", "&Quit", ("Ctrl+Q",)),
    Act("new_conversation", "&Conversation", "&New conversation", ("Ctrl+N",)),
    Act("choose_documents", "&Conversation", "Add &documents…", ("Ctrl+D",)),
    Act("choose_folder", "&Conversation", "Add a &folder…", ("Ctrl+Shift+D",)),
    Act("send", "&Conversation", "&Ask", ("Ctrl+Return", "Ctrl+Enter")),
    Act("retry", "&Conversation", "Ask the unanswered question a&gain", ("Ctrl+R",)),
    Act("stop", "&Conversation", "&Stop", ("Esc",)),
    Act("copy_answer", "&Conversation", "&Copy the last answer", ("Ctrl+Shift+C",)),
    Act("choose_export", "&Conversation", "&Export as Markdown…", ("Ctrl+E",)),
    Act("previous_conversation", "&Conversation", "&Previous conversation", ("Ctrl+PgUp",)),
    Act("next_conversation", "&Conversation", "Ne&xt conversation", ("Ctrl+PgDown",)),
    Act("remove_conversation", "&Conversation", "Re&move this conversation…", ("Ctrl+Shift+Del",)),
    Act("write", "&View", "Go to the &question", ("Ctrl+L",)),
    Act("next_part", "&View", "Go to the next &part", ("F6",)),
    Act("turn_map", "&View", "&Map of positions", ("Ctrl+M",)),
    Act("change_theme", "&View", "&Light, dark, as the system", ("Ctrl+T",)),
    Act("show_keys", "&Help", "All &keys", ("F1",)),
)
WITHIN = (
    ("Enter", "Ask; choose what is marked in a list"),
    ("Shift+Enter", "A new line in the question"),
    ("Up", "In an empty question: the one before"),
    ("Delete", "In a list: remove the conversation, or a document that was not read yet"),
    ("Ctrl+C", "Copy what is marked"),
    ("Tab", "Go to the next control"),
)


def key_rows() -> list[tuple[str, str]]:
    """All keys, and what they do."""
    rows = [(" or ".join(act.keys), act.text.replace("&", "").rstrip("…")) for act in ACTS]
    return [*rows, *WITHIN]
