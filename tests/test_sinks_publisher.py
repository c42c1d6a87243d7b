"""Frames sent to addresses: what arrives, servers that come late, go, or take nothing, and secrets that stay ours."""

from __future__ import annotations

import gc
import io
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from stream_seg.cli import main
from stream_seg.detections import Detections
from stream_seg.errors import OutputError, Reason, UsageError
from stream_seg.frame import Frame, SourceInfo
from stream_seg.protocols import Outcome
from stream_seg.sinks import Publisher, VideoFile, forwarder, open_sink
from stream_seg.sinks.encoders import Encoder
from stream_seg.sinks.publisher import _Connection, shown_address
from tests.source_counts import until
from tests.source_servers import Relay, free_port

INFO = SourceInfo("door", (64, 48), "live", frame_rate=Fraction(25))
NOTHING = Detections.none(())
LISTENING = {
    "rtsp": {"rtsp_flags": "listen", "listen_timeout": "10"},
    "rtmp": {"listen": "1"},
    "tcp": {"listen": "1"},
    "udp": {},
}
"""The options that make FFmpeg a server of each kind."""


class Server:
    """Takes what is sent to `address`: the time in seconds and the grey of each picture."""

    def __init__(self, scheme: str, port: int | None = None) -> None:
        self.scheme = scheme
        self.port = free_port() if port is None else port
        self.pictures: list[tuple[float | None, int]] = []
        self.keys: list[float] = []
        self.codec = ""
        self._thread = threading.Thread(target=self._take, daemon=True)

    @property
    def address(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}" + ("" if self.scheme in ("tcp", "udp") else "/live/door")

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _take(self) -> None:
        options = {**LISTENING[self.scheme], **({"probesize": "32"} if self.scheme == "rtmp" else {})}
        address = self.address + ("?timeout=1000000" if self.scheme == "udp" else "")
        with suppress(av.FFmpegError), av.open(address, options=options) as container:
            stream = container.streams.video[0]
            self.codec = stream.codec_context.name
            for picture in container.decode(stream):
                grey = picture.to_ndarray(format="gray")
                self.pictures.append((picture.time, round(float(grey.mean()))))
                if picture.key_frame and picture.time is not None:
                    self.keys.append(picture.time)


def frame(number: int) -> Frame:
    """Grey that tells the number, at 25 frames per second."""
    return Frame(np.full((48, 64, 3), 20 + 10 * (number % 20), np.uint8), number, Fraction(number, 25), 0.0)


@contextmanager
def sending(publisher: Publisher) -> Iterator[Publisher]:
    publisher.open(INFO)
    try:
        yield publisher
    finally:
        publisher.close(Outcome.COMPLETE if sys.exc_info()[0] is None else Outcome.FAILED)


def send_until(publisher: Publisher, is_enough: threading.Event | Server, first: int = 0, count: int = 0) -> int:
    """Write frames until the server has so many more pictures, or the event is set; return the number of the next."""
    number = first
    enough = 0 if isinstance(is_enough, threading.Event) else len(is_enough.pictures) + count
    deadline = time.monotonic() + 10
    while not (is_enough.is_set() if isinstance(is_enough, threading.Event) else len(is_enough.pictures) >= enough):
        assert time.monotonic() < deadline
        publisher.write(frame(number), NOTHING)
        number += 1
        time.sleep(0.01)
    return number


@pytest.mark.parametrize("scheme", ["rtsp", "rtmp", "tcp", "udp"])
def test_what_is_sent_arrives_with_its_times(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_seg.sinks.publisher._WAITING", 1000)  # none is left out, however busy the machine
    with Server(scheme) as server:
        publisher = Publisher(server.address, draw=lambda: 1)
        assert publisher.result is None
        with sending(publisher):
            send_until(publisher, server, count=12)
        assert publisher.result == shown_address(server.address)
    assert server.codec == "h264"
    greys = [grey for _, grey in server.pictures]
    assert set(np.diff(greys)) <= {9, 10, 11, *range(-192, -187)}  # one after the other, none left out
    assert all(time is not None for time, _ in server.pictures[1:])  # the first of RTSP's comes before its clock
    steps = np.diff([time for time, _ in server.pictures if time is not None])
    assert np.allclose(steps, 0.04, atol=0.0011)  # FLV counts in milliseconds


def test_hevc_can_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_seg.sinks.publisher._WAITING", 1000)
    with Server("tcp") as server, sending(Publisher(server.address, codec="hevc", draw=lambda: 1)) as publisher:
        send_until(publisher, server, count=3)
        send_until(publisher, server, 100, 3)
    assert server.codec == "hevc"
    assert len(server.keys) < len(server.pictures)
    first, *_, last = server.keys
    assert first < 2 < last  # after a pause, too, whoever comes then need not wait long


def test_a_server_may_come_late_and_come_back(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream_seg.sinks.publisher.STEADY_SECONDS", 0)
    caplog.set_level(logging.INFO, "stream_seg")
    port = free_port()
    with Server("tcp", port) as server, Relay(f"127.0.0.1:{port}") as relay:
        address = f"tcp://{relay.host}"
        relay.cut()
        with sending(Publisher(address, draw=lambda: 1)) as publisher:
            number = send_until(publisher, server, count=5)
            publisher._said = set(Reason)  # of an outage before
            relay.cut()
            server.__exit__()
            with Server("tcp", port) as again:
                number = send_until(publisher, again, number, 5)
                assert publisher._tries == 0  # once it holds, the next outage is the first
                publisher.close(Outcome.STOPPED)
    said = [record.message for record in caplog.records]
    assert said[0] == f"sending to {address}"
    assert "trying again" in said[1]
    assert f"{address} is back after" in said[-1]
    assert again.pictures[0][0] is not None
    assert again.pictures[0][0] < 2  # a stream of its own


def test_one_that_is_used_again_sends_again() -> None:
    publisher = Publisher(f"tcp://127.0.0.1:{free_port()}", attempts=0)
    with pytest.raises(OutputError, match="connection refused"), sending(publisher):
        send_until(publisher, threading.Event())
    port = int(publisher._url.rpartition(":")[2])
    with Server("tcp", port) as server, sending(publisher):
        assert publisher.result is None
        send_until(publisher, server, count=5)
        assert publisher.result == server.address
        assert until(lambda: publisher._busy_since is None)  # that no frame comes is no fault of the server
    with socket.create_server(("127.0.0.1", port)) as listener:
        with sending(publisher):
            assert publisher.result is None
            for number in (0, 25 * 86400 * 21, 25 * 86400 * 22):
                publisher.write(frame(number), NOTHING)
        assert publisher.result == server.address  # of a single picture, too
        listener.settimeout(5)
        for _ in range(2):  # before milliseconds no longer fit their 32 bits
            listener.accept()[0].close()


def test_after_the_last_attempt_writing_fails_and_says_why() -> None:
    address = f"rtsp://me:secret@127.0.0.1:{free_port()}/x"
    publisher = Publisher(address, attempts=0)
    with pytest.raises(OutputError) as failure, sending(publisher):
        send_until(publisher, threading.Event())
    assert str(failure.value) == f"cannot send to {shown_address(address)}: connection refused"
    assert publisher.result is None


@pytest.mark.parametrize("scheme", ["tcp", "TCP"])
def test_a_failure_behind_the_last_frame_is_told_at_the_end(scheme: str) -> None:
    publisher = Publisher(f"{scheme}://127.0.0.1:{free_port()}", attempts=0)
    publisher.open(INFO)
    publisher.write(frame(0), NOTHING)
    with pytest.raises(OutputError, match="connection refused"):
        publisher.close(Outcome.COMPLETE)


@pytest.mark.parametrize("outcome", [Outcome.COMPLETE, Outcome.STOPPED])
def test_a_recording_of_which_nothing_could_be_sent_has_failed(
    outcome: Outcome, caplog: pytest.LogCaptureFixture
) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    publisher = Publisher(address)
    publisher.open(INFO)
    publisher.write(frame(0), NOTHING)
    words = f"nothing could be sent to {address}: connection refused"
    with pytest.raises(OutputError, match=words) if outcome is Outcome.COMPLETE else nullcontext():
        publisher.close(outcome)
    assert caplog.messages == [f"cannot send to {address}: connection refused (refused)"]  # and is not tried again


def test_a_process_that_cannot_be_started_is_a_failure_like_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/none/python")
    publisher = Publisher("udp://127.0.0.1:9", attempts=0)
    with (
        pytest.raises(OutputError, match=r"no process can be started \(No such file or directory\)$"),
        sending(publisher),
    ):
        send_until(publisher, threading.Event())


def test_a_failed_connection_leaves_nothing_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a server that is away for weeks, each attempt left an encoder until the garbage was collected."""
    attempts: list[weakref.ref[_Connection]] = []
    begin = _Connection.__init__

    def noted(
        self: _Connection, order: dict[str, object], encoder: Encoder, size: tuple[int, int], rate: Fraction | None
    ) -> None:
        attempts.append(weakref.ref(self))
        begin(self, order, encoder, size, rate)

    monkeypatch.setattr(_Connection, "__init__", noted)
    monkeypatch.setattr("stream_seg.addresses.backoff.FIRST_DELAY", 0.01)
    publisher = Publisher(f"tcp://127.0.0.1:{free_port()}", attempts=2)
    gc.disable()
    try:
        with pytest.raises(OutputError, match="refused"), sending(publisher):
            send_until(publisher, threading.Event())
        assert [attempt() is None for attempt in attempts] == [True, True, False]
    finally:
        gc.enable()


def test_an_error_of_our_own_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def add_to(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Encoder, "add_to", add_to)
    publisher = Publisher("udp://127.0.0.1:9")
    with pytest.raises(ZeroDivisionError), sending(publisher):
        send_until(publisher, threading.Event())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows knows no such signals")
def test_a_signal_to_all_processes_of_a_service_leaves_it_to_the_run_to_end(caplog: pytest.LogCaptureFixture) -> None:
    with Server("tcp") as server, sending(Publisher(server.address, draw=lambda: 1)) as publisher:
        number = send_until(publisher, server, count=1)
        assert publisher._connection is not None
        process = publisher._connection._process.pid
        assert os.getsid(process) == process  # Ctrl-C in a terminal does not reach it
        os.kill(process, signal.SIGTERM)
        send_until(publisher, server, number, 3)
    assert not [one for one in caplog.records if one.levelno > logging.INFO and "refused" not in one.message]


def test_a_slash_in_a_password_is_told_how_to_write() -> None:
    publisher = Publisher("rtsp://admin:KEY/1@127.0.0.1:9/door", attempts=0)
    told = (
        r"^cannot send to rtsp://\*\*\*@127\.0\.0\.1:9/door: .*; in a password, / \? and # are written %2F %3F and %23$"
    )
    with pytest.raises(OutputError, match=told), sending(publisher):
        send_until(publisher, threading.Event())


def test_a_host_without_an_entry_is_named(caplog: pytest.LogCaptureFixture) -> None:
    publisher = Publisher("rtmp://nobody.invalid/live/KEY", attempts=1, draw=lambda: 1)
    with pytest.raises(OutputError, match=r"no host named nobody\.invalid \(tried again 1x\)$"), sending(publisher):
        send_until(publisher, threading.Event())
    assert [message.partition(" (")[2].partition(";")[0] for message in caplog.messages] == ["not found"]


def test_a_server_that_takes_nothing_holds_up_neither_the_run_nor_its_end(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream_seg.sinks.publisher._PATIENCE", 0.5)
    monkeypatch.setattr("stream_seg.sinks.publisher._PARTING_SECONDS", 0.1)
    noise = np.random.default_rng(0).integers(0, 255, (720, 1280, 3), np.uint8)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        publisher = Publisher(address, draw=lambda: 0)
        publisher.open(INFO)
        deadline, number, slowest = time.monotonic() + 10, 0, 0.0
        while not (warnings := [one.message for one in caplog.records if one.levelno >= logging.WARNING]):
            began = time.monotonic()
            assert began < deadline
            publisher.write(Frame(np.roll(noise, number, 0), number, Fraction(number, 25), 0.0), NOTHING)
            slowest = max(slowest, time.monotonic() - began)
            number += 1
            time.sleep(0.01)
        began = time.monotonic()
        publisher.close(Outcome.STOPPED)
        assert slowest < 2
        assert time.monotonic() - began < 2
    assert warnings == [f"cannot send to {address}: it takes nothing (stalled; trying again in 0.5 s)"]


def test_a_server_that_says_nothing_is_left_behind_also_where_little_is_sent(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream_seg.sinks.publisher._PATIENCE", 0.5)
    monkeypatch.setattr("stream_seg.sinks.publisher._PARTING_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"rtsp://127.0.0.1:{listener.getsockname()[1]}/door"
        publisher = Publisher(address, draw=lambda: 0)
        publisher.open(INFO)
        deadline, number = time.monotonic() + 10, 0
        while not caplog.messages:
            assert time.monotonic() < deadline
            publisher.write(frame(number), NOTHING)
            number += 1
            time.sleep(0.01)
        publisher.close(Outcome.STOPPED)
    assert caplog.messages[0] == f"cannot send to {address}: it takes nothing (stalled; trying again in 0.5 s)"


def test_the_process_ends_by_itself_where_the_run_was_killed_and_the_server_says_nothing() -> None:
    stream = io.BytesIO()
    with av.open(stream, "w", format="flv") as container:
        encoded = Encoder(Path("tcp"), None, "flv").add_to(container, (64, 48), Fraction(1, 1000), None)
        container.mux(encoded.encode(av.VideoFrame(64, 48)))
        container.mux(encoded.encode(None))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"rtsp://127.0.0.1:{listener.getsockname()[1]}/door"
        order = {"url": url, "format": "rtsp", "options": {"rtsp_transport": "tcp"}, "patience": 0.2}
        command = [sys.executable, "-P", forwarder.__file__]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdin is not None
            process.stdin.write(json.dumps(order).encode() + b"\n" + stream.getvalue())
            process.stdin.flush()
            try:
                assert process.wait(20) == 1
            finally:
                process.kill()


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://me:pw@cam/door", "rtsp://***@cam/door"),
        ("rtmp://a.example/live2/KEY", "rtmp://a.example/live2/***"),
        ("RTMPS://a.example/app/KEY?key=1", "RTMPS://a.example/app/***"),
        ("rtmp:/a.example/live2/KEY", "rtmp:/a.example/live2/***"),  # which is refused, but named
        ("udp://239.0.0.1:5000", "udp://239.0.0.1:5000"),
    ],
)
def test_secrets_of_an_address_are_not_shown(address: str, shown: str) -> None:
    assert shown_address(address) == shown


def test_the_password_may_stand_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    with pytest.raises(OutputError, match=r"cannot read passwords from .*none"):
        Publisher("rtsp://me@cam/door")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("udp://127.0.0.1:99999", r"^udp://127\.0\.0\.1:99999 has a port that cannot be; they are 1 to 65535$"),
        ("rtmp://me:KEY@h:70000/app/KEY", r"^rtmp://\*\*\*@h:70000/app/\*\*\* has a port that cannot be; "),
        ("tcp://127.0.0.1", r"^tcp://127\.0\.0\.1 lacks a port; write tcp://HOST:PORT$"),
    ],
)
def test_a_port_that_is_missing_or_cannot_be_is_refused_at_once(address: str, words: str) -> None:
    with pytest.raises(OutputError, match=words):
        Publisher(address)


def test_an_address_of_another_kind_is_refused_and_not_repeated() -> None:
    for address in ("http://me:KEY@host/out", "s3://KEY/a.mp4"):
        with pytest.raises(
            OutputError, match=r"^cannot send to an address of (http|s3); use one of rtsp, .* a folder$"
        ):
            open_sink(address, overwrite=True)
    with pytest.raises(OutputError, match=r"^cannot send to an address of rtmp that does not begin with rtmp://$"):
        open_sink("rtmp:/host/live/KEY")


@pytest.mark.parametrize("address", ["rtsp://", "rtsp:///door", "rtsp://server"])
def test_an_address_is_no_folder_though_its_host_is_missing_or_a_folder_is_called_like_its_scheme(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert isinstance(open_sink(address), Publisher)
    (tmp_path / "rtsp:").mkdir()
    assert isinstance(open_sink(address), Publisher)
    assert isinstance(open_sink("rtsp:/film.mp4"), VideoFile)


@pytest.mark.parametrize("options", [{"attempts": "3"}, {"attempts": 1.5}, {"attempts": -1}, {"transport": "sctp"}])
def test_tries_and_ways_that_cannot_be_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=r"attempts must be a whole number of at least 0|must be tcp or udp, got sctp"):
        open_sink("rtsp://cam/door", **options)  # type: ignore[arg-type]


def test_what_servers_do_not_take_is_refused() -> None:
    with pytest.raises(OutputError, match=r"^cannot send av1 to an address; use --codec h264 or hevc$"):
        open_sink("rtsp://cam/door", codec="av1")
    with pytest.raises(UsageError, match="and an address is neither"):
        open_sink("rtsp://cam/door", segment=10.0)
    with pytest.raises(OutputError, match="as it is written"):
        open_sink(Path("rtsp://cam/door"))


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent may begin when a short film is over already, on a busy machine."""
    monkeypatch.setattr("stream_seg.sinks.publisher._PARTING_SECONDS", 30.0)


@pytest.mark.usefixtures("patient")
def test_the_command_sends_a_film_at_its_pace(capsys: pytest.CaptureFixture[str]) -> None:
    with Server("tcp") as server:
        began = time.monotonic()
        assert main(["synthetic:64x48@20x12", "-o", server.address, "--size", "64", "--device", "cpu"]) == 0
        assert time.monotonic() - began > 0.5
    assert len(server.pictures) >= 3
    printed = capsys.readouterr()
    assert f"sending to {server.address}" in printed.err
    assert f"-> {server.address}\n" in printed.out


@pytest.mark.usefixtures("patient")
def test_of_several_sources_each_has_an_address_or_all_share_one(capsys: pytest.CaptureFixture[str]) -> None:
    films = ["synthetic:64x48@20x12", "synthetic:64x48@20x12", "--size", "64", "--device", "cpu", "--quiet"]
    with Server("tcp") as server:
        assert main([*films, "-o", server.address]) == 0
    assert server.pictures
    address = f"tcp://127.0.0.1:{free_port()}/{{source}}"
    assert main([*films, "-o", address, "--reconnect", "0"]) == 6
    assert "/synthetic" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["-o", "rtmp://h/live/KEY", "-o", "rtmp://h/live/KEY"], 2, "rtmp://h/live/*** was named for two outputs"),
        (["rtsp://me:KEY@h/1", "-o", "rtsp://me:KEY@h/1"], 6, "rtsp://***@h/1 is an input; send to another address"),
        (
            ["-o", "rtsp://h/1", "--segment", "10m"],
            2,
            "--segment is for video and .jsonl files, and an address is neither",
        ),
        (["samples/photo.jpg", "-o", "rtsp://h/1"], 2, "an address is for films and cameras"),
        (["-o", "srt://KEY@h:1"], 6, "cannot send to an address of srt"),
    ],
)
def test_what_cannot_be_sent_is_said_in_a_line(
    argv: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])
    source = [] if argv[0][0] != "-" else ["synthetic:64x48@20x3"]
    assert main([*source, *argv]) == code
    printed = capsys.readouterr().err
    assert said in printed
    assert "KEY" not in printed
