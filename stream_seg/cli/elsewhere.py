"""What options are called in other programs, and what stands for them here."""

from __future__ import annotations

import difflib
from collections.abc import Container, Mapping

_WITHOUT_OPTION = "a source is named without an option, as in stream-seg clip.mp4"
_DATA = "what was found is an output: -o found.jsonl, found.json (COCO) or found.csv"
_OVERLAPS = "the model decides which of two that overlap is left, and how many are"
_ADDRESS = "the name stands in the address, the password there or in STREAM_SEG_PASSWORD"
_DRAWN = "--view says what is drawn: with boxes are names and scores, as in both and boxes, with tinted neither"

_OPTIONS: Mapping[str, str] = {
    name: here
    for here, names in {
        "--before": "--pre --pre-roll --preroll --pre-capture --pre-event --prebuffer",
        "--camera-fps": "--webcam-fps",
        "--camera-size": "--webcam-size --webcam-resolution",
        "--classes": "--only --filter --filter-classes",
        "--crops": "--save-crop",
        "--device": "-d",
        "--device cpu": "--cpu",
        "--device cuda": "--gpu --cuda",
        "--end": "--to --until --duration",
        "--ids": "--track-ids --show-ids --show-track",
        "--keep": "--retain --retention",
        "--labels": "--names --label-file --class-names",
        "--line": "--count-line --counting-line --line-zone",
        "--max-frames": "-n --num-frames --frames --limit",
        "--metrics": "--stats --report --benchmark",
        "--model": "-m --weights --checkpoint --config --config-file --engine",
        "--no-show": "--headless --no-display --no-window",
        "--no-sound": "-an --no-audio --mute",
        "--notify": "--webhook --webhook-url --callback --alert --on-event --mqtt --mqtt-url --broker",
        "--output": "--project --save-dir",
        "--overwrite": "-y --force --exist-ok",
        "--quiet": "-q --silent",
        "--reconnect": "--retry --retries",
        "--region": "--roi --zone --polygon --area",
        "--score-threshold": "-t --conf --confidence --threshold --confidence-threshold --conf-thres --conf-thresh "
        "--score-thresh --min-score --min-confidence --prob-threshold",
        "--screen": "--desktop --monitor --screen-capture",
        "--segment": "--split",
        "--serve": "--web --http --port",
        "--show": "--display --window --view-img",
        "--size": "--imgsz --img --img-size --image-size --input-size",
        "--sound": "--audio --with-audio --record-audio",
        "--skip-existing": "--resume --continue",
        "--slices": "--sahi",
        "--start": "-ss --from --begin",
        "--stride": "--vid-stride --frame-skip --skip-frames",
        "--trails": "--trace --traces --path --paths --show-trails --trail-length --trace-length",
        "--transport": "--rtsp-transport",
        "--transport tcp": "--tcp",
        "--transport udp": "--udp",
        "--verbose": "-v --debug",
        "--version": "-V",
        "--view blurred": "--blur --anonymize --anonymise",
        "--view boxes": "--boxes --no-masks --hide-masks",
        "--view cutouts": "--cutout",
        "--view masks": "--masks --mask-only",
        "--view tinted": "--no-labels --hide-labels --no-boxes --hide-boxes",
        "--webcam": "--camera --cam --usb",
    }.items()
    for name in names.split()
}

_SENTENCES: Mapping[str, str] = {
    name: sentence
    for names, sentence in (
        ("-i --input --source --video --video-input --image --images --file --folder --url --rtsp", _WITHOUT_OPTION),
        ("--save", "what is written is named with -o, as in -o annotated.mp4"),
        ("--save-txt --save-json --save-csv --json --csv --coco", _DATA),
        ("--track --tracker", "objects of films are followed anyway; --ids shows their numbers"),
        ("--count --counter", "objects are counted anyway, in the summary; --line counts what crosses a line"),
        ("--iou --nms --agnostic-nms --iou-threshold --nms-threshold --max-det", _OVERLAPS),
        ("--half --fp16 --int8", "a model has one precision; stream-seg export --precision makes one of another"),
        ("--exclude --ignore", "name what is to be shown with --classes"),
        ("--username --user --password", _ADDRESS),
        ("-c --flagfile --options-file --args-file", "options in a file are named as in stream-seg @cameras.txt"),
        ("--list-models", "stream-seg models lists them"),
        ("--list-classes", "stream-seg models info compact lists those of the built-in model"),
        ("--recursive", "a pattern finds what is in subfolders, as in 'photos/**/*.jpg'"),
        ("--tiles --grid", "several sources are tiles anyway, in a window or one -o wall.mp4"),
        ("--show-labels --show-conf --show-scores --show-boxes --hide-conf --hide-scores", _DRAWN),
        ("--line-width --line-thickness --font-size", "lines and letters are as large as suits the picture"),
        ("--retina-masks", "masks are drawn as fine as the picture anyway"),
        ("--show-fps", "live pictures show it anyway, and the summary tells it"),
    )
    for name in names.split()
}


def meant_option(word: str, known: Container[str]) -> str | None:
    """The option of ours, with its value where one is meant, for a name from elsewhere; None where there is none.

    Slips in long names, and underscores for hyphens, do not count. `known` are the options of the command.
    """
    name = word.replace("_", "-")
    if name in known:
        return name
    close = difflib.get_close_matches(name, _OPTIONS, n=1, cutoff=0.85) if len(name) > 5 else []
    here = _OPTIONS.get(name) or next((_OPTIONS[found] for found in close), None)
    return here if here and here.split()[0] in known else None


def sentence_on(word: str) -> str | None:
    """What the main command has in place of an option that it does not need; None where nothing is to say."""
    return _SENTENCES.get(word.replace("_", "-"))
