"""Sessions by the shape of what they are given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from stream_seg.errors import ModelError, StreamSegError
from stream_seg.segmenters.by_shape import SessionsByShape
from stream_seg.segmenters.device import NoCuda
from stream_seg.segmenters.session import Session
from tests.tiny_models import batched_model


def feeds(rows: int, height: int = 32) -> dict[str, np.ndarray]:
    return {"images": np.zeros((rows, height, 32, 3), np.uint8), "sizes": np.zeros((rows, 2), np.float32)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return batched_model(tmp_path / "tiny.onnx")


def of(sessions: SessionsByShape, *shape: int) -> onnxruntime.InferenceSession:
    with sessions.lend(feeds(*shape)) as session:
        return session


def load(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def test_each_shape_has_its_session_and_the_first_is_not_opened_twice(path: Path) -> None:
    opened: list[onnxruntime.InferenceSession] = []

    def counting() -> onnxruntime.InferenceSession:
        opened.append(load(path))
        return opened[-1]

    sessions = SessionsByShape(counting, 8)
    shapes = [(1, 32), (8, 32), (1, 64)]
    first = [of(sessions, *shape) for shape in shapes]
    assert first[0] is opened[0] is sessions.any()
    assert len({id(session) for session in first}) == len(opened) == 3
    assert all(of(sessions, *shape) is session for shape, session in zip(shapes * 2, first * 2, strict=True))
    assert len(opened) == 3


def test_beyond_the_most_the_one_that_rested_longest_takes_the_new_shape(path: Path) -> None:
    sessions = SessionsByShape(lambda: load(path), 2)
    one, two = of(sessions, 1), of(sessions, 2)
    assert of(sessions, 1) is one
    assert of(sessions, 3) is two
    assert of(sessions, 1) is one
    assert of(sessions, 2) is two


@pytest.mark.parametrize("error", [ModelError("finds too little memory on the device"), NoCuda("it could not start")])
def test_where_there_is_no_memory_for_another_one_does_the_work_of_two(path: Path, error: StreamSegError) -> None:
    tries = 0

    def once() -> onnxruntime.InferenceSession:
        nonlocal tries
        tries += 1
        if tries > 1:
            raise error
        return load(path)

    sessions = SessionsByShape(once, 8)
    assert of(sessions, 1) is of(sessions, 2) is of(sessions, 3) is sessions.any()
    assert tries == 2


def test_where_a_run_lacks_memory_one_remains_and_does_all_the_work(path: Path) -> None:
    sessions = SessionsByShape(lambda: load(path), 8)
    assert not sessions.give_back()
    of(sessions, 1)
    assert not sessions.give_back()
    last = of(sessions, 2)
    assert sessions.give_back()
    assert of(sessions, 1) is of(sessions, 2) is of(sessions, 3) is last
    assert not sessions.give_back()


def test_a_run_without_memory_is_tried_again_once_the_other_sessions_are_gone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(path, "cpu", threads=1)
    sessions = SessionsByShape(lambda: load(path), 8)
    monkeypatch.setattr(session, "_sessions", sessions)
    assert session.ways == [session.run]  # which is how it is warmed up
    wanted = [session.run(feeds(rows)) for rows in (1, 2)]
    opened = onnxruntime.InferenceSession.run
    full = True

    def run(self: onnxruntime.InferenceSession, *given: object) -> object:
        nonlocal full
        if full:
            full = False
            raise RuntimeError("BFCArena: Available memory of 0 is smaller than requested bytes of 1024")
        return opened(self, *given)

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", run)
    again = session.run(feeds(1))
    assert all(np.array_equal(again[name], wanted[0][name]) for name in again)
    assert of(sessions, 1) is of(sessions, 2)
    full = True
    with pytest.raises(ModelError, match="out of memory; try --batch-size 1"):
        session.run(feeds(1))


def test_a_model_that_cannot_be_opened_at_all_is_an_error_at_once() -> None:
    def never() -> onnxruntime.InferenceSession:
        raise ModelError("is no ONNX model")

    with pytest.raises(ModelError, match="is no ONNX model"):
        SessionsByShape(never, 8)
