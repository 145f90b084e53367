"""Whether Qt can show a window on X11: where it cannot, it ends the process, in its own words."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# what Qt and its plugin for X11 are linked to; what these need, apt brings along
DEBIAN = ("libegl1 libgl1 libfontconfig1 libdbus-1-3 libxkbcommon-x11-0 libxcb-cursor0 "
          "libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-randr0 libxcb-render-util0 "
          "libxcb-shape0 libxcb-xinerama0 libxcb-xkb1")
WHAT_TO_INSTALL = f"install what is missing (Debian, Ubuntu: apt install {DEBIAN})"


def why_no_window(environment: Mapping[str, str] = os.environ) -> str:
    """Why there can be no window, with what to do; "" where nothing speaks against it."""
    if not uses_x11(environment):
        return ""
    from PySide6.QtCore import QLibraryInfo

    plugins = Path(QLibraryInfo.path(QLibraryInfo.LibraryPath.PluginsPath))
    plugin = plugins / "platforms" / "libqxcb.so"
    if not plugin.exists():  # a Qt that is put together in another way
        return ""
    try:
        ctypes.CDLL(os.fspath(plugin))
        xcb = ctypes.CDLL("libxcb.so.1")
    except OSError as error:
        return f"Qt's plugin for X11 cannot be loaded ({error}); {WHAT_TO_INSTALL}"
    if not _answers(xcb):
        return (f"there is no screen that takes a window at DISPLAY={environment.get('DISPLAY')}; "
                "set $DISPLAY to one that does, or use 'lampe-gguf chat' here")
    return ""


def uses_x11(environment: Mapping[str, str]) -> bool:
    """Whether Qt would take its plugin for X11 and, where that fails, nothing else."""
    if not sys.platform.startswith("linux") or environment.get("QT_QPA_PLATFORM_PLUGIN_PATH"):
        return False
    if asked := environment.get("QT_QPA_PLATFORM"):  # "wayland;xcb": one after the other
        return {each.partition(":")[0] for each in asked.split(";")} == {"xcb"}
    is_wayland = environment.get("XDG_SESSION_TYPE") == "wayland"
    return not is_wayland and not environment.get("WAYLAND_DISPLAY")


def _answers(xcb: Any) -> bool:
    """Whether $DISPLAY can be used; the connection stays, until the program ends.

    A server whose last client leaves begins anew, and Qt, which comes next, would not find it.
    """
    xcb.xcb_connect.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
    xcb.xcb_connect.restype = ctypes.c_void_p
    xcb.xcb_connection_has_error.argtypes = xcb.xcb_disconnect.argtypes = [ctypes.c_void_p]
    connection = xcb.xcb_connect(None, None)  # to $DISPLAY
    is_there: bool = xcb.xcb_connection_has_error(connection) == 0
    if not is_there:
        xcb.xcb_disconnect(connection)  # frees what failed
    return is_there
