"""Webcams, through OpenCV's own V4L2 code and a camera that exists only inside a child process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stream_seg.errors import SourceError
from stream_seg.sources import Webcam, open_source
from stream_seg.sources.camera import describe_mode, describe_wish
from tests.source_files import jpeg
from tests.support import requires

ROOT = Path(__file__).parents[1]
SOURCE = Path(__file__).parent / "testbed" / "fakev4l2.c"

pytestmark = [
    requires("gcc"),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="V4L2 is Linux's way to reach cameras"),
]


Results = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What each case of the camera program gave, and under "stderr" what OpenCV and others wrote there."""
    folder = tmp_path_factory.mktemp("camera")
    library, pictures = folder / "fakev4l2.so", folder / "pictures.mjpeg"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", library, SOURCE, "-ldl", "-lpthread"], check=True)
    pictures.write_bytes(b"".join(jpeg(number, (1280, 720)) for number in range(3)))
    environment = os.environ | {
        "LD_PRELOAD": str(library),
        "FAKEV4L2_MJPEG": str(pictures),
        "FAKEV4L2_UNPLUG": str(folder / "unplugged"),
        "FAKEV4L2_HANG": str(folder / "hang"),
        "OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT": "1",
    }
    command = [sys.executable, "-m", "tests.source_camera_program"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) | {"stderr": {"text": done.stderr}}


def test_a_webcam_keeps_the_contract(results: Results) -> None:
    assert results["contract"] == {"kept": True}


def test_the_mode_asked_for_is_had_and_said(results: Results) -> None:
    assert results["granted"] == {
        "size": [1280, 720],
        "sizes": [[1280, 720]] * 3,
        "rate": 30,
        "mode": "1280x720 MJPG at 30 fps",
        "said": ["webcam 0 gives 1280x720 MJPG at 30 fps (asked for 1280x720 at 30 fps)"],
        "kind": "live",
    }


def test_what_the_camera_grants_instead_is_said(results: Results) -> None:
    said = ["webcam 0 gives 1280x720 MJPG at 30 fps (asked for 1000x700 at 120 fps)"]
    assert results["granted instead"]["said"] == said


def test_a_camera_is_found_by_its_path(results: Results) -> None:
    assert results["by path"] == {"name": "webcam /dev/video0", "frames": 3}


def test_a_busy_camera_is_refused_in_one_sentence(results: Results) -> None:
    words = "cannot open webcam 0: it is in use by another program; this machine"
    assert results["busy"]["error"].startswith(words)
    assert results["busy"]["reason"] == "refused"


def test_a_missing_camera_is_refused_in_one_sentence(results: Results) -> None:
    assert results["missing"]["error"].startswith("cannot open webcam 7: it is missing; this machine")
    assert results["missing"]["reason"] == "not found"


def test_an_unplugged_camera_ends_the_run_with_a_reason(results: Results) -> None:
    assert results["unplugged"]["error"] == "webcam 0 sends no more pictures; was it unplugged?"
    assert results["unplugged"]["reason"] == "unplugged"


def test_a_camera_that_is_unplugged_and_plugged_in_again_goes_on(results: Results) -> None:
    assert results["replugged"] == {
        "counts": {"unplugged": 1},
        "soon": True,
        "grew": True,
        "size": [1280, 720],
        "nothing left": True,
    }


def test_a_camera_that_is_not_there_at_first_is_waited_for_only_when_asked_to(results: Results) -> None:
    assert results["absent at first"] == {"refused": "not found", "found missing": True, "then there": True}


def test_a_camera_that_hangs_stalls_and_goes_on(results: Results) -> None:
    assert results["hung"] == {"counts": {"stalled": 1}, "stuck": 1, "soon": True, "nothing left": True}


def test_a_camera_is_given_back(results: Results) -> None:
    assert results["again"] == {"opened": 2}


def test_opencv_writes_nothing_of_its_own(results: Results) -> None:
    assert results["stderr"]["text"] == ""


def test_a_machine_without_that_camera_says_so() -> None:
    with pytest.raises(SourceError, match=r"cannot open webcam 97: .*this machine (has /dev/video|shows no camera)"):
        Webcam(97).__enter__()


def test_making_a_webcam_waits_for_nothing() -> None:
    with pytest.raises(RuntimeError, match="not open yet"):
        _ = open_source(97).info


def test_modes_and_wishes_in_words() -> None:
    assert describe_mode((640, 480), "", None) == "640x480 at an unknown rate"
    assert describe_wish(None, 15) == "15 fps"
    assert describe_wish(None, None) == ""
