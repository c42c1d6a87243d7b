"""The options: names, types, help, and one-line complaints."""

from __future__ import annotations

import argparse
import math
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar, TypeVarTuple, get_args

from stream_seg.addresses import Transport
from stream_seg.addresses.credentials import safe_address
from stream_seg.cli import evaluate, export, models, run
from stream_seg.cli.elsewhere import meant_option, sentence_on
from stream_seg.cli.names import PIPED_OBJECTS
from stream_seg.cli.options_file import LACKS_VALUE, place_of_failure, with_files
from stream_seg.cli.places import Place, split_name
from stream_seg.coco import COCO_NAMES, EVERYDAY
from stream_seg.errors import UsageError, closest, did_you_mean
from stream_seg.evaluate import SCORE_THRESHOLD
from stream_seg.line import Line
from stream_seg.region import polygon
from stream_seg.render import VIEWS
from stream_seg.render.trails import check_trails
from stream_seg.segmenters.looks import check_slices
from stream_seg.segmenters.onnx_segmenter import DEFAULT_THRESHOLD
from stream_seg.sinks.page import parse_host_and_port
from stream_seg.sinks.retention import Keep, parse_duration, parse_keep
from stream_seg.sources.screen import parse_screen
from stream_seg.version import __version__

T = TypeVar("T")
Given = TypeVarTuple("Given")

TRANSPORTS: tuple[Transport, ...] = get_args(Transport)

EXAMPLES = """\
examples:
  stream-seg --webcam 0                          live in a window; q quits
  stream-seg --screen --serve 8080               what is on the screen (X11), in a browser
  stream-seg holiday.mp4 -o annotated.mp4        every frame, sound and timing kept
  stream-seg rtsp://camera/stream -o door.mp4    record a camera feed; Ctrl-C ends and finishes the file
  stream-seg rtsp://a/1 rtsp://b/1 --webcam 0    several in one window; one that fails comes back
  stream-seg rtsp://camera/stream --serve 8080   live in a browser, on a machine without a screen
  stream-seg rtsp://a/1 rtsp://b/1 -o out_{source}.mp4 --segment 10m --keep 24h
  stream-seg rtsp://camera/stream -o door.mp4 --classes person --events 10s --before 5s
  stream-seg rtsp://camera/stream --crops visitors/ --classes person
  stream-seg shop.mp4 --heatmap heat.png --classes person
  stream-seg rtsp://camera/stream --classes person --notify http://home:8123/api/webhook/door
  stream-seg photo.jpg -o m.png --view masks     coloured masks on black
  stream-seg street.mp4 -o blurred.mp4 --view blurred --classes person
  stream-seg photos/ -o annotated/               a folder of images; or some, as in *.jpg -o annotated/
  stream-seg clips/ -o results/{source}.mp4      a folder of videos, one after the other
  ffmpeg -i ... -f mpegts - | stream-seg - -o out.mp4
  stream-seg rtsp://camera/stream -o rtsp://server/door
  stream-seg @cameras.txt                        options and sources in a file, quoted as in a shell, # for comments

further commands (each has --help):
  stream-seg models         named models: list, pull, path, remove, info
  stream-seg export         weights to an ONNX model
  stream-seg eval           COCO accuracy of a model

exit codes:
  0 done   1 internal error   2 wrong options   3 source   4 model   5 device   6 output   7 no display
  130 ended by SIGINT (Ctrl-C), 143 by SIGTERM, 129 by SIGHUP (its terminal was closed); what was written until then
  is finished and plays
"""


_ACTIONS = {
    "detect": "a source is named alone, as in stream-seg clip.mp4",
    "help": "options are listed by stream-seg --help",
    "predict": "a source is named alone, as in stream-seg clip.mp4",
    "segment": "a source is named alone, as in stream-seg clip.mp4",
    "track": "a source is named alone, as in stream-seg clip.mp4, and objects are followed",
    "version": "it is told by stream-seg --version",
}
"""What the first word is in other programs, and how it is done here."""


class Parser(argparse.ArgumentParser):
    """An argument parser that complains in one line, with a suggestion."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}{self._example(message)} (see {self.prog} --help)")

    def _example(self, message: str) -> str:
        """How an option that lacks its value is written; nothing for other mistakes."""
        lacking = re.fullmatch(f"argument (\\S+): {LACKS_VALUE}", message)
        if lacking is None:
            return ""
        option = lacking[1].split("/")[-1]
        return f", as in {option} {self._option_string_actions[option].metavar}"

    def parse_strictly(self, argv: Sequence[str], *, intermixed: bool = False) -> argparse.Namespace:
        """Parse all of `argv`; an unknown option is an error that names the nearest known one.

        With `intermixed`, words may stand between options, as in `a.mp4 --webcam 0 b.mp4`.
        """
        args, unknown = self.parse_known_intermixed_args(argv) if intermixed else self.parse_known_args(argv)
        if unknown:
            hint = self._hint(unknown[0].split("=")[0], has_sources=intermixed)
            self.error(f"unknown argument {unknown[0]}{hint}")
        return args

    def _hint(self, word: str, *, has_sources: bool) -> str:
        """What an unknown word may stand for; nothing for one that is no option."""
        known = self._option_string_actions
        sentence = sentence_on(word) if has_sources else None
        if sentence:
            return f" ({sentence})"
        if not word.startswith("-"):
            return ""
        meant = meant_option(word, known) or closest(word, known)
        return "" if meant is None else f" (did you mean '{meant}'?)"

    def hint_on_setting(self, word: str) -> str:
        """How `conf=0.3` is written here; nothing for what is no such setting, and for patterns of files."""
        name, equals, value = word.partition("=")
        if not (equals and re.fullmatch("[a-z_]+", name)) or set("*?[%") & set(value):
            return ""
        option = "--" + name.replace("_", "-")
        sentence, meant = sentence_on(option), meant_option(option, self._option_string_actions)
        if sentence or meant is None:
            return sentence or ""
        takes_none = " " in meant or self._option_string_actions[meant].nargs == 0
        return f"options are written as in {meant if takes_none else f'{meant} {value}'.rstrip()}"


def seconds(text: str) -> float:
    """`90`, `90.5`, `1:30` or `0:01:30.5` as seconds."""
    if not re.fullmatch(r"(\d+:){0,2}\d+(\.\d*)?", text):
        raise argparse.ArgumentTypeError(f"'{text}' is no time; write seconds (90.5) or [H:]M:S (1:30)")
    total = 0.0
    for part in text.split(":"):
        total = total * 60 + float(part)
    return total


def whole(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number of at least 1")
    return int(text)


def long_side(text: str) -> int:
    """The longer side of what a model sees, in pixels."""
    both = re.fullmatch(r"(\d+)[xX](\d+)", text)
    if both:
        longer = max(map(int, both.groups()))
        raise argparse.ArgumentTypeError(f"'{text}' has two sides; write the longer one alone, as in {longer}")
    return whole(text)


def natural(text: str) -> int:
    """A whole number of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number of at least 0")
    return int(text)


def span(text: str) -> float:
    """A time in seconds of more than 0."""
    return _checked(text, lambda value: 0 < value <= 86400, "time; write seconds, as in 2.5")


def milliseconds(text: str) -> float:
    """A time in milliseconds of more than 0."""
    return _checked(text, lambda value: 0 < value < math.inf, "time; write milliseconds, as in 500")


def transport(text: str) -> str:
    """`tcp` or `udp`."""
    if text not in TRANSPORTS:
        raise argparse.ArgumentTypeError(
            f"'{text}' is no transport{did_you_mean(text, TRANSPORTS)}; write {' or '.join(TRANSPORTS)}"
        )
    return text


def duration(text: str) -> float:
    """`10m`, `90s`, `24h` as seconds."""
    return _told(parse_duration, text)


def trails(text: str) -> float:
    """`3s` as seconds, as many as trails may have."""
    length = duration(text)
    _told(check_trails, length)
    return length


def keep(text: str) -> Keep:
    """`24h` or `20GB`."""
    return _told(parse_keep, text)


def host_and_port(text: str) -> tuple[str, int]:
    """`8080` or `0.0.0.0:8080` as host and port."""
    return _told(parse_host_and_port, text)


def _told(parse_: Callable[[*Given], T], *given: *Given) -> T:
    """The result of a parser that raises `UsageError`, whose words argparse is to repeat."""
    try:
        return parse_(*given)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _checked(text: str, is_right: Callable[[float], bool], what: str) -> float:
    """A number that is right; else it is said to be no `what`."""
    value = _number(text)
    if not is_right(value):
        raise argparse.ArgumentTypeError(f"'{text}' is no {what}")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def camera_index(text: str) -> int:
    """A camera's number, from 0."""
    if not text.isdecimal() or len(text) > 4:
        raise argparse.ArgumentTypeError(f"'{text}' is no camera number; the first camera is 0")
    return int(text)


def screen(text: str) -> str:
    """The source that is a part of the screen, `1280x720+100+50`, or all of it where that is empty."""
    spec = f"screen:{text}" if text else "screen"
    _told(parse_screen, spec)
    return spec


def rate(text: str) -> float:
    """A positive number of frames per second."""
    return _checked(text, lambda value: 0 < value <= 1000, "frame rate; write frames per second, as in 30")


def probability(text: str) -> float:
    """A number from 0 to 1."""
    return _checked(text, lambda value: 0 <= value <= 1, "score; write a number from 0 to 1, as in 0.5")


def size(text: str) -> tuple[int, int]:
    """`1280x720` as (width, height)."""
    match = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text)
    if not match or not all(map(int, match.groups())):
        raise argparse.ArgumentTypeError(f"'{text}' is no size; write WIDTHxHEIGHT, as in 1280x720")
    return int(match[1]), int(match[2])


def slices(text: str) -> tuple[int, int]:
    """`3x2` as (columns, rows); `2` as 2x2."""
    match = re.fullmatch(r"(\d{1,5})(?:[xX](\d{1,5}))?", text)
    if not match:
        raise argparse.ArgumentTypeError(
            f"'{text}' is no number of slices; write COLUMNSxROWS, as in 3x2, or 2 for 2x2"
        )
    columns, rows = int(match[1]), int(match[2] or match[1])
    _told(check_slices, columns, rows)
    return columns, rows


def names(text: str) -> tuple[str, ...]:
    """`person, dog` as ("person", "dog")."""
    found = tuple(name.strip() for name in text.split(",") if name.strip())
    if not found:
        raise argparse.ArgumentTypeError("name at least one class, as in person,dog")
    return found


def region(text: str) -> Place[list[tuple[float, float]]]:
    """`0,360,640,720` as the opposite corners of a rectangle; more pairs of numbers as the corners of a polygon.

    `door=` in front of them is the name of the source.
    """
    source, written = split_name(text)
    numbers = [_number(word) for word in written.split(",")]
    if len(numbers) < 4 or len(numbers) % 2 or not all(map(math.isfinite, numbers)):
        raise argparse.ArgumentTypeError(
            f"'{text}' is no region; write x,y,x,y in pixels, two corners of a rectangle or all of a polygon"
        )
    corners = list(zip(numbers[::2], numbers[1::2], strict=True))
    _told(polygon, corners)
    return Place(corners, written, source)


def line(text: str) -> Place[tuple[tuple[float, float], tuple[float, float]]]:
    """`0,360,1280,360` as the two ends of a line; `door=` in front of them is the name of the source."""
    source, written = split_name(text)
    numbers = [_number(word) for word in written.split(",")]
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
        raise argparse.ArgumentTypeError(f"'{text}' is no line; write x,y,x,y in pixels, its two ends")
    x1, y1, x2, y2 = numbers
    ends = (x1, y1), (x2, y2)
    _told(Line, *ends)
    return Place(ends, written, source)


def device(text: str) -> str:
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        elsewhere = re.fullmatch(r"(?:gpu|cuda):?(\d*)|(\d+)", text.lower())
        number = elsewhere and (elsewhere[1] or elsewhere[2])
        meant = f"cuda:{number}" if number else "cuda" if elsewhere else text
        hint = did_you_mean(meant, ("auto", "cpu", "cuda", *([meant] if number else [])))
        raise argparse.ArgumentTypeError(f"'{text}' is no device{hint}; write auto, cpu, cuda or cuda:N")
    return text


def view(text: str) -> str:
    """One of `VIEWS`."""
    if text not in VIEWS:
        raise argparse.ArgumentTypeError(f"'{text}' is no view{did_you_mean(text, VIEWS)}; write {', '.join(VIEWS)}")
    return text


def add_common(parser: argparse.ArgumentParser, *, again: bool = False, prints: bool = False) -> None:
    """Options of every command; `again` for an action of a command, whose defaults must not undo the command's.

    `prints` tells that it is there for what it prints, which --quiet leaves.
    """
    default = argparse.SUPPRESS if again else False
    least = "what was asked for, warnings and errors only" if prints else "warnings and errors only"
    for name, help_text in (("--quiet", least), ("--verbose", "all messages")):
        parser.add_argument(name, action="store_true", default=default, help=f"print {help_text}")


def add_model(parser: argparse.ArgumentParser, *, mirrors: str) -> None:
    """Options that choose a model and where it runs; `mirrors` says what of mirror images is the default."""
    group = parser.add_argument_group("model")
    group.add_argument("--model", default="compact", metavar="NAME|PATH", help="model to use (default: compact)")
    _add_device(group, help_text="where the model runs")
    group.add_argument(
        "--size", type=long_side, metavar="N", help="longer side of the model's input, in pixels (default: the model's)"
    )
    group.add_argument(
        "--slices", type=slices, metavar="N|CxR", help="run on this many overlapping slices as well, for small objects"
    )
    group.add_argument(
        "--mirror",
        action=argparse.BooleanOptionalAction,
        help=f"run on each mirror image as well, for fewer mistakes, in twice the time ({mirrors})",
    )
    group.add_argument("--labels", type=Path, metavar="FILE", help="class names, one per line, in place of the model's")
    _add_places(group)


def _add_device(parser: argparse._ActionsContainer, *, help_text: str) -> None:
    parser.add_argument("--device", type=device, default="auto", metavar="auto|cpu|cuda|cuda:N", help=help_text)


def _add_places(parser: argparse._ActionsContainer, *, again: bool = False) -> None:
    absent, on = (argparse.SUPPRESS, argparse.SUPPRESS) if again else (None, False)
    parser.add_argument(
        "--model-dir",
        type=Path,
        default=absent,
        metavar="DIR",
        help="where downloaded models are kept (default: stream-seg/models in the user's cache folder)",
    )
    parser.add_argument("--offline", action="store_true", default=on, help="never download a model")


def _run_parser() -> Parser:
    parser = Parser(
        prog="stream-seg",
        description="Outline and name every object in a webcam's picture, a recording, a camera feed or images.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "source",
        nargs="*",
        metavar="SOURCE",
        help="video file, address (rtsp:, http:, ...), image, numbered sequence (img_%%04d.png), camera number, - for "
        "standard input, or a folder or glob: its images, or its videos if it has no images; up to 32 sources, or any "
        "number of images, or of recordings with separate results (-o results/{source}.mp4); @FILE stands "
        "for the sources and options in a file",
    )
    parser.add_argument(
        "--webcam", type=camera_index, action="append", default=[], metavar="N", help="camera number N as a source"
    )
    parser.add_argument(
        "--screen",
        type=screen,
        action="append",
        nargs="?",
        const="",
        default=[],
        metavar="WxH+X+Y",
        help="what is on the X11 screen ($DISPLAY) as a source, or in a part of it: width, height, and x and y of its "
        "upper left corner; 30 pictures a second, or --max-fps",
    )
    parser.add_argument("--version", action="version", version=f"stream-seg {__version__}")
    add_common(parser)

    group = parser.add_argument_group("output")
    group.add_argument(
        "-o",
        "--output",
        action="append",
        default=[],
        metavar="OUTPUT",
        help="video file, .gif, image (.png, .jpg, .webp ...), numbered images (out_%%04d.png), folder, data (.jsonl, "
        ".csv, or .json for COCO), server (rtsp:, rtmp:, udp:, tcp:), or standard output (- for a video, -.jsonl for "
        "data); repeatable; {source} becomes each source's name, and a video without it shows several sources as tiles",
    )
    group.add_argument(
        "--crops",
        metavar="FOLDER",
        help="save one image of each distinct object, from its best frame, without drawing (person-3.jpg; with several "
        "sources door-person-3.jpg); may contain {source}",
    )
    group.add_argument(
        "--heatmap",
        metavar="FILE.png",
        help="write one image of where objects were in the whole run, and for how many seconds, in colours on the "
        "scene (.png, .jpg, .webp), for cameras that stand still; {source} becomes each source's name",
    )
    group.add_argument(
        "--segment", type=duration, metavar="10m", help="begin a new video or .jsonl file at this interval (s, m, h, d)"
    )
    group.add_argument(
        "--events",
        type=duration,
        metavar="10s",
        help="record only while something is seen and for this long after it, each time into a new file; and "
        "how long after it --notify tells that it is gone",
    )
    group.add_argument(
        "--before",
        type=duration,
        metavar="5s",
        help="have the files of --events begin so long before something is seen; up to 5m, which memory holds",
    )
    group.add_argument(
        "--keep",
        type=keep,
        metavar="24h|20GB",
        help="delete the oldest files of --segment or --events beyond this age or size",
    )
    group.add_argument(
        "--show",
        action=argparse.BooleanOptionalAction,
        help="show a window (default without other outputs): q or Esc quits, space pauses, any key shows the next "
        "image",
    )
    group.add_argument(
        "--serve",
        type=host_and_port,
        metavar="[HOST:]PORT",
        help="serve a page for browsers, as in --serve 8080, and for programs (/objects, /health); reachable from this "
        "machine only, unless HOST says otherwise (0.0.0.0: from all)",
    )
    group.add_argument(
        "--notify",
        action="append",
        default=[],
        metavar="URL",
        help="send a small JSON document when something appears, and when it is gone: not seen for the time of "
        "--events, else 10s; by POST to an http(s) address, or on a topic, "
        "mqtt(s)://[NAME:PASSWORD@]BROKER/TOPIC; {source} becomes each source's name; repeatable",
    )
    group.add_argument(
        "--view",
        type=view,
        default="both",
        metavar="|".join(VIEWS),
        help="what is drawn: masks, boxes and names (both, the default), boxes and names (boxes), masks alone on the "
        "frame (tinted) or on black (masks), the objects alone (cutouts), or the frame with its objects made "
        "unrecognisable (blurred)",
    )
    group.add_argument("--ids", action="store_true", help="draw the track ID of each object in videos (#3 person 87%%)")
    group.add_argument(
        "--trails",
        type=trails,
        metavar="3s",
        help="draw the path that each object in videos has taken for so long, up to 1m",
    )
    group.add_argument("--no-hud", action="store_true", help="no status line on live video")
    group.add_argument(
        "--sound",
        action=argparse.BooleanOptionalAction,
        help="record the sound of feeds (rtsp:, http:, rtmp:, udp: ...) as well; or, with --no-sound, not even that of "
        "recordings, which is copied by default",
    )
    group.add_argument("--codec", metavar="h264|hevc|av1|...", help="video codec (default: h264; vp9 in .webm)")
    group.add_argument("--overwrite", action="store_true", help="replace existing outputs")
    group.add_argument(
        "--skip-existing",
        action="store_true",
        help="skip files whose results (-o results/{source}.mp4) all exist, as after an interrupted run",
    )
    group.add_argument("--metrics", type=Path, metavar="FILE.json", help="write the run's metrics as JSON")

    group = parser.add_argument_group("what is processed")
    group.add_argument("--start", type=seconds, default=0.0, metavar="S", help="begin S seconds (or H:M:S) in")
    group.add_argument("--end", type=seconds, metavar="S", help="stop S seconds in")
    group.add_argument("--max-frames", type=whole, metavar="N", help="stop after N frames of each source")
    group.add_argument("--stride", type=whole, default=1, metavar="N", help="use every Nth frame")
    group.add_argument("--frame-rate", type=rate, metavar="F", help="rate of image sequences (25)")
    group.add_argument("--camera-size", type=size, metavar="WxH", help="frame size to request from a webcam")
    group.add_argument("--camera-fps", type=rate, metavar="F", help="frame rate to request from a webcam")

    group = parser.add_argument_group("live sources")
    group.add_argument(
        "--reconnect",
        type=natural,
        metavar="N",
        help="attempts in a row to reconnect to a lost source or server, 0 for none (default: for ever; webcams and "
        "screens only once they have worked)",
    )
    group.add_argument("--transport", type=transport, metavar="tcp|udp", help="transport of RTSP (tcp)")
    group.add_argument("--open-timeout", type=span, metavar="S", help="seconds to wait for an answer (10)")
    group.add_argument("--stall-timeout", type=span, metavar="S", help="seconds to wait for the next frame (5)")
    group.add_argument("--max-age", type=milliseconds, metavar="MS", help="drop frames older than this")
    group.add_argument("--max-fps", type=rate, metavar="F", help="use at most F frames a second, to save CPU time")

    add_model(
        parser,
        mirrors="default with the built-in model, and networks trained like it, where all sources are photos, which "
        "these see at 640 pixels then; of films every other frame is mirrored, which takes no time; neither with "
        "--view blurred",
    )
    group = parser.add_argument_group("segmentation")
    group.add_argument(
        "--on-change",
        action="store_true",
        help="run the model only where a video has changed since its last run, and once a second, to save CPU time",
    )
    group.add_argument("--score-threshold", type=probability, metavar="F", help="lowest score of an object (0.5)")
    group.add_argument(
        "--steady",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="show what several frames of a video agree on, and one name per object (default), or each frame as the "
        "model sees it",
    )
    group.add_argument(
        "--classes",
        type=names,
        action="extend",
        metavar="person,dog",
        help="only these classes (stream-seg models info compact lists all); repeatable",
    )
    group.add_argument(
        "--region",
        type=region,
        action="append",
        default=[],
        metavar="[NAME=]X,Y,X,Y,...",
        help="only what stands in this part of the picture, and how many that are: two corners of a rectangle, or all "
        "of a polygon, in pixels; repeatable: in any of them; of several sources, NAME, as in place of {source}, is "
        "whose picture it is",
    )
    group.add_argument(
        "--line",
        type=line,
        action="append",
        default=[],
        metavar="[NAME=]X1,Y1,X2,Y2",
        help="count what crosses this line, in (to the right, looking from its first end to its second) and out; in "
        "pixels, repeatable, NAME as of --region",
    )
    group.add_argument("--batch-size", type=whole, metavar="N", help="most frames per call of the model")
    parser.set_defaults(command=run.run)
    return parser


def _models_parser() -> Parser:
    parser = Parser(prog="stream-seg models", description="List, fetch and remove named models.", allow_abbrev=False)
    _add_places(parser)
    add_common(parser, prints=True)
    parser.set_defaults(command=models.list_models)
    actions = parser.add_subparsers(metavar="ACTION", parser_class=Parser)
    for name, command, help_text, argument in (
        ("list", models.list_models, "print the table of names (as models alone does)", None),
        ("pull", models.pull, "download a model, build its graph, print where it is", "NAME"),
        ("path", models.path, "print where a model is", "NAME"),
        ("remove", models.remove, "delete a downloaded model", "NAME"),
        ("info", models.info, "print inputs, outputs and metadata", "NAME|FILE.onnx"),
    ):
        action = actions.add_parser(name, help=help_text, description=help_text, allow_abbrev=False)
        if argument is not None:
            action.add_argument("name", metavar=argument)
        if command in (models.pull, models.path, models.info):
            _add_device(action, help_text="the device whose graph is meant, where each has its own")
        _add_places(action, again=True)
        add_common(action, again=True, prints=command is not models.remove)
        action.set_defaults(command=command)
    return parser


def _export_parser() -> Parser:
    parser = Parser(
        prog="stream-seg export",
        description="Build the batched ONNX graph of Mask R-CNN weights (.pth, .safetensors, or a named model's).",
        allow_abbrev=False,
    )
    parser.add_argument("weights", metavar="NAME|WEIGHTS", help="r50-fpn, r50-fpn-v2, compact, or a file of weights")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="MODEL.onnx")
    parser.add_argument("--precision", default="fp32", metavar="fp32|fp16|int8", help="number format (default: fp32)")
    parser.add_argument("--calibrate", metavar="VIDEO|FOLDER", help="frames like yours, for --precision int8")
    parser.add_argument("--device", default="cpu", metavar="cpu|cuda", help="device the graph is made for")
    parser.add_argument("--proposals", type=whole, metavar="N", help="proposals per image (default: the model's)")
    parser.add_argument(
        "--size", type=size, metavar="WxH", help="size that frames are scaled to fit (default: the model's)"
    )
    parser.add_argument("--architecture", metavar="NAME", help="architecture of the weights (default: recognised)")
    parser.add_argument(
        "--labels", type=Path, metavar="FILE", help="class names, one per line (a line background may come first)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    _add_places(parser)
    add_common(parser)
    parser.set_defaults(command=export.export)
    return parser


def _eval_parser() -> Parser:
    parser = Parser(
        prog="stream-seg eval",
        description="COCO box and mask AP of a model, precision and recall of what it shows, and its speed.",
        allow_abbrev=False,
    )
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of the images")
    parser.add_argument("--annotations", type=Path, required=True, metavar="FILE.json", help="COCO instances")
    parser.add_argument(
        "--score-threshold",
        type=probability,
        default=DEFAULT_THRESHOLD,
        dest="shown_above",
        metavar="F",
        help="precision and recall of objects above this score (0.5)",
    )
    parser.add_argument("--limit", type=whole, metavar="N", help="only the first N images")
    parser.add_argument("--json", type=Path, metavar="FILE.json", help="write the result as JSON")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    add_model(parser, mirrors="not the default here: --mirror --size 640 is how the built-in model looks at photos")
    add_common(parser, prints=True)
    parser.set_defaults(command=evaluate.run, score_threshold=SCORE_THRESHOLD, classes=None)
    return parser


SUBCOMMANDS = {"models": _models_parser, "export": _export_parser, "eval": _eval_parser}


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; `command` of the result is the function to call with it, and `words` of that of the main
    job are those that it was made of. Raises `UsageError`.

    A first word that is a subcommand is taken for it, also behind --quiet or --verbose: a file of that name is written
    ./models. Elsewhere @FILE stands for the words in a file. What follows -- is sources, however they begin.
    """
    first = next((place for place, word in enumerate(argv) if word not in ("--quiet", "--verbose")), len(argv))
    if first < len(argv) and argv[first] in SUBCOMMANDS:
        return SUBCOMMANDS[argv[first]]().parse_strictly([*argv[:first], *argv[first + 1 :]])
    words = with_files(argv)
    try:
        args = _parse_run([word.text for word in words])
    except UsageError as error:
        place = place_of_failure(words, _failure)
        # What an option got by mistake may be an address with a password in it.
        raise UsageError(f"{'' if place is None else f'{place}: '}{safe_address(str(error))}") from None
    args.words = words
    return args


def _failure(argv: Sequence[str]) -> str | None:
    """What is wrong with a command line, if anything is."""
    try:
        _parse_run(argv)
    except UsageError as error:
        return str(error)
    return None


def _parse_run(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line of the main job."""
    end = argv.index("--") if "--" in argv else len(argv)  # which argparse forgets where words stand between options
    parser = _run_parser()
    args = parser.parse_strictly(_joined(argv[:end]), intermixed=True)
    args.source = [*args.source, *argv[end + 1 :]]
    _refuse_misplaced(parser, args.source)
    _refuse_classes_without_comma(args)
    return args


def _joined(argv: Sequence[str]) -> Sequence[str]:
    """`-o -.jsonl`, and `--line -20,360,1300,360`, as one word: argparse takes the second of two for an option.

    And `--screen clip.mp4` as two that are none, for it would take a source for the part of the screen.
    """
    words: list[str] = []
    for word in argv:
        before = words[-1] if words else ""
        if before in ("-o", "--output") and word.startswith("-."):
            if word != PIPED_OBJECTS:
                raise UsageError(
                    f"standard output takes a video (-o -) or lines of JSON (-o {PIPED_OBJECTS}), not {word}"
                )
            words[-1] = f"--output={word}"
        elif before in ("--region", "--line") and re.match(r"-[\d.]", word):
            words[-1] = f"{before}={word}"
        else:
            if before == "--screen" and not re.fullmatch(r"[\d+][\dxX*+,.-]*", word):
                words[-1] = "--screen="
            words.append(word)
    return words


def _refuse_misplaced(parser: Parser, sources: Sequence[str]) -> None:
    """Complain of a subcommand that does not come first or is misspelt, rather than of a missing file."""
    for word in sources:
        _refuse_settings(parser, word)
    word = sources[0] if sources else ""
    if word.isalpha() and len(word) < 20 and not Path(word).exists():
        if word in SUBCOMMANDS:
            raise UsageError(f"the subcommand comes first: stream-seg {word} ...")
        hint = did_you_mean(word, SUBCOMMANDS)
        if hint:
            raise UsageError(f"there is no file and no subcommand {word}{hint}")


def _refuse_settings(parser: Parser, word: str) -> None:
    """Complain of `conf=0.3` and `predict`, which are other programs' ways, rather than of a missing file."""
    hint = _ACTIONS.get(word) or parser.hint_on_setting(word)
    if hint and not Path(word).exists():
        raise UsageError(f"there is no file {word}; {hint}")


def _refuse_classes_without_comma(args: argparse.Namespace) -> None:
    """Complain of `--classes person cat`, whose second class is a source, rather than of a missing file."""
    words = {*COCO_NAMES, *EVERYDAY, *(f"{name}s" for name in COCO_NAMES)}
    stray = [word for word in args.source if word.strip(", ").lower() in words and not Path(word).exists()]
    if args.classes is not None and stray:
        together = ",".join([*args.classes, *(word.strip(", ") for word in stray)])
        raise UsageError(
            f"there is no file {stray[0]}; classes have commas between them, as in --classes {shlex.quote(together)}"
        )
