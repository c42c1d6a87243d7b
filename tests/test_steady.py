"""What is shown of a film: sure things at once, others once several frames agree, and no gaps in what stands still."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from stream_seg.detections import Crossings, Detections
from stream_seg.errors import UsageError
from stream_seg.frame import Frame
from stream_seg.geometry import paste
from stream_seg.steady import APART, MISSED, OFTEN, REMEMBERED, SURE, Steady

NAMES = ("cat", "dog", "fox")
HERE = (10.0, 10.0, 50.0, 60.0)
THERE = (200.0, 10.0, 260.0, 60.0)
Box = tuple[float, float, float, float]
ONE_BY_ONE = ("boxes", "scores", "class_ids", "masks")


def found(*objects: tuple[Box, float], class_id: int = 0, mask: int = 28) -> Detections:
    return Detections(
        np.array([box for box, _ in objects], np.float32).reshape(-1, 4),
        np.array([score for _, score in objects], np.float32),
        np.full(len(objects), class_id, np.int64),
        np.full((len(objects), mask, mask), 0.9, np.float32),
        NAMES,
    )


def moved(step: float) -> Box:
    return HERE[0] + step, HERE[1], HERE[2] + step, HERE[3]


NOTHING = found()
UNSURE = found((HERE, SURE - 0.1))


class Film:
    """Asks for frame after frame, `gap` seconds apart. In the first there is nothing, unless said."""

    def __init__(
        self,
        *,
        gap: float = 0.04,
        first: Detections = NOTHING,
        withhold: bool = True,
        shown_from: float | None = None,
    ) -> None:
        self._steady = Steady(withhold=withhold, shown_from=shown_from)
        self._gap = Fraction(gap).limit_denominator(1000)
        self._number = 0
        self.brightness = 100
        self.first = self.next(first)

    def next(
        self, detections: Detections, *, still: bool = False, later: float = 0, size: tuple[int, int] = (64, 48)
    ) -> Detections:
        self._number += 1
        pts = self._number * self._gap + Fraction(later)
        image = np.full((size[1], size[0], 3), self.brightness, np.uint8)
        frame = Frame(image, self._number, pts, 0.0, is_still=still)
        return self._steady(frame, detections)

    @property
    def gone(self) -> Detections:
        return self._steady._gone._objects

    def counts(self, frames: Sequence[Detections]) -> list[int]:
        return [len(self.next(frame)) for frame in frames]


def test_what_is_sure_is_shown_at_once_and_the_rest_when_it_was_found_often() -> None:
    assert Film().counts([found((HERE, SURE))] * 2) == [1, 1]
    assert Film().counts([UNSURE] * (OFTEN + 1)) == [0] * (OFTEN - 1) + [1, 1]


def test_a_ghost_of_a_frame_or_two_is_never_seen_however_often_it_comes() -> None:
    ghost = [UNSURE, UNSURE, *[NOTHING] * (MISSED + 1)]
    assert Film().counts(ghost * 5) == [0] * len(ghost) * 5


def test_a_frame_in_which_it_is_missed_does_not_make_an_object_new() -> None:
    film = Film()
    frames = [UNSURE, NOTHING, UNSURE, NOTHING, UNSURE, NOTHING, UNSURE]
    assert film.counts(frames) == [0] * 6 + [1]


def test_an_object_that_stands_is_shown_where_it_is_missed_but_not_for_long() -> None:
    film = Film()
    one = found((HERE, 0.9))
    assert film.counts([one, one, *[NOTHING] * (MISSED + 2), one]) == [1, 1, *[1] * MISSED, 0, 0, 1]
    film.next(one)
    filled = film.next(found((THERE, 0.8)))
    assert filled.boxes.tolist() == [list(HERE), list(THERE)]
    assert filled.masks.shape == (2, 28, 28)


def test_after_a_cut_nothing_is_left_of_what_was_seen_before_it() -> None:
    film = Film()
    one = found((HERE, 0.9))
    assert film.counts([one, one]) == [1, 1]
    film.brightness += 20  # a lamp
    assert film.counts([NOTHING, one]) == [1, 1]
    film.brightness += 40
    assert film.counts([NOTHING]) == [0]
    film.next(one)
    film.next(one)
    assert len(film.next(NOTHING, size=(48, 64))) == 0


def test_an_object_that_moves_is_not_shown_where_it_was() -> None:
    film = Film()
    places = [(HERE[0] + 16 * step, HERE[1], HERE[2] + 16 * step, HERE[3]) for step in range(4)]
    for place in places[:3]:
        assert film.next(found((place, 0.9))).boxes.tolist() == [list(place)]
    assert len(film.next(NOTHING)) == 0
    # It is still the same one: it need not be sure to be shown again.
    assert len(film.next(found((places[3], 0.45)))) == 1


def test_what_is_fast_is_the_same_object_though_its_boxes_hardly_overlap() -> None:
    film = Film()
    shown = [film.next(found((moved(30 * step), SURE - 0.1))) for step in range(OFTEN + 3)]
    assert [numbers(one) for one in shown] == [[]] * (OFTEN - 1) + [[1]] * 4
    assert shown[-1].boxes.tolist() == [list(moved(30 * (OFTEN + 2)))]


def test_what_comes_beside_an_object_at_rest_or_one_that_was_missed_is_another() -> None:
    beside = found((moved(30), 0.9))
    rests = Film(first=found((HERE, 0.9)))
    assert [numbers(rests.next(one)) for one in (found((HERE, 0.9)), beside)] == [[1], [2, 1]]  # shown a moment longer
    missed = Film(first=found((HERE, 0.9)))
    assert [numbers(missed.next(one)) for one in (NOTHING, beside)] == [[], [2]]
    film = Film(first=found((HERE, 0.9)))
    film.next(found((HERE, 0.9)))
    assert numbers(film.next(found((HERE, 0.9), (moved(14), 0.8)))) == [1, 2]


def test_scores_are_averaged_and_the_best_comes_first() -> None:
    film = Film(first=found((HERE, 0.9), (THERE, 0.8)))
    given = found((THERE, 0.82), (HERE, 0.5))
    after = film.next(given)
    assert after.boxes.tolist() == [list(THERE), list(HERE)]
    assert after.scores.tolist() == pytest.approx([0.806, 0.78])
    assert given.scores.tolist() == pytest.approx([0.82, 0.5])  # as they were given


@pytest.mark.parametrize(("shown_from", "averages"), [(None, [1, 1, 1]), (0.5, [1, 2 / 3, 2 / 3 + 0.3 / 3])])
def test_scores_of_whole_numbers_are_averaged_too(shown_from: float | None, averages: list[float]) -> None:
    certain = dataclasses.replace(found((HERE, 1.0)), scores=np.ones(1, int))
    film = Film(first=certain, shown_from=shown_from)
    shown = [film.next(one) for one in (certain, NOTHING, certain)]
    assert [one.scores.dtype for one in shown] == [np.float32] * 3
    assert [one.scores.item() for one in shown] == pytest.approx(averages)


def test_a_box_that_trembles_is_held_and_one_that_moves_is_followed() -> None:
    film = Film(first=found((HERE, 0.9)))
    for step in (2, -2, 2, -2):
        trembling = film.next(found(((HERE[0] + step, *HERE[1:]), 0.9)))
        assert abs(trembling.boxes[0, 0] - HERE[0]) < 1.2
    far = (HERE[0] + 10, HERE[1] + 10, HERE[2] + 10, HERE[3] + 10)
    assert film.next(found((far, 0.9))).boxes.tolist() == [list(far)]


def test_an_outline_stays_where_it_is_found_in_the_picture_where_the_box_is_held() -> None:
    size, film = (640, 480), Film()
    before, after = (found(((80.0, 40.0, 80 + width, 440.0), 0.9)) for width in (400, 400 * 14 / 13))
    before.masks[:, :, 14:] = after.masks[:, :, 13:] = 0.1  # the object ends at 280
    film.next(before, size=size)
    shown = film.next(after, size=size)
    assert 490 < shown.boxes[0, 2] < 500
    ends = [int(paste(one, size)[0, 240].sum()) for one in (before, after, shown)]
    assert ends == pytest.approx([200] * 3, abs=3)  # stretched with the box it would be 192


def test_an_edge_that_wavers_is_held_and_one_that_moves_is_followed() -> None:
    first = found((HERE, 0.9))
    first.masks[0, :, 14] = 0.55
    film = Film(first=first)
    wavers = found((HERE, 0.9))
    wavers.masks[0, :, 14], wavers.masks[0, :, 15] = 0.46, 0.0
    shown = film.next(wavers).masks[0, 0]
    assert (shown > 0.5).tolist() == [True] * 15 + [False] + [True] * 12
    assert 0.46 < shown[14] < 0.55
    assert shown[15] == 0.0
    assert wavers.masks[0, 0, 14] == np.float32(0.46)  # it was copied


def test_a_mask_that_is_no_number_once_comes_back() -> None:
    film, broken = Film(first=found((HERE, 0.9))), found((HERE, 0.9))
    broken.masks[0, :5] = np.nan
    assert np.isnan(film.next(broken).masks).any()
    assert (film.next(found((HERE, 0.9))).masks == found((HERE, 0.9)).masks).all()


@pytest.mark.parametrize("shown_from", [None, 0.5])
def test_where_nothing_is_withheld_all_is_shown_where_it_was_found(shown_from: float | None) -> None:
    film = Film(withhold=False, shown_from=shown_from)
    places = [(HERE[0] + step, HERE[1], HERE[2] + 3 * step, HERE[3]) for step in range(3)]
    for place in places:
        shown = film.next(found((place, 0.2), (THERE, 0.1)))
        assert shown.boxes.tolist() == [list(place), list(THERE)]
        assert numbers(shown) == [1, 2]


@pytest.mark.parametrize("shown_from", [None, 0.5])
def test_where_nothing_is_withheld_what_is_missed_is_shown_for_a_quarter_of_a_second_whatever_happens(
    shown_from: float | None,
) -> None:
    film = Film(first=found((HERE, 0.9)), withhold=False, shown_from=shown_from)
    moved = (HERE[0] + 16, HERE[1], HERE[2] + 16, HERE[3])
    film.next(found((moved, 0.2)))
    film.brightness += 120  # a flash
    ghost = found(((400.0, 0.0, 450.0, 50.0), 0.3), mask=14)
    assert [list(moved) in film.next(frame).boxes.tolist() for frame in (NOTHING, ghost)] == [True, True]
    shown = film.next(ghost)
    assert (shown.masks.shape, shown.masks.min()) == ((2, 14, 14), np.float32(0.9))
    assert film.counts([NOTHING] * 8) == [2, 2, 2, 1, 1, 1, 0, 0]


@pytest.mark.parametrize("gap", [0.0, APART + 0.05, 5.0])
def test_where_nothing_is_withheld_what_is_missed_is_shown_in_the_next_frame_however_late(gap: float) -> None:
    film = Film(gap=gap, first=found((HERE, 0.9)), withhold=False)
    assert film.counts([NOTHING, NOTHING]) == ([1, 1] if gap == 0 else [1, 0])
    there = film.next(found((THERE, 0.9)))
    assert sorted(numbers(there)) == ([1, 2] if gap == 0 else [2])
    assert numbers(film.next(found((HERE, 0.9), (THERE, 0.9)), size=(48, 64))) == [3, 4]  # another film


def test_another_class_in_the_same_place_is_another_object() -> None:
    film = Film(first=found((HERE, 0.9)))
    film.next(found((HERE, 0.9)))
    assert film.next(found((HERE, 0.5), class_id=1)).names == ["cat"]


def test_nothing_is_held_back_where_nothing_is_known() -> None:
    film = Film(first=UNSURE)
    assert len(film.first) == 1
    assert len(film.next(found((THERE, 0.5)))) == 0
    assert len(film.next(found((THERE, 0.5)), later=APART)) == 1
    assert Film(gap=0).counts([UNSURE] * 2) == [1, 1]  # nor where time stands
    # Its time goes back, as when a camera was away and begins anew.
    assert len(film.next(UNSURE, later=-10)) == 1


def test_frames_far_apart_and_images_of_their_own_are_shown_as_they_are() -> None:
    slow = Film(gap=APART + 0.01)
    assert slow.counts([UNSURE, NOTHING, UNSURE]) == [1, 0, 1]
    follows = Film(gap=APART, first=found((HERE, 0.9)))
    assert follows.counts([found((HERE, 0.9)), NOTHING, found((THERE, SURE - 0.1))]) == [1, 1, 0]
    film = Film(first=found((HERE, 0.9)))
    film.next(found((HERE, 0.9)))
    image = found((THERE, 0.41))
    assert film.next(image, still=True) is image
    assert len(film.next(NOTHING)) == 0


def test_no_object_is_shown_for_longer_than_that_where_it_is_missed() -> None:
    assert MISSED * 0.2 > APART
    film = Film(gap=0.2, first=found((HERE, 0.9)))
    assert film.counts([found((HERE, 0.9)), NOTHING, NOTHING]) == [1, 1, 0]


def test_objects_of_other_classes_than_before_continue_nothing() -> None:
    film = Film(first=found((HERE, 0.9), class_id=1))
    other = dataclasses.replace(found((THERE, 0.5)), class_names=("person",))
    assert film.next(other).names == ["person"]


def test_a_frame_in_which_a_function_finds_nothing_of_no_classes_begins_no_other_film() -> None:
    film, nothing = Film(first=found((HERE, 0.9))), Detections.none(())
    assert [numbers(film.next(one)) for one in (nothing, found((HERE, 0.9)), nothing)] == [[], [1], [1]]
    renamed = dataclasses.replace(found((HERE, 0.9)), class_names=("person", "dog"))
    assert numbers(film.next(renamed)) == [2]


def test_what_is_of_the_frame_is_passed_on() -> None:
    of_it = {"lines": (Crossings((0, 0), (9, 9)),), "regions": (np.eye(3, 2, dtype=np.float32),), "occupancy": ({},)}
    film = Film(first=found((HERE, 0.9)))
    film.next(found((HERE, 0.9)))
    shown = film.next(dataclasses.replace(found((THERE, 0.9)), **of_it))  # beside what is missed in it
    assert numbers(shown) == [2, 1]
    assert {name: getattr(shown, name) for name in of_it} == of_it


def test_boxes_without_a_place_do_no_harm() -> None:
    film = Film(first=found((HERE, 0.9)))
    film.next(found((HERE, 0.9)))
    odd = film.next(found((HERE, 0.9), ((np.nan, 0.0, 10.0, 10.0), 0.8), ((0.0, 0.0, np.inf, 5.0), 0.7)))
    assert odd.boxes.tolist() == [list(HERE)]


@pytest.mark.parametrize("size", [14, 40])
def test_what_is_missed_stays_the_same_object_where_masks_are_of_another_size_without_it(size: int) -> None:
    film = Film(first=found((HERE, 0.9), (THERE, 0.8), mask=28))
    film.next(found((HERE, 0.9), (THERE, 0.8), mask=28))
    without = film.next(found((THERE, 0.8), mask=size))
    assert numbers(without) == [1, 2]
    assert (without.masks.shape, without.masks.min()) == ((2, size, size), np.float32(0.9))
    assert numbers(film.next(found((HERE, 0.9), (THERE, 0.8), mask=28))) == [1, 2]


def test_looks_whose_masks_are_of_several_sizes_are_taken_together() -> None:
    film = Film(first=found((HERE, 0.9)), shown_from=0.5)
    for size in (56, 28, 14, 28, 112):
        shown = film.next(found((HERE, 0.9), mask=size))
        assert shown.masks.shape == (1, size, size)
        assert paste(shown, (64, 80)).sum() == pytest.approx(40 * 50, rel=0.02)


@pytest.mark.parametrize("score", ["0.5", -0.1, 1.1, float("nan"), [0.5]])
def test_what_is_shown_from_no_score_is_refused(score: object) -> None:
    with pytest.raises(UsageError, match="shown_from must be a score between 0 and 1, not"):
        Steady(shown_from=score)  # type: ignore[arg-type]
    assert [Steady(shown_from=bound).shown_from for bound in (0, 1.0)] == [0, 1]


def test_masks_of_another_size_do_not_keep_what_is_gone() -> None:
    film = Film(first=found((HERE, 0.9)))
    film.next(found((HERE, 0.9)))
    film.brightness += 120  # a cut
    after = film.next(found((THERE, 0.9), mask=14))
    assert after.boxes.tolist() == [list(THERE)]
    assert after.masks.shape == (1, 14, 14)
    flat = dataclasses.replace(found((THERE, 0.9)), masks=np.full((1, 14, 28), 0.9, np.float32))
    assert [film.next(flat).masks.shape for _ in range(2)] == [(1, 14, 28)] * 2


def numbers(shown: Detections) -> list[int]:
    assert shown.ids is not None
    return shown.ids.tolist()


def test_objects_are_numbered_as_they_are_shown_and_keep_their_numbers() -> None:
    film = Film()
    one, two = (HERE, 0.9), (THERE, 0.8)
    assert numbers(film.next(found(two, ((400.0, 0.0, 450.0, 50.0), 0.5)))) == [1]  # the other is not shown
    assert numbers(film.next(found(one, two))) == [2, 1]
    assert numbers(film.next(found(one, two))) == [2, 1]
    assert numbers(film.next(found(two))) == [2, 1]  # where it is missed, too
    assert numbers(film.next(found(one))) == [2]
    assert numbers(film.next(found(one, two))) == [2, 1]


def test_what_comes_back_soon_has_its_number_and_afterwards_is_another() -> None:
    film = Film(first=found((HERE, 0.9)))
    assert [numbers(film.next(NOTHING)) for _ in range(MISSED + 3)][-1] == []
    near = (HERE[0] + 8, HERE[1], HERE[2] + 8, HERE[3])
    assert numbers(film.next(found((near, 0.9)))) == [1]
    assert numbers(film.next(NOTHING, later=REMEMBERED / 2)) == []
    assert numbers(film.next(found((near, 0.9), (HERE, 0.8)), later=REMEMBERED * 0.9)) == [1, 2]
    assert numbers(film.next(found((THERE, 0.8)), later=REMEMBERED * 1.5)) == [3]
    assert numbers(film.next(found((near, 0.9)), later=REMEMBERED * 3)) == [4]


def test_a_slow_camera_follows_its_objects_as_well() -> None:
    film = Film(gap=APART * 1.5, first=found((HERE, 0.5), (THERE, 0.45)))
    assert numbers(film.next(found((THERE, 0.6), (HERE, 0.5)))) == [2, 1]
    assert numbers(film.next(found((HERE, 0.5)))) == [1]
    assert numbers(film.next(found((THERE, 0.6)))) == [2]


def test_objects_keep_their_numbers_where_frames_are_further_apart_than_what_is_gone_is_remembered() -> None:
    film = Film(gap=REMEMBERED * 2, first=found((HERE, 0.5), (THERE, 0.45)))
    assert numbers(film.next(found((THERE, 0.6), (HERE, 0.5)))) == [2, 1]
    assert numbers(film.next(found((HERE, 0.5)))) == [1]
    assert numbers(film.next(found((THERE, 0.6)))) == [3]  # it was not in the frame before


def test_another_film_and_another_class_have_numbers_of_their_own() -> None:
    film = Film(first=found((HERE, 0.9)))
    film.next(found((HERE, 0.9)))
    another = found((HERE, 0.9), class_id=1)
    assert [numbers(film.next(another)) for _ in range(MISSED + 1)] == [[1]] * MISSED + [[2]]
    assert numbers(film.next(found((HERE, 0.9)), size=(48, 64))) == [3]
    assert numbers(film.next(found((HERE, 0.9)), later=-10)) == [4]
    assert film.next(found((HERE, 0.9)), still=True).ids is None


def test_the_memory_of_what_is_gone_does_not_grow() -> None:
    film = Film()
    for step in range(200):
        place = (1000.0 * step, 0.0, 1000.0 * step + 50, 50.0)
        assert numbers(film.next(found((place, 0.9))))[0] == step + 1
    assert len(film.gone) <= REMEMBERED / 0.04 + 1


class TestNames:
    """Of one thing, which the model calls a cat and a dog."""

    @staticmethod
    def both(cat: float, dog: float) -> Detections:
        one, other = found((HERE, cat)), found((HERE, dog), class_id=1)
        parts = {name: np.concatenate([getattr(one, name), getattr(other, name)]) for name in ONE_BY_ONE}
        return Detections(**parts, class_names=NAMES)

    def test_only_the_likelier_name_is_shown_and_counted(self) -> None:
        film = Film(first=self.both(0.9, 0.8))
        assert film.first.names == ["cat"]
        shown = [film.next(self.both(0.9, 0.8)) for _ in range(6)]
        assert [one.names for one in shown] == [["cat"]] * 6
        assert numbers(shown[-1]) == [1]

    def test_a_name_stays_where_another_is_hardly_likelier(self) -> None:
        film = Film(first=self.both(0.75, 0.70))
        assert [film.next(self.both(0.70, 0.75)).names for _ in range(10)] == [["cat"]] * 10

    def test_a_name_that_is_much_likelier_takes_over(self) -> None:
        film = Film(first=self.both(0.75, 0.70))
        names = [film.next(self.both(0.60, 0.95)).names for _ in range(10)]
        assert names[0] == ["cat"]
        assert names[-1] == ["dog"]
        assert sum(one != other for one, other in pairwise(names)) == 1

    @pytest.mark.parametrize("gap", [0.04, 2 * APART])
    def test_a_name_that_took_over_stays_in_turn(self, gap: float) -> None:
        film = Film(gap=gap, first=self.both(0.75, 0.70))
        assert film.next(self.both(0.50, 0.99)).names == ["dog"]
        film.next(self.both(0.75, 0.75))
        turns = [self.both(0.78, 0.72), self.both(0.72, 0.78)] * 10
        assert [film.next(turn).names for turn in turns] == [["dog"]] * 20

    def test_the_number_is_that_of_the_thing_whatever_its_name(self) -> None:
        film = Film(first=self.both(0.75, 0.70))
        shown = [film.first, *(film.next(both) for both in [self.both(0.50, 0.99)] * 5 + [self.both(0.99, 0.40)] * 9)]
        names = [one.names for one in shown]
        assert (names[0], names[5], names[-1]) == (["cat"], ["dog"], ["cat"])
        assert [numbers(one) for one in shown] == [[1]] * len(shown)
        assert numbers(film.next(found((HERE, 0.9), (THERE, 0.9)))) == [1, 2]

    @pytest.mark.parametrize("third", [0.0, 0.99])
    def test_two_things_that_become_one_leave_it_the_number_of_the_likelier(self, third: float) -> None:
        beside = (HERE[0] + 12, HERE[1], HERE[2] + 12, HERE[3])
        scores = (0.3, 0.3, third) if third else (0.9, 0.8)
        apart = [found((HERE, 0.9)), found((beside, 0.8), class_id=1)]
        one = [found((HERE, score), class_id=number) for number, score in enumerate(scores)]
        first, later = (
            Detections(
                **{name: np.concatenate([getattr(part, name) for part in parts]) for name in ONE_BY_ONE},
                class_names=NAMES,
            )
            for parts in (apart, one)
        )
        film = Film(first=first)
        assert numbers(film.first) == [1, 2]
        shown = [film.next(later) for _ in range(5)][-3:]
        assert [numbers(one) for one in shown] == [[1]] * 3
        assert {*shown[-1].names} == {"fox" if third else "cat"}

    def test_a_name_that_is_missed_for_a_frame_is_not_changed_for_it(self) -> None:
        film = Film(first=self.both(0.9, 0.8))
        film.next(self.both(0.9, 0.8))
        assert film.next(found((HERE, 0.8), class_id=1)).names == ["cat"]
        assert film.next(self.both(0.9, 0.8)).names == ["cat"]

    def test_images_of_their_own_have_one_name_for_a_thing_too(self) -> None:
        assert Film().next(self.both(0.8, 0.9), still=True).names == ["dog"]

    def test_where_objects_are_hidden_all_that_is_found_counts(self) -> None:
        film = Film(first=self.both(0.9, 0.8), withhold=False)
        assert film.first.names == film.next(self.both(0.9, 0.8)).names == ["cat", "dog"]
        assert film.next(self.both(0.9, 0.8), still=True).names == ["cat", "dog"]
