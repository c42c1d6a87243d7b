"""What sources and sinks at addresses share: secrets, the meaning of FFmpeg's errors, and when to try again."""

from __future__ import annotations

from typing import Literal

Transport = Literal["tcp", "udp"]
"""How RTSP carries its packets."""
