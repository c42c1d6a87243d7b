"""One contract for every source."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import pytest

from stream_seg.protocols import Source
from stream_seg.sources import Clip, ListSource, NetworkStream, Pipe, Recording, Synthetic, Watched, open_source
from tests.source_contract import check_contract
from tests.source_files import matroska, numbered, write_video
from tests.source_servers import file_server, http_camera

MakeSource = Callable[[], Source]


@pytest.fixture
def film(tmp_path: Path) -> Path:
    return write_video(tmp_path / "film.mp4", 20)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(12):
        cv2.imwrite(str(tmp_path / f"img_{number}.png"), numbered(number))
    return tmp_path


@pytest.fixture
def full_pipes() -> Iterator[MakeSource]:
    """Make pipes with a whole video inside; a pipe holds 64 kB, so that nobody has to write meanwhile."""
    opened = []

    def make() -> Source:
        reading, writing = os.pipe()
        os.write(writing, matroska())
        os.close(writing)
        opened.append(reading)
        return Pipe(reading)

    yield make
    for fd in opened:
        os.close(fd)


def test_a_video_file_keeps_the_contract(film: Path) -> None:
    check_contract(lambda: Recording(film))


def test_a_part_of_a_video_file_keeps_the_contract(film: Path) -> None:
    check_contract(lambda: open_source(film, start=0.1, end=0.7, stride=2, max_frames=6))


def test_a_folder_of_images_keeps_the_contract(folder: Path) -> None:
    check_contract(lambda: open_source(folder))


def test_a_numbered_sequence_keeps_the_contract(folder: Path) -> None:
    check_contract(lambda: open_source(folder / "img_%d.png", sequence_rate=Fraction(30000, 1001)))


def test_a_pipe_keeps_the_contract(full_pipes: MakeSource) -> None:
    check_contract(full_pipes)


def test_a_synthetic_source_keeps_the_contract() -> None:
    check_contract(lambda: Synthetic((64, 48), Fraction(25), 10))


def test_a_live_synthetic_source_keeps_the_contract() -> None:
    check_contract(lambda: Synthetic((64, 48), Fraction(200), None, live=True))


def test_a_list_of_images_keeps_the_contract() -> None:
    check_contract(lambda: ListSource([numbered(number) for number in range(6)]))


def test_a_clip_of_a_live_source_keeps_the_contract() -> None:
    check_contract(lambda: Clip(Synthetic((64, 48), Fraction(200), None, live=True), start=Fraction(1, 50), stride=2))


def test_a_recording_served_over_http_keeps_the_contract(film: Path) -> None:
    with file_server(film.parent) as host:
        check_contract(lambda: NetworkStream(f"http://{host}/film.mp4"))
        check_contract(lambda: Watched(NetworkStream(f"http://{host}/film.mp4")))
        check_contract(lambda: open_source(f"http://{host}/film.mp4"))


def test_a_camera_served_over_http_keeps_the_contract() -> None:
    with http_camera(pictures=50) as host:
        check_contract(lambda: NetworkStream(f"http://{host}/video"))
        check_contract(lambda: Watched(NetworkStream(f"http://{host}/video")))
        check_contract(lambda: open_source(f"http://{host}/video"))
