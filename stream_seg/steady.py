"""Owns what is shown of a film, whose objects should not flicker: what is found, given what was found before.

A network that looks at each frame by itself sees an object in one, misses it in the next, and sees a ghost in a third.
So what it is not sure of is shown once it has been found a few times, and what was shown and hardly moved is shown for
a moment longer where it is missed, unless the picture has changed there. Trackers begin and end tracks like that (SORT:
Bewley 2016, arXiv 1602.00763). What is shown has a number, which stays the same for as long as it can be followed. What
all that gives is in docs/performance.md, as scripts/bench_steady.py measures it.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from stream_seg.detections import Detections, check_found, is_score
from stream_seg.errors import UsageError
from stream_seg.frame import Frame, Image, check_frame
from stream_seg.geometry import Boxes, continued, overlaps_of_class, regridded, resize, sample_box
from stream_seg.motion import PictureMotion
from stream_seg.naming import best_named

SURE = 0.65
"""What has this score is shown at once; see `Steady` for `shown_from`."""
OFTEN = 4
"""In how many frames an object must have been found that is less sure."""
MISSED = 2
"""In how many frames in a row an object may be missed, and be the same one afterwards."""
APART = 0.25
"""Seconds between frames from which on each is shown by itself; an object that is missed for longer is gone."""
DOUBTFUL = 0.7
"""Times the score that objects are `shown_from`: what is so likely in one look may be more so in another."""
REMEMBERED = 1.0
"""For how many seconds what is gone keeps its number, should it come back to where it was. What the frame before shows
keeps it in any case: a model that takes longer than that for a frame shows nothing else of a camera."""

_SAME = 0.3  # intersection over union with the box before
_STILL = 0.6  # the same of an object that may be shown where it is missed: the outline of one that moves would lag
_RATHER = 0.1  # by so much it is less of one that went with the picture, where something large took that for its own
_CELLS, _CHANGED = (8, 8), 30.0  # a box in so few cells differs by this much of 255 where there is something else
_NEWEST = 0.3  # share of the newest score in the one that is shown
_STAYS = 0.9  # times the score that objects are shown from: what is shown stays so from this one on
_NEAR, _PER_SIZE = 0.4, 4.0  # the same of a box: so much of one in the same place, all of one that moved by a seventh
_BOTH = 6.0  # the frame before is half of what is in the same place, and nothing of what moved by a sixth
_ALIKE = 0.3  # and of a cell of a mask: so much of one that is as before, all of one that changed by 0.7

_KEEPS_ITS_NAME = 0.1  # by so much another name must be likelier than the one in the frame before

_NOWHERE = np.zeros(2, np.float32)  # what has moved so far has not moved
_NOTHING: Image = np.zeros((0, 0, 3), np.uint8)
_KNOWN = np.dtype(
    [
        ("number", "i8"),
        ("seen", "f8"),
        ("age", "i8"),
        ("times", "i8"),
        ("missed", "i8"),
        ("shown", "?"),
        ("stays", "?"),
    ]
)
"""Of an object: its number, 0 until it is shown; when it was found last, how many frames there were since it was found
first, in how many of them it was found, and missed since; whether it is shown, and stays so where it is missed."""


class Steady:
    """Makes what a segmenter finds in the frames of a film into what is shown. Use one per film.

    Scores are averaged over the frames of an object, and so are boxes and masks, the more so the less they change. What
    a camera moves by panning or shaking goes with the picture, see `motion`: it keeps its number, and is held there.
    Of a thing that has several names the best is shown, see `naming`. Images of their own are else shown as they are,
    and so are the first frame, one that comes more than `APART` after the one before, and one whose classes have other
    names: nothing is known then that tells ghosts apart.

    Without `withhold` all that is found is shown, at once, by all its names, and where it was found; where it is
    missed, it is shown for up to `APART` seconds longer, and in the next frame however late that comes, whether it
    moves or not. So it is for pictures in which objects are hidden, as in the view "blurred" of `Renderer`: to hide
    what is none does no harm.

    `Detections.ids` are numbers from 1 on, as objects were first shown, by whatever name; images of their own have
    none.

    `shown_from` is for a segmenter that sees every other frame mirrored, in which it makes other mistakes, and tells of
    what has at least `DOUBTFUL` times that score: shown is what has it on average, where frames that miss it count 0,
    once two in a row have found it. Without `withhold` it changes nothing.
    """

    def __init__(self, *, withhold: bool = True, shown_from: float | None = None) -> None:
        """Raise `UsageError` for a `shown_from` that is no score."""
        if shown_from is not None and not is_score(shown_from):
            raise UsageError(f"shown_from must be a score between 0 and 1, not {shown_from!r}")
        self.shown_from = shown_from
        self._withhold = withhold
        self._objects = Detections.none(())
        self._latest = self._objects  # as they were found last
        self._known = np.zeros(0, _KNOWN)
        self._gone = _Gone()
        self._numbers = 0
        self._places = np.zeros(0, np.int64)  # of what the frame before showed, among the objects
        self._shown = np.zeros(0, np.int64)  # its numbers
        self._names: tuple[str, ...] = ()
        self._image = _NOTHING
        self._motion = PictureMotion()
        self._has_moved = False  # what is known, with the picture
        self._at = 0.0

    def __call__(self, frame: Frame, found: Detections) -> Detections:
        """What to show of `frame`, most confident first. Call it once per frame, in order."""
        check_frame(frame)
        check_found(found)
        if frame.is_still:
            self._image = _NOTHING
            likely = self._are_likely(found.scores)
            found = found if likely.all() else found[likely]
            return _of_one_name(found) if self._withhold else found
        if frame.is_unchanged and frame.image.shape == self._image.shape and float(frame.pts) >= self._at:
            return self._as_before(frame, found)
        found = found[np.flatnonzero(np.isfinite(found.boxes).all(1))]  # others have no place
        now = float(frame.pts)
        renamed = len(found) > 0 and found.class_names != self._names != ()
        is_another = renamed or frame.image.shape != self._image.shape or now < self._at
        begins = is_another or (self._withhold and not 0 < now - self._at <= APART)
        if begins:
            self._gone.add(self._objects, self._known)
            self._objects, self._latest, self._known = found[:0], found[:0], self._known[:0]
            self._has_moved = False
        moved = _NOWHERE
        if is_another:
            self._gone = _Gone()
        elif self._withhold:
            moved = self._go_along(frame.image, found)
        self._add(found, frame.image, now, moved)
        self._image, self._at = frame.image, now
        self._names = found.class_names if len(found) else self._names
        if begins:
            self._known["shown"] = self._are_likely(found.scores)
        shown = np.flatnonzero(self._known["shown"] & (self._known["stays"] | (self._known["missed"] == 0)))
        shown = shown[np.argsort(-self._objects.scores[shown], kind="stable")]
        objects = self._objects[shown]
        if self._withhold:
            remains = self._named(objects, shown)
            if not remains.all():
                objects, shown = objects[remains], shown[remains]
        self._places, self._shown = shown, self._numbered(shown)
        return self._of_frame(objects, frame, found)

    def _go_along(self, image: Image, found: Detections) -> NDArray[np.float32]:
        """Have what is known move with the picture, as far (x, y) as a camera has moved that since the frame before.

        Objects that are rather `found` where they were stay: most of the picture may be something large that moves.
        """
        if not (len(self._objects) or len(self._gone)):
            return _NOWHERE
        moved = self._motion(self._image, image)
        if moved.any():
            self._has_moved = True
            self._gone.move(moved)
            along = _shifted(moved, self._objects)
            there, here = (overlaps_of_class(found, some).max(0, initial=0) for some in (along, self._objects))
            step = ((there > here - _RATHER) | (here < _STILL))[:, None] * moved
            self._objects, self._latest = _shifted(step, self._objects), _shifted(step, self._latest)
        return moved

    def _as_before(self, frame: Frame, found: Detections) -> Detections:
        """What the frame before showed, of which nothing new is known: it was found once, not twice."""
        now = float(frame.pts)
        self._known["seen"] += now - self._at
        self._at = now  # the image stays that which was looked at: from there on, what is known goes with the picture
        objects = self._objects[self._places]
        return self._of_frame(objects, frame, found)

    def _of_frame(self, objects: Detections, frame: Frame, found: Detections) -> Detections:
        """The objects with their numbers, and with what else was `found` that is of the frame rather than of them."""
        if self._has_moved:  # and what is known may reach beyond the picture, also once that rests
            objects = _inside(objects, frame.image)
        return replace(
            objects, ids=self._shown.copy(), lines=found.lines, regions=found.regions, occupancy=found.occupancy
        )

    def _add(self, found: Detections, image: Image, now: float, moved: NDArray[np.float32]) -> None:
        """Put what is found in the place of the objects that it continues, and let go of others that are gone.

        The picture has `moved` by (x, y).
        """
        before, overlap = continued(found, self._objects, _SAME)
        self._reach(found, before)
        again = before >= 0
        known = np.zeros(len(found), _KNOWN)
        known[again] = self._known[before[again]]
        known["seen"], known["missed"] = now, 0
        known["times"] += 1
        were_shown = known["shown"].copy()
        if self._least is None:
            known["shown"] |= (found.scores >= SURE) | (known["times"] >= OFTEN)
        else:  # in this frame and the one before, of which one was mirrored
            known["shown"][again] |= self._known["missed"][before[again]] == 0
        known["stays"] = overlap >= _STILL
        if not self._withhold:
            known["shown"] = known["stays"] = True
        scores, boxes, masks = found.scores.astype(np.float32), found.boxes, found.masks
        newest = self._newest()
        scores[again] += (1 - newest[before[again]]) * (self._objects.scores[before[again]] - scores[again])
        if self._withhold and again.any():
            boxes, masks = boxes.copy(), masks.copy()
            boxes[again], masks[again] = self._calm(boxes[again], masks[again], before[again])
        if not again.all():
            known["number"][~again] = self._gone.claimed(found[~again], min(now - REMEMBERED, self._at))

        missed = now - self._known["seen"] <= APART
        if self._withhold:
            missed &= self._known["missed"] < MISSED
        else:
            missed |= self._known["missed"] == 0
        missed[before[again]] = False
        self._known["missed"] += 1
        for i in np.flatnonzero(missed & self._known["stays"] & self._withhold):
            self._known["stays"][i] = _looks_alike(self._image, image, self._objects.boxes[i], moved)
        gone = ~missed
        gone[before[again]] = False
        if gone.any():
            self._gone.add(self._objects[gone], self._known[gone])
        going_on, looks = self._objects[missed], self._latest[missed]
        if len(going_on) and len(found):
            going_on, looks = (
                replace(some, masks=regridded(some.masks, found.masks.shape[1:])) for some in (going_on, looks)
            )
        if self._least is not None:
            going_on = replace(going_on, scores=(1 - newest[missed]) * going_on.scores)
        self._objects = _joined(replace(found, boxes=boxes, scores=scores, masks=masks), going_on)
        self._latest, self._known = _joined(found, looks), np.concatenate([known, self._known[missed]])
        self._known["age"] += 1
        were_shown = np.concatenate([were_shown, self._known["shown"][len(found) :]])
        self._known["shown"] &= self._are_likely(self._objects.scores, were_shown)

    @property
    def _least(self) -> float | None:
        """The score that objects are shown from, None where any will do."""
        return self.shown_from if self._withhold else None

    def _are_likely(self, scores: NDArray[np.float32], were: NDArray[np.bool_] | bool = False) -> NDArray[np.bool_]:
        """Whether scores (N,) are such as are shown; for those that `were` less is enough."""
        if self._least is None:
            return np.ones(len(scores), np.bool_)
        return np.asarray(scores > self._least * np.where(were, _STAYS, 1), np.bool_)

    def _calm(
        self, boxes: Boxes, masks: NDArray[np.float32], before: NDArray[np.int64]
    ) -> tuple[Boxes, NDArray[np.float32]]:
        """Boxes and masks of what is found, which continues the objects at the places `before`, as they are shown."""
        old, old_masks = self._objects.boxes[before], self._objects.masks[before]
        if self._least is None:
            shown = _eased(old, boxes)
            return shown, _calmed(old_masks, _seen_in(shown, boxes, masks))
        latest, latest_masks = self._latest.boxes[before], self._latest.masks[before]
        share = _share_before(latest, boxes)
        shown = _eased(old, _between(boxes, latest, share[:, None]))
        seen = _seen_in(shown, boxes, masks)
        others = regridded(_seen_in(shown, latest, latest_masks), seen.shape[1:])
        return shown, _calmed(old_masks, _between(seen, others, share[:, None, None]))

    def _newest(self) -> NDArray[np.float32]:
        """The share (N,) of the newest score of each object; with `shown_from`, new ones have the mean of looks."""
        newest = np.full(len(self._known), _NEWEST, np.float32)
        if self._least is None:
            return newest
        return np.maximum(newest, 1 / (1 + self._known["age"]), dtype=np.float32)

    def _reach(self, found: Detections, before: NDArray[np.int64]) -> None:
        """Have what is left over continue objects that are left over, too, if these were found last, and not at rest.

        Boxes of what is fast hardly overlap, but larger ones around them do (C-BIoU: Yang 2022, arXiv 2211.14317).
        """
        moves = ~self._known["stays"] & (self._known["missed"] == 0)
        moves[before[before >= 0]] = False
        new, old = np.flatnonzero(before < 0), np.flatnonzero(moves)
        if len(new) and len(old):
            which, _ = continued(_grown(found[new]), _grown(self._objects[old]), _SAME)
            again = which >= 0
            before[new[again]] = old[which[again]]

    def _named(self, objects: Detections, places: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of the objects at these places have the best name of each thing, whose number goes with it."""
        numbers = self._known["number"]
        before = (numbers[places, None] == self._shown).any(1)
        best = best_named(objects, objects.scores + _KEEPS_ITS_NAME * before)
        remains: NDArray[np.bool_] = best == np.arange(len(best))
        for old in np.flatnonzero(before & ~remains):
            new = best[old]
            if not before[new]:
                numbers[places[[old, new]]] = numbers[places[[new, old]]]
                before[new] = True
        return remains

    def _numbered(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers of the objects at these places; those that have none get one."""
        numbers = self._known["number"]
        new = places[numbers[places] == 0]
        numbers[new] = self._numbers + 1 + np.arange(len(new))
        self._numbers += len(new)
        return numbers[places]


class _Gone:
    """Objects that had a number and are gone, and what is known of them."""

    def __init__(self) -> None:
        self._objects = Detections.none((), 1)
        self._known = np.zeros(0, _KNOWN)

    def add(self, objects: Detections, known: NDArray[np.void]) -> None:
        """Remember those of `objects` that have a number."""
        had = known["number"] > 0
        if had.any():
            kept = replace(objects[had], masks=np.zeros((int(had.sum()), 1, 1), np.float32))
            self._objects = _joined(self._objects, kept)
            self._known = np.concatenate([self._known, known[had]])

    def claimed(self, found: Detections, since: float) -> NDArray[np.int64]:
        """The numbers (N,) of those of `found` that were here `since` then, which are not gone any more; 0 for others.

        Those that were last found before are forgotten.
        """
        self._keep(self._known["seen"] >= since)
        before, _ = continued(found, self._objects, _SAME)
        again = before >= 0
        numbers = np.zeros(len(found), np.int64)
        numbers[again] = self._known["number"][before[again]]
        left = np.ones(len(self._objects), np.bool_)
        left[before[again]] = False
        self._keep(left)
        return numbers

    def move(self, step: NDArray[np.float32]) -> None:
        """Have them go with a picture that has moved by (x, y)."""
        self._objects = _shifted(step, self._objects)

    def __len__(self) -> int:
        return len(self._objects)

    def _keep(self, wanted: NDArray[np.bool_]) -> None:
        if not wanted.all():
            self._objects, self._known = self._objects[wanted], self._known[wanted]


def _of_one_name(found: Detections) -> Detections:
    """Each thing by the likeliest of its names."""
    remains = best_named(found, found.scores) == np.arange(len(found))
    return found if remains.all() else found[remains]


def _shifted(step: NDArray[np.float32], objects: Detections) -> Detections:
    """The objects (x, y) further: all, or each by a step of its own, (N, 2)."""
    return replace(objects, boxes=objects.boxes + np.tile(step, 2))


def _inside(objects: Detections, image: Image) -> Detections:
    """As much of each object as is in the image."""
    boxes = objects.boxes.clip(0, np.array(2 * image.shape[1::-1], np.float32))
    cut = (boxes != objects.boxes).any(1)
    if not cut.any():
        return objects
    masks = objects.masks.copy()
    masks[cut] = _seen_in(boxes[cut], objects.boxes[cut], masks[cut])
    return replace(objects, boxes=boxes, masks=masks)


def _grown(found: Detections) -> Detections:
    """What is found in boxes of twice the width and height."""
    more = (found.boxes[:, 2:] - found.boxes[:, :2]) / 2
    return replace(found, boxes=np.concatenate([found.boxes[:, :2] - more, found.boxes[:, 2:] + more], 1))


def _looks_alike(before: Image, after: Image, box: NDArray[np.float32], moved: NDArray[np.float32]) -> bool:
    """Whether an image shows in a box about what the one before did where that has `moved` from; after a cut not."""
    pair = [_part_of(before, box - np.tile(moved, 2)), _part_of(after, box)]
    if not (pair[0].size and pair[1].size):
        return False
    one, other = (resize(image, _CELLS).astype(np.int16) for image in pair)
    return bool(np.abs(one - other).mean() < _CHANGED)


def _part_of(image: Image, box: NDArray[np.float32]) -> Image:
    """All pixels of which a part is in the box; none where it is outside of the image."""
    left, top, right, bottom = box.clip(0, [*image.shape[1::-1]] * 2).tolist()
    return image[int(top) : math.ceil(bottom), int(left) : math.ceil(right)]


def _share_before(old: Boxes, new: Boxes) -> NDArray[np.float32]:
    """How much (N,) of the frame before is taken for each: an image and its mirror image move boxes to and fro."""
    return np.asarray(0.5 * np.maximum(0, 1 - _BOTH * _moved(new - old, new)), np.float32)


def _between(new: NDArray[np.float32], old: NDArray[np.float32], share: NDArray[np.float32]) -> NDArray[np.float32]:
    """What is `old` by this share, and else `new`."""
    return new + share * (old - new)


def _moved(step: Boxes, boxes: Boxes) -> NDArray[np.float32]:
    """How far edges moved on average, in sizes of the boxes that they moved to."""
    size = np.sqrt(np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(1), 1))
    return np.asarray(np.abs(step).mean(1) / size, np.float32)


def _eased(old: Boxes, new: Boxes) -> Boxes:
    """Boxes on the way from the old ones to the new: small steps are mostly the network's, large ones the object's."""
    step = new - old
    share = np.minimum(1, _NEAR + _PER_SIZE * _moved(step, new))
    return np.asarray(old + share[:, None] * step, np.float32)


def _seen_in(boxes: Boxes, old: Boxes, masks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Masks over `old` boxes, which stay where they are in the picture, on grids over other `boxes` (N, 4)."""
    cells = masks.shape[2], masks.shape[1]
    corners, sides = old[:, :2], old[:, 2:] - old[:, :2]
    places = (boxes.reshape(-1, 2, 2) - corners[:, None]) / np.maximum(sides, 1e-3)[:, None] * cells
    sampled = [sample_box(*both, cells) for both in zip(masks, places.reshape(-1, 4), strict=True)]
    return np.asarray(sampled, np.float32)


def _calmed(old: NDArray[np.float32], new: NDArray[np.float32]) -> NDArray[np.float32]:
    """Masks on the way from the old ones to the new: where edges waver they change little, where limbs move much."""
    old = regridded(old, new.shape[1:])
    old = np.where(np.isfinite(old), old, new)  # else what is no number once, of a broken model, would stay
    change = new - old
    return np.asarray(old + np.minimum(1, _ALIKE + np.abs(change)) * change, np.float32)


def _joined(first: Detections, second: Detections) -> Detections:
    """Both, whose masks are of one size."""
    if not len(second):
        return first
    if not len(first):
        return second
    return Detections(
        np.concatenate([first.boxes, second.boxes]),
        np.concatenate([first.scores, second.scores]),
        np.concatenate([first.class_ids, second.class_ids]),
        np.concatenate([first.masks, second.masks]),
        first.class_names,
    )
