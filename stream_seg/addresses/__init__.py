"""What sources and sinks at addresses share: secrets, the meaning of FFmpeg's errors, and when to try again."""

from __future__ import annotations

from typing import Literal, get_args

from stream_seg.errors import UsageError

Transport = Literal["tcp", "udp"]
"""How RTSP carries its packets."""


def check_transport(given: object) -> None:
    """Raise `UsageError` for what is no `Transport`."""
    if given not in get_args(Transport):
        raise UsageError(f"the transport must be tcp or udp, got {given}")
