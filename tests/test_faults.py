"""The fault matrix: a real RTSP server, and the network before it, fail in every way that cameras are known to.

Each fault is named by its reason, is over within `RECOVERY_SECONDS` of the server being back plus the back-off, and
leaves no thread and no descriptor behind. Packets are lost by the server itself, which the receiver cannot tell from a
bad network and any machine can do; `tc netem` wants a kernel module that many lack.
"""

from __future__ import annotations

import contextlib
import gc
import signal
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from stream_seg.addresses import backoff
from stream_seg.errors import Reason, SourceError
from stream_seg.protocols import Source
from stream_seg.sources import open_source
from tests.source_counts import descriptors, readers, readers_end, until
from tests.source_servers import Relay, RtspCamera, answering, clock_of, free_port, needs_rtsp, rtsp_camera, silent_host
from tests.source_viewer import Viewer

pytestmark = [needs_rtsp(), pytest.mark.alone]

RECOVERY_SECONDS = 2.0
"""Beyond the server's return and the back-off; a third to half a second on an idle machine."""

OPEN_TIMEOUT = 1.5
STALL_TIMEOUT = 1.0

LONGEST_GAP = 1.0
"""Seconds between two frames of a source beside a failing one, on a busy machine; 0.05 on an idle one."""

PICTURES = {"size": "704x400", "fps": 20, "gop": 10}
"""A key frame each half second, since that is what a new connection has to wait for."""


@pytest.fixture(autouse=True)
def hardly_any_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """The back-off is tested elsewhere; here nobody waits for it."""
    monkeypatch.setattr(backoff, "FIRST_DELAY", 0.1)


def watching(host: str, path: str = "cam", user: str = "", transport: str = "tcp") -> Source:
    return open_source(
        f"rtsp://{user}{host}/{path}",
        transport=transport,  # type: ignore[arg-type]
        open_timeout=OPEN_TIMEOUT,
        stall_timeout=STALL_TIMEOUT,
    )


@contextlib.contextmanager
def nothing_left_behind() -> Iterator[None]:
    """Fail unless threads and descriptors are in the end what they were in the beginning."""
    gc.collect()
    before = descriptors(), threading.active_count()
    yield
    assert readers_end(OPEN_TIMEOUT * 2 + STALL_TIMEOUT), readers()
    assert until(lambda: (descriptors(), threading.active_count()) == before), (
        before,
        descriptors(),
        threading.enumerate(),
    )


@pytest.fixture(scope="module")
def camera() -> Iterator[RtspCamera]:
    """A camera that no test harms."""
    with rtsp_camera(**PICTURES) as camera:
        with open_source(f"rtsp://{camera.host}/cam") as source:  # what libraries open once and keep is open now
            next(iter(source))
        yield camera


@contextlib.contextmanager
def undisturbed(camera: RtspCamera) -> Iterator[None]:
    """Watch another camera meanwhile, and fail if that one ever has to wait."""
    with Viewer(watching(camera.host)) as beside:
        assert beside.sees(2)
        beside.longest_gap = 0.0
        yield
        assert beside.sees(2)
        assert beside.longest_gap < LONGEST_GAP
        assert not beside.availability.counts


def test_a_camera_that_is_off_at_the_start_is_waited_for(camera: RtspCamera) -> None:
    late = RtspCamera(free_port(), **PICTURES)
    with nothing_left_behind(), undisturbed(camera), Viewer(watching(late.host)) as viewer:
        assert viewer.away(Reason.REFUSED)
        try:
            late.start()
            assert viewer.back_after() < RECOVERY_SECONDS
            assert viewer.times[0] == 0
            assert viewer.availability.counts == {Reason.REFUSED: 1}
        finally:
            late.kill()


def test_a_camera_that_is_switched_off_and_comes_back_as_another(camera: RtspCamera) -> None:
    with nothing_left_behind(), undisturbed(camera), rtsp_camera(**PICTURES) as failing:
        with Viewer(watching(failing.host)) as viewer:
            assert viewer.sees(5)
            last, last_time = viewer.arrived, viewer.times[-1]
            failing.kill()
            assert viewer.away(Reason.REFUSED)
            before = viewer.count
            failing.start(size="640x480", codec="mjpeg")
            assert viewer.back_after() < RECOVERY_SECONDS
            assert viewer.frame is not None
            assert viewer.frame.size == (640, 480)
            assert viewer.source.info.size == (704, 400)
            gap = viewer.times[before] - last_time
            assert gap == pytest.approx(viewer.times[-1] - last_time, abs=RECOVERY_SECONDS)
            assert gap > viewer.availability.seconds_away * 0.9
            assert viewer.arrived - last > gap - 1
            assert sum(viewer.availability.counts.values()) == 1
        assert all(earlier < later for earlier, later in zip(viewer.indices, viewer.indices[1:], strict=False))
        assert all(earlier < later for earlier, later in zip(viewer.times, viewer.times[1:], strict=False))


def test_a_server_that_is_stopped_stalls_then_goes_on(camera: RtspCamera) -> None:
    with (
        nothing_left_behind(),
        undisturbed(camera),
        rtsp_camera(**PICTURES) as failing,
        Viewer(watching(failing.host)) as viewer,
    ):
        assert viewer.sees(5)
        failing.signal(signal.SIGSTOP)
        began = time.monotonic()
        assert viewer.away(Reason.STALLED)
        assert time.monotonic() - began < STALL_TIMEOUT + 1.5
        assert viewer.away(Reason.TIMEOUT)  # it still accepts connections: its system does that
        assert len(readers()) <= 2  # those of this and of the source beside it
        failing.signal(signal.SIGCONT)
        assert viewer.back_after() < RECOVERY_SECONDS
        assert viewer.availability.counts == {Reason.STALLED: 1}


def test_a_camera_whose_picture_freezes_stalls_then_goes_on() -> None:
    with nothing_left_behind(), rtsp_camera(**PICTURES) as failing, Viewer(watching(failing.host)) as viewer:
        assert viewer.sees(5)
        failing.tell("freeze")
        assert viewer.away(Reason.STALLED)
        failing.tell("resume")
        assert viewer.back_after() < RECOVERY_SECONDS


def test_a_port_that_accepts_and_says_nothing_times_out(camera: RtspCamera) -> None:
    with nothing_left_behind(), undisturbed(camera), silent_host() as host, Viewer(watching(host)) as viewer:
        began = time.monotonic()
        assert viewer.away(Reason.TIMEOUT)
        assert time.monotonic() - began < OPEN_TIMEOUT + 2


def test_a_wrong_path_is_not_found(camera: RtspCamera) -> None:
    with nothing_left_behind(), Viewer(watching(camera.host, "nowhere")) as viewer:
        assert viewer.away(Reason.NOT_FOUND)


def test_a_host_that_does_not_exist_is_not_found() -> None:
    with nothing_left_behind(), Viewer(watching("no-such-camera.invalid")) as viewer:
        assert viewer.away(Reason.NOT_FOUND)


def test_an_unknown_codec_is_said_to_be_one() -> None:
    with nothing_left_behind(), contextlib.ExitStack() as stack:
        listener = stack.enter_context(answering(b"HTTP/1.0 200 OK\r\nContent-Length: 400\r\n\r\n" + b"no video" * 50))
        viewer = stack.enter_context(Viewer(open_source(f"http://{listener}/page", open_timeout=OPEN_TIMEOUT)))
        assert viewer.away(Reason.CODEC)


@pytest.mark.parametrize("kind", ["basic", "digest"])
def test_a_wrong_password_is_refused_and_the_right_one_is_not(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    word = "p@ss/w:rd%20é"
    with nothing_left_behind(), rtsp_camera(user="me", password=word, auth=kind, **PICTURES) as guarded:
        with Viewer(watching(guarded.host, user="me:guessed@")) as viewer:
            assert viewer.away(Reason.AUTHENTICATION)
            outage = viewer.availability.outage
            assert outage is not None
            assert (outage.retry_at or 0) - time.monotonic() > 10  # cameras lock out who guesses
        with Viewer(watching(guarded.host)) as viewer:
            assert viewer.away(Reason.AUTHENTICATION)
        monkeypatch.setenv("STREAM_SEG_PASSWORD", word)
        with Viewer(watching(guarded.host, user="me@")) as viewer:
            assert viewer.sees(2)


def test_a_connection_cut_in_the_middle_of_a_picture_is_made_again(camera: RtspCamera) -> None:
    with (
        nothing_left_behind(),
        undisturbed(camera),
        Relay(camera.host) as relay,
        Viewer(watching(relay.host)) as viewer,
    ):
        for cuts in (1, 2):
            assert viewer.sees(7)  # not a whole group of pictures
            relay.cut()
            assert until(lambda cuts=cuts: sum(viewer.availability.counts.values()) == cuts)
            assert viewer.back_after() < RECOVERY_SECONDS
        assert set(viewer.availability.counts) <= {Reason.ENDED, Reason.CODEC}


def test_udp_survives_lost_packets_and_a_restart() -> None:
    with (
        nothing_left_behind(),
        rtsp_camera(**PICTURES) as failing,
        Viewer(watching(failing.host, transport="udp")) as viewer,
    ):
        assert viewer.sees(5)
        failing.tell("loss 0.05")
        assert viewer.sees(20)
        assert not viewer.availability.counts
        failing.kill()
        assert viewer.away(Reason.REFUSED)
        failing.start()
        assert viewer.back_after() < RECOVERY_SECONDS


def test_frames_that_were_held_up_know_their_age(camera: RtspCamera) -> None:
    held_seconds, old = 1.5, 0.8  # the oldest may be replaced by newer ones before they are asked for
    with nothing_left_behind(), Relay(camera.host) as relay:
        with open_source(f"rtsp://{relay.host}/cam", open_timeout=OPEN_TIMEOUT) as source:
            frames = iter(source)
            for _ in range(20):  # those from before it was opened come at once
                next(frames)
            relay.hold()
            threading.Timer(held_seconds, relay.let_go).start()
            held = []
            while len(held) < 45:
                frame = next(frames)
                held.append((time.monotonic() - frame.captured_at, time.time() - clock_of(frame.image)))
        said, true = np.array(held).T
        assert true.max() > old
        assert np.abs(said - true).max() < 0.4
        assert true[-1] < old


def test_tries_that_are_counted_end_in_the_reason() -> None:
    port = free_port()
    with (
        nothing_left_behind(),
        pytest.raises(SourceError, match=r"connection refused \(tried again once\)") as caught,
        open_source(f"rtsp://127.0.0.1:{port}/cam", reconnect=1),
    ):
        pass
    assert caught.value.reason is Reason.REFUSED
