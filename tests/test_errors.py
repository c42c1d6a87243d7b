"""Hints: a near word is named, a far one is not."""

from __future__ import annotations

import pytest

from stream_seg.coco import COCO_NAMES, EVERYDAY
from stream_seg.errors import closest, did_you_mean

OPTIONS = ("--ids", "--version", "--metrics", "--reconnect", "--score-threshold", "--max-fps", "--output")


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("preson", "person"),
        ("Persn", "person"),
        ("dogs", "dog"),
        ("brocolli", "broccoli"),
        ("hotdog", "hot dog"),
        ("racket", "tennis racket"),
        ("people", None),
        ("mobile", None),
        ("duck", None),
        ("tree", None),
        ("cap", None),
        ("", None),
    ],
)
def test_classes(word: str, meant: str | None) -> None:
    assert closest(word, COCO_NAMES) == meant


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("--score-treshold", "--score-threshold"),
        ("--threshold", "--score-threshold"),
        ("--out", "--output"),
        ("--fps", "--max-fps"),
        ("--id", "--ids"),
        ("-ids", "--ids"),
        ("--count", None),
        ("--hide", None),
        ("--track", None),
        ("--save-crop", None),
        ("--metric-space", None),
    ],
)
def test_options(word: str, meant: str | None) -> None:
    assert closest(word, OPTIONS) == meant


@pytest.mark.parametrize(
    ("word", "known", "hint"),
    [
        (".mp", (".mov", ".mp4"), " (did you mean '.mp4'?)"),
        (".mp5", (".mov", ".mp4"), " (did you mean '.mp4'?)"),
        ("upd", ("tcp", "udp"), " (did you mean 'udp'?)"),
        ("gpu", ("auto", "cpu", "cuda"), ""),
        ("holidy.mp4", ("a.mp4", "Holiday.mp4"), " (did you mean 'Holiday.mp4'?)"),
        ("a", (), ""),
    ],
)
def test_others(word: str, known: tuple[str, ...], hint: str) -> None:
    assert did_you_mean(word, known) == hint


def test_words_of_every_day_stand_for_classes_and_are_none() -> None:
    assert set(EVERYDAY.values()) <= set(COCO_NAMES)
    assert not set(EVERYDAY) & set(COCO_NAMES)
