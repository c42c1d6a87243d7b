"""Text in columns of a terminal: names of all scripts make straight tables."""

from __future__ import annotations

import pytest

from stream_seg.cli import report
from stream_seg.columns import columns, legible, legible_name, padded
from stream_seg.detections import Detections
from stream_seg.evaluate import Accuracy, _table
from stream_seg.metrics import Metrics
from stream_seg.segmenters import FunctionSegmenter


@pytest.mark.parametrize(
    ("text", "width"),
    [("door", 4), ("", 0), ("日本語", 6), ("cafe\u0301", 4), ("café", 4), ("ﾊﾟ", 2), ("\u1112\u1161\u11ab", 2)],
)
def test_letters_take_as_many_columns_as_in_a_terminal(text: str, width: int) -> None:
    assert columns(text) == width
    assert padded(text, 8) == text + " " * (8 - width)


def test_a_text_that_is_too_wide_is_left_as_it_is() -> None:
    assert padded("日本語", 4) == "日本語"


def test_control_characters_are_told_and_not_obeyed() -> None:
    assert legible("日本語 \x1b[1mdoor\n\x9b1m\t\x7f\\") == "日本語 \\x1b[1mdoor\n\\x9b1m\\t\\x7f\\"
    assert legible_name("two\nlines\r") == r"two\nlines\r"


def test_the_table_of_an_evaluation_is_straight_whatever_the_names_of_classes() -> None:
    lines = [Accuracy(name, 12, *[1.0] * 6) for name in ("オートバイ", "truck", "cafe\u0301s")]
    assert len({columns(line) for line in _table(lines)}) == 1


def test_the_summary_of_several_sources_is_straight_whatever_their_names() -> None:
    summary = Metrics(["日本語カメラ", "a door"]).summary()
    text = report.text([None, None], FunctionSegmenter(lambda _: Detections.none(()), ()), summary, [])
    ends = [columns(line.partition(" 0.0 fps")[0]) for line in text.splitlines()[-2:]]
    assert ends == [2 + 12, 2 + 12]
