"""MqttTopic: an address that documents of JSON are published at, as messages on a topic of an MQTT broker."""

from __future__ import annotations

import math
import re
import secrets
import ssl
import time
from typing import TYPE_CHECKING
from urllib.parse import unquote

from stream_seg.addresses.credentials import SPLIT_PASSWORD, has_split_password
from stream_seg.errors import OutputError
from stream_seg.sinks.recipient import WRONG_PASSWORD, Recipient, Undelivered

if TYPE_CHECKING:
    from paho.mqtt.client import Client
    from paho.mqtt.reasoncodes import ReasonCode

PORTS = {"mqtt": 1883, "mqtts": 8883}

EXAMPLE = "mqtt://home/cameras/door"

LONGEST = 65535
"""Bytes of UTF-8 that a topic, a name or a password may have in MQTT."""

_NOT_NOW = "Server unavailable"
"""The answer after which another try makes sense."""


class MqttTopic(Recipient):
    """Publishes documents on the topic that the path of an `mqtt://` or `mqtts://` address (with TLS) names.

    Each is a message of its own connection (MQTT 3.1.1, QoS 1, not retained): there are few, and a connection that
    waited for the next one might be dead by then. A name and password in the address, or that stand elsewhere, as
    `addresses.credentials` says, are sent to the broker.

    Raises `OutputError` also for a topic that cannot be, and without the package paho-mqtt.
    """

    schemes = tuple(PORTS)
    protocol = "MQTT"

    def __init__(self, address: str) -> None:
        super().__init__(address)
        if has_split_password(address):  # the rest of a password must not become a topic that others read
            raise self._refusal(f"{SPLIT_PASSWORD}, and in a topic @ is written %40")
        self._topic = self._named_topic(re.sub("^[^:]*://[^/?#]*/?", "", address))
        name, colon, password = self._user.partition(":")
        self._name = self._text(name, "name") if self._user else None
        self._password = self._text(password, "password") if colon else None
        self._host, self._port = self._parts.hostname or "", self._parts.port or PORTS[self._parts.scheme]
        self._client_id = f"streamseg{secrets.token_hex(7)}"  # of the length and the letters that every broker takes
        try:
            from paho.mqtt.enums import CallbackAPIVersion  # noqa: F401  which paho-mqtt 1 does not have
        except ImportError as error:
            raise OutputError("notifying over MQTT needs paho-mqtt 2; run: pip install 'stream-seg[mqtt]'") from error

    def _named_topic(self, path: str) -> str:
        """Return the topic that the rest of an address, behind the slash, stands for."""
        topic = self._text(path, "topic")
        if not topic:
            raise self._refusal(f"it names no topic; write one behind the host, as in {EXAMPLE}")
        if "+" in topic or "#" in topic:
            raise self._refusal(f"+ and # stand for several topics, and a message has one; name it, as in {EXAMPLE}")
        if "?" in path:
            raise self._refusal("in a topic, ? is written %3F; options there are none")
        if topic.startswith("$"):
            raise self._refusal(f"topics that begin with $ are the broker's own; name another, as in {EXAMPLE}")
        return topic

    def _text(self, encoded: str, what: str) -> str:
        """Return what is percent-encoded, if it is text as MQTT allows it."""
        try:
            text = unquote(encoded, errors="strict")
            length = len(text.encode())
        except UnicodeError:
            raise self._refusal(f"its {what} is not text in UTF-8") from None
        if re.search(r"[\x00-\x1f\x7f-\x9f]", text):
            raise self._refusal(f"its {what} has a control character in it")
        if length > LONGEST:
            raise self._refusal(f"its {what} is longer than {LONGEST} bytes")
        return text

    def _deliver(self, document: bytes, seconds: float) -> None:
        from paho.mqtt.client import Client, MQTTv311
        from paho.mqtt.enums import CallbackAPIVersion

        deadline = time.monotonic() + seconds
        answers: list[ReasonCode] = []
        client = Client(CallbackAPIVersion.VERSION2, self._client_id, protocol=MQTTv311, reconnect_on_failure=False)
        client.on_connect = lambda *told: answers.append(told[3])
        client.on_publish = lambda *told: answers.append(told[3])
        client.username_pw_set(self._name, self._password)
        if self._parts.scheme == "mqtts":
            client.tls_set_context(_tls())
        client.connect_timeout = seconds
        client.connect(self._host, self._port, keepalive=math.ceil(seconds))  # by which paho 2.1 limits the handshake
        try:
            _await_success(client, answers, deadline)
            client.publish(self._topic, document, qos=1)
            _await_success(client, answers, deadline)
        finally:
            client.disconnect()


def _await_success(client: Client, answers: list[ReasonCode], deadline: float) -> None:
    """Have the client work until it has an answer; raise what `Recipient._deliver` does."""
    while not answers:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if client.loop(left) and not answers:
            raise ConnectionError
    answer = answers.pop()
    if answer.is_failure:
        hint = WRONG_PASSWORD if answer in ("Bad user name or password", "Not authorized") else ""
        raise Undelivered(f"it answers: {answer}{hint}", is_final=answer != _NOT_NOW)


class _Socket(ssl.SSLSocket):
    """Is closed where no encrypted connection comes about; paho leaves that open."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.sslsocket_class = _Socket
    return context
