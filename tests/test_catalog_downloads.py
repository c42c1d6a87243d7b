"""Downloads from a server that misbehaves in every way we know of."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import ssl
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream_seg.catalog.downloads import Download, Patience, Progress, fetch
from stream_seg.errors import ModelError
from tests.certificates import self_signed
from tests.misbehaving_server import (
    PAGE,
    POINTER,
    MisbehavingServer,
    chunked,
    cut_off,
    held,
    redirect,
    stalled,
    status,
    trickling,
    whole,
    without_length,
    without_range,
    wrong_range,
)
from tests.support import requires

DATA = bytes(range(256)) * 400  # 102,400 bytes: more than one read
WRONG = bytes(len(DATA))
HALF = len(DATA) // 2
SHA = hashlib.sha256(DATA).hexdigest()
HASTE = Patience(attempts=3, pause=0.001, timeout=5.0)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[MisbehavingServer]:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    with MisbehavingServer() as running:
        yield running


def get(
    folder: Path, *mirrors: str, progress: Progress | None = None, patience: Patience = HASTE, data: bytes = DATA
) -> Path:
    download = Download("model.onnx", mirrors, hashlib.sha256(data).hexdigest(), len(data))
    return fetch(download, folder, progress, patience)


def refusal(folder: Path, *mirrors: str) -> str:
    """The one-line message of a download that must fail, and nothing under the model's name afterwards."""
    with pytest.raises(ModelError) as caught:
        get(folder, *mirrors)
    message = str(caught.value)
    assert "\n" not in message
    assert not (folder / "model.onnx").exists()
    return message


def leave_part(folder: Path, data: bytes) -> None:
    (folder / "model.onnx.part").write_bytes(data)


def test_a_file_arrives_under_its_name_and_nothing_else_is_left(server: MisbehavingServer, tmp_path: Path) -> None:
    path = get(tmp_path, server.behave("/a", whole(DATA)))
    assert path == tmp_path / "model.onnx"
    assert path.read_bytes() == DATA
    assert list(tmp_path.iterdir()) == [path]


def test_progress_counts_up_to_the_total(server: MisbehavingServer, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    get(tmp_path, server.behave("/a", whole(DATA)), progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, len(DATA))
    assert seen[-1] == (len(DATA), len(DATA))
    assert seen == sorted(seen)


@pytest.mark.parametrize("behaviour", [without_length, chunked, without_range])
def test_servers_that_do_less_than_they_could_are_understood(
    server: MisbehavingServer, tmp_path: Path, behaviour: object
) -> None:
    assert callable(behaviour)
    assert get(tmp_path, server.behave("/a", behaviour(DATA))).read_bytes() == DATA


def test_a_slow_server_is_waited_for(server: MisbehavingServer, tmp_path: Path) -> None:
    slow = trickling(DATA, piece=len(DATA) // 8, pause=0.02)
    assert get(tmp_path, server.behave("/a", slow)).read_bytes() == DATA


def test_a_server_error_is_tried_again(server: MisbehavingServer, tmp_path: Path) -> None:
    assert get(tmp_path, server.behave("/a", status(500), status(503), whole(DATA))).read_bytes() == DATA
    assert len(server.requests) == 3


def test_attempts_have_an_end(server: MisbehavingServer, tmp_path: Path) -> None:
    assert "500 Internal Server Error (3 attempts)" in refusal(tmp_path, server.behave("/a", status(500)))
    assert len(server.requests) == 3


@pytest.mark.parametrize("code", [403, 404, 410])
def test_what_a_mirror_refuses_is_not_asked_for_twice(server: MisbehavingServer, tmp_path: Path, code: int) -> None:
    url = server.behave("/a", status(code))
    assert get(tmp_path, url, server.behave("/b", whole(DATA))).read_bytes() == DATA
    assert [path for path, _ in server.requests] == ["/a", "/b"]


def test_mirrors_are_taken_in_order_and_the_first_good_one_is_the_last(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    get(tmp_path, server.behave("/a", whole(DATA)), server.behave("/b", whole(DATA)))
    assert [path for path, _ in server.requests] == ["/a"]


def test_when_all_mirrors_fail_each_is_named_with_its_reason(server: MisbehavingServer, tmp_path: Path) -> None:
    message = refusal(
        tmp_path, server.url("/gone"), server.behave("/forbidden", status(403)), "http://nowhere.invalid/"
    )
    assert "127.0.0.1: 404 Not Found; 127.0.0.1: 403 Forbidden; nowhere.invalid: host not found" in message
    assert f"save {server.url('/gone')} as {tmp_path / 'model.onnx'} yourself" in message


def test_a_port_nobody_listens_on_is_refused_at_once(tmp_path: Path) -> None:
    with MisbehavingServer() as gone:
        url = gone.url("/a")
    assert "connection refused" in refusal(tmp_path, url)


def test_a_transfer_cut_off_goes_on_where_it_stopped(server: MisbehavingServer, tmp_path: Path) -> None:
    assert get(tmp_path, server.behave("/a", cut_off(DATA, HALF), whole(DATA))).read_bytes() == DATA
    assert [asked for _, asked in server.requests] == [None, f"bytes={HALF}-"]


def test_a_server_that_falls_silent_is_left_and_continued(server: MisbehavingServer, tmp_path: Path) -> None:
    impatient = Patience(attempts=2, pause=0.001, timeout=0.3)
    url = server.behave("/a", stalled(DATA, HALF), whole(DATA))
    assert get(tmp_path, url, patience=impatient).read_bytes() == DATA
    assert server.requests[1][1] == f"bytes={HALF}-"


def test_another_mirror_continues_what_the_first_began(server: MisbehavingServer, tmp_path: Path) -> None:
    first = server.behave("/a", cut_off(DATA, HALF), status(404))
    assert get(tmp_path, first, server.behave("/b", whole(DATA))).read_bytes() == DATA
    assert server.requests[-1] == ("/b", f"bytes={HALF}-")


def test_a_half_finished_download_of_an_earlier_run_is_continued(server: MisbehavingServer, tmp_path: Path) -> None:
    leave_part(tmp_path, DATA[:1000])
    seen: list[int] = []
    get(tmp_path, server.behave("/a", whole(DATA)), progress=lambda done, total: seen.append(done))
    assert (tmp_path / "model.onnx").read_bytes() == DATA
    assert seen[0] == 1000
    assert server.requests == [("/a", "bytes=1000-")]


def test_a_server_without_ranges_starts_over_cleanly(server: MisbehavingServer, tmp_path: Path) -> None:
    leave_part(tmp_path, DATA[:1000])
    assert get(tmp_path, server.behave("/a", without_range(DATA))).read_bytes() == DATA


def test_a_server_that_answers_with_another_range_is_not_believed(server: MisbehavingServer, tmp_path: Path) -> None:
    leave_part(tmp_path, DATA[:1000])
    assert "another part of the file" in refusal(tmp_path, server.behave("/a", wrong_range(DATA)))
    assert (tmp_path / "model.onnx.part").read_bytes() == DATA[:1000]


def test_a_refused_range_starts_over(server: MisbehavingServer, tmp_path: Path) -> None:
    leave_part(tmp_path, DATA[:1000])
    assert get(tmp_path, server.behave("/a", status(416), whole(DATA))).read_bytes() == DATA
    assert [asked for _, asked in server.requests] == ["bytes=1000-", None]


@pytest.mark.parametrize("stale", [WRONG[:1000], WRONG, DATA + b"more"], ids=["short", "whole", "too long"])
def test_a_stale_half_that_does_not_fit_is_thrown_away(server: MisbehavingServer, tmp_path: Path, stale: bytes) -> None:
    leave_part(tmp_path, stale)
    assert get(tmp_path, server.behave("/a", whole(DATA))).read_bytes() == DATA


def test_a_part_that_is_already_whole_needs_no_network(server: MisbehavingServer, tmp_path: Path) -> None:
    leave_part(tmp_path, DATA)
    assert get(tmp_path, server.url("/gone")).read_bytes() == DATA
    assert server.requests == []


@pytest.mark.parametrize("behaviour", [whole, without_length, chunked])
@pytest.mark.parametrize(
    ("body", "said"),
    [
        pytest.param(POINTER, "sent a Git LFS pointer", id="pointer"),
        pytest.param(PAGE, "sent an HTML page", id="page"),
        pytest.param(WRONG, "other contents", id="wrong bytes"),
        pytest.param(WRONG + b"more", "bytes where 102400 were expected|other contents", id="too long"),
    ],
)
def test_what_is_not_the_model_is_recognised_and_the_next_mirror_asked(
    server: MisbehavingServer, tmp_path: Path, behaviour: object, body: bytes, said: str
) -> None:
    assert callable(behaviour)
    bad = server.behave("/bad", behaviour(body))
    with pytest.raises(ModelError, match=said):
        get(tmp_path, bad)
    assert not (tmp_path / "model.onnx").exists()
    assert len(server.requests) == 1
    assert get(tmp_path, bad, server.behave("/good", whole(DATA))).read_bytes() == DATA


def test_a_length_that_cannot_be_right_is_refused_before_it_is_loaded(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    message = refusal(tmp_path, server.behave("/a", whole(DATA[:-1])))
    assert f"offers {len(DATA) - 1} bytes where {len(DATA)} were expected" in message


def test_a_page_of_just_the_right_length_is_still_a_page(server: MisbehavingServer, tmp_path: Path) -> None:
    page = PAGE.ljust(len(DATA))
    assert "sent an HTML page" in refusal(tmp_path, server.behave("/a", whole(page)))


def test_redirects_are_followed_with_the_range(server: MisbehavingServer, tmp_path: Path) -> None:
    leave_part(tmp_path, DATA[:1000])
    target = server.behave("/b", whole(DATA))
    assert get(tmp_path, server.behave("/a", redirect(target))).read_bytes() == DATA
    assert server.requests[-1] == ("/b", "bytes=1000-")


def test_a_redirect_loop_ends(server: MisbehavingServer, tmp_path: Path) -> None:
    server.behave("/a", redirect(server.url("/b")))
    server.behave("/b", redirect(server.url("/a")))
    assert "redirects in a loop" in refusal(tmp_path, server.url("/a"))
    assert len(server.requests) < 30


def test_a_redirect_to_a_local_file_is_refused(server: MisbehavingServer, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(DATA)
    assert "redirects" in refusal(tmp_path, server.behave("/a", redirect(secret.as_uri())))


@pytest.mark.parametrize("address", ["http://[bad/x", f"http://{'a' * 70}.invalid/"])
def test_a_redirect_to_no_address_at_all_is_refused(server: MisbehavingServer, tmp_path: Path, address: str) -> None:
    assert "makes no sense" in refusal(tmp_path, server.behave("/a", redirect(address)))


def test_the_proxy_of_the_system_is_used(
    server: MisbehavingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.behave("/a", whole(DATA))
    monkeypatch.setenv("http_proxy", server.url(""))
    assert get(tmp_path, "http://models.invalid/a").read_bytes() == DATA
    assert server.requests == [("http://models.invalid/a", None)]


@requires("openssl")
def test_a_certificate_nobody_vouches_for_is_refused(
    server: MisbehavingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    url = server.behave("/a", whole(DATA)).replace("http:", "https:")
    assert "certificate is not trusted" in refusal(tmp_path, url)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert get(tmp_path, url).read_bytes() == DATA
    away = server.behave("/away", redirect("http://login.invalid/")).replace("http:", "https:")
    (tmp_path / "model.onnx").unlink()
    assert "redirects to an address without TLS" in refusal(tmp_path, away)


def test_ctrl_c_leaves_only_a_part_which_the_next_run_continues(server: MisbehavingServer, tmp_path: Path) -> None:
    def interrupt(done: int, total: int | None) -> None:
        if done:
            raise KeyboardInterrupt

    url = server.behave("/a", whole(DATA))
    with pytest.raises(KeyboardInterrupt):
        get(tmp_path, url, progress=interrupt)
    part = tmp_path / "model.onnx.part"
    assert list(tmp_path.iterdir()) == [part]
    have = part.stat().st_size
    assert have > 0
    assert get(tmp_path, url).read_bytes() == DATA
    assert have == len(DATA) or server.requests[-1][1] == f"bytes={have}-"


def test_errors_of_the_progress_callback_are_not_taken_for_the_network(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    def broken_terminal(done: int, total: int | None) -> None:
        raise BrokenPipeError("standard output is gone")

    with pytest.raises(BrokenPipeError, match="standard output"):
        get(tmp_path, server.behave("/a", whole(DATA)), progress=broken_terminal)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only: a device that is always full")
def test_a_full_disk_is_said_and_no_other_mirror_is_tried(server: MisbehavingServer, tmp_path: Path) -> None:
    (tmp_path / "model.onnx.part").symlink_to("/dev/full")
    message = refusal(tmp_path, server.behave("/a", whole(DATA)), server.behave("/b", whole(DATA)))
    assert message == (
        f"cannot write to {tmp_path}: the disk is full; free some space or choose another folder with --model-dir"
    )
    assert len(server.requests) == 1


def test_too_little_space_is_said_before_anything_is_loaded(
    server: MisbehavingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    assert "0 MB free and 0 MB are needed" in refusal(tmp_path, server.behave("/a", whole(DATA)))
    assert server.requests == []


CHILD = textwrap.dedent(
    """
    import logging, sys
    from pathlib import Path
    from stream_seg.catalog import Download, Entry, Patience, pull

    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    url, folder, sha, size = sys.argv[1:]
    download = Download("model.onnx", (url,), sha, int(size))
    entry = Entry("tiny", "", 1, "", "", None, None, download)
    print(pull("tiny", model_dir=Path(folder), patience=Patience(2, 0.01, 20.0), entries=(entry,)))
    """
)


def child(url: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, url, str(folder), SHA, str(len(DATA))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_that_pull_the_same_model_both_get_it_and_load_it_once(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    reached, go_on = threading.Event(), threading.Event()
    url = server.behave("/a", held(DATA, HALF, reached, go_on))
    with child(url, tmp_path) as first:
        assert reached.wait(20)
        with child(url, tmp_path) as second:
            assert second.stderr is not None
            assert "waiting for another process" in second.stderr.readline()
            go_on.set()
            outs = [process.communicate(timeout=20)[0].strip() for process in (first, second)]
    assert outs == [str(tmp_path / "model.onnx")] * 2
    assert (tmp_path / "model.onnx").read_bytes() == DATA
    assert len(server.requests) == 1


def test_a_process_that_was_killed_leaves_a_part_and_no_lock(server: MisbehavingServer, tmp_path: Path) -> None:
    reached, go_on = threading.Event(), threading.Event()
    url = server.behave("/a", held(DATA, HALF, reached, go_on), whole(DATA))
    part = tmp_path / "model.onnx.part"
    with child(url, tmp_path) as killed:
        assert reached.wait(20)
        deadline = time.monotonic() + 20
        while part.stat().st_size < HALF and time.monotonic() < deadline:
            time.sleep(0.01)
        killed.send_signal(signal.SIGKILL)
        killed.communicate(timeout=20)
    go_on.set()
    assert part.read_bytes() == DATA[:HALF]
    with child(url, tmp_path) as second:
        assert second.communicate(timeout=20)[0].strip() == str(tmp_path / "model.onnx")
    assert server.requests[-1] == ("/a", f"bytes={HALF}-")
    assert (tmp_path / "model.onnx").read_bytes() == DATA
