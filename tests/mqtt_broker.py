"""An MQTT broker of our own, and who hears what is published there."""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from tests.source_servers import free_port

MOSQUITTO = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
"""Debian keeps it off the path of those who are not root."""


class Broker:
    """A broker at `host`, from `start` to `stop`, any number of times."""

    def __init__(self, folder: Path, *settings: str) -> None:
        self._port = free_port()
        self.host = f"127.0.0.1:{self._port}"
        self._file = folder / "broker.conf"
        own = [f"listener {self._port} 127.0.0.1", "allow_anonymous true", "connection_messages false", "user root"]
        self._file.write_text("\n".join([*own, *settings]), "utf-8")
        self._server: subprocess.Popen[str] | None = None

    def start(self) -> None:
        if self._server is None:
            self._server = subprocess.Popen([MOSQUITTO, "-c", self._file], stderr=subprocess.PIPE, text=True)
            assert self._server.stderr is not None
            assert any(line.endswith("running\n") for line in self._server.stderr), "the broker does not start"

    def stop(self) -> None:
        if self._server is not None:
            self._server.kill()
            self._server.communicate()
            self._server = None

    @contextmanager
    def heard(self, topic: str) -> Iterator[queue.SimpleQueue[tuple[str, dict[str, Any], int, bool]]]:
        """What is published on topics: the topic, the document, its QoS, and whether it is retained."""
        told: queue.SimpleQueue[tuple[str, dict[str, Any], int, bool]] = queue.SimpleQueue()
        listens = threading.Event()

        def hear(client: Client, data: object, message: MQTTMessage) -> None:
            told.put((message.topic, json.loads(message.payload), message.qos, message.retain))

        client = Client(CallbackAPIVersion.VERSION2)
        client.on_connect = lambda *of: client.subscribe(topic, qos=1)
        client.on_subscribe = lambda *of: listens.set()
        client.on_message = hear
        client.connect("127.0.0.1", self._port)
        client.loop_start()
        try:
            assert listens.wait(10)
            yield told
        finally:
            client.disconnect()
            client.loop_stop()
