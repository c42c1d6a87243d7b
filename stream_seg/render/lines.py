"""Owns how lines look that count what crosses them: the line, an arrow to the side that is in, and the counts, which
are numbered as in the summary of a run where there are several lines."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2

from stream_seg.detections import Crossings
from stream_seg.frame import Image
from stream_seg.geometry import Point, part_within
from stream_seg.render.labels import Labels
from stream_seg.render.palette import BLACK, WHITE

_ARROW = 1.5
"""Its length, in heights of letters."""


def draw_lines(image: Image, lines: Sequence[Crossings], labels: Labels, line: int, letters: int) -> None:
    """Draw `lines`, `line` pixels wide, and their counts in letters `letters` pixels high.

    Arrows come after all lines, which would cross them out, and so do counts, which keep clear of the arrows, as later
    labels will. Of several lines they have the number, from 1 on, which counts those outside of the picture, too.
    """
    strokes = (BLACK, 3 * line), (WHITE, line)
    arrows, counts = [], []
    for number, crossings in enumerate(lines, 1):
        seen = part_within(crossings.start, crossings.end, (image.shape[1], image.shape[0]))
        if seen is None:
            continue
        (x1, y1), (x2, y2) = seen
        middle = (x1 + x2) / 2, (y1 + y2) / 2
        reach = _ARROW * letters / max(math.dist(*seen), 1)
        tail, head = _whole(middle), _whole((middle[0] - (y2 - y1) * reach, middle[1] + (x2 - x1) * reach))
        for tone, width in strokes:
            cv2.line(image, _whole(seen[0]), _whole(seen[1]), tone, width, cv2.LINE_AA)
        arrows.append((tail, head))
        room = letters // 2 + line  # for the head of the arrow
        (left, right), (top, bottom) = (sorted(ends) for ends in zip(tail, head, strict=True))
        around = left + 2 * line, top - room, right + room, bottom + room
        labels.keep_free(around)
        counts.append((f"line {number}  " if len(lines) > 1 else "", crossings, around))
    for tail, head in arrows:
        for tone, width in strokes:
            cv2.arrowedLine(image, tail, head, tone, width, cv2.LINE_AA, tipLength=0.4)
    for name, crossings, around in counts:
        into, out = (sum(crossings.counts[direction].values()) for direction in ("in", "out"))
        labels.draw(image, f"{name}in {into}  out {out}", around, letters, BLACK)


def _whole(point: Point) -> tuple[int, int]:
    return round(point[0]), round(point[1])
