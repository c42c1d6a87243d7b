"""What is published on a topic of an MQTT broker when something appears, and when it is gone."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream_seg.cli import main
from stream_seg.errors import OutputError
from stream_seg.frame import SourceInfo
from stream_seg.protocols import Outcome
from stream_seg.sinks import MqttTopic, Notifier, Webhook, recipient
from tests.certificates import self_signed
from tests.mqtt_broker import MOSQUITTO, Broker
from tests.sink_films import NOTHING, SOMETHING
from tests.source_files import films_and_a_photo
from tests.source_servers import answering, free_port, silent_host
from tests.support import requires
from tests.test_cli import failure
from tests.test_sinks_notifier import Hub, deliver, frame

with_a_broker = requires(MOSQUITTO, "mosquitto_passwd", "openssl")

FILM = SourceInfo("a film", (64, 48), "video")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Has the certificate of the `broker` that runs all the time, cert.pem."""
    return tmp_path_factory.mktemp("broker")


@pytest.fixture(scope="module")
def secure_host() -> str:
    """Where the `broker` speaks TLS."""
    return f"127.0.0.1:{free_port()}"


@pytest.fixture(scope="module")
def broker(folder: Path, secure_host: str) -> Iterator[Broker]:
    """Lets everybody in who gives no name, and `me` with the password `p@ss`."""
    certificate, key = self_signed(folder)
    subprocess.run(["mosquitto_passwd", "-b", "-c", folder / "names", "me", "p@ss"], check=True)
    secure = [f"listener {secure_host.partition(':')[2]} 127.0.0.1", f"certfile {certificate}", f"keyfile {key}"]
    broker = Broker(folder, f"password_file {folder / 'names'}", *secure)
    broker.start()
    yield broker
    broker.stop()


@with_a_broker
@pytest.mark.parametrize(
    ("path", "topic"),
    [("cameras/door", "cameras/door"), ("/front%20door%2F%C3%A4/", "/front door/ä/"), ("100%25", "100%")],
)
def test_it_is_told_on_the_topic_that_the_path_names(path: str, topic: str, broker: Broker) -> None:
    sink = Notifier(f"MQTT://{broker.host}/{path}", source="door")
    with broker.heard("#") as told:
        deliver(sink, [(0, NOTHING), (1, SOMETHING), (2.5, SOMETHING), (12.5, NOTHING)])
        first, last = told.get(timeout=10), told.get(timeout=10)
    about = {"source": "door", "classes": {"person": 1}, "width": 64, "height": 48}
    objects = [{"class": "person", "score": 1.0, "box": [4.0, 6.0, 34.0, 40.0]}]
    assert first == (topic, {"event": "appeared", "frame": 1, "time": 1.0, **about, "objects": objects}, 1, False)
    assert last == (topic, {"event": "gone", "frame": 2, "time": 2.5, "seconds": 1.5, **about, "objects": []}, 1, False)
    assert sink.result == f"MQTT://{broker.host}/{path}"


@with_a_broker
def test_names_and_passwords_are_sent_and_not_shown(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    known = Notifier(f"mqtt://me:p%40ss@{broker.host}/door")
    deliver(known, [(0, SOMETHING)])
    assert caplog.messages == []
    wrong = Notifier(f"mqtt://me:KEY@{broker.host}/door")
    deliver(wrong, [(0, SOMETHING)])
    shown = f"mqtt://***@{broker.host}/door"
    assert caplog.messages == [
        f"cannot notify {shown}: it answers: Not authorized; the name or password is missing or wrong",
        f"2 of 2 notifications were not taken by {shown}",
    ]
    monkeypatch.setenv("STREAM_SEG_PASSWORD", "p@ss")
    kept_elsewhere = Notifier(f"mqtt://me@{broker.host}/door")
    deliver(kept_elsewhere, [(0, SOMETHING)])
    assert [sink.result for sink in (known, wrong, kept_elsewhere)] == [shown, None, shown]


@with_a_broker
def test_a_certificate_nobody_vouches_for_is_told(
    broker: Broker,
    secure_host: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(recipient, "delay_before", lambda *_: 0.0)
    sink = Notifier(f"mqtts://me:p%40ss@{secure_host}/door")
    deliver(sink, [(0, SOMETHING)])
    assert "its certificate is not trusted (self-signed certificate)" in caplog.messages[0]
    assert sink.result is None
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "cert.pem"))
    with broker.heard("door") as told:
        deliver(sink, [(0, SOMETHING)])
        assert [told.get(timeout=10)[1]["event"] for _ in range(2)] == ["appeared", "gone"]


@with_a_broker
def test_a_broker_that_comes_late_and_one_that_comes_back_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broker, waits = Broker(tmp_path), []

    def start(*_: object) -> float:
        waits.append(broker.start())
        return 0.0

    monkeypatch.setattr(recipient, "delay_before", start)
    topic = MqttTopic(f"mqtt://{broker.host}/door")
    sink, other = Notifier(topic), Notifier(topic)
    try:
        deliver(other, [(0, SOMETHING)])  # which does not wait
        topic.end()
        broker.stop()
        assert (topic.sent, len(waits)) == (2, 1)
        sink.open(FILM)
        sink.write(frame(0), SOMETHING)
        sink.write(frame(20), NOTHING)
        sink.close(Outcome.COMPLETE)
    finally:
        broker.stop()
    assert (topic.sent, len(waits)) == (2, 2)
    assert caplog.messages == []


@pytest.mark.parametrize("scheme", ["mqtt", "mqtts"])
def test_at_the_end_a_broker_that_says_nothing_is_left(
    scheme: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipient, "PATIENCE", 0.1)
    with silent_host() as host:
        deliver(Notifier(f"{scheme}://{host}/door"), [(0, SOMETHING)])
    assert "it does not answer in time" in caplog.messages[0]
    assert caplog.messages[-1].startswith("2 of 2 notifications were not taken")


def test_what_is_no_broker_is_told(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipient, "delay_before", lambda *_: 0.0)
    with answering(b"SSH-2.0-OpenSSH_9.2\r\n") as host:
        deliver(Notifier(f"mqtt://{host}/door"), [(0, SOMETHING)])
    assert "it ended the connection, or does not speak MQTT" in caplog.messages[0]


@pytest.mark.parametrize("scheme", ["https", "mqtts"])
def test_what_does_not_encrypt_is_told(
    scheme: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipient, "delay_before", lambda *_: 0.0)
    with answering(b"HTTP/1.0 400 Bad Request\r\n\r\n") as host:
        deliver(Notifier(f"{scheme}://{host}/door"), [(0, SOMETHING)])
    assert caplog.messages[0].endswith(": it speaks no TLS, or none that fits (wrong version number)")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("mqtt://home", "cannot notify mqtt://home: it names no topic; write one behind the host, as"),
        ("mqtts://me:KEY@home/", "cannot notify mqtts://***@home/: it names no topic"),
        ("mqtt://home/cameras/#", "+ and # stand for several topics, and a message has one; name it, as in mqtt://"),
        ("mqtt://home/+/door", "+ and # stand for several topics"),
        ("mqtt://home/%23", "+ and # stand for several topics"),
        ("mqtt://home/door?retain=1", "in a topic, ? is written %3F; options there are none"),
        ("mqtt://home/$SYS/door", "topics that begin with $ are the broker's own"),
        ("mqtt://home/%FC", "its topic is not text in UTF-8"),
        ("mqtt://home/\udcfc", "its topic is not text in UTF-8"),
        ("mqtt://home/a%00", "its topic has a control character in it"),
        (f"mqtt://home/{'%C3%A4' * 32768}", "its topic is longer than 65535 bytes"),
        ("mqtt://me:%FCKEY@home/door", "its password is not text in UTF-8"),
        ("mqtt:///door", "cannot notify mqtt:///door: it names no host"),
        ("mqtt://home:0/door", "mqtt://home:0/door has a port that cannot be"),
        ("mqtt://me:1/KEY@home/door", "cannot notify mqtt://***@home/door: in a password, / ? and # are written %2F"),
        ("mqtt://home..local/door", "cannot notify mqtt://home..local/door: a host cannot have this name"),
        ("mqtt:home/door", "an address to notify begins with http://, https://, mqtt:// or mqtts://"),
    ],
)
def test_an_address_that_cannot_be_is_refused_without_its_secrets(address: str, words: str) -> None:
    with pytest.raises(OutputError, match=re.escape(words)) as refusal:
        Notifier(address)
    assert "KEY" not in str(refusal.value)


@pytest.mark.parametrize(("kind", "address"), [(MqttTopic, "http://home/door"), (Webhook, "mqtt://home/door")])
def test_each_kind_of_recipient_has_addresses_of_its_own(kind: type[MqttTopic | Webhook], address: str) -> None:
    with pytest.raises(OutputError, match=f"over {kind.protocol} begins with {kind.schemes[0]}:// or "):
        kind(address)


def test_without_the_package_a_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "paho.mqtt.enums", None)  # as where it is missing, or of version 1
    options = films_and_a_photo(tmp_path)
    status, line = failure(capsys, str(tmp_path / "clips" / "a.mp4"), "--notify", "mqtt://home/door", *options)
    assert (status, "run: pip install 'stream-seg[mqtt]'" in line) == (6, True), line


@with_a_broker
def test_the_command_tells_topics_and_webhooks_of_each_source(
    tmp_path: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = [*films_and_a_photo(tmp_path), "--score-threshold", "0.1"]
    hub = Hub()
    addresses = [hub.url, f"mqtt://me:p%40ss@{broker.host}/cameras/door", f"mqtt://{broker.host}/all"]
    notify = [word for address in addresses for word in ("--notify", address)]
    try:
        with broker.heard("#") as told:
            assert main(["clips", *notify, *options]) == 0
            messages = [told.get(timeout=10)[:2] for _ in range(8)]
    finally:
        hub.close()
    for topic in ("cameras/door", "all"):
        assert [document for place, document in messages if place == topic] == hub.documents
    assert len(hub.documents) == 4
    printed = capsys.readouterr()
    assert f"mqtt://***@{broker.host}/cameras/door" in printed.out
    assert "p%40ss" not in printed.out + printed.err
