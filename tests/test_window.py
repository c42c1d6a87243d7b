"""A window on a real X server, driven by real key presses; its pace, by a clock of the test's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from stream_seg.sinks.window import fitting
from tests.sink_close_button import press_close_button
from tests.source_counts import until
from tests.support import requires
from tests.x_server import display_of_our_own

PROGRAM = "tests.sink_window_program"
WALL = "tests.sink_wall_program"
LOST = "tests.sink_lost_display_program"
ENOUGH = "100000"
ROOT = Path(__file__).parent.parent

on_a_screen = requires("Xvfb", "xdotool")


@pytest.fixture(scope="module")
def screen() -> Iterator[str]:
    with display_of_our_own() as (name, _):
        yield name


@contextmanager
def program(display: str, *args: str, module: str = PROGRAM) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The program with its window on the screen, and the number of that window."""
    command = [sys.executable, "-m", module, *args]
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "DISPLAY": display}
    )
    try:
        assert running.stdout is not None
        assert running.stdout.readline() == "shown 0\n"
        found = xdotool(display, "search", "--sync", "--onlyvisible", "--name", "^sink test$")
        window = int(found.split()[0])
        xdotool(display, "windowfocus", "--sync", str(window))
        yield running, window
    except subprocess.TimeoutExpired as late:  # rarely, on a busy machine: what is lost is only found where it went
        focused = xdotool(display, "getwindowfocus").strip()
        said = (late.output or b"")[-60:]  # whether it hangs or shows one frame after the other
        waits = waiting_in(running.pid)
        xdotool(display, "key", "x")  # which ends nothing: if it ends now, what was lost was there, and not looked at
        with suppress(subprocess.TimeoutExpired):
            running.communicate(timeout=5)
        raise AssertionError(
            f"it goes on: its window is {window}, keys go to {focused}, it said {said!r}, its threads wait in {waits}; "
            f"it {'goes on' if running.returncode is None else 'ends'} after a key that ends nothing"
        ) from late
    finally:
        running.kill()
        running.communicate()


def waiting_in(process: int) -> list[str]:
    """The name of each thread and the kernel's function it sleeps in, as far as one may look."""
    found = []
    for thread in Path(f"/proc/{process}/task").iterdir():
        with suppress(OSError):
            found.append(" ".join((thread / name).read_text().strip() for name in ("comm", "wchan")))
    return found


def xdotool(display: str, *args: str) -> str:
    environment = {**os.environ, "DISPLAY": display}
    done = subprocess.run(["xdotool", *args], env=environment, capture_output=True, text=True, timeout=20, check=True)
    return done.stdout


def end_of(running: subprocess.Popen[str]) -> str:
    """The last line the program printed; it must end by itself, and well."""
    out, _ = running.communicate(timeout=20)
    assert running.returncode == 0, out
    return out.splitlines()[-1]


def printed_by(running: subprocess.Popen[str]) -> list[str]:
    """What the program prints from now on, as it comes."""
    lines: list[str] = []

    def listen() -> None:
        for line in running.stdout or ():
            lines.append(line)  # noqa: PERF402  one by one, for others look meanwhile

    threading.Thread(target=listen, daemon=True).start()
    return lines


def stands_for_a_second(lines: list[str]) -> bool:
    """Whether nothing is shown for so long, in which a film shows 25 frames."""
    shown = len(lines)
    time.sleep(1)
    return len(lines) == shown


@on_a_screen
@pytest.mark.parametrize(("kind", "key"), [("video", "q"), ("live", "Escape"), ("images", "q")])
def test_a_key_ends_the_run(kind: str, key: str, screen: str) -> None:
    with program(screen, kind, ENOUGH) as (running, _):
        xdotool(screen, "key", key)
        assert end_of(running) == "stopped"


@on_a_screen
@pytest.mark.parametrize("kind", ["video", "images"])
def test_the_close_button_ends_the_run(kind: str, screen: str) -> None:
    with program(screen, kind, ENOUGH) as (running, window):
        press_close_button(screen, window)
        assert end_of(running) == "stopped"


@on_a_screen
def test_the_first_window_opens_though_pyav_was_imported_first(screen: str) -> None:
    with program(screen, "video", ENOUGH, "av-first") as (running, _):
        xdotool(screen, "key", "q")
        assert end_of(running) == "stopped"


@on_a_screen
def test_qt_waits_in_its_own_loop_and_not_in_glibs(screen: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", PROGRAM, "video", "1"],
        capture_output=True, text=True, timeout=30, cwd=ROOT, check=True,
        env={**os.environ, "DISPLAY": screen, "QT_LOGGING_RULES": "qt.qpa.xcb=true"},
    )  # fmt: skip
    assert "using unix dispatcher" in done.stderr
    assert "glib" not in done.stderr


@on_a_screen
def test_qt_and_not_libx11_reads_the_windows_events(screen: str, tmp_path: Path) -> None:
    """The call that says so must come from the libX11-xcb that belongs to libX11, not from OpenCV's copy."""
    done = subprocess.run(
        [sys.executable, "-m", PROGRAM, "video", "1"],
        capture_output=True, text=True, timeout=60, cwd=ROOT, check=True,
        env={**os.environ, "DISPLAY": screen, "LD_DEBUG": "bindings", "LD_DEBUG_OUTPUT": str(tmp_path / "bound")},
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "ended"
    lines = [line for file in tmp_path.iterdir() for line in file.read_text(errors="replace").splitlines()]
    libraries = [re.search(r" to (\S+)", line) for line in lines if "`XSetEventQueueOwner'" in line]
    assert libraries
    assert [found and Path(found[1]).name for found in libraries] == ["libX11-xcb.so.1"] * len(libraries)


@on_a_screen
def test_a_modifier_alone_turns_no_page_and_an_arrow_does(screen: str) -> None:
    with program(screen, "images", "2") as (running, _):
        assert running.stdout is not None
        xdotool(screen, "key", "shift", "alt", "ctrl")
        xdotool(screen, "key", "Left")
        assert running.stdout.readline() == "shown 1\n"
        xdotool(screen, "key", "shift", "alt", "ctrl")
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(0.5)
        xdotool(screen, "key", "Right")
        assert end_of(running) == "ended"


@on_a_screen
def test_each_image_stays_until_a_key_is_pressed(screen: str) -> None:
    with program(screen, "images", "3") as (running, _):
        assert running.stdout is not None
        xdotool(screen, "key", "n")
        assert running.stdout.readline() == "shown 1\n"
        xdotool(screen, "key", "space")
        assert running.stdout.readline() == "shown 2\n"
        xdotool(screen, "key", "n")
        assert end_of(running) == "ended"


@on_a_screen
@pytest.mark.parametrize("kind", ["video", "sequence"])
def test_other_keys_do_not_end_a_film(kind: str, screen: str) -> None:
    """The left arrow's keysym ends in the byte of a Q."""
    with program(screen, kind, ENOUGH) as (running, _):
        lines = printed_by(running)
        for key in ("x", "Left", "shift", "alt"):
            xdotool(screen, "key", key)
        shown = len(lines)
        assert until(lambda: len(lines) >= shown + 10)  # each would have been seen by then
        xdotool(screen, "key", "q")
        assert running.wait(20) == 0


@on_a_screen
@pytest.mark.parametrize("kind", ["video", "sequence"])
def test_a_window_that_is_used_again_shows_the_next_film_too(kind: str, screen: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", PROGRAM, kind, "5", "again"],
        capture_output=True, text=True, timeout=30, cwd=ROOT, check=True, env={**os.environ, "DISPLAY": screen},
    )  # fmt: skip
    assert done.stdout.splitlines() == [*(f"shown {number}" for number in range(5)), "ended"] * 2


@on_a_screen
def test_space_pauses_until_it_is_pressed_again(screen: str) -> None:
    with program(screen, "video", ENOUGH) as (running, _):
        lines = printed_by(running)
        xdotool(screen, "key", "space")
        assert until(lambda: stands_for_a_second(lines))
        shown = len(lines)
        xdotool(screen, "key", "space")
        assert until(lambda: len(lines) >= shown + 10)
        xdotool(screen, "key", "q")
        assert running.wait(20) == 0


@on_a_screen
def test_a_paused_window_of_a_live_feed_ends_the_run_all_the_same(screen: str) -> None:
    with program(screen, "live", ENOUGH) as (running, _):
        xdotool(screen, "key", "space")
        xdotool(screen, "key", "q")
        assert end_of(running) == "stopped"


@on_a_screen
@pytest.mark.parametrize("kind", ["video", "live"])
def test_several_feeds_share_a_window_that_fits_the_screen_and_ends_the_run(kind: str, screen: str) -> None:
    with program(screen, kind, ENOUGH, module=WALL) as (running, window):
        assert "Geometry: 640x180" in xdotool(screen, "getwindowgeometry", str(window))
        xdotool(screen, "key", "q")
        assert end_of(running) == "stopped"


@on_a_screen
def test_photos_side_by_side_stay_until_a_key_is_pressed(screen: str) -> None:
    with program(screen, "photos", "2", module=WALL) as (running, _):
        assert running.stdout is not None
        xdotool(screen, "key", "n")
        assert running.stdout.readline() == "shown 1\n"
        xdotool(screen, "key", "space")
        assert end_of(running) == "ended"


@on_a_screen
@pytest.mark.parametrize("module", [PROGRAM, WALL])
def test_pausing_the_window_of_live_feeds_does_not_hold_them_up(module: str, screen: str) -> None:
    with program(screen, "live", "70", module=module) as (running, _):
        xdotool(screen, "key", "space")
        assert end_of(running) == "ended"


@on_a_screen
@pytest.mark.parametrize("when", ["before", "shown"])
def test_a_display_that_goes_away_ends_the_run_and_not_the_program(when: str, tmp_path: Path) -> None:
    film = tmp_path / "out.mp4"
    with display_of_our_own() as (name, server):
        done = subprocess.run(
            [sys.executable, "-m", LOST, when, str(server.pid), str(film)],
            capture_output=True, text=True, timeout=30, cwd=ROOT, check=False, env={**os.environ, "DISPLAY": name},
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (7, "")
    assert "display has gone away" in done.stdout
    assert film.exists() == (when == "shown")


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="there is always a display")
@pytest.mark.parametrize(
    ("display", "message"), [("", "DISPLAY not set"), (":4242", ":4242 (DISPLAY) cannot be reached")]
)
def test_without_a_display_there_is_a_sentence_and_no_abort(display: str, message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", PROGRAM, "video", "1"],
        capture_output=True, text=True, timeout=30, cwd=ROOT, check=False, env={**os.environ, "DISPLAY": display},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (7, "")
    assert message in done.stdout
    assert "--no-show" in done.stdout


@pytest.mark.parametrize(
    ("size", "expected"),
    [((640, 480), (640, 480)), ((3840, 2160), (1280, 720)), ((1000, 4000), (180, 720)), ((20000, 2), (1280, 1))],
)
def test_a_window_fits_the_screen_in_proportion(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert fitting(size, (1600, 900)) == expected
