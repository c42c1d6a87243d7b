"""What an address is told of a source: once that something is there, once that it is gone; and who waits for it."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import http.server
import json
import logging
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stream_seg.cli import feeds, main
from stream_seg.cli.arguments import parse
from stream_seg.detections import Crossings, Detections
from stream_seg.errors import OutputError, UsageError
from stream_seg.frame import Frame, SourceInfo
from stream_seg.pipeline import Pipeline
from stream_seg.protocols import Outcome
from stream_seg.segmenters import FunctionSegmenter
from stream_seg.sinks import ListSink, Notifier, Webhook, notifier, recipient
from stream_seg.sources import ListSource
from tests.certificates import self_signed
from tests.sink_films import BROKEN, NOTHING, SOMETHING, TWO, image
from tests.source_files import films_and_a_photo
from tests.source_servers import free_port
from tests.support import requires
from tests.test_cli import failure

FILM = SourceInfo("a film", (64, 48), "video")
CAMERA = SourceInfo("a camera", (64, 48), "live")
BEGAN = time.monotonic()


class Hub:
    """A server that is told things: their `documents`, and the headers and `paths` of the requests.

    `answers` are the statuses of the next ones; of what is left it takes all. While it is not `awake`, it says nothing,
    `asked` as it may have been.
    """

    def __init__(self, answers: Sequence[int] = ()) -> None:
        self.documents: list[dict[str, Any]] = []
        self.headers: list[http.client.HTTPMessage] = []
        self.paths: list[str] = []
        self.answers = list(answers)
        self.asked = threading.Event()
        self.awake = threading.Event()
        self.awake.set()
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hub.asked.set()
                hub.awake.wait()
                hub.documents.append(json.loads(body))
                hub.headers.append(self.headers)
                hub.paths.append(self.path)
                with contextlib.suppress(OSError):  # it did not want to wait
                    self.send_response(hub.answers.pop(0) if hub.answers else 200)
                    self.send_header("Location", "https://me:KEY@elsewhere/KEY?token=KEY")
                    self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.host}/api/webhook/KEY"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def events(self) -> list[str]:
        return [document["event"] for document in self.documents]

    def encrypt(self, context: ssl.SSLContext) -> None:
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = self.url.replace("http://", "https://")

    def close(self) -> None:
        self.awake.set()
        self._server.shutdown()
        self._server.server_close()  # waits for all that is being answered
        self._thread.join()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(recipient, "delay_before", lambda *_: 0.0)
    hub = Hub()
    yield hub
    hub.close()


def frame(seconds: float, index: int = 0) -> Frame:
    return Frame(image(index), index, Fraction(seconds), BEGAN + seconds)


def deliver(
    sink: Notifier, found: Sequence[tuple[float, Detections]], about: SourceInfo = FILM, *, close: bool = True
) -> None:
    """Have the sink told what was found at these times, in seconds."""
    sink.open(about)
    for index, (seconds, detections) in enumerate(found):
        sink.write(frame(seconds, index), detections)
        assert not sink.wants_stop()
        assert not sink.holds()
    if close:
        sink.close(Outcome.COMPLETE)


def test_it_is_told_once_that_something_is_there_and_once_that_it_is_gone(hub: Hub) -> None:
    film = [(0, NOTHING), (1, SOMETHING), (2, TWO), (2.5, SOMETHING), (3, NOTHING), (12.5, NOTHING), (20, NOTHING)]
    sink = Notifier(hub.url, source="door")
    deliver(sink, film, close=False)
    sink.close(Outcome.COMPLETE)
    assert hub.documents == [
        {
            **{"event": "appeared", "frame": 1, "time": 1.0, "source": "door", "classes": {"person": 1}},
            **{"width": 64, "height": 48},
            "objects": [{"class": "person", "score": 1.0, "box": [4.0, 6.0, 34.0, 40.0]}],
        },
        {
            **{"event": "gone", "frame": 3, "time": 2.5, "source": "door", "seconds": 1.5},
            **{"classes": {"person": 1, "dog": 1}, "width": 64, "height": 48, "objects": []},
        },
    ]
    assert hub.paths == ["/api/webhook/KEY"] * 2
    assert {(told["Content-Type"], told["Authorization"]) for told in hub.headers} == {("application/json", None)}
    assert sink.result == f"http://{hub.host}/***"


def test_what_comes_back_in_time_was_not_gone_and_what_comes_later_is_another_event(hub: Hub) -> None:
    film = [(0, TWO), (4.75, TWO), (9.5, SOMETHING), (14.5, SOMETHING), (14.75, NOTHING)]
    deliver(Notifier(hub.url, events=5.0), film)
    told = [(document["event"], document["time"], document.get("seconds")) for document in hub.documents]
    assert told == [("appeared", 0, None), ("gone", 9.5, 9.5), ("appeared", 14.5, None), ("gone", 14.5, 0)]
    assert {document["source"] for document in hub.documents} == {"a film"}


@pytest.mark.parametrize("events", [2, Fraction(2), np.float32(2), np.int64(2)])
def test_its_length_is_any_number(events: float, hub: Hub) -> None:
    deliver(Notifier(hub.url, events=events), [(0, SOMETHING), (2, NOTHING), (3, SOMETHING)])
    assert hub.events == ["appeared", "gone"] * 2


def test_nothing_is_sent_where_nothing_is_seen_and_images_are_no_events(hub: Hub) -> None:
    sink = Notifier(hub.url)
    deliver(sink, [(0, NOTHING)], close=False)
    sink.write(dataclasses.replace(frame(1), is_still=True), SOMETHING)
    sink.close(Outcome.COMPLETE)
    assert (hub.documents, sink.result) == ([], None)


def test_numbers_counts_and_the_time_of_day_are_told_as_other_outputs_tell_them(hub: Hub) -> None:
    shown = dataclasses.replace(
        TWO,
        ids=np.array([7, 9]),
        lines=(Crossings((0, 0), (9, 9), {"in": {"dog": 3}, "out": {}}),),
        occupancy=({"dog": 1}, {}),
    )
    deliver(Notifier(hub.url), [(0, shown), (0.5, shown)], CAMERA)
    appeared, gone = hub.documents
    assert [(one["id"], one["class"], one["score"]) for one in appeared["objects"]] == [
        (7, "dog", 0.912),
        (9, "person", 0.5),
    ]
    assert (appeared["lines"], appeared["regions"]) == (
        [{"in": {"dog": 3}, "out": {}}],
        [{"now": {"dog": 1}}, {"now": {}}],
    )
    assert (gone["lines"], gone["regions"]) == (appeared["lines"], [{"now": {}}, {"now": {}}])
    assert appeared["captured"] < gone["captured"]
    assert gone["captured"].endswith("+00:00")


def test_what_has_no_place_has_no_entry(hub: Hub) -> None:
    deliver(Notifier(hub.url), [(0, BROKEN)])
    assert [one["score"] for one in hub.documents[0]["objects"]] == [0.912, 0.5]


def test_of_a_camera_that_is_away_it_is_told_meanwhile(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifier, "LATEST_SECONDS", -10.0)
    sink = Notifier(hub.url)
    deliver(sink, [(0, SOMETHING)], CAMERA, close=False)
    sink.write(frame(1), NOTHING)
    sink.close(Outcome.STOPPED)
    assert hub.events == ["appeared", "gone"]
    deliver(Notifier(hub.url), [(0, SOMETHING), (1, SOMETHING)], CAMERA)
    assert hub.events == ["appeared", "gone"] * 3


def test_a_sink_can_go_through_one_run_after_the_other(hub: Hub) -> None:
    sink = Notifier(hub.url)
    for outcome in Outcome:
        deliver(sink, [(0, SOMETHING)], close=False)
        sink.close(outcome)
        sink.close(outcome)
    assert hub.events == ["appeared", "gone"] * 3
    with pytest.raises(RuntimeError, match="open the sink"):
        Notifier(hub.url).write(frame(0), NOTHING)


def test_the_last_of_several_sources_waits_for_what_all_have_to_tell(hub: Hub) -> None:
    hub.awake.clear()
    hook = Webhook(hub.url)
    door, yard, away = (Notifier(hook, source=name) for name in ("door", "yard", "away"))
    deliver(door, [(0, SOMETHING)])  # which does not wait
    deliver(yard, [(0, SOMETHING)])
    hub.awake.set()
    away.close(Outcome.FAILED)
    assert [document["source"] for document in hub.documents] == ["door", "door", "yard", "yard"]


@pytest.mark.parametrize(("answers", "attempts"), [([503, 500], 4), ([429], 3), ([204, 201], 2)])
def test_what_a_server_is_not_ready_for_is_sent_again(
    answers: list[int], attempts: int, hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    hub.answers = answers
    deliver(Notifier(hub.url), [(0, SOMETHING)])
    assert hub.events == ["appeared"] * (attempts - 1) + ["gone"]
    assert caplog.messages == []


def test_failures_are_told_once_until_it_has_worked_again(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "stream_seg")
    hub.answers = [404, 503, 503, 503, 404, 200, 401]
    deliver(Notifier(hub.url), [(20 * number, SOMETHING) for number in range(3)])
    shown = f"http://{hub.host}/***"
    assert caplog.messages == [
        f"cannot notify {shown}: it answers 404 Not Found",
        f"{shown} takes notifications again",
        f"cannot notify {shown}: it answers 401 Unauthorized; the name or password is missing or wrong",
        f"{shown} takes notifications again",
        f"4 of 6 notifications were not taken by {shown}",
    ]


def test_redirects_are_not_followed_but_told_without_secrets(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    hub.answers = [301, 308]
    deliver(Notifier(hub.url), [(0, SOMETHING)])
    assert hub.events == ["appeared", "gone"]
    assert "it redirects to https://***@elsewhere/***; give that address" in caplog.messages[0]
    assert "KEY" not in caplog.text


@pytest.mark.parametrize(
    ("host", "words"), [("127.0.0.1:{port}", "connection refused"), ("nobody.invalid", "there is no host named nobody")]
)
@pytest.mark.parametrize("address", ["http://me:KEY@{host}/KEY", "mqtt://me:KEY@{host}/door"])
def test_a_server_that_is_not_there_is_told_and_ends_no_run(
    host: str, words: str, address: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipient, "delay_before", lambda *_: 0.0)
    sink = Notifier(address.format(host=host.format(port=free_port())))
    deliver(sink, [(0, SOMETHING)])
    first, last = caplog.messages
    assert words in first
    assert last.startswith("2 of 2 notifications were not taken")
    assert "KEY" not in caplog.text
    assert sink.result is None


def test_a_server_that_says_nothing_delays_no_frame_and_the_oldest_are_left_out(
    hub: Hub, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipient, "BACKLOG", 4)
    hub.awake.clear()
    sink = Notifier(hub.url)
    deliver(sink, [(20 * number, SOMETHING) for number in range(10)], close=False)
    assert caplog.messages == [f"http://{hub.host}/*** is slow: of more than 4 notifications the oldest are left out"]
    hub.awake.set()
    sink.close(Outcome.STOPPED)
    assert hub.documents[-1]["time"] == 180
    assert caplog.messages[1].startswith(f"{20 - len(hub.documents)} of 20 notifications were not taken")
    assert len(hub.documents) <= 6


def test_at_the_end_a_server_that_says_nothing_is_left(
    hub: Hub, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipient, "PATIENCE", 0.1)
    hub.awake.clear()
    sink = Notifier(hub.url)
    deliver(sink, [(0, SOMETHING)], close=False)
    hub.asked.wait()
    sink.close(Outcome.STOPPED)
    assert "it does not answer in time" in caplog.messages[0]
    assert caplog.messages[-1].startswith("2 of 2 notifications were not taken")


def test_names_and_passwords_are_sent_and_not_shown(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    deliver(Notifier(f"HTTP://me:p%40ss@{hub.host}?a=ä b"), [(0, SOMETHING)])
    monkeypatch.setenv("STREAM_SEG_PASSWORD", "p@ss")
    sink = Notifier(hub.url.replace("//", "//me@"))
    deliver(sink, [(0, SOMETHING)])
    assert [told["Authorization"] for told in hub.headers] == ["Basic bWU6cEBzcw=="] * 4
    assert hub.paths[::2] == ["/?a=%C3%A4%20b", "/api/webhook/KEY"]
    assert sink.result == f"http://***@{hub.host}/***"


def test_bytes_that_are_no_text_are_sent_as_they_are(hub: Hub) -> None:
    """As where a terminal of another encoding gave them."""
    deliver(Notifier(f"http://m\udcfc:p@{hub.host}/\udcfc?a=\udcfc"), [(0, SOMETHING)])
    assert hub.paths == ["/%FC?a=%FC"] * 2
    assert [told["Authorization"] for told in hub.headers] == ["Basic bfw6cA=="] * 2


@requires("openssl")
def test_a_certificate_nobody_vouches_for_is_told(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, key = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    hub.encrypt(context)
    deliver(Notifier(hub.url), [(0, SOMETHING)])
    assert "its certificate is not trusted (self-signed certificate)" in caplog.messages[0]
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    deliver(Notifier(hub.url), [(0, SOMETHING)])
    assert hub.events == ["appeared", "gone"]


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("", "begins with http://, https://, mqtt:// or mqtts://"),
        ("me:KEY@home/KEY", "begins with http://, https://, mqtt:// or mqtts://"),
        ("rtsp://home/KEY", "begins with http://, https://, mqtt:// or mqtts://"),
        ("http:///KEY", r"cannot notify http:///\*\*\*: it names no host"),
        ("http://home:x/KEY", r"^http://home:x/\*\*\* has a port that cannot be"),
        ("http://me:KEY/KEY@home/KEY", r"^cannot notify http://\*\*\*@home/\*\*\*: in a password, / "),
        ("http://home..local/KEY", r"^cannot notify http://home..local/\*\*\*: a host cannot have this name"),
        (f"http://{'x' * 64}/KEY", "a host cannot have this name"),
        ("http://h\udcfc/KEY", "a host cannot have this name"),
        ("http://[::1/KEY", r"^cannot read http://\[::1/\*\*\*: this is no address"),
    ],
)
def test_an_address_that_cannot_be_is_refused_without_its_secrets(address: str, words: str) -> None:
    with pytest.raises(OutputError, match=words) as refusal:
        Notifier(address)
    assert "KEY" not in str(refusal.value)


@pytest.mark.parametrize("events", [0, -1.0, float("inf"), float("nan"), "10s", None, [5]])
def test_how_long_nothing_is_seen_must_be_some_time(events: object) -> None:
    with pytest.raises(UsageError, match=r"seconds is not|parse_duration"):
        Notifier("http://home/a", events=events)  # type: ignore[arg-type]


def test_a_pipeline_tells_it_and_draws_nothing_for_it(hub: Hub) -> None:
    kept = ListSink()
    kept.wants_pictures = False
    images = [np.full((48, 64, 3), 90, np.uint8)] * 3
    Pipeline(
        ListSource(images), FunctionSegmenter(lambda _: TWO, TWO.class_names), sinks=[Notifier(hub.url), kept]
    ).run()
    assert hub.events == ["appeared", "gone"]
    assert all((one.image == 90).all() for one in kept.frames)


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """For the command, in a folder with something to look at, and a model that finds much in it."""
    monkeypatch.chdir(tmp_path)
    return [*films_and_a_photo(tmp_path), "--score-threshold", "0.1"]


@pytest.mark.parametrize(
    "argv",
    [["clips"], ["clips", "-o", "{source}.csv", "--events", "5s"], ["clips/a.mp4", "clips/b.mp4", "-o", "w.mp4"]],
)
def test_the_command_needs_no_other_output_and_tells_of_each_source(
    argv: list[str], options: list[str], hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*argv, "--notify", hub.url, "--notify", hub.url, *options]) == 0
    told = [(document["source"], document["event"]) for document in hub.documents]
    assert sorted(told) == [("a", "appeared"), ("a", "gone"), ("b", "appeared"), ("b", "gone")]
    printed = capsys.readouterr().out
    assert f"http://{hub.host}/***" in printed
    assert "KEY" not in printed


def test_each_source_can_have_an_address_of_its_own(options: list[str], hub: Hub) -> None:
    Path("clips/b.mp4").rename("clips/bä.mp4")
    argv = ["clips", "--notify", f"http://{hub.host}/{{source}}", "--notify", f"http://{hub.host}/all"]
    assert main([*argv, *options, "--quiet"]) == 0
    told = {(document["source"], path) for document, path in zip(hub.documents, hub.paths, strict=True)}
    assert told == {("a", "/a"), ("a", "/all"), ("bä", "/b%C3%A4"), ("bä", "/all")}
    assert len(hub.documents) == 8


def test_at_the_end_no_server_waits_for_another(options: list[str], hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    slow = Hub()
    slow.awake.clear()

    def wake() -> None:
        while "gone" not in hub.events:
            time.sleep(0.01)
        slow.awake.set()

    waker = threading.Thread(target=wake)
    waker.start()
    try:
        assert main(["clips/a.mp4", "--notify", slow.url, "--notify", hub.url, *options, "--quiet"]) == 0
        assert slow.events == hub.events == ["appeared", "gone"]
        assert caplog.messages == []
    finally:
        waker.join()
        slow.close()


def test_the_length_of_events_is_that_of_recordings(options: list[str]) -> None:
    for given, seconds in ([], 10), (["--events", "3s"], 3):
        argv = ["clips/a.mp4", "-o", "a.mp4", "--notify", "http://home/a", *given, *options]
        job = feeds.plan(parse(argv), lambda *of: [])
        assert [sink._gap for sink in job.outputs if isinstance(sink, Notifier)] == [seconds]
        assert not job.screens


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["photo.png"], 2, "--notify is for films and cameras; what is in images is listed by -o found.jsonl"),
        (["clips/a.mp4", "--events", "5s", "--before", "2s"], 2, "--before is for recordings, so it needs an output"),
        (["clips/a.mp4", "-o", "a.csv", "--events", "5s", "--keep", "2h"], 2, "--keep is for recordings, so it needs"),
        (["clips/a.mp4", "--segment", "5s"], 2, "--segment cuts a recording, so it needs an output"),
        (["clips", "-o", "wall.mp4"], 3, "give each a result of its own"),
        (["clips/a.mp4", "--notify", "home:8123/KEY"], 6, "an address to notify begins with http://"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(
    argv: list[str], code: int, words: str, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    status, line = failure(capsys, *argv, "--notify", "http://home/a", *options)
    assert (status, words in line) == (code, True), line


def test_of_photos_beside_films_a_word_says_that_they_are_none(
    options: list[str], hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["clips/a.mp4", "photo.png", "--notify", hub.url, *options]) == 0
    assert "--notify is for films, and photo is none: it has no effect there" in capsys.readouterr().err
    assert {document["source"] for document in hub.documents} == {"a"}
