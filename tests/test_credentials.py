"""Passwords: where they come from, that FFmpeg gets them right, and that nobody else ever sees them."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import traceback
import unicodedata
from pathlib import Path

import av
import cv2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_seg.addresses import backoff
from stream_seg.addresses.credentials import safe_address, with_password
from stream_seg.errors import Reason, SourceError, UsageError
from stream_seg.sources import Clip, NetworkStream, Webcam, label_of, labels_of, open_source
from tests.source_files import numbered, write_video
from tests.source_servers import answering, file_server, free_port

SECRET = "hunter2"
ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def nobody_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No password in the environment, and a home without a netrc file."""
    for name in ("STREAM_SEG_PASSWORD", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def netrc(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / ".netrc"
    path.write_text(text)
    path.chmod(mode)
    return path


# Where they come from


@pytest.mark.parametrize(
    ("address", "complete"),
    [
        ("rtsp://me@cam/x", "rtsp://me:p%40ss%2Fw%3Ard%20%C3%A9%25@cam/x"),
        ("rtsp://me@cam:554", "rtsp://me:p%40ss%2Fw%3Ard%20%C3%A9%25@cam:554"),
        ("RTSP://m%65@cam/x", "RTSP://me:p%40ss%2Fw%3Ard%20%C3%A9%25@cam/x"),
        ("rtsp://me@[fe80::1]:554/x?y#z", "rtsp://me:p%40ss%2Fw%3Ard%20%C3%A9%25@[fe80::1]:554/x?y#z"),
    ],
)
def test_the_environment_completes_a_user(address: str, complete: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAM_SEG_PASSWORD", "p@ss/w:rd é%")
    assert with_password(address) == complete


@pytest.mark.parametrize(
    "address",
    [
        "rtsp://me:own@cam/x",
        "rtsp://me:@cam/x",
        "rtsp://me:with/slash@cam/x",
        "rtsp://cam/x",
        "http://cam/@handle",
        "udp://@:5000",
        "tcp://me@cam:9000",
    ],
)
def test_an_own_password_wins_and_nobody_gets_one_unasked(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAM_SEG_PASSWORD", SECRET)
    assert with_password(address) == address


def test_a_netrc_file_serves_the_host(tmp_path: Path) -> None:
    netrc(tmp_path, "machine cam login me password 'p@ss word'\nmachine other login you password x\n".replace("'", '"'))
    assert with_password("rtsp://cam:554/x") == "rtsp://me:p%40ss%20word@cam:554/x"
    assert with_password("rtsp://me@cam/x") == "rtsp://me:p%40ss%20word@cam/x"
    assert with_password("rtsp://you@cam/x") == "rtsp://you@cam/x"
    assert with_password("rtsp://third/x") == "rtsp://third/x"


def test_the_environment_goes_before_the_netrc_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc(tmp_path, "machine cam login me password theirs")
    monkeypatch.setenv("STREAM_SEG_PASSWORD", "ours")
    assert with_password("rtsp://me@cam/x") == "rtsp://me:ours@cam/x"


def test_another_netrc_file_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "passwords"
    path.write_text("default login me password theirs")
    monkeypatch.setenv("NETRC", str(path))
    assert with_password("https://cam/x") == "https://me:theirs@cam/x"
    monkeypatch.setenv("NETRC", str(tmp_path / "nowhere"))
    with pytest.raises(SourceError, match=r"cannot read passwords from .*nowhere: No such file"):
        with_password("rtsp://me@cam/x")


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="file modes are of POSIX systems")
def test_a_netrc_file_that_others_may_read_is_refused_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    netrc(tmp_path, f"machine cam login me password {SECRET}", mode=0o644)
    with pytest.raises(SourceError, match=r"^cannot read passwords from \S+/\.netrc: .*; run chmod 600 \S+$"):
        open_source("rtsp://me@cam/x")
    assert with_password("rtsp://cam/x") == "rtsp://cam/x"  # which may need none
    assert "going on without it" in caplog.text


@pytest.mark.parametrize("text", [f"machine cam login me passwrd {SECRET}", f"{SECRET} cam", "machine cam login \xff"])
def test_a_netrc_file_that_is_none_is_refused_in_one_line_without_its_words(tmp_path: Path, text: str) -> None:
    path = netrc(tmp_path, "")
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(SourceError, match=r"^cannot read passwords from \S+netrc: [^\n]+$") as caught:
        with_password("rtsp://me@cam/x")
    assert SECRET not in str(caught.value)


# What is shown


@settings(max_examples=50)
@given(st.text(min_size=1), st.text(min_size=1))
def test_whatever_the_user_and_password_the_shown_address_has_neither(user: str, word: str) -> None:
    marked = f"us\u0001er{user}", f"pa\u0001ss{word}"
    shown = safe_address(f"rtsp://{marked[0]}:{marked[1]}@cam/stream")
    assert shown == "rtsp://***@cam/stream"


@pytest.mark.parametrize(
    ("spec", "label"),
    [
        ("rtsp://user:pw@cam1:554/stream?token=x", "cam1-stream"),
        ("rtsp://user:p@ss/w#rd@cam1/stream", "cam1-stream"),
        ("rtsp://cam/user=admin&password=secret&stream=0", "cam-stream-0"),
        ("http://192.168.1.7:8080/video.mjpg", "192.168.1.7-video.mjpg"),
        ("udp://@:5000", "source"),
        ("rtsp://[fe80::1]:554/x", "fe80-1-x"),
        ("rtsp://ca\u00f1on/../../etc/passwd", "ca\u00f1on-..-..-etc-passwd"),
        (0, "webcam0"),
        ("/dev/video2", "webcam2"),
        ("/dev/v4l/by-id/usb-Cam_1", "usb-Cam_1"),
        ("holiday.mp4", "holiday"),
        (Path("films/day 1.tar.mkv"), "day-1.tar"),
        ("shots/img_%04d.png", "img_-04d"),
        ("-", "stdin"),
        ("synthetic:64x48@30,live", "synthetic"),
        ("...", "source"),
        ("\u0444\u0438\u043b\u044c\u043c 2.mkv", "\u0444\u0438\u043b\u044c\u043c-2"),
        ("\u0431\u043b\u0438\u0437\u043a\u0438\u0438\u0306.mkv", "\u0431\u043b\u0438\u0437\u043a\u0438\u0439"),
        ("\u65e5\u672c\u8a9e\uff0f\u30d3\u30c7\u30aa.mp4", "\u65e5\u672c\u8a9e-\u30d3\u30c7\u30aa"),
        ("\u0939\u093f\u0928\u094d\u0926\u0940.mp4", "\u0939\u093f\u0928\u094d\u0926\u0940"),
        ("\u0301\u202e\u200b\udcff\x1bcat\u2764\ufe0f.mp4", "cat"),
        (
            "rtsp://\u044f:\u043f\u0430\u0440\u043e\u043b\u044c@\u043a\u0430\u043c/\u0434\u0432\u043e\u0440?token=\u0442",
            "\u043a\u0430\u043c-\u0434\u0432\u043e\u0440",
        ),
    ],
)
def test_labels(spec: str | int | Path, label: str) -> None:
    assert label_of(spec) == label


def test_labels_are_short_and_all_different() -> None:
    assert labels_of(["a.mp4", "b/a.mov", "A.mp4", "a-2.mp4", 0]) == ["a", "a-2", "A-3", "a-2-2", "webcam0"]
    assert len(label_of("x" * 300)) == len(label_of("\u65e5" * 300)) == 40
    assert label_of("\U00020000" * 300) == "\U00020000" * 30


@settings(max_examples=50)
@given(st.lists(st.text(), max_size=6))
def test_labels_can_be_file_names(specs: list[str]) -> None:
    labels = labels_of(specs)
    assert len({label.casefold() for label in labels}) == len(specs)
    for label in labels:
        assert label.isprintable()
        assert not re.search(r"[\s/\\:*?\"<>|]|^[.-]", label)
        assert len(label.encode()) <= 125  # with a number behind it
        assert label == unicodedata.normalize("NFC", label)


def test_every_source_has_a_name_before_it_is_opened(tmp_path: Path) -> None:
    film = write_video(tmp_path / "film.mp4", 2)
    names = [
        open_source(spec).name  # type: ignore[attr-defined]
        for spec in (f"rtsp://me:{SECRET}@cam/x", 7, film, "synthetic:16x16")
    ]
    assert names == ["rtsp://***@cam/x", "webcam 7", str(film), "synthetic 16x16 at 30 fps"]
    assert Clip(Webcam(3)).name == "webcam 3"


# That nobody else sees them


def failure_of(address: str) -> BaseException | None:
    """What reading an address to its end raises."""
    try:
        with open_source(address, reconnect=0, open_timeout=2) as source:
            list(source)
    except SourceError as error:
        return error
    return None


def everything_said(error: BaseException | None) -> str:
    """All that an exception carries, with those it came of."""
    said = ""
    while error is not None:
        said += "".join(traceback.format_exception(error)) + repr(error.args) + repr(vars(error))
        error = error.__cause__ or error.__context__
    return said


@pytest.mark.parametrize("scheme", ["rtsp", "http", "rtmp", "tcp"])
def test_no_failure_to_connect_carries_a_secret(
    scheme: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "FIRST_DELAY", 0.01)
    address = f"{scheme}://user:{SECRET}@127.0.0.1:{free_port()}/video?token={SECRET}"
    with caplog.at_level(logging.DEBUG), pytest.raises(SourceError) as caught:
        open_source(address, reconnect=1, open_timeout=2).__enter__()
    assert SECRET not in everything_said(caught.value) + caplog.text


@pytest.mark.parametrize("mark", "/?#")
def test_a_password_that_cuts_the_address_short_is_named_as_the_cause(mark: str) -> None:
    with (
        pytest.raises(SourceError, match="%2F %3F and %23") as refusal,
        NetworkStream(f"rtsp://admin:gehe{mark}im@127.0.0.1:1/cam"),
    ):
        pass
    assert "gehe" not in str(refusal.value)


@pytest.mark.parametrize(
    "spec",
    [
        "admin:geheim@cam/1",
        "rtsp:/admin:ge/heim@cam:554/1",
        "admin:geheim@10.0.0.1",
        "admin:geheim@cam/stream?channel=1",
        "admin:ge@heim@cam/stream",
        "admin:ge*heim@cam/stream",
        "admin:geheim@cam/img_%d.png",
        "rtsp;//admin:geheim@cam:554/stream",
        "//admin:geheim@[fe80::1]:554/stream",
    ],
)
def test_an_address_without_its_scheme_is_not_repeated(spec: str) -> None:
    with pytest.raises(SourceError, match="write rtsp://") as refusal:
        open_source(spec)
    assert "heim" not in everything_said(refusal.value)


def test_files_may_be_called_like_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("12:30@home_1.png", "12:30@home_2.png"):
        cv2.imwrite(name, numbered(1))
    for spec, count in (("12:30@home_1.png", 1), ("12:30@home_*.png", 2), ("12:30@home_%d.png", 2)):
        with open_source(spec) as source:
            assert len(list(source)) == count


@pytest.mark.parametrize("word", ["ge[heim", "ge]heim", "geh\u2100eim"])
@pytest.mark.parametrize("address", ["rtsp://admin:{}@cam/1", " http://admin:{}@cam/film.mp4", "rtsp://me@ca[m/{}@x"])
def test_an_address_that_cannot_be_taken_apart_is_refused_without_its_password(address: str, word: str) -> None:
    with pytest.raises(SourceError, match=r"://\*\*\*@\S+: .* \[ \] : @ and / are written %5B %5D %3A") as refusal:
        open_source(address.format(word))
    assert "eim" not in everything_said(refusal.value)


def test_no_failure_to_read_carries_a_secret(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = write_video(tmp_path / "film.ts", 20, container_format="mpegts").read_bytes()[:6000]
    page = b"<html>no video</html>" * 50
    for body, length in ((broken, 99999), (page, len(page)), (b"", 0)):
        head = b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % length
        with answering(head + body) as host, caplog.at_level(logging.DEBUG):
            error = failure_of(f"http://user:{SECRET}@{host}/film?pwd={SECRET}")
        assert SECRET not in everything_said(error) + caplog.text


def test_a_secret_gets_where_it_belongs_and_nowhere_else(tmp_path: Path) -> None:
    """In a process of its own, to see all it writes, FFmpeg included."""
    code = (
        "import logging, sys, av; from stream_seg.sources import open_source\n"
        "logging.basicConfig(level=logging.DEBUG)\n"
        "for address in sys.argv[1:]:\n"
        "    try:\n"
        "        with open_source(address, reconnect=1, open_timeout=2) as source:\n"
        "            print(len(list(source)), source.info)\n"
        "    except Exception: logging.exception('failed')\n"
    )
    write_video(tmp_path / "film.mp4", 5)
    refused = b"HTTP/1.0 401 Unauthorized\r\nWWW-Authenticate: Basic realm=x\r\nContent-Length: 0\r\n\r\n"
    with file_server(tmp_path) as files, answering(refused) as guarded:
        hosts = f"{files}/film.mp4", f"{guarded}/film.mp4", f"127.0.0.1:{free_port()}/cam"
        addresses = [f"http://me:{SECRET}@{host}?token={SECRET}" for host in hosts]
        command = [sys.executable, "-c", code, *addresses, addresses[2].replace("http", "rtsp")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0
    assert "5 SourceInfo(name='http://***@127" in done.stdout
    assert done.stderr.count("ERROR:root:failed") == 3
    assert SECRET not in done.stdout + done.stderr


def test_a_protocol_that_ffmpeg_was_built_without_is_not_tried_for_ever() -> None:
    try:
        av.open("srt://127.0.0.1:1", timeout=1)
    except av.ProtocolNotFoundError:
        with pytest.raises(UsageError, match="does not know such addresses") as caught:
            open_source(f"srt://127.0.0.1:1?passphrase={SECRET}").__enter__()
        assert SECRET not in everything_said(caught.value)
    except av.FFmpegError:
        pass  # this one was built with it


def test_ffmpeg_says_nothing_unless_told_to() -> None:
    assert av.logging.get_level() is None


def test_the_refusal_of_a_password_says_how_to_give_one() -> None:
    refused = b"HTTP/1.0 401 Unauthorized\r\nWWW-Authenticate: Basic realm=x\r\nContent-Length: 0\r\n\r\n"
    with answering(refused) as host, pytest.raises(SourceError, match="STREAM_SEG_PASSWORD") as caught:
        open_source(f"http://{host}/video", reconnect=0, open_timeout=2).__enter__()
    assert caught.value.reason is Reason.AUTHENTICATION
