"""Makes sure, before OpenCV is asked for a window, that it can open one: where it cannot, it aborts or hangs.

And that the window gets its events, of which OpenCV's wheels would lose some.

What OpenCV's wheels for Linux bring is Qt 5 with its X11 plugin only; macOS and Windows draw windows of their own.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import select
import sys
from pathlib import Path

import cv2

from stream_seg.errors import DisplayError

logger = logging.getLogger(__name__)

_OPENCV = Path(cv2.__file__).parent
_BUNDLED = _OPENCV.parent / "opencv_python.libs"
_PLUGIN = _OPENCV / "qt" / "plugins" / "platforms" / "libqxcb.so"

_connections: set[int] = set()


def require_display() -> tuple[int, int] | None:
    """Return the screen's (width, height) in pixels, None if unknown. Raises `DisplayError` if no window can open."""
    if not cv2.currentUIFramework():
        raise DisplayError(
            "this OpenCV cannot show windows; run: pip uninstall opencv-python-headless opencv-python "
            "&& pip install opencv-python"
        )
    if sys.platform in ("win32", "darwin"):
        return None
    screen, connection = _x11_screen(os.environ.get("DISPLAY"))
    if _PLUGIN.exists():
        _prepare_qt()
    _connections.add(connection)
    return screen


def display_is_gone() -> bool:
    """Whether the X server of `require_display` has ended, or the connection to it.

    Qt ends the whole program, in the midst of its results, when it is to handle events and finds it so.
    """
    if not _connections:
        return False
    ends = select.poll()
    for connection in _connections:
        ends.register(connection, getattr(select, "POLLRDHUP", 0))  # a socket of TCP hangs up so, as through ssh
    return bool(ends.poll(0))


@functools.cache
def _x11_screen(name: str | None) -> tuple[tuple[int, int], int]:
    """The (width, height) in pixels, and the file descriptor of a connection that stays."""
    try:
        x11 = ctypes.CDLL("libX11.so.6")
    except OSError as error:
        raise DisplayError(f"no window can be opened: {error}; install libX11, or run with --no-show") from error
    x11.XOpenDisplay.restype = ctypes.c_void_p
    x11.XOpenDisplay.argtypes = [ctypes.c_char_p]
    display = ctypes.c_void_p(x11.XOpenDisplay(None))
    if not display:
        problem = f"the display {name} (DISPLAY) cannot be reached" if name else "there is no display (DISPLAY not set)"
        raise DisplayError(f"no window can be opened: {problem}; run with --no-show")
    # Left open on purpose: a server that loses its last client starts afresh, and refuses the window meanwhile.
    return (x11.XDisplayWidth(display, 0), x11.XDisplayHeight(display, 0)), x11.XConnectionNumber(display)


def _prepare_qt() -> None:
    """Load what Qt will load, in an order that works, and point it at what is there."""
    for library in _usurped():
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    _let_qt_have_its_events()
    os.environ["QT_QPA_PLATFORM"] = "xcb"  # the only plugin there is; a desktop's "wayland" would abort
    # In GLib's loop Qt looks at what has come from the server only once it was woken for it, in its own each time. A
    # key was left lying now and then until the next event came; that may have been libX11's doing, too.
    os.environ.setdefault("QT_NO_GLIB", "1")
    if not Path(os.environ.get("QT_QPA_FONTDIR", "")).is_dir():
        os.environ["QT_QPA_FONTDIR"] = str(_OPENCV)  # OpenCV names a folder it does not bring, and Qt complains
    try:
        ctypes.CDLL(str(_PLUGIN))
    except OSError as error:
        raise DisplayError(f"no window can be opened: {error}; install that library, or run with --no-show") from error


def _let_qt_have_its_events() -> None:
    """Load the libX11-xcb that belongs to the system's libX11, in the place of the one that OpenCV brings.

    Qt tells libX11 by it that events are Qt's to read (XSetEventQueueOwner), which is written into a structure inside
    libX11 that has grown since OpenCV's copy was built. That writes beside the mark: libX11 goes on taking events
    whenever it waits for an answer, and they are lost. Where no window manager sends more of them, many a window never
    learned that it was on the screen, and stayed black; now and then a key was lost, or a press of the close button.
    """
    if not list(_BUNDLED.glob("libX11-xcb-*")) or list(_BUNDLED.glob("libX11-[!x]*")):
        return  # both are the system's, or both OpenCV's
    try:
        ctypes.CDLL("libX11-xcb.so.1", mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        logger.warning("%s: the window may stay black or miss keys; install libx11-xcb1", error)


def _usurped() -> list[Path]:
    """Libraries OpenCV brings whose place a namesake from another package has taken.

    PyAV brings libxcb-shm and others under the very names OpenCV gives its own, bound to a libxcb of its own. If PyAV
    was imported first, Qt would get those, and the first window would wait for ever inside a connection they do not
    know (opencv issue 29195). OpenCV's own, made globally visible before Qt loads, come first when names are resolved.
    """
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return []
    paths = {Path(line.split(maxsplit=5)[5]) for line in maps.read_text().splitlines() if "/libxcb-" in line}
    return sorted(_BUNDLED / path.name for path in paths if path.parent != _BUNDLED and (_BUNDLED / path.name).exists())
