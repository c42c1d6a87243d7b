"""The page for browsers: what it answers, to whom, and that no browser holds up a run or its end."""

from __future__ import annotations

import http.client
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

from stream_seg.cli import main
from stream_seg.detections import Detections
from stream_seg.errors import OutputError, UsageError
from stream_seg.frame import Frame, Image, SourceInfo
from stream_seg.protocols import Outcome
from stream_seg.sinks import Page, parse_host_and_port
from stream_seg.sinks.page_server import MOST_VIEWERS
from stream_seg.sources import open_source

INFO = SourceInfo("door <1>", (64, 48), "live")
NOTHING = Detections.none(())
SAMPLE = Path(__file__).parents[1] / "samples" / "photo.jpg"


@pytest.fixture
def page() -> Iterator[Page]:
    """One that is being served."""
    page = Page(0)
    page.open(INFO)
    yield page
    page.close(Outcome.COMPLETE)


def grey(value: int, size: tuple[int, int] = (64, 48)) -> Image:
    return np.full((size[1], size[0], 3), value, np.uint8)


def show(page: Page, image: Image) -> None:
    page.write(Frame(image, 0, Fraction(0), 0.0), NOTHING)


def ask(page: Page, path: str, **headers: str) -> tuple[int, str, bytes]:
    """The status, kind and body of an answer."""
    place = urlsplit(page.url)
    assert place.hostname is not None
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=10)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read()
    finally:
        connection.close()


def look(page: Page) -> socket.socket:
    """A browser that asks for the pictures, and has taken none yet."""
    place = urlsplit(page.url)
    assert place.hostname is not None
    assert place.port is not None
    browser = socket.create_connection((place.hostname, place.port), 10)
    browser.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return browser


def parts(data: bytes) -> list[int]:
    """The grey of each picture of a whole answer."""
    head, _, body = data.partition(b"\r\n\r\n--frame\r\n")
    assert b"Content-Type: multipart/x-mixed-replace; boundary=frame" in head
    assert body.endswith(b"\r\n--frame\r\n")  # without it a browser would wait before it shows the last one
    return [
        brightness(part.partition(b"\r\n\r\n")[2])
        for part in body.removesuffix(b"\r\n--frame\r\n").split(b"\r\n--frame\r\n")
    ]


def brightness(jpeg: bytes) -> int:
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return round(float(picture.mean()))


def rest(browser: socket.socket) -> bytes:
    data = b""
    while more := browser.recv(65536):
        data += more
    return data


def test_a_browser_gets_a_page_with_the_name_of_the_source(page: Page) -> None:
    status, kind, body = ask(page, "/")
    assert (status, kind) == (200, "text/html; charset=utf-8")
    assert b"<title>door &lt;1&gt; - stream-seg</title>" in body
    assert b"picture.jpg" in body


def test_the_notice_of_a_lost_connection_reads_on_any_picture_and_the_old_picture_is_dimmed(page: Page) -> None:
    text = ask(page, "/")[2].decode()
    of_notice, of_old_picture = (text.partition(selector)[2].partition("}")[0] for selector in ("\n  p {", "+ img {"))
    assert "background: #000" in of_notice
    assert "z-index: 1" in of_notice  # a filter paints the picture over what is placed
    assert "brightness(0.35)" in of_old_picture
    assert text.index("<p hidden>") < text.index("<img")  # the rule is for what follows the notice


def test_a_file_whose_name_is_no_text_has_a_page() -> None:
    page = Page(0)
    page.open(SourceInfo("caf\udce9.mp4", (64, 48), "video"))
    try:
        status, _, body = ask(page, "/")
    finally:
        page.close(Outcome.COMPLETE)
    assert status == 200
    assert b"<title>caf?.mp4 - stream-seg</title>" in body


def test_the_picture_is_the_newest(page: Page) -> None:
    for value in (10, 200, 90):
        show(page, grey(value))
    status, kind, body = ask(page, "/picture.jpg?1")
    assert (status, kind, brightness(body)) == (200, "image/jpeg", 90)


def test_a_browser_can_wait_for_a_picture_it_has_not_seen(page: Page) -> None:
    place = urlsplit(page.url).netloc
    connection = http.client.HTTPConnection(place, timeout=10)
    number, seen = "0", []
    for value in (20, 60, 100):
        show(page, grey(value))
        connection.request("GET", f"/picture.jpg?after={number}")  # of the same connection
        answer = connection.getresponse()
        number = answer.headers["Picture-Number"]
        seen.append(brightness(answer.read()))
    assert seen == [20, 60, 100]
    later = threading.Timer(0.1, show, (page, grey(140)))
    later.start()
    connection.request("GET", f"/picture.jpg?after={number}")
    assert brightness(connection.getresponse().read()) == 140
    later.join()
    connection.close()


def test_who_comes_before_the_first_picture_waits_for_it(page: Page) -> None:
    later = threading.Timer(0.1, show, (page, grey(50)))
    later.start()
    assert brightness(ask(page, "/picture.jpg")[2]) == 50
    later.join()


def test_each_picture_is_sent_and_the_last_also_where_the_run_ends_at_once() -> None:
    page = Page(0)
    page.open(INFO)
    with look(page) as browser:
        data = b""
        for value in (40, 80):
            show(page, grey(value))
            while data.count(b"--frame") < value // 40 + 1:
                data += browser.recv(65536)
        show(page, grey(120))
        page.close(Outcome.STOPPED)
        assert parts(data + rest(browser)) == [40, 80, 120]


def test_it_can_be_read_as_a_feed() -> None:
    page = Page(0)
    page.open(INFO)
    done = threading.Event()

    def go_on() -> None:
        for number in range(1000):
            show(page, grey(number % 200))
            if done.wait(0.01):
                break

    filming = threading.Thread(target=go_on)
    filming.start()
    try:
        with open_source(f"{page.url}stream.mjpg") as source:
            assert source.info.size == (64, 48)
            assert next(iter(source)).size == (64, 48)
    finally:
        done.set()
        filming.join()
        page.close(Outcome.COMPLETE)


def test_a_browser_that_takes_nothing_holds_up_neither_the_run_nor_its_end_nor_others() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (1080, 1920, 3), np.uint8)  # more than a socket takes at once
    page = Page(0)
    page.open(INFO)
    with look(page) as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for number in range(20):
            show(page, np.roll(noise, number, 0))
            if number % 5 == 0:
                ask(page, "/picture.jpg")
        show(page, grey(70))
        assert brightness(ask(page, "/picture.jpg")[2]) == 70
        began = time.monotonic()
        page.close(Outcome.COMPLETE)
        assert time.monotonic() - began < 5  # instead of the ten seconds a browser may take


def test_a_picture_may_take_longer_than_a_browser_may_be_silent(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_seg.sinks.page_server._PATIENCE", 1.0)
    show(page, np.random.default_rng(0).integers(0, 255, (1080, 1920, 3), np.uint8))
    whole = ask(page, "/picture.jpg")[2]
    place = urlsplit(page.url)

    def taken_slowly(path: str) -> tuple[bool, float]:
        """Whether all of the picture came, and in how many seconds."""
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 15)
            slow.settimeout(10)
            slow.connect((place.hostname, place.port))
            slow.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            began, data = time.monotonic(), b""
            while whole not in data and (more := slow.recv(1 << 16)):
                data += more
                time.sleep(2.5 * len(more) / len(whole))
            return whole in data, time.monotonic() - began

    paths = ("/picture.jpg", "/stream.mjpg")
    with ThreadPoolExecutor(len(paths)) as browsers:
        for path, (is_whole, took) in zip(paths, browsers.map(taken_slowly, paths), strict=True):
            assert is_whole, path
            assert took > 2, path


def test_the_page_gives_up_what_is_silent_and_not_what_is_slow(page: Page) -> None:
    text = ask(page, "/")[2].decode()
    assert "AbortSignal.timeout" not in text  # which is for all of a picture
    assert "await reader.read()).done; wait())" in text


def test_one_too_many_is_turned_away_until_another_goes(page: Page) -> None:
    show(page, grey(30))
    browsers = [look(page) for _ in range(MOST_VIEWERS)]
    try:
        for browser in browsers:
            assert browser.recv(1)
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            ask(page, "/")
        browsers.pop().close()
        status = 0
        while status != 200:
            show(page, grey(31))  # which the one that has gone does not take
            try:
                status = ask(page, "/")[0]
            except (http.client.HTTPException, ConnectionError):
                time.sleep(0.01)
    finally:
        for browser in browsers:
            browser.close()


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1", "[::1]:80", "LOCALHOST"])
def test_a_page_for_this_machine_answers_by_its_names(page: Page, host: str) -> None:
    assert ask(page, "/", Host=host)[0] == 200


@pytest.mark.parametrize(
    "path", ["/", "/stream.mjpg", "/picture.jpg", "/objects", "/objects.jsonl", "/events", "/health"]
)
def test_but_not_by_one_that_somebody_has_made_to_mean_it(page: Page, path: str) -> None:
    show(page, grey(1))
    assert ask(page, path, Host="evil.example:8080")[0] == 403


def test_one_for_other_machines_answers_by_any_name() -> None:
    page = Page(0, "0.0.0.0")
    page.open(INFO)
    assert ask(page, "/", Host="camera.lan")[0] == 200
    page.close(Outcome.COMPLETE)


@pytest.mark.parametrize("path", ["/favicon.ico", "/../etc/passwd", "/stream.mjpg/", "/health/", "/objects.json"])
def test_there_is_nothing_else(page: Page, path: str) -> None:
    assert ask(page, path)[0] == 404


def test_a_port_in_use_and_a_host_that_is_none_of_ours_are_refused_at_once() -> None:
    refusal = r"cannot serve a page at http://127.0.0.1:\d+/ \(.*in use.*another port"
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(OutputError, match=refusal):
        Page(other.getsockname()[1])
    with pytest.raises(OutputError, match=r"http://192.0.2.1:8080/"):
        Page(8080, "192.0.2.1")
    for host in ("a..b", "a" * 64):
        with pytest.raises(
            OutputError, match=r"\(that is no name of a host\); name another port, or an address of this"
        ):
            Page(8080, host)


@pytest.mark.parametrize("port", [65536, -1, "8080", 8080.0])
def test_what_is_no_port_is_refused(port: object) -> None:
    with pytest.raises(UsageError, match=f"a port is a whole number, 0 to 65535, not {port!r}"):
        Page(port)  # type: ignore[arg-type]


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_connection_that_can_have_no_thread_takes_no_place(
    goes_on: bool, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    show(page, grey(200))
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        for _ in range(MOST_VIEWERS):
            with pytest.raises((http.client.HTTPException, OSError)):
                ask(page, "/")
    if goes_on:
        assert ask(page, "/picture.jpg")[0] == 200
    page.close(Outcome.COMPLETE)


def test_closing_one_that_never_was_open_is_nothing() -> None:
    Page(0).close(Outcome.FAILED)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("8080", "127.0.0.1", 8080),
        ("0.0.0.0:80", "0.0.0.0", 80),
        ("[::1]:8080", "::1", 8080),
        ("camera.lan:65535", "camera.lan", 65535),
    ],
)
def test_where_to_serve(text: str, host: str, port: int) -> None:
    assert parse_host_and_port(text) == (host, port)


@pytest.mark.parametrize(
    "text", ["", "http://localhost:8080", "65536", "-1", "a b:80", "::1:80", "host:", "1e3", "/x:80"]
)
def test_where_not_to(text: str) -> None:
    with pytest.raises(UsageError, match="no port to serve at"):
        parse_host_and_port(text)


@pytest.mark.parametrize("named", [["synthetic:64x48@20x10"], ["%d.png", "--frame-rate", "20"]])
def test_the_command_serves_a_film_at_its_pace(
    named: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(10):
        cv2.imwrite(f"{number}.png", np.zeros((48, 64, 3), np.uint8))
    began = time.monotonic()
    assert main([*named, "--serve", "0", "--size", "64", "--device", "cpu"]) == 0
    assert time.monotonic() - began > 0.4
    printed = capsys.readouterr()
    (url,) = re.findall(r"watch at (http://127\.0\.0\.1:\d+/)", printed.err)
    assert f"-> {url}\n" in printed.out
    assert "10 delivered" in printed.out


def test_the_command_serves_no_photos(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(SAMPLE), "--serve", "0"]) == 2
    assert "--serve is for films and cameras; write images to a folder, as in -o annotated/" in capsys.readouterr().err


def test_the_command_says_when_a_port_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["synthetic", "--serve", "eighty"]) == 2
    assert "'eighty' is no port to serve at; write PORT (8080) or HOST:PORT (0.0.0.0:8080)" in capsys.readouterr().err
