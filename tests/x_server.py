"""X servers of our own, and windows of one colour on them."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def display_of_our_own(
    *options: str, screens: Sequence[str] = ("800x600x24",)
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Its name and its server, which does not start afresh, and refuse the next program, when one ends."""
    reading, writing = os.pipe()
    shown = [word for number, screen in enumerate(screens) for word in ("-screen", str(number), screen)]
    command = ["Xvfb", "-displayfd", str(writing), *shown, "-nolisten", "tcp", "-noreset", *options]
    server = subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.DEVNULL)
    os.close(writing)
    with os.fdopen(reading) as answer:
        name = f":{answer.readline().strip()}"
    try:
        yield name, server
    finally:
        server.terminate()
        server.wait(10)


@contextmanager
def painted(display_name: str, place: tuple[int, int, int, int], colour: int) -> Iterator[None]:
    """A window without a border at x, y, with a width and height, in a colour such as 0xFF0000, red."""
    x11 = ctypes.CDLL("libX11.so.6")
    x11.XOpenDisplay.restype = ctypes.c_void_p
    x11.XDefaultRootWindow.restype = x11.XCreateSimpleWindow.restype = ctypes.c_ulong
    display = ctypes.c_void_p(x11.XOpenDisplay(display_name.encode()))
    assert display, f"no display {display_name}"
    try:
        root = ctypes.c_ulong(x11.XDefaultRootWindow(display))
        window = x11.XCreateSimpleWindow(display, root, *place, 0, ctypes.c_ulong(0), ctypes.c_ulong(colour))
        x11.XMapWindow(display, ctypes.c_ulong(window))
        x11.XSync(display, 0)
        yield
    finally:
        x11.XCloseDisplay(display)
