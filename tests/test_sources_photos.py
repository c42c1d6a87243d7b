"""Photos of phones and of browsers (HEIC, AVIF), and image files of which each holds several pictures."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from stream_seg.errors import SourceError
from stream_seg.frame import Image
from stream_seg.sources import open_source
from stream_seg.sources.images import read_image
from stream_seg.sources.several import has_pages
from tests.source_files import SIZE, box, number_of, numbered, numbers_of, write_tiled_photo, write_video

WIDTH, HEIGHT = SIZE


def photo_of(path: Path) -> Image:
    with open_source(path) as source:
        (frame,) = source
        assert (source.info.kind, frame.is_still, source.info.size) == ("images", True, frame.size)
    return frame.image


def test_a_photo_in_tiles_is_put_together_and_cut_to_its_size(tmp_path: Path) -> None:
    photo = photo_of(write_tiled_photo(tmp_path / "photo.heic", (2, 3), size=(3 * WIDTH - 11, 2 * HEIGHT - 7)))
    assert photo.shape == (2 * HEIGHT - 7, 3 * WIDTH - 11, 3)
    whole = np.zeros((2 * HEIGHT, 3 * WIDTH, 3), np.uint8)
    whole[: 2 * HEIGHT - 7, : 3 * WIDTH - 11] = photo
    rows = [np.hsplit(row, 3) for row in np.vsplit(whole, 2)]
    assert [[number_of(tile) for tile in row] for row in rows] == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "container"),
    [("a.gif", "gif", "rgb8", "gif"), ("a.tga", "targa", "bgr24", "image2"), ("a.ico", "bmp", "bgra", "ico"),
     ("a.pcx", "pcx", "rgb24", "image2"), ("a.jpg.part", "mjpeg", "yuvj420p", "mjpeg")],
)  # fmt: skip
def test_one_picture_in_a_format_that_may_hold_films_is_a_photo(
    name: str, codec: str, pixels: str, container: str, tmp_path: Path
) -> None:
    """Its window stays until a key is pressed, and nothing waits for further pictures that agree on what it shows."""

    def made(count: int) -> Path:
        form = {"codec": codec, "pixel_format": pixels, "options": {}, "container_format": container}
        return write_video(tmp_path / name, count, **form)  # type: ignore[arg-type]

    with open_source(made(1)) as source:
        (frame,) = source
        about = source.info
    assert (about.kind, about.frame_count, about.files) == ("images", 1, (tmp_path / name,))
    assert (frame.is_still, frame.name) == (True, name)
    if container in ("gif", "mjpeg"):
        with open_source(made(3)) as source:
            film = list(source)
        assert (source.info.kind, [frame.is_still for frame in film]) == ("video", [False] * 3)
        assert film[0].name is None


def turned(quarters: int) -> bytes:
    return box(b"irot", bytes([quarters]))


def mirrored(axis: int) -> bytes:
    return box(b"imir", bytes([axis]))


def cropped(width: int, height: int, right: int, down: int) -> bytes:
    """A clean aperture: its size, and by how many half pixels its centre is off that of the picture."""
    return box(b"clap", struct.pack(">IIIIiIiI", width, 1, 2 * height, 2, right, 2, down, 2))


def test_a_photo_is_cropped_turned_and_mirrored_in_the_order_it_says(tmp_path: Path) -> None:
    def photo(*edits: bytes) -> Image:
        return photo_of(write_tiled_photo(tmp_path / "photo.heic", edits=edits))

    plain = photo()
    assert (photo(turned(1)) == np.rot90(plain)).all()
    assert (photo(turned(3), mirrored(1)) == np.rot90(plain, 3)[:, ::-1]).all()
    assert (photo(mirrored(0)) == plain[::-1]).all()
    assert (photo(cropped(100, 40, 4, -8)) == plain[0:40, 16:116]).all()
    assert (photo(cropped(100, 40, 0, 0), turned(2)) == plain[4:44, 14:114][::-1, ::-1]).all()


def test_a_photo_that_is_another_item_with_edits_is_shown(tmp_path: Path) -> None:
    photo = photo_of(write_tiled_photo(tmp_path / "photo.heic", (1, 1), kind=b"iden", edits=[turned(2)]))
    assert number_of(photo[::-1, ::-1]) == 0
    assert photo.shape[1::-1] == SIZE


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"idat", b"free"),
        (b"dimg", b"free"),
        (b"pitm", b"free"),
        (b"grid", b"iovl"),
        (struct.pack(">4B2H", 0, 0, 0, 1, 2 * WIDTH, HEIGHT), struct.pack(">4B2H", 0, 0, 0, 1, 2 * WIDTH + 1, HEIGHT)),
        (struct.pack(">4B2H", 0, 0, 0, 1, 2 * WIDTH, HEIGHT), struct.pack(">4B2H", 0, 0, 0, 1, 0, HEIGHT)),
        (box(b"irot", b"\0"), struct.pack(">I4sx", 7, b"irot")),
        (b"hvcC", b"free"),
    ],
)
def test_a_photo_that_is_not_whole_is_unreadable(tmp_path: Path, before: bytes, after: bytes) -> None:
    path = write_tiled_photo(tmp_path / "photo.heic", edits=[turned(0)])
    data = path.read_bytes()
    assert data.count(before) == 1
    path.write_bytes(data.replace(before, after))
    assert read_image(path) is None


def test_photos_are_in_folders_and_are_told_by_their_content(tmp_path: Path) -> None:
    photo = write_tiled_photo(tmp_path / "a.HEIC", (1, 1))
    (tmp_path / "b.jpg").write_bytes(photo.read_bytes())
    (tmp_path / "c.heif").write_bytes(cv2.imencode(".png", numbered(7))[1].tobytes())
    with open_source(tmp_path) as source:
        assert numbers_of(list(source)) == [0, 0, 7]


SHOWN = [0, 100, 180, 500]
"""When the pictures of an animation are shown, in milliseconds."""


def write_animation(path: Path, count: int = len(SHOWN)) -> Path:
    codec, pixel_format, kind = {
        ".webp": ("libwebp_anim", "bgra", "webp"),
        ".png": ("apng", "rgb24", "apng"),
        ".avif": ("libsvtav1", "yuv420p", "avif"),
    }[path.suffix]
    options = {"lossless": "1"} if kind == "webp" else {}
    return write_video(
        path,
        count,
        codec=codec,
        pixel_format=pixel_format,
        pts=SHOWN[:count],
        options=options,
        container_format=kind,
    )


@pytest.mark.parametrize("suffix", [".webp", ".png", ".avif"])
def test_an_animated_image_is_a_film_with_its_times(tmp_path: Path, suffix: str) -> None:
    path = write_animation(tmp_path / f"animated{suffix}")
    with open_source(path) as source:
        frames = list(source)
        assert (source.info.kind, source.info.size, source.info.path) == ("video", SIZE, path)
    assert numbers_of(frames) == [0, 1, 2, 3]
    assert [frame.pts for frame in frames] == [Fraction(shown, 1000) for shown in SHOWN]
    assert [(frame.index, frame.is_still, frame.name) for frame in frames] == [(n, False, None) for n in range(4)]


def test_an_animation_of_one_picture_is_a_photo(tmp_path: Path) -> None:
    for suffix in (".webp", ".png"):
        assert number_of(photo_of(write_animation(tmp_path / f"still{suffix}", 1))) == 0


def test_long_animations_are_decoded_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_seg.sources.webp.MOST_AT_ONCE", 3 * WIDTH * HEIGHT * 4)
    with open_source(write_animation(tmp_path / "animated.webp")) as source:
        frames = list(source)
    assert numbers_of(frames) == [0, 1, 2, 3]
    assert [frame.index for frame in frames] == [0, 1, 2, 3]


def test_a_picture_said_to_be_shown_for_no_time_is_shown_for_as_long_as_in_browsers(tmp_path: Path) -> None:
    path = write_animation(tmp_path / "animated.webp", 2)
    data = path.read_bytes()
    frames = [match.start() for match in re.finditer(b"ANMF", data)]
    for frame in frames:
        data = data[: frame + 20] + bytes(3) + data[frame + 23 :]
    path.write_bytes(data)
    with open_source(path) as source:
        assert [frame.pts for frame in source] == [0, Fraction(1, 10)]
        assert source.info.duration == Fraction(2, 10)


def test_an_animation_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = write_animation(tmp_path / "animated.webp")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(SourceError, match=r"cannot be read as an animated WebP file; is it damaged\?$"):
        open_source(path)


def write_pages(path: Path, kinds: Sequence[int], order: str = "<") -> Path:
    """Write a TIFF file of pages of one grey pixel; `kinds` are their subfile types."""
    data = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8)
    for page, kind in enumerate(kinds):
        tags = (
            (254, 4, kind),
            (256, 4, 1),
            (257, 4, 1),
            (258, 4, 8),
            (262, 4, 1),
            (273, 4, 4),
            (278, 4, 1),
            (279, 4, 1),
        )
        following = len(data) + 2 + 12 * len(tags) + 4
        data += struct.pack(f"{order}H", len(tags))
        data += b"".join(struct.pack(f"{order}HHII", tag, sort, 1, value) for tag, sort, value in tags)
        data += struct.pack(f"{order}I", following if page + 1 < len(kinds) else 0)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("order", ["<", ">"])
def test_pages_are_told_from_smaller_copies(tmp_path: Path, order: str) -> None:
    def has_several(*kinds: int) -> bool:
        return has_pages(write_pages(tmp_path / "scan.tif", kinds, order).read_bytes())

    assert has_several(0, 0)
    assert has_several(2, 1, 2)
    assert not has_several(0)
    assert not has_several(0, 1, 4, 5)
    in_a_circle = (tmp_path / "scan.tif").read_bytes()[:-4] + struct.pack(f"{order}I", 8)
    assert not has_pages(in_a_circle)
    assert not has_pages(in_a_circle[:20])


def test_further_pictures_in_images_are_told_of_in_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_animation(tmp_path / "a.png")
    cv2.imwrite(str(tmp_path / "b.png"), numbered(5))
    with open_source(tmp_path) as source:
        assert numbers_of(list(source)) == [0, 5]
    assert caplog.messages == [
        f"only the first picture is shown of {tmp_path / 'a.png'}: there are several in one file"
    ]
    caplog.clear()
    write_animation(tmp_path / "c.avif")
    write_pages(tmp_path / "d.tif", [0, 0])
    with open_source(tmp_path) as source:
        assert numbers_of(list(source)[:3]) == [0, 5, 0]
    assert caplog.messages == [
        f"only the first picture is shown of {tmp_path / 'a.png'} and 2 more: there are several in one file"
    ]
