"""Make the sample clip and the sample photo from public-domain pictures that scikit-image ships.

    python scripts/make_sample.py [FOLDER] [--seconds 7]

Two photographs, an astronaut and a cat, drift, turn and grow before a moving field of galaxies, to a small tune:
1280x720, 30 frames a second, H.264 and AAC. The same every time, for the same versions of the encoders.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import skimage
from numpy.typing import NDArray

import av  # isort: skip  after cv2: loaded the other way round, the first window hangs

SIZE = (1280, 720)
FRAME_RATE = 30
SAMPLE_RATE = 48_000
LOOP = 7.0  # seconds after which the picture is where it began

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Path2D:
    """A closed way: at `centre` plus `swing` in pixels, `turn` in degrees, `scale` and how far it `grows`."""

    centre: tuple[float, float]
    swing: tuple[float, float]
    turn: float
    scale: float
    grows: float
    phase: float

    def at(self, seconds: float) -> NDArray[np.float64]:
        """The matrix (2, 3) that takes a picture, its middle at the origin, to its place in the frame."""
        angle = 2 * math.pi * seconds / LOOP + self.phase
        scale = self.scale * (1 + self.grows * math.sin(angle))
        turn = math.radians(self.turn) * math.sin(angle + 1)
        x = self.centre[0] + self.swing[0] * math.cos(angle)
        y = self.centre[1] + self.swing[1] * math.sin(2 * angle)
        cos, sin = scale * math.cos(turn), scale * math.sin(turn)
        return np.array([[cos, -sin, x], [sin, cos, y]])


SKY = Path2D((640, 360), (150, 60), 5, 1.75, 0.12, 0.4)
ASTRONAUT = Path2D((320, 362), (70, 22), 4, 1.12, 0.10, 0.0)
CAT = Path2D((930, 360), (80, 90), 6, 1.16, 0.14, 2.2)


class Scene:
    """The pictures, and what the frame shows at a time."""

    def __init__(self) -> None:
        self._sky = np.asarray(cv2.GaussianBlur(_shipped("hubble_deep_field.jpg"), (0, 0), 1.2), np.uint8)
        self._astronaut = _print(_shipped("astronaut.png")[:, 52:500])
        self._cat = _print(_shipped("chelsea.png"))

    def at(self, seconds: float) -> Picture:
        """The frame at `seconds`: (720, 1280, 3) uint8 BGR."""
        picture = cv2.warpAffine(self._sky, _centred(self._sky, SKY.at(seconds)), SIZE, borderMode=cv2.BORDER_REFLECT)
        for layer, path in ((self._astronaut, ASTRONAUT), (self._cat, CAT)):
            placed = cv2.warpAffine(layer, _centred(layer, path.at(seconds)), SIZE).astype(np.float32)
            picture = placed[:, :, :3] + picture * (1 - placed[:, :, 3:] / 255)
        return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent.parent / "samples")
    parser.add_argument("--seconds", type=float, default=LOOP)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    scene = Scene()
    cv2.imwrite(str(options.folder / "photo.jpg"), photo(scene), [cv2.IMWRITE_JPEG_QUALITY, 88])
    write_clip(options.folder / "clip.mp4", scene, options.seconds)


def photo(scene: Scene) -> Picture:
    """A still of the clip."""
    return scene.at(LOOP * 0.36)


def write_clip(path: Path, scene: Scene, seconds: float) -> None:
    """Encode `seconds` of picture and sound."""
    with av.open(str(path), "w", options={"movflags": "+faststart", "fflags": "+bitexact"}) as container:
        video = container.add_stream("libx264", FRAME_RATE, options={"crf": "26", "preset": "slow", "threads": "1"})
        video.width, video.height = SIZE
        video.pix_fmt = "yuv420p"
        video.codec_context.time_base = Fraction(1, FRAME_RATE)
        _tag_bt709(video.codec_context)
        audio = container.add_stream("aac", SAMPLE_RATE, layout="stereo", bit_rate=96_000)
        frames = round(seconds * FRAME_RATE)
        for index in range(frames):
            container.mux(video.encode(_video_frame(scene.at(index / FRAME_RATE), index)))
            container.mux(audio.encode(_audio_frame(index)))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


def tune(first: int, count: int) -> NDArray[np.float32]:
    """`count` samples from number `first` on of a plucked pentatonic arpeggio: (2, count), -1..1."""
    time = (first + np.arange(count)) / SAMPLE_RATE
    notes = (261.63, 329.63, 392.00, 523.25, 440.00, 392.00, 329.63)  # hertz
    beat = LOOP / 4 / len(notes)
    sound = np.zeros((2, count))
    for back in range(6):  # the note that sounds, and those that still ring
        number = np.floor(time / beat).astype(int) - back
        age = time - number * beat
        pitch = np.take(notes, number % len(notes))
        loudness = np.where(number >= 0, np.minimum(age / 0.01, 1) * np.exp(-3.5 * age), 0)
        tone = loudness * (np.sin(2 * np.pi * pitch * age) + 0.3 * np.sin(4 * np.pi * pitch * age))
        right = 0.5 + 0.3 * np.sin(number)
        sound += 0.2 * tone * np.stack([1 - right, right])
    return sound.astype(np.float32)


def _shipped(name: str) -> Picture:
    """A picture out of scikit-image's wheel, BGR."""
    picture = cv2.imread(str(Path(skimage.__file__).parent / "data" / name))
    if picture is None:
        raise SystemExit(f"this version of scikit-image does not ship {name}")
    return np.asarray(picture, np.uint8)


def _print(picture: Picture) -> Picture:
    """A photograph with a white border and a shadow: BGRA, premultiplied with alpha."""
    border, margin = 10, 28
    framed = cv2.copyMakeBorder(picture, border, border, border, border, cv2.BORDER_CONSTANT, value=(235, 240, 242))
    solid = np.full(framed.shape[:2], 255, np.uint8)
    shadow = cv2.GaussianBlur(np.pad(solid, margin), (0, 0), 9)
    sheet = np.zeros((*shadow.shape, 4), np.uint8)
    sheet[:, :, 3] = np.asarray(shadow) * 0.6
    sheet[margin:-margin, margin:-margin] = np.dstack([framed, solid])
    return sheet


def _centred(picture: Picture, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """`matrix`, for a picture whose origin is its corner."""
    height, width = picture.shape[:2]
    moved = matrix.copy()
    moved[:, 2] -= matrix[:, :2] @ ((width - 1) / 2, (height - 1) / 2)
    return moved


def _video_frame(picture: Picture, index: int) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(picture, format="bgr24").reformat(
        format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG", interpolation="AREA"
    )
    frame.pts, frame.time_base = index, Fraction(1, FRAME_RATE)
    return frame


def _audio_frame(index: int) -> av.AudioFrame:
    """The sound of one picture's time."""
    count = SAMPLE_RATE // FRAME_RATE
    frame = av.AudioFrame.from_ndarray(tune(index * count, count), format="fltp", layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, index * count, Fraction(1, SAMPLE_RATE)
    return frame


def _tag_bt709(context: av.VideoCodecContext) -> None:
    """Say which colours the numbers mean: BT.709, limited range."""
    context.color_primaries = context.color_trc = context.colorspace = 1
    context.color_range = 1


if __name__ == "__main__":
    main()
