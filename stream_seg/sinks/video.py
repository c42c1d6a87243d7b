"""VideoFile: rendered frames into a video file, with the input's timing and sound."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av

from stream_seg.detections import Detections
from stream_seg.frame import Frame, SourceInfo
from stream_seg.protocols import Outcome, Sink
from stream_seg.sinks.encoders import Encoder
from stream_seg.sinks.film import Film
from stream_seg.sinks.original import Original
from stream_seg.sinks.originals import original_of
from stream_seg.sinks.part import PartFile, Target
from stream_seg.sinks.preroll import Encoded


class VideoFile(Sink):
    """Writes frames to a video file; mp4, m4v, mov, mkv, webm or gif by its suffix.

    `codec` is h264 (the default), hevc, av1, vp9 (the default for webm), the name of an FFmpeg encoder such as
    h264_nvenc, or an `Encoder` chosen already. Pictures are yuv420p, BT.709; an odd width or height grows by one
    repeated column or row; a frame of another size than the first is fitted between black bars. Every frame keeps its
    time exactly in mp4 and mov, to the nearest millisecond in mkv and webm, which count in those. The sound of a
    recording, in a file or at an address, and of a live source that was opened with it, is copied as it is, or encoded
    anew where the container refuses its codec, unless `sound` is False; `holds` tells that it is still on its way from
    an address, and writing nevertheless does without it. `comment` goes into the file's metadata. `original` is what
    the sound is read from where that is open already, so that it goes on from file to file.

    A gif is shown over and over. It has no sound, pictures of their own size in at most 256 colours, and times to the
    nearest hundredth of a second; frames within 20 ms of another, which browsers would slow down, are left out, with a
    warning.

    The file grows under a partial name (`a.part.mp4`) that plays at any moment, also after the process was killed, and
    gets its own when the run ends. After a failure the partial file stays: `kept` is its path. `result` is where what
    was written is found, None where nothing was.

    Raises `OutputError` from the constructor for an unknown suffix or codec, a codec the container cannot hold, an
    existing file without `overwrite`, a folder that is missing or cannot be written to, and an output that is the
    input (`source_path`), overwrite or not.
    """

    of_one_feed = True

    def __init__(
        self,
        path: str | Path,
        *,
        codec: str | Encoder | None = None,
        overwrite: bool = False,
        source_path: str | Path | None = None,
        comment: str | None = None,
        original: Original | None = None,
        sound: bool = True,
    ) -> None:
        self.path = Path(path)
        self.kept: Path | None = None
        self.result: Path | None = None
        self._encoder = codec if isinstance(codec, Encoder) else Encoder(self.path, codec)
        self._comment = comment
        self._original = original
        self._opens_original = original is None
        self._has_sound = sound
        self._target = Target(self.path, overwrite, source_path)
        self._part: PartFile | None = None
        self._info: SourceInfo | None = None
        self._lead: Sequence[Encoded] = ()
        self._film: Film | None = None

    def open(self, info: SourceInfo) -> None:
        """Create the partial file. Raises `OutputError` when that fails, the file is there by now, or is the input."""
        self._target.refuse_input(info.path)
        self._target.refuse_taken()  # since it was made, as by a run before with the same sink
        self._info = info
        self._part = PartFile(self._target)
        # Nothing is fetched a second time for a GIF, which has no sound.
        if self._opens_original and not (self._encoder.is_gif and info.path is None):
            self._original = original_of(info, sound=self._has_sound)

    def begin_with(self, lead: Sequence[Encoded]) -> None:
        """Have the film begin with pictures that are encoded already; to be called before the first frame."""
        self._lead = lead

    def write(self, frame: Frame, detections: Detections) -> None:  # noqa: ARG002  the pictures show them
        """Encode the frame. Raises `OutputError` when the encoder cannot be opened or the file not written."""
        if self._part is None or self._info is None:
            raise RuntimeError("open the sink before writing to it")
        try:
            if self._film is None:
                lead, self._lead = self._lead, ()
                self._film = Film(
                    self._part, self._encoder, self._info, frame, self._original, self._comment, lead=lead
                )
            self._film.write(frame)
        except (av.FFmpegError, OSError) as error:
            raise self._part.unwritable(error) from error

    def holds(self) -> bool:
        """Whether the sound that comes before the next picture is still on its way, from an address."""
        if self._film is not None:
            return self._film.waits()
        return self._original is not None and self._info is not None and self._original.waits_from(self._info.start)

    def close(self, outcome: Outcome) -> None:
        """Finish the file and give it its name; after a failure, finish it under its partial name."""
        if outcome is not Outcome.COMPLETE and self._original is not None:
            self._original.hurry()
        self._close(outcome)

    def awaits(self, until: Fraction) -> bool:
        """Whether sound of a live source is late that begins before its time `until`, at which the file ends.

        If so, the next file may begin with the same `original` now, and this one is finished later.
        Raises `OutputError` when the file cannot be written.
        """
        if self._part is None or self._film is None or self._original is None:
            return False
        try:
            awaits = self._film.awaits(until)
        except (av.FFmpegError, OSError) as error:
            raise self._part.unwritable(error) from error
        if awaits and not self._opens_original:
            self._original, self._opens_original = self._original.fork(), True
            self._film.leave(self._original)
        return awaits

    def finish(self, until: Fraction) -> None:
        """Finish the file in the middle of a run; its last picture lasts until the time `until` of the source."""
        self._close(Outcome.STOPPED, until)

    def _close(self, outcome: Outcome, until: Fraction | None = None) -> None:
        part, self._part = self._part, None
        film, self._film = self._film, None
        if part is None:
            return
        try:
            if outcome is Outcome.FAILED or part.error is not None:
                self._keep(part, film)
            else:
                self._publish(part, film, complete=outcome is Outcome.COMPLETE, until=until)
        finally:
            part.close()
            if self.kept is not None:
                self.kept = self.result = part.left
            if self._opens_original and self._original is not None:
                self._original.close()
            self._original = None  # the sinks of many films stay until the last of them is done

    def _publish(self, part: PartFile, film: Film | None, *, complete: bool, until: Fraction | None) -> None:
        if film is None:
            part.discard()
            return
        self.kept = self.result = part.path
        try:
            film.finish(complete=complete, until=until)
        except (av.FFmpegError, OSError) as error:
            raise part.unwritable(error) from error
        part.publish()
        self.kept, self.result = None, self.path

    def _keep(self, part: PartFile, film: Film | None) -> None:
        if film is not None:
            with contextlib.suppress(av.FFmpegError, OSError):  # the first failure is the one to tell
                film.finish(complete=False)
        if part.is_empty():
            part.discard()
            return
        self.kept = self.result = part.keep()
