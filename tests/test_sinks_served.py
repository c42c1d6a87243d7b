"""What a page tells programs: what is in its pictures, as records of JSON, and whether pictures come."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
import weakref
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from stream_seg.addresses import backoff
from stream_seg.channel import EndOfStream
from stream_seg.cli import main
from stream_seg.detections import Detections
from stream_seg.frame import Frame, SourceInfo
from stream_seg.pipeline import Feed, Pipeline
from stream_seg.protocols import Outcome
from stream_seg.segmenters import FunctionSegmenter
from stream_seg.sinks import ObjectsFile, Page, page_server
from stream_seg.sinks.objects import Record
from stream_seg.sinks.page_server import MOST_VIEWERS
from stream_seg.sinks.served import BACKLOG, Findings, Found, ServedObjects
from stream_seg.sources import open_source
from stream_seg.tiles import Tiles
from tests.sink_films import TWO, image
from tests.source_servers import needs_rtsp, rtsp_camera
from tests.test_sinks_page import INFO, ask, look


@pytest.fixture
def page() -> Iterator[Page]:
    """One that is being served."""
    page = Page(0)
    page.open(INFO)
    yield page
    page.close(Outcome.COMPLETE)


def frame(number: int) -> Frame:
    return Frame(image(number), number, Fraction(number, 25), time.monotonic())


def status_of(page: Page, path: str) -> tuple[int, Any]:
    status, kind, body = ask(page, path)
    return status, json.loads(body) if kind == "application/json" else body.decode()


@contextlib.contextmanager
def following(page: Page, path: str) -> Iterator[http.client.HTTPResponse]:
    """An answer that has begun: of all that is written from now on, it tells."""
    with contextlib.closing(http.client.HTTPConnection(urlsplit(page.url).netloc, timeout=10)) as connection:
        connection.request("GET", path)
        yield connection.getresponse()


def test_objects_are_those_of_the_newest_picture_as_a_file_has_them(page: Page, tmp_path: Path) -> None:
    file = ObjectsFile(tmp_path / "found.jsonl")
    file.open(SourceInfo("a", (64, 48), "video"))
    for number in range(3):
        file.write(frame(number), TWO[: number + 1])
        page.write(frame(number), TWO[: number + 1])
    file.close(Outcome.COMPLETE)
    status, record = status_of(page, "/objects")
    assert status == 200
    assert record.pop("captured")
    assert record == json.loads((tmp_path / "found.jsonl").read_text().splitlines()[-1])
    assert [found["class"] for found in record["objects"]] == ["dog", "person"]


def test_before_the_first_picture_nothing_is_told(page: Page) -> None:
    status, text = status_of(page, "/objects")
    assert (status, "No picture has come yet" in text) == (503, True)
    assert status_of(page, "/health") == (503, {"status": "away", "seconds": None})


def test_health_tells_whether_pictures_come(page: Page) -> None:
    page.write(frame(0), TWO)
    status, health = status_of(page, "/health?within=1000")
    assert (status, health["status"]) == (200, "ok")
    assert health["seconds"] >= 0
    time.sleep(0.01)
    status, health = status_of(page, "/health?within=0.001")
    assert (status, health["status"]) == (503, "away")
    page.write(frame(1), TWO)
    assert status_of(page, "/health?within=1000&")[0] == 200


@pytest.mark.parametrize("within", ["-1", "soon", "1e9", "inf", "1."])
def test_health_within_what_is_no_time_is_refused(page: Page, within: str) -> None:
    page.write(frame(0), TWO)
    status, text = status_of(page, f"/health?within={within}")
    assert (status, "within is a number of seconds, as in /health?within=30" in text) == (400, True)


@pytest.mark.parametrize("has_objects", [False, True])
def test_a_page_that_is_used_again_shows_and_tells_what_comes(*, has_objects: bool) -> None:
    page = Page(0)
    sinks = [page, *([page.objects()] if has_objects else [])]
    for run in range(2):
        for sink in sinks:
            sink.open(INFO)
        try:
            assert status_of(page, "/health") == (503, {"status": "away", "seconds": None})
            with following(page, "/objects.jsonl") as lines, look(page) as browser:
                data = b""
                for number in range(2):
                    for sink in sinks:
                        sink.write(frame(10 * run + number), TWO)
                    assert json.loads(lines.readline())["frame"] == 10 * run + number
                    while data.count(b"--frame") < number + 2:
                        data += browser.recv(65536)
            assert status_of(page, "/health")[1]["status"] == "ok"
        finally:
            for sink in sinks:
                sink.close(Outcome.COMPLETE)


def test_health_of_several_is_that_of_the_best() -> None:
    now = 100.0
    findings = Findings(lambda: now)
    door, yard = ServedObjects(findings, "door"), ServedObjects(findings, "yard")
    both = ["door", "yard"]
    away: dict[str, object] = {"status": "away", "seconds": None}
    assert findings.health(both, 10) == {**away, "sources": {"door": away, "yard": away}}
    yard.write(frame(0), TWO)
    now += 10
    well: dict[str, object] = {"status": "ok", "seconds": 10}
    assert findings.health(both, 10) == {**well, "sources": {"door": away, "yard": well}}
    assert findings.health(["door"], 10) == away
    assert findings.health(["yard"], 10) == well
    door.write(frame(0), TWO)
    now += 2
    assert findings.health(both, 10)["seconds"] == 2
    now += 9
    assert findings.health(both, 10)["status"] == "away"
    door.close(Outcome.COMPLETE)
    assert findings.health(both, 10)["status"] == "away"
    yard.close(Outcome.FAILED)
    assert findings.health(both, 10)["status"] == "ended"


def test_of_several_sources_each_has_its_record() -> None:
    page = Page(0)
    door, yard = page.objects("door"), page.objects("höf & co")
    for sink in (page, door, yard):
        sink.open(INFO)
    try:
        page.write(frame(0), Detections.none(()))  # the picture of both, of whose objects it is told nothing
        assert status_of(page, "/objects")[0] == 503
        door.write(frame(5), TWO)
        assert [record["source"] for record in status_of(page, "/objects")[1]] == ["door"]
        yard.write(frame(7), TWO[:1])
        records = status_of(page, "/objects")[1]
        assert [(record["source"], record["frame"]) for record in records] == [("door", 5), ("höf & co", 7)]
        assert status_of(page, "/objects?source=h%C3%B6f+%26+co") == (200, records[1])
        assert set(status_of(page, "/health")[1]["sources"]) == {"door", "höf & co"}
        for path in ("/objects", "/objects.jsonl", "/events", "/health"):
            status, text = status_of(page, f"{path}?source=attic")
            assert status == 404
            assert "The sources are 'door', 'höf &amp; co'" in text
        with following(page, "/objects.jsonl?source=door") as one, following(page, "/objects.jsonl") as all_:
            yard.write(frame(8), TWO)
            door.write(frame(6), TWO)
            assert json.loads(one.readline())["source"] == "door"
            assert [json.loads(all_.readline())["frame"] for _ in range(2)] == [8, 6]
    finally:
        page.close(Outcome.COMPLETE)


def test_letters_of_any_script_are_read_as_they_are() -> None:
    page = Page(0)
    page.objects("voilà Åke хлеб").write(frame(3), TWO)
    page.open(INFO)
    place = urlsplit(page.url)
    try:
        with socket.create_connection((str(place.hostname), place.port or 0), 10) as curl:
            curl.sendall("GET /objects?source=voilà%20Åke+хлеб HTTP/1.0\r\n\r\n".encode())
            head, _, body = curl.makefile("rb").read().partition(b"\r\n\r\n")
    finally:
        page.close(Outcome.COMPLETE)
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert json.loads(body)["source"] == "voilà Åke хлеб"


def test_an_only_source_has_no_name(page: Page) -> None:
    page.write(frame(0), TWO)
    assert "There is one source: leave out its name" in status_of(page, "/health?source=door")[1]


@needs_rtsp()
def test_health_of_a_camera_that_goes_away_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST_DELAY", 0.05)
    page = Page(0)
    with rtsp_camera(size="64x48", gop=5) as camera:
        feed = Feed(open_source(f"rtsp://{camera.host}/cam"), [page.objects()])
        segmenter = FunctionSegmenter(lambda _: Detections.none(()), ())
        pipeline = Pipeline([feed], segmenter, wall=Tiles(["cam"], [page]))
        run = threading.Thread(target=pipeline.run)
        run.start()

        def wait_for(status: int) -> dict[str, Any]:
            until = time.monotonic() + 20
            while time.monotonic() < until:
                with contextlib.suppress(ConnectionError):  # not open yet
                    now, health = status_of(page, "/health?within=0.5")
                    if now == status:
                        return dict(health)
                time.sleep(0.02)
            raise AssertionError(f"never {status}")

        try:
            assert wait_for(200)["status"] == "ok"
            camera.kill()
            assert wait_for(503)["status"] == "away"
            assert status_of(page, "/objects")[0] == 200  # what was seen last
            camera.start()
            assert wait_for(200)["status"] == "ok"
        finally:
            pipeline.stop()
            run.join()


def test_who_follows_gets_each_record_and_the_end() -> None:
    page = Page(0)
    page.open(INFO)
    page.write(frame(0), TWO)  # which is over by the time somebody follows
    with following(page, "/objects.jsonl") as lines, following(page, "/events") as events:
        assert lines.headers["Content-Type"] == "application/jsonl"
        assert events.headers["Content-Type"] == "text/event-stream"
        for number in range(1, 4):
            page.write(frame(number), TWO)
        page.close(Outcome.STOPPED)
        records = [json.loads(line) for line in lines.read().splitlines()]
        assert [record["frame"] for record in records] == [1, 2, 3]
        *messages, rest = events.read().split(b"\n\n")
        assert [json.loads(message.removeprefix(b"data: ")) for message in messages] == records
        assert rest == b""


def test_who_is_slow_loses_the_oldest_and_holds_up_nothing() -> None:
    findings = Findings()
    sink = ServedObjects(findings, None)
    with findings.following([None]) as channel:
        for number in range(BACKLOG + 10):
            sink.write(frame(number), TWO)
        findings.end()
        sink.write(frame(999), TWO)  # comes too late for all
        numbers = []
        with contextlib.suppress(EndOfStream):
            while True:
                numbers += [json.loads(found.line)["frame"] for found in channel.take(10)]
    assert numbers == list(range(10, BACKLOG + 10))
    with findings.following([None]) as channel, pytest.raises(EndOfStream):
        channel.take(1)


def test_who_takes_nothing_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Record, "line", lambda _: b"x" * 2**20 + b"\n")  # more than a socket takes at once
    page = Page(0)
    page.open(INFO)
    with following(page, "/objects.jsonl"):
        for number in range(2 * BACKLOG):
            page.write(frame(number), TWO)
        began = time.monotonic()
        page.close(Outcome.COMPLETE)
        assert time.monotonic() - began < 5  # instead of the ten seconds one may take
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("stream-seg")]


def test_who_has_gone_while_nothing_comes_gives_its_place_free(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_server, "_LONGEST_GAP", 0.02)
    for _ in range(2 * MOST_VIEWERS):
        while True:  # that one has gone is noticed a moment later
            with contextlib.suppress(http.client.HTTPException, ConnectionError), following(page, "/events"):
                break
        while True:
            with contextlib.suppress(http.client.HTTPException, ConnectionError):
                if ask(page, "/objects")[0] == 503:
                    break


def test_health_is_told_also_where_every_place_is_taken(page: Page) -> None:
    page.write(frame(0), TWO)
    browsers: list[socket.socket] = [look(page) for _ in range(MOST_VIEWERS)]
    try:
        for browser in browsers:
            assert browser.recv(1)
        for _ in range(MOST_VIEWERS):
            assert status_of(page, "/health?within=1000")[0] == 200
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            ask(page, "/objects")
    finally:
        for browser in browsers:
            browser.close()


def test_who_says_nothing_keeps_health_from_being_told_for_a_moment_alone(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_server, "_HASTE", 0.1)
    page.write(frame(0), TWO)
    place = urlsplit(page.url)
    with contextlib.ExitStack() as open_:
        for _ in range(MOST_VIEWERS):
            assert open_.enter_context(look(page)).recv(1)
        for _ in range(MOST_VIEWERS):
            open_.enter_context(socket.create_connection((str(place.hostname), place.port or 0), 10))
        until = time.monotonic() + 5  # instead of the ten seconds that those may take who have a place
        status = None
        while status is None and time.monotonic() < until:
            with contextlib.suppress(http.client.HTTPException, ConnectionError):
                status = status_of(page, "/health?within=1000")[0]
            time.sleep(0.01)
    assert status == 200


@pytest.mark.parametrize(
    "path", ["/", "/picture.jpg", "/stream.mjpg", "/objects", "/objects.jsonl", "/events", "/health"]
)
def test_a_monitor_may_ask_for_the_headers_alone(page: Page, path: str) -> None:
    page.write(frame(0), TWO)
    place = urlsplit(page.url)
    assert place.hostname is not None
    assert place.port is not None
    with socket.create_connection((place.hostname, place.port), 10) as monitor:
        monitor.sendall(f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        data = b""
        while more := monitor.recv(65536):
            data += more
    assert data.startswith(b"HTTP/1.1 200 OK\r\n")
    assert data.index(b"\r\n\r\n") == len(data) - 4


def test_no_line_is_made_while_nobody_asks_and_no_pixels_are_kept(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def line(record: Record) -> bytes:
        made.append(record)
        return b"{}\n"

    monkeypatch.setattr(Record, "line", line)
    found = ServedObjects(Findings(), None)
    pixels = np.zeros((48, 64, 3), np.uint8)
    found.write(Frame(pixels, 0, Fraction(0), 0.0), TWO)
    kept = weakref.ref(pixels)
    del pixels
    assert kept() is None
    for number in range(3):
        page.write(frame(number), TWO)
    assert not made
    for _ in range(2):
        assert status_of(page, "/objects") == (200, {})
    assert len(made) == 1
    one = Found(made[0])
    assert (one.line, one.line, len(made)) == (b"{}", b"{}", 2)


@pytest.mark.parametrize("several", [False, True])
def test_the_command_tells_what_its_files_hold(several: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, Any]] = []
    close = Page.close

    def ask_and_close(page: Page, outcome: Outcome) -> None:
        told.extend(status_of(page, path) for path in ("/objects", "/health"))
        close(page, outcome)

    monkeypatch.setattr(Page, "close", ask_and_close)
    monkeypatch.chdir(tmp_path)
    named = ["synthetic:64x48@20x3", *(["synthetic:32x24@20x4"] if several else [])]
    argv = [*named, "--serve", "0", "-o", "{source}.jsonl", "--size", "64", "--device", "cpu"]
    assert main(argv) == 0
    (status, records), (_, health) = told
    assert status == 200
    written = {path.stem: json.loads(path.read_text().splitlines()[-1]) for path in tmp_path.glob("*.jsonl")}
    if several:
        assert {record.pop("source"): record for record in records} == written
        assert set(health["sources"]) == set(written)
    else:
        assert [records] == [*written.values()]
        assert set(health) == {"status", "seconds"}
