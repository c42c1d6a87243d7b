"""Notifier: tells an address when something appears in a source, and when it is gone (docs/outputs.md)."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from numbers import Real

from stream_seg.detections import Detections
from stream_seg.errors import OutputError, UsageError
from stream_seg.frame import Frame, SourceInfo
from stream_seg.protocols import Outcome, Sink
from stream_seg.sinks.mqtt import MqttTopic
from stream_seg.sinks.objects import Record, told
from stream_seg.sinks.recipient import Recipient
from stream_seg.sinks.segments import LATEST_SECONDS
from stream_seg.sinks.webhook import Webhook

EVENT_SECONDS = 10.0
"""How long nothing must be seen, if nothing else is said, before what was there is gone."""


@dataclass(slots=True)
class _Event:
    """What is seen since the time `first` of the source: the `last` frame with something in it, as a record, and when
    that was, and how many of each class there were at most in one.
    """

    first: Fraction
    last: Fraction
    record: Record
    most: Counter[str] = field(default_factory=Counter)


class Notifier(Sink):
    """Sends a document to an address when something is shown of a source, and another one when that is over.

    An event begins with a frame in which something is shown, and is over when that was so in none for `events` seconds
    of the source, as for a `SegmentedVideo`, also where a live source is away then, or when the run ends. Images are
    no events. `source` is the name that the documents tell, by default that of the source's info.

    The address is that of a `Webhook` or an `MqttTopic`. Sending is as in `Recipient`: it takes no time, and no failure
    ends a run. Notifiers of several sources may share one.

    Raises from the constructor `OutputError` as `recipient_of` does, and `UsageError` for impossible `events`.
    """

    of_one_feed = True
    wants_pictures = False

    def __init__(self, address: str | Recipient, *, events: float = EVENT_SECONDS, source: str | None = None) -> None:
        given: object = events
        if not isinstance(given, Real):
            raise UsageError(f"lengths are numbers of seconds, as parse_duration('10m') gives, not {events!r}")
        if not 0 < events < math.inf:
            raise UsageError(f"what is gone was not seen for some time, which {events:g} seconds is not")
        self._recipient = address if isinstance(address, Recipient) else recipient_of(address)
        self._recipient.users.add(self)
        self._gap = Fraction(str(events))  # also of a float32
        self._source = source
        self._info: SourceInfo | None = None
        self._event: _Event | None = None
        self._over = math.inf  # when, by the monotonic clock, no frame of the event will come any more

    @property
    def result(self) -> str | None:
        """The address, as it can be shown; None where nothing was sent."""
        return self._recipient.name if self._recipient.sent else None

    def open(self, info: SourceInfo) -> None:
        self._recipient.users.add(self)
        self._info, self._event = info, None

    def write(self, frame: Frame, detections: Detections) -> None:
        if self._info is None:
            raise RuntimeError("open the sink before writing to it")
        if frame.is_still:
            return
        if self._event is not None and frame.pts >= self._event.last + self._gap:
            self._tell_gone(self._event)
        if len(detections):
            self._see(frame, detections, self._info)
        if self._event is not None and self._info.is_live:
            self._over = time.monotonic() + float(self._event.last + self._gap - frame.pts) + LATEST_SECONDS

    def wants_stop(self) -> bool:
        """Never. What is gone is told meanwhile: a live source may be away for long."""
        if self._event is not None and time.monotonic() >= self._over:
            self._tell_gone(self._event)
        return False

    def close(self, outcome: Outcome) -> None:  # noqa: ARG002  whoever was told of the beginning is told of the end
        """Tell that what is there is gone, as far as this run can say; the last one waits until all is sent."""
        if self._event is not None:
            self._tell_gone(self._event)
        self._recipient.leave(self)

    def _see(self, frame: Frame, detections: Detections, info: SourceInfo) -> None:
        record = Record.of(frame, detections, is_live=info.is_live, source=self._source or info.name)
        counts = Counter(detections.names)
        if self._event is None:
            self._event = _Event(frame.pts, frame.pts, record, counts)
            self._tell("appeared", self._event, detections)
        else:
            self._event.last, self._event.record = frame.pts, record
            self._event.most |= counts

    def _tell_gone(self, event: _Event) -> None:
        self._event, self._over = None, math.inf
        self._tell("gone", event, None)

    def _tell(self, what: str, event: _Event, shown: Detections | None) -> None:
        """Send what there is to tell: of what is `shown` now, or, if None, of what was."""
        last = event.record.detections
        document: dict[str, object] = {"event": what, **event.record.about}
        if shown is None:
            document["seconds"] = round(float(event.last - event.first), 3)
        document["classes"] = dict(event.most)
        if last.lines:
            document["lines"] = [dict(line.counts) for line in last.lines]
        if last.occupancy:
            document["regions"] = [{"now": {} if shown is None else dict(counts)} for counts in last.occupancy]
        document["width"], document["height"] = event.record.size
        document["objects"] = [] if shown is None else [one.entry() for one in told(shown.finite())]
        self._recipient.post(document)


def recipients_of(addresses: Iterable[str]) -> dict[str, Recipient]:
    """Return what sends documents to each of the addresses that a run tells together, as `recipient_of` does."""
    recipients = {address: recipient_of(address) for address in dict.fromkeys(addresses)}
    for one in recipients.values():
        one.party = list(recipients.values())
    return recipients


def recipient_of(address: str) -> Recipient:
    """Return what sends documents to an address. Raises `OutputError` for one that cannot be, or of another kind."""
    for kind in (Webhook, MqttTopic):
        if kind.is_for(address):
            return kind(address)
    raise OutputError(  # without the address: there may be a password in it
        "an address to notify begins with http://, https://, mqtt:// or mqtts://, as in http://home:8123/api/door or "
        "mqtt://home/cameras/door"
    )
