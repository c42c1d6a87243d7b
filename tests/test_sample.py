"""The sample clip is what the README says, and its script makes it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

import stream_seg  # noqa: F401  loads OpenCV before PyAV

ROOT = Path(__file__).parent.parent
CLIP = ROOT / "samples" / "clip.mp4"


def test_the_clip_is_seven_seconds_of_720p_with_sound_and_small() -> None:
    assert CLIP.stat().st_size < 2_000_000
    with av.open(str(CLIP)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.width, video.height, video.codec_context.name) == (1280, 720, "h264")
        assert (video.pix_fmt, float(video.average_rate or 0)) == ("yuv420p", 30.0)
        assert (audio.codec_context.name, audio.codec_context.channels) == ("aac", 2)
        packets = [packet for packet in container.demux(video) if packet.size]
        assert len(packets) == 210
        assert container.duration == pytest.approx(7.0 * av.time_base, abs=av.time_base / 30)


def test_the_clip_moves_and_sounds() -> None:
    with av.open(str(CLIP)) as container:
        pictures = [
            frame.to_ndarray(format="gray") for frame, _ in zip(container.decode(video=0), range(12), strict=False)
        ]
        container.seek(0)
        sound = next(frame.to_ndarray() for i, frame in enumerate(container.decode(audio=0)) if i == 8)
    assert np.abs(pictures[0].astype(int) - pictures[11]).mean() > 1
    assert 0.01 < float(np.abs(sound).max()) < 1


def test_the_photo_is_a_small_720p_still() -> None:
    photo = cv2.imread(str(ROOT / "samples" / "photo.jpg"))
    assert photo is not None
    assert photo.shape == (720, 1280, 3)
    assert (ROOT / "samples" / "photo.jpg").stat().st_size < 200_000


def test_the_script_makes_the_same_pictures_again(tmp_path: Path) -> None:
    script = ROOT / "scripts" / "make_sample.py"
    made = subprocess.run(
        [sys.executable, str(script), str(tmp_path), "--seconds", "0.1"], capture_output=True, text=True, timeout=50
    )
    assert made.returncode == 0, made.stderr
    with av.open(str(tmp_path / "clip.mp4")) as new, av.open(str(CLIP)) as old:
        pairs = list(zip(new.decode(video=0), old.decode(video=0), strict=False))
        assert len(pairs) == 3
        for again, before in pairs:
            difference = again.to_ndarray(format="bgr24").astype(int) - before.to_ndarray(format="bgr24")
            assert np.abs(difference).mean() < 3
        assert new.streams.audio
