"""Geometry: canvases, boxes there and back, small masks to pixels."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream_seg.detections import Detections
from stream_seg.geometry import (
    Letterbox,
    choose_canvas,
    mask_roi,
    outlines,
    pairwise_iou,
    paste,
    regridded,
    resize,
    sample_box,
)

CANVASES = ((416, 256), (256, 416), (416, 320), (320, 416), (416, 416))

sizes = st.tuples(st.integers(1, 8000), st.integers(1, 8000))
canvases = st.sampled_from(CANVASES)
fractions = st.lists(st.floats(0, 1), min_size=4, max_size=4)


def ellipse(size: tuple[int, int], box: NDArray[np.float32], supersample: int = 4) -> NDArray[np.float64]:
    """Share of each pixel of a frame, 0..1, that the ellipse inscribed in `box` covers."""
    width, height = size
    y, x = (np.mgrid[0 : height * supersample, 0 : width * supersample] + 0.5) / supersample
    radius_x, radius_y = (box[2] - box[0]) / 2, (box[3] - box[1]) / 2
    inside = ((x - box[0]) / radius_x - 1) ** 2 + ((y - box[1]) / radius_y - 1) ** 2 <= 1
    shares: NDArray[np.float64] = inside.reshape(height, supersample, width, supersample).mean((1, 3))
    return shares


def small_ellipse(side: int = 28) -> NDArray[np.float32]:
    return ellipse((side, side), np.array([0, 0, side, side], np.float32), 16).astype(np.float32)


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def one(box: NDArray[np.float32], mask: NDArray[np.float32]) -> Detections:
    return Detections(box[None], np.ones(1, np.float32), np.zeros(1, np.int64), mask[None], ("thing",))


def torchvision_paste(box: NDArray[np.float32], mask: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The published convention: border of one cell, box widened to match and cut to whole pixels, enlarged, 0.5."""
    side = mask.shape[0]
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * (side + 2) / side
    x0, y0 = (centre - half).astype(int)
    x1, y1 = (centre + half).astype(int)
    enlarged = cv2.resize(np.pad(mask, 1), (int(x1 - x0 + 1), int(y1 - y0 + 1))) > 0.5
    whole = np.zeros((size[1] + 4000, size[0] + 4000), np.bool_)
    whole[y0 + 2000 : y1 + 2001, x0 + 2000 : x1 + 2001] = enlarged
    return whole[2000 : 2000 + size[1], 2000 : 2000 + size[0]]


@given(sizes, canvases, fractions, st.integers(0, 500))
def test_boxes_survive_the_way_to_the_canvas_and_back(
    size: tuple[int, int], canvas: tuple[int, int], corners: list[float], shift: int
) -> None:
    boxes = (np.array([corners]) * (*size, *size)).astype(np.float32)
    letterbox = Letterbox(size, canvas, shift)
    on_canvas = letterbox.placement.to_canvas(boxes)
    assert np.abs(letterbox.placement.to_image(on_canvas) - boxes).max() <= 1e-3 * max(1, max(size) / 4000)
    begins = np.minimum(shift, np.subtract(canvas, letterbox.valid))
    ends = np.add(begins, letterbox.valid)
    assert (on_canvas <= (*np.add(ends, 1e-3), *np.add(ends, 1e-3))).all()
    assert (on_canvas >= (*np.subtract(begins, 1e-3), *np.subtract(begins, 1e-3))).all()


@given(sizes, canvases)
def test_the_scaled_image_fits_the_canvas_touches_an_edge_and_keeps_its_shape(
    size: tuple[int, int], canvas: tuple[int, int]
) -> None:
    width, height = Letterbox(size, canvas).valid
    assert 1 <= width <= canvas[0]
    assert 1 <= height <= canvas[1]
    assert width == canvas[0] or height == canvas[1]
    scale = min(canvas[0] / size[0], canvas[1] / size[1])
    assert abs(width - size[0] * scale) <= 1
    assert abs(height - size[1] * scale) <= 1


@pytest.mark.parametrize("size", [(1, 1), (1280, 720), (720, 1280), (321, 241), (1, 3000), (3000, 1), (40, 30)])
@pytest.mark.parametrize("canvas", CANVASES)
@pytest.mark.parametrize(("shift", "around"), [(0, (0, 0, 0)), (24, (3, 2, 1))])
def test_an_image_lands_in_its_place_as_rgb_and_the_rest_has_one_colour(
    size: tuple[int, int], canvas: tuple[int, int], shift: int, around: tuple[int, int, int]
) -> None:
    image = np.empty((size[1], size[0], 3), np.uint8)
    image[:] = (10, 120, 240)
    out = np.full((canvas[1], canvas[0], 3), 77, np.uint8)
    letterbox = Letterbox(size, canvas, shift)
    letterbox.apply(image, out, *([around] if shift else []))
    width, height = letterbox.valid
    left, top = np.minimum(shift, np.subtract(canvas, letterbox.valid))
    inside = out[top : top + height, left : left + width]
    assert (inside == (240, 120, 10)).all()
    inside[:] = around
    assert (out == around).all()


@pytest.mark.parametrize("size", [(1280, 720), (1920, 1080), (854, 480), (641, 479), (3001, 2003), (200, 150)])
def test_a_point_in_the_image_is_found_where_the_boxes_say(size: tuple[int, int]) -> None:
    """A bright square, its box taken to the canvas: the light's centre of gravity is the centre of that box."""
    side = max(size) // 10
    x, y = int(size[0] * 0.7), int(size[1] * 0.2)
    image = np.zeros((size[1], size[0], 3), np.uint8)
    image[y : y + side, x : x + side] = 255
    letterbox = Letterbox(size, (416, 256))
    out = np.zeros((256, 416, 3), np.uint8)
    letterbox.apply(image, out)
    moments = cv2.moments(out[:, :, 0])
    found = np.array([moments["m10"], moments["m01"]]) / moments["m00"] + 0.5
    box = letterbox.placement.to_canvas(np.array([[x, y, x + side, y + side]], np.float32))[0]
    assert np.abs(found - (box[:2] + box[2:]) / 2).max() < 0.15


def test_shrinking_averages_like_area_interpolation() -> None:
    """A checkerboard finer than the canvas becomes grey, not a moiré."""
    image = np.zeros((720, 1280, 3), np.uint8)
    image[::2, ::2] = image[1::2, 1::2] = 255
    out = np.zeros((256, 416, 3), np.uint8)
    letterbox = Letterbox((1280, 720), (416, 256))
    letterbox.apply(image, out)
    width, height = letterbox.valid
    assert np.abs(out[:height, :width].astype(int) - 128).max() <= 1


def test_every_pixel_counts_where_an_image_is_shrunk_with_averaging() -> None:
    lines = np.zeros((90, 90, 3), np.uint8)
    lines[:, ::3] = 255
    assert resize(lines, (60, 60)).mean() == pytest.approx(85)


def test_an_enlarged_image_is_interpolated_whether_averaged_or_not() -> None:
    edge = np.repeat(np.array([[[0] * 3, [200] * 3]], np.uint8), 2, axis=0)
    for averaging in (True, False):
        assert resize(edge, (8, 2), averaging=averaging)[0, :, 0].tolist() == [0, 0, 25, 75, 125, 175, 200, 200]


def test_an_image_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="expected an image of"):
        Letterbox((64, 48), (32, 32)).apply(np.zeros((64, 48, 3), np.uint8), np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(ValueError, match="expected an image of"):
        Letterbox((64, 48), (32, 24)).apply(np.zeros((48, 64, 3), np.uint8), np.zeros((32, 24, 3), np.uint8))
    with pytest.raises(ValueError, match="at least 1x1"):
        Letterbox((0, 48), (32, 32))


def test_boxes_are_clipped_to_the_image() -> None:
    letterbox = Letterbox((640, 480), (416, 320))
    boxes = letterbox.placement.to_image(np.array([[-5, -5, 900, 900]], np.float32))
    assert boxes.tolist() == [[0, 0, 640, 480]]
    assert letterbox.placement.to_image(np.zeros((0, 4), np.float32)).shape == (0, 4)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1920, 1080), (416, 256)),
        ((640, 480), (416, 320)),
        ((480, 640), (320, 416)),
        ((1080, 1920), (256, 416)),
        ((500, 500), (416, 416)),
        ((3000, 10), (416, 256)),
        ((1, 1), (416, 416)),
    ],
)
def test_the_canvas_that_shows_the_image_largest_with_least_waste_is_chosen(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert choose_canvas(size, CANVASES) == expected


@pytest.mark.parametrize("extent", [12, 30, 83, 85, 400])
@pytest.mark.parametrize("offset", [0.0, 0.3, 0.6, 0.9])
def test_an_ellipse_comes_back_where_it_was(extent: int, offset: float) -> None:
    box = np.array([20, 10, 20 + extent, 10 + 0.7 * extent], np.float32) + np.float32(offset)
    size = (extent + 50, extent + 40)
    truth = ellipse(size, box) >= 0.5
    pasted = paste(one(box, small_ellipse()), size)[0]
    assert iou(pasted, truth) >= (0.98 if extent >= 30 else 0.93)
    assert iou(pasted, truth) >= iou(torchvision_paste(box, small_ellipse(), size), truth) - 2e-3


@settings(max_examples=60)
@given(st.floats(0, 150), st.floats(0, 100), st.floats(2, 160), st.floats(2, 120), st.sampled_from((14, 15, 28)))
def test_a_full_mask_covers_its_box_and_no_pixel_more(
    x: float, y: float, width: float, height: float, side: int
) -> None:
    """All but the corners, which interpolating towards the border of zeros rounds off by half a cell."""
    box = np.array([x, y, x + width, y + height], np.float32)
    centre_x, centre_y = np.arange(200) + 0.5, np.arange(160) + 0.5
    inside_x = (centre_x >= box[0]) & (centre_x <= box[2])
    inside_y = (centre_y >= box[1]) & (centre_y <= box[3])
    truth = inside_y[:, None] & inside_x
    cells_x = np.minimum(centre_x - box[0], box[2] - centre_x) * side / width
    cells_y = np.minimum(centre_y - box[1], box[3] - centre_y) * side / height
    # OpenCV before 5 samples at multiples of 1/32 of a cell, hence the margins.
    safe = (cells_y > 0.1)[:, None] & (cells_x > 0.1) & ((cells_y > 0.55)[:, None] | (cells_x > 0.55))
    pasted = paste(one(box, np.ones((side, side), np.float32)), (200, 160))[0]
    assert not (pasted & ~truth).any()
    if max(width, height) <= 3 * side:
        assert pasted[safe].all()
    else:
        assert pasted[safe].mean() >= 0.99


@settings(max_examples=100)
@given(
    st.lists(st.floats(-1e6, 1e6, width=32) | st.sampled_from((float("nan"), float("inf"))), min_size=4, max_size=4),
    st.sampled_from(((1, 1), (64, 48), (200, 3))),
)
def test_any_box_gives_a_region_inside_the_frame(corners: list[float], size: tuple[int, int]) -> None:
    rows, columns, bitmask = mask_roi(np.array(corners, np.float32), np.full((28, 28), 0.9, np.float32), size)
    assert 0 <= rows.start <= rows.stop <= size[1]
    assert 0 <= columns.start <= columns.stop <= size[0]
    assert bitmask.shape == (rows.stop - rows.start, columns.stop - columns.start)
    assert bitmask.dtype == np.uint8
    assert set(np.unique(bitmask)) <= {0, 1}


def test_a_box_that_leaves_the_frame_shows_the_part_inside_it() -> None:
    box = np.array([-60.2, -30.7, 139.1, 119.9], np.float32)
    moved = box + np.float32(100)
    alone = paste(one(box, small_ellipse()), (100, 80))[0]
    whole = paste(one(moved, small_ellipse()), (300, 300))[0]
    assert iou(alone, whole[100:180, 100:200]) > 0.999


@pytest.mark.parametrize(
    "box", [(5, 5, 5, 20), (5, 5, 20, 5), (9, 9, 3, 3), (-50, -50, -10, -10), (70, 0, 90, 40), (np.nan, 0, 10, 10)]
)
def test_a_box_without_pixels_gives_an_empty_region(box: tuple[float, ...]) -> None:
    rows, columns, bitmask = mask_roi(np.array(box, np.float32), np.ones((28, 28), np.float32), (64, 48))
    assert bitmask.size == 0
    assert (rows.stop - rows.start) * (columns.stop - columns.start) == 0
    assert not paste(one(np.array(box, np.float32), np.ones((28, 28), np.float32)), (64, 48)).any()


def test_a_mask_may_have_another_number_of_rows_than_of_columns() -> None:
    lower = np.zeros((4, 28), np.float32)
    lower[2:] = 1
    box = np.array([10, 10, 50, 70], np.float32)
    for mask, expected in ((lower, np.s_[40:70, 10:50]), (np.ascontiguousarray(lower.T), np.s_[10:70, 30:50])):
        truth = np.zeros((80, 60), np.bool_)
        truth[expected] = True
        assert iou(paste(one(box, mask), (60, 80))[0], truth) > 0.95


def test_boxes_without_area_overlap_nothing() -> None:
    boxes = np.array([[5, 5, 5, 5], [3, 3, 3, 9], [0, 0, 6, 6]], np.float32)
    assert pairwise_iou(boxes, boxes).tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 1]]


def test_masks_on_another_grid_have_the_nearest_cells() -> None:
    masks = np.arange(3, dtype=np.float32).reshape(1, 1, 3)
    assert regridded(masks, (2, 5)).tolist() == [[[0, 0, 1, 2, 2]] * 2]


def test_beyond_the_edges_of_what_is_sampled_its_outermost_pixels_go_on() -> None:
    pixels = np.array([[1, 2], [3, 4]], np.float32)
    sampled = sample_box(pixels, np.array([-2, -2, 4, 4], np.float32), (6, 6))
    assert sampled.tolist() == [[1, 1, 1, 2, 2, 2]] * 3 + [[3, 3, 3, 4, 4, 4]] * 3


def test_no_detections_paste_to_no_bitmasks() -> None:
    assert paste(Detections.none(("thing",)), (64, 48)).shape == (0, 48, 64)


def test_the_shape_of_an_image_is_no_size() -> None:
    found = one(np.array((5, 5, 20, 20), np.float32), np.ones((28, 28), np.float32))
    shape: Any = (48, 64, 3)
    words = r"size is \(width, height\), of an image .*, got \(48, 64, 3\)"
    for some in (found, found[:0]):
        with pytest.raises(ValueError, match=words):
            paste(some, shape)
        with pytest.raises(ValueError, match=words):
            outlines(some, shape)
    with pytest.raises(ValueError, match=words):
        mask_roi(found.boxes[0], found.masks[0], shape)


def filled(polygons: list[NDArray[np.int32]], size: tuple[int, int]) -> NDArray[np.bool_]:
    whole = np.zeros((size[1], size[0]), np.uint8)
    cv2.fillPoly(whole, polygons, (1,))
    return whole.astype(np.bool_)


@pytest.mark.parametrize("extent", [5.0, 20.5, 60.0, 300.0])
def test_outlines_that_are_filled_are_the_mask_to_within_a_pixel(extent: float) -> None:
    box = np.array([7.3, 11.8, 7.3 + extent, 11.8 + 1.3 * extent], np.float32)
    size = 330, 420
    ring = small_ellipse() - ellipse((28, 28), np.array([8, 8, 20, 20], np.float32), 16).astype(np.float32)
    found = one(box, ring)
    (polygons,) = outlines(found, size)
    assert len(polygons) == 2  # and that of the hole
    truth, covered = paste(found, size)[0], filled(polygons, size)
    near = cv2.dilate(truth.view(np.uint8), np.ones((3, 3))) != cv2.erode(truth.view(np.uint8), np.ones((3, 3)))
    assert not ((truth != covered) & ~near).any()
    assert iou(truth, covered) >= (0.98 if extent > 60 else 0.99)
    if extent > 60:
        edges, _ = cv2.findContours(truth.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        assert sum(map(len, polygons)) < sum(map(len, edges)) / 10


def test_outlines_of_what_is_thin_are_as_exact_as_it_needs() -> None:
    found = one(np.array([7.3, 11.8, 11.8, 311.8], np.float32), small_ellipse())
    (polygons,) = outlines(found, (330, 420))
    assert iou(paste(found, (330, 420))[0], filled(polygons, (330, 420))) >= 0.99


@pytest.mark.parametrize("corners", [(-40.0, -30.0, 20.0, 25.0), (90.0, 70.0, 200.0, 300.0), (10.2, 10.2, 11.0, 11.0)])
def test_outlines_end_where_the_picture_does(corners: tuple[float, ...]) -> None:
    found = one(np.array(corners, np.float32), np.full((28, 28), 0.9, np.float32))
    (polygons,) = outlines(found, (100, 80))
    assert (filled(polygons, (100, 80)) == paste(found, (100, 80))[0]).all()
    for polygon in polygons:
        assert polygon.min() >= 0
        assert (polygon < (100, 80)).all()


def test_what_has_no_pixel_has_no_outline() -> None:
    mask = np.full((28, 28), 0.9, np.float32)
    outside, thin = np.array([200, 10, 220, 30], np.float32), np.array([5, 5, 5, 9], np.float32)
    assert outlines(one(outside, mask), (100, 80)) == [[]]
    assert outlines(one(thin, mask), (100, 80)) == [[]]
    for nowhere in (0.0, 0.5):
        grid = np.full((28, 28), nowhere, np.float32)
        assert outlines(one(np.array([5, 5, 30, 40], np.float32), grid), (100, 80)) == [[]]
