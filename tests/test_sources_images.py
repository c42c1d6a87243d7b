"""Photographs as frames: one, a folder, a pattern, a numbered sequence."""

from __future__ import annotations

import logging
import re
import struct
import zlib
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from stream_seg.errors import SourceError
from stream_seg.sources import ImageFiles, open_source
from stream_seg.sources.files import numbered_images
from stream_seg.sources.images import read_image
from tests.source_files import SIZE, numbered, numbers_of


def save(path: Path, image: np.ndarray) -> Path:
    assert cv2.imwrite(str(path), image)
    return path


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """Return a JPEG file with an EXIF orientation (TIFF tag 0x0112) put in behind its first marker."""
    tiff = b"MM\0*\0\0\0\x08" + struct.pack(">HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def test_one_image_is_one_frame(tmp_path: Path) -> None:
    path = save(tmp_path / "photo.png", numbered(77))
    with open_source(path) as source:
        (frame,) = source
        assert (source.info.kind, source.info.frame_count, source.info.path) == ("images", 1, path)
    assert (numbers_of([frame]), frame.name, frame.pts, frame.size) == ([77], "photo.png", 0, SIZE)


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff", "jp2", "ppm", "pnm", "PNG"])
def test_every_usual_format_is_read(tmp_path: Path, suffix: str) -> None:
    save(tmp_path / f"photo.{suffix}", numbered(9))
    for spec in (tmp_path / f"photo.{suffix}", tmp_path):
        with open_source(spec) as source:
            assert numbers_of(list(source)) == [9]
            assert source.info.kind == "images"


def test_a_folder_comes_in_the_order_people_count(tmp_path: Path) -> None:
    for number in (10, 9, 1, 2):
        save(tmp_path / f"img{number}.png", numbered(number))
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "folder.png").mkdir()
    with open_source(tmp_path) as source:
        frames = list(source)
    assert [frame.name for frame in frames] == ["img1.png", "img2.png", "img9.png", "img10.png"]
    assert numbers_of(frames) == [1, 2, 9, 10]
    assert [frame.pts for frame in frames] == [Fraction(index, 25) for index in range(4)]


def test_hidden_files_of_a_folder_are_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path / "a.png", numbered(1))
    (tmp_path / "._a.png").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    with open_source(tmp_path) as source:
        assert [frame.name for frame in source] == ["a.png"]
        assert source.info.frame_count == 1
    assert not caplog.messages


def test_why_a_file_cannot_be_read_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, folder, gone = (tmp_path / name for name in ("a.png", "folder.png", "gone.png"))
    folder.mkdir()
    save(gone, numbered(2))
    with open_source([save(first, numbered(1)), folder, gone]) as source:
        gone.unlink()
        assert [frame.name for frame in source] == ["a.png"]
    assert caplog.messages == [
        f"left out {folder}: it cannot be read: Is a directory",
        f"left out {gone}: it cannot be read: No such file or directory",
    ]


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    album, elsewhere = tmp_path / "album", tmp_path / "elsewhere"
    (album / "year").mkdir(parents=True)
    elsewhere.mkdir()
    for path in (album / "a.png", album / "year" / "b.png", elsewhere / "c.png"):
        save(path, numbered(1))
    (album / "year" / "all").symlink_to(album)
    (album / "linked").symlink_to(elsewhere)
    for pattern in (album / "**" / "*.png", album / "year" / ".." / "**"):
        with open_source(pattern) as source:
            assert [frame.name for frame in source] == ["a.png", "linked/c.png", "year/b.png"]


def test_a_link_to_itself_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("a")
    (tmp_path / "b").mkdir()
    save(tmp_path / "b" / "1.png", numbered(1))
    with open_source(f"{tmp_path}/*/**/*.png") as source:
        assert [frame.name for frame in source] == ["b/1.png"]


def test_a_pattern_finds_images_in_folders_below(tmp_path: Path) -> None:
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        save(tmp_path / place / "1.png", numbered(1))
    with open_source(f"{tmp_path}/**/*.png") as source:
        assert [frame.name for frame in source] == [str(Path("a/1.png")), str(Path("b/1.png"))]


def test_a_numbered_sequence_may_begin_anywhere_and_have_gaps(tmp_path: Path) -> None:
    for number in (8, 9, 10, 12, 100):
        save(tmp_path / f"img_{number:02d}.png", numbered(number))
    save(tmp_path / "img_x.png", numbered(0))
    with open_source(tmp_path / "img_%02d.png", sequence_rate=10) as source:
        frames = list(source)
        assert source.info.frame_rate == 10
    assert numbers_of(frames) == [8, 9, 10, 12, 100]
    assert frames[-1].pts == Fraction(4, 10)
    assert not any(frame.is_still for frame in frames)
    assert source.info.has_pace
    with open_source(tmp_path) as source:
        assert all(frame.is_still for frame in source)
        assert not source.info.has_pace


def test_a_sequence_has_each_number_once(tmp_path: Path) -> None:
    for name in ("1", "01", "001", "2", "10", "010"):
        save(tmp_path / f"{name}.png", numbered(len(name)))
    found = {
        pattern: [path.stem for path in numbered_images(str(tmp_path / pattern))] for pattern in ("%d.png", "%02d.png")
    }
    assert found == {"%d.png": ["1", "2", "10"], "%02d.png": ["01", "10"]}


def test_a_real_file_with_a_pattern_character_is_a_file(tmp_path: Path) -> None:
    with open_source(save(tmp_path / "cat[1].png", numbered(3))) as source:
        assert numbers_of(list(source)) == [3]


@pytest.mark.parametrize(("orientation", "quarter_turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_photographs_are_turned_upright(tmp_path: Path, orientation: int, quarter_turns: int) -> None:
    stored = numbered(255)
    path = tmp_path / "phone.jpg"
    path.write_bytes(with_orientation(cv2.imencode(".jpg", stored)[1].tobytes(), orientation))
    with open_source(path) as source:
        (frame,) = source
    assert np.abs(frame.image.astype(int) - np.rot90(stored, quarter_turns)).mean() < 8


def test_grey_becomes_colour(tmp_path: Path) -> None:
    image = read_image(save(tmp_path / "grey.png", numbered(5)[:, :, 0]))
    assert image is not None
    assert (image == numbered(5)).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_become_eight(tmp_path: Path, channels: int) -> None:
    deep = np.full((8, 8, channels), 0xC8C8, np.uint16)
    deep[..., 3:] = 0xFFFF
    image = read_image(save(tmp_path / "deep.png", deep))
    assert image is not None
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - 0xC8).max() <= 1


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_transparent_pixels_are_black(tmp_path: Path, suffix: str) -> None:
    pixels = np.full((16, 16, 4), 200, np.uint8)
    pixels[:, :8, 3], pixels[:, 8:, 3] = 0, 255
    image = read_image(save(tmp_path / f"clear.{suffix}", pixels))
    assert image is not None
    assert image[:, :7].max() <= 2
    assert image[:, 9:].min() >= 195


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_a_transparent_colour_is_found_behind_long_descriptions(tmp_path: Path) -> None:
    words = png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b"IDAT " * 2000)
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 8, 3, 0, 0, 0))  # 2x1, a byte of palette each
    palette = png_chunk(b"PLTE", bytes([255, 255, 255, 0, 255, 0])) + png_chunk(b"tRNS", bytes([0, 255]))
    data = png_chunk(b"IDAT", zlib.compress(bytes([0, 0, 1]))) + png_chunk(b"IEND", b"")
    path = tmp_path / "clear.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + words + palette + data)
    image = read_image(path)
    assert image is not None
    assert image.tolist() == [[[0, 0, 0], [0, 255, 0]]]


@pytest.mark.parametrize(("depth", "clear"), [(1, 1), (2, 1), (4, 7), (8, 200), (16, 51400)])
def test_a_transparent_grey_is_black(tmp_path: Path, depth: int, clear: int) -> None:
    greys = (clear << 16 - depth).to_bytes(2) if depth < 8 else clear.to_bytes(depth // 8) + bytes([99] * (depth // 8))
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, depth, 0, 0, 0, 0))  # 2x1, the second of another grey
    told = png_chunk(b"tRNS", clear.to_bytes(2))
    data = png_chunk(b"IDAT", zlib.compress(b"\0" + greys)) + png_chunk(b"IEND", b"")
    path = tmp_path / "clear.png"
    for chunks, seen in (b"", True), (told, False):
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunks + data)
        image = read_image(path)
        assert image is not None
        assert bool(image[0, 0].any()) is seen
        assert image[0, 1].tolist() == [0 if depth < 8 else 99] * 3


def described(suffix: str, pixels: np.ndarray, orientation: int, order: str) -> bytes:
    """Return an image with alpha as a file that says in EXIF how it is to be turned."""
    exif = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(
        f"{order}IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0
    )
    if suffix == ".png":
        data = cv2.imencode(".png", pixels)[1].tobytes()
        return data[:33] + png_chunk(b"eXIf", exif) + data[33:]  # behind IHDR
    (lossless,) = re.findall(rb"VP8L.*", cv2.imencode(".webp", pixels)[1].tobytes(), re.DOTALL)
    height, width = pixels.shape[:2]
    header = b"VP8X" + struct.pack("<I", 10) + b"\x18\0\0\0" + (width - 1).to_bytes(3, "little")
    body = (
        b"WEBP" + header + (height - 1).to_bytes(3, "little") + lossless + b"EXIF" + struct.pack("<I", len(exif)) + exif
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("suffix", [".png", ".webp"])
@pytest.mark.parametrize("orientation", range(10))
def test_transparent_images_are_turned_upright_as_others_are(tmp_path: Path, orientation: int, suffix: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 10, 4), np.uint8)
    pixels[..., 3] = 255
    pixels[0, 0, 3] = 0
    path = tmp_path / f"phone{suffix}"
    path.write_bytes(described(suffix, pixels, orientation, "<>"[orientation % 2]))
    turned = {
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.swapaxes(0, 1),
        6: np.rot90(pixels, -1),
        7: np.rot90(pixels, 2).swapaxes(0, 1),
        8: np.rot90(pixels),
    }.get(orientation, pixels)
    image = read_image(path)
    assert image is not None
    assert (image == turned[..., :3] * (turned[..., 3:] == 255)).all()


@pytest.mark.parametrize("data", [b"RIFF\0\0\0\0WEBPVP8X", b"\x89PNG\r\n\x1a\n" + b"\xff" * 20])
def test_an_image_cut_off_in_its_header_is_unreadable(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "photo.png").write_bytes(data)
    assert read_image(tmp_path / "photo.png") is None


def test_an_unreadable_image_is_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(3):
        save(tmp_path / f"{number}.png", numbered(number))
    (tmp_path / "1.png").write_bytes(b"nonsense")
    with caplog.at_level(logging.WARNING), open_source(tmp_path) as source:
        frames = list(source)
        assert isinstance(source, ImageFiles)
        assert source.damaged == 1
    assert numbers_of(frames) == [0, 2]
    assert [(frame.index, frame.pts) for frame in frames] == [(0, 0), (1, Fraction(1, 25))]
    assert "1.png" in caplog.text


def test_the_only_image_being_unreadable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"nonsense")
    with pytest.raises(SourceError, match=r"photo\.jpg cannot be read as an image"):
        open_source(tmp_path / "photo.jpg")


def test_no_image_being_readable_is_an_error(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(b"")
    with pytest.raises(SourceError, match="none of the 2 images in"):
        open_source(tmp_path)


def test_no_images_but_videos_get_advice(tmp_path: Path) -> None:
    (tmp_path / "holiday.mp4").write_bytes(b"a film")
    for spec in (tmp_path, tmp_path / "*.mp4"):
        with pytest.raises(SourceError, match=r"videos are named one by one$"):
            open_source(spec)
    with pytest.raises(SourceError, match=r"no images match .*\*\.png$"):
        open_source(tmp_path / "*.png")


def test_videos_and_folders_beside_images_are_not_left_out_silently(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.png", "b/1.png", "c d/1.png", ".hidden/1.png", "notes/x.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        save(tmp_path / name, numbered(1)) if name.endswith("png") else (tmp_path / name).touch()
    assert [frame.name for frame in open_source(tmp_path)] == ["a.png"]
    below = f"left out 2 folders with images ({tmp_path}/b ...): '{tmp_path}/**/*' reads those, too"
    assert caplog.messages == [below]
    caplog.clear()
    for name in ("film10.MP4", "film2.mov", ".film.mp4", "b/moves.gif"):
        (tmp_path / name).touch()
    open_source(tmp_path)
    assert caplog.messages == [f"left out 2 videos ({tmp_path}/film2.mov ...), for videos are named one by one", below]
    caplog.clear()
    assert len(list(open_source(tmp_path / "**" / "*"))) == 3
    assert caplog.messages == [f"left out 3 videos ({tmp_path}/b/moves.gif ...), for videos are named one by one"]
    caplog.clear()
    assert len(list(open_source(tmp_path / "b" / "*"))) == 1
    assert caplog.messages == [f"left out 1 video ({tmp_path}/b/moves.gif), for videos are named one by one"]
    (tmp_path / "a.png").unlink()
    with pytest.raises(SourceError, match=r"holds no images .*; folders in it do, which '.*/\*\*/\*' reads$"):
        open_source(tmp_path)


def test_the_pattern_that_is_named_for_folders_finds_what_is_in_them(tmp_path: Path) -> None:
    folder = tmp_path / "holiday [2024]"
    (folder / "b").mkdir(parents=True)
    save(folder / "b" / "1.png", numbered(1))
    with pytest.raises(SourceError, match=r"folders in it do, which '.*' reads$") as caught:
        open_source(folder)
    assert len(list(open_source(str(caught.value).split("'")[1]))) == 1


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("", "holds no images"),
        ("*.png", "no images match"),
        ("%d.png", "no images match"),
        ("x/%d.png", "there is no folder"),
    ],
)
def test_no_images_at_all_is_an_error(tmp_path: Path, spec: str, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        open_source(tmp_path / spec)


def test_measurements_in_an_image_file_are_not_called_damaged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, said = (
        tmp_path / "heights.tif",
        "cannot be read as an image: its samples are float32; convert them to 8 or 16",
    )
    assert cv2.imwrite(str(path), np.linspace(0, 1, 64 * 48, dtype=np.float32).reshape(48, 64))
    with pytest.raises(SourceError, match=rf"heights\.tif {said}"):
        open_source(path)
    cv2.imwrite(str(tmp_path / "photo.tif"), np.zeros((48, 64), np.uint16))
    with open_source(tmp_path) as source:
        assert [frame.name for frame in source] == ["photo.tif"]
    assert caplog.messages == [f"left out {path}: it {said} bits"]
