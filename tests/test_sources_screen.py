"""What is on a screen, from real X servers: where it is, and that they may refuse, hang and go away."""

from __future__ import annotations

import os
import signal
import socket
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from stream_seg.cli.arguments import parse
from stream_seg.errors import Reason, SourceError, UsageError
from stream_seg.frame import Image
from stream_seg.protocols import Source
from stream_seg.sources import Clip, Reconnecting, Screen, label_of, open_source
from stream_seg.sources import screen as module
from stream_seg.sources.screen import grab_rate, parse_screen
from stream_seg.sources.x11 import X11, RequestError, cookie, parse_display
from tests.source_contract import check_contract
from tests.source_counts import descriptors, readers_end
from tests.source_viewer import Viewer
from tests.support import requires
from tests.x_server import display_of_our_own, painted

on_a_screen = requires("Xvfb")

RED, GREEN = (0, 0, 255), (0, 255, 0)


@pytest.fixture(scope="module")
def shared_display() -> Iterator[str]:
    with display_of_our_own(screens=["321x201x24", "64x48x16"]) as (name, _):
        yield name


@pytest.fixture
def display(shared_display: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DISPLAY", shared_display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    return shared_display


def picture(source: Source) -> Image:
    with source:
        return next(iter(source)).image


def box_of(image: Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """x, y, width and height of what has a colour, which must fill all of it."""
    rows, columns = np.nonzero((image == colour).all(2))
    x, y, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    assert (image[y:bottom, x:right] == colour).all()
    return int(x), int(y), int(right - x), int(bottom - y)


@on_a_screen
def test_what_is_on_the_screen_is_seen_where_it_is(display: str) -> None:
    with painted(display, (101, 53, 41, 31), 0xFF0000), painted(display, (300, 190, 21, 11), 0x00FF00):
        image = picture(open_source("screen"))
        part = picture(open_source("screen:63x47+99+51"))
    assert (image.shape, part.shape) == ((201, 321, 3), (47, 63, 3))
    assert (box_of(image, RED), box_of(image, GREEN)) == ((101, 53, 41, 31), (300, 190, 21, 11))
    assert box_of(part, RED) == (2, 2, 41, 31)
    with painted(display, (0, 0, 8, 8), 0xFF0000):  # what is there now, and not what was
        assert box_of(picture(open_source("screen:30x20")), RED) == (0, 0, 8, 8)


@on_a_screen
def test_a_screen_keeps_the_contract(display: str) -> None:
    before = descriptors()
    check_contract(lambda: open_source("screen:64x48", max_fps=200))
    check_contract(lambda: Screen((0, 0, 1, 1), fps=200))
    assert descriptors() == before


@on_a_screen
def test_a_server_that_shares_no_memory_and_wants_a_cookie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right, wrong = (entry(bytes([value]) * 16) for value in (7, 8))
    (tmp_path / "right").write_bytes(right)
    (tmp_path / "wrong").write_bytes(wrong)
    with display_of_our_own("-auth", str(tmp_path / "right"), "-extension", "MIT-SHM") as (name, _):
        monkeypatch.setenv("DISPLAY", name)
        monkeypatch.setenv("XAUTHORITY", str(tmp_path / "right"))
        with painted(name, (700, 500, 100, 100), 0xFF0000):
            assert box_of(picture(open_source("screen")), RED) == (700, 500, 100, 100)
        monkeypatch.setenv("XAUTHORITY", str(tmp_path / "wrong"))
        with pytest.raises(SourceError, match=r"it refuses: [A-Z]") as caught:
            picture(open_source("screen"))
    assert caught.value.reason is Reason.REFUSED


def entry(value: bytes, *, family: int = 65535, address: bytes = b"", number: bytes = b"") -> bytes:
    """One of an Xauthority file."""
    fields = (address, number, b"MIT-MAGIC-COOKIE-1", value)
    return struct.pack(">H", family) + b"".join(struct.pack(">H", len(field)) + field for field in fields)


def test_the_cookie_of_this_host_and_display_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = socket.gethostname().encode()
    entries = (
        entry(b"any"),
        entry(b"seven", family=256, address=ours, number=b"7"),
        entry(b"eight", family=256, address=ours, number=b"8"),
        entry(b"theirs", family=256, address=b"elsewhere", number=b"9"),
    )
    path = tmp_path / "cookies"
    monkeypatch.setenv("XAUTHORITY", str(path))
    assert cookie("", 8) == (b"", b"")
    path.write_bytes(b"".join(entries) + b"\1")
    assert [cookie("", number)[1] for number in (7, 8, 9)] == [b"seven", b"eight", b"any"]


@on_a_screen
def test_what_the_server_cannot_do_is_said_and_the_next_is_done(display: str) -> None:
    server = X11(display, 10)
    with pytest.raises(RequestError):
        server.image((300, 0, 22, 1))
    assert server.image((300, 0, 21, 1)).shape == (1, 21, 3)
    server.close()


@on_a_screen
@pytest.mark.parametrize(
    ("spec", "screen", "words", "reason"),
    [
        (
            "screen:300x200+22+0",
            "",
            r"screen 300x200\+22\+0: it reaches beyond the screen, which is 321x201$",
            Reason.NOT_FOUND,
        ),
        ("screen", ".1", "its pixels have 16 bits of colour, and only 24 can be read", Reason.CODEC),
        ("screen", ".2", "it has no screen 2", Reason.NOT_FOUND),
    ],
)
def test_what_cannot_be_captured_is_refused(
    spec: str, screen: str, words: str, reason: Reason, display: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPLAY", display + screen)
    with pytest.raises(SourceError, match=words) as caught:
        picture(open_source(spec))
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("display", "words"),
    [
        (":4242", r"the display :4242 \(DISPLAY\) cannot be read: there is no X server$"),
        ("nonsense", "it is no name of a display, such as :0"),
        (":70000", "it is no name of a display, such as :0"),
    ],
)
def test_a_display_that_is_not_there_is_named(display: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", display)
    with pytest.raises(SourceError, match=words):
        picture(open_source("screen"))


def test_without_x11_it_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(SourceError, match=r"DISPLAY not set.*DISPLAY=:0"):
        open_source("screen")
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    with pytest.raises(SourceError, match="this is a Wayland session, and only X11 can be captured"):
        open_source("screen", reconnect=9)
    monkeypatch.setattr(module.sys, "platform", "darwin")
    with pytest.raises(SourceError, match="for X11, on Linux, alone"):
        open_source("screen")


def test_beside_wayland_a_word_is_said_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("DISPLAY", ":4242")
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    module._warn_of_wayland.cache_clear()
    for _ in range(2):
        open_source("screen")
    assert [record.getMessage() for record in caplog.records] == [
        "this is a Wayland session: on its screen only windows of X11 programs are seen, the rest is black"
    ]


@on_a_screen
def test_a_server_that_hangs_and_then_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    before = descriptors()
    with display_of_our_own() as (name, server):
        monkeypatch.setenv("DISPLAY", name)
        with Viewer(open_source("screen", open_timeout=0.6, stall_timeout=0.3)) as viewer:
            assert viewer.sees(2)
            os.kill(server.pid, signal.SIGSTOP)
            assert viewer.away(Reason.STALLED)
            os.kill(server.pid, signal.SIGCONT)
            viewer.back_after()
            server.kill()
            assert viewer.away(Reason.UNPLUGGED)
    assert readers_end()
    assert descriptors() == before


@on_a_screen
def test_a_server_that_goes_away_ends_what_is_not_to_reconnect(monkeypatch: pytest.MonkeyPatch) -> None:
    with display_of_our_own() as (name, server):
        monkeypatch.setenv("DISPLAY", name)
        with open_source("screen", reconnect=0) as source:
            frames = iter(source)
            next(frames)
            server.kill()
            with pytest.raises(SourceError, match=f"sends no more pictures: the display {name} has gone away"):
                list(frames)


@pytest.mark.parametrize(
    ("most", "stall", "rate"),
    [(None, 5, 30), (5, 5, 5), (Fraction(1, 2), 5, Fraction(1, 2)), (Fraction(1, 10), 5, Fraction(2, 5)), (2, 0.3, 8)],
)
def test_no_more_is_captured_than_is_used_unless_that_would_seem_to_stall(
    most: Fraction | None, stall: float, rate: Fraction
) -> None:
    assert grab_rate(most, stall) == rate


@on_a_screen
def test_what_is_told_of_a_screen(display: str) -> None:
    source = open_source("screen:32x20+3+4", max_fps=7)
    assert isinstance(source, Clip)
    assert source.name == "screen 32x20+3+4"
    with source:
        assert (source.info.size, source.info.frame_rate, source.info.kind) == ((32, 20), 7, "live")
    assert type(open_source("screen")) is Reconnecting


def test_names() -> None:
    assert parse_screen("screen") is None
    assert parse_screen("screen:1280x720+100+50") == (100, 50, 1280, 720)
    assert parse_screen("screen:1280x720") == (0, 0, 1280, 720)
    assert label_of("screen:1280x720+100+50") == "screen-1280x720-100-50"
    assert [parse_display(name) for name in (":1", "unix:2.3", "localhost:10.0")] == [
        ("", 1, 0),
        ("", 2, 3),
        ("localhost", 10, 0),
    ]
    for wrong in ("screen:", "screen:0x5", "screen:5x0+1+1", "screen:5x5+1", "screen:5x5-1+1"):
        with pytest.raises(UsageError, match="is no part of a screen; write WIDTHxHEIGHT"):
            parse_screen(wrong)
    with pytest.raises(UsageError, match=r"got \(0, 0, 5, 0\)"):
        Screen((0, 0, 5, 0))


def test_a_source_after_the_option_is_one() -> None:
    args = parse(["--screen", "clip.mp4", "--screen", "640x480+1+2", "--screen", "-", "--screen"])
    assert (args.source, args.screen) == (["clip.mp4", "-"], ["screen", "screen:640x480+1+2", "screen", "screen"])
    for wrong in ("640x480+1", "0", "100,50,640,480"):
        with pytest.raises(UsageError, match=f"'{wrong}' is no part of a screen".replace("+", r"\+")):
            parse(["--screen", wrong])
