"""What every segmenter of this package offers beyond the protocol: names for the summary, warm-up and an end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from stream_seg.detections import Detections
from stream_seg.frame import Image


class ModelSegmenter(ABC):
    """A segmenter that knows what it runs on. Use it in `with`, or call `close` when done.

    `class_names` without the background. `max_batch`: the most images one call gains from. `concurrency`: the most
    calls at a time that gain. `model_name` and `description` are for people, `provider` is ONNX Runtime's word
    ("CPUExecutionProvider"), `device` is "cpu" or "cuda:N". One that has a score `shown_from` is to be given every
    other frame of a film mirrored, and from that score on, taken together, its finds are then to be shown, as `Steady`
    does: each may have less.
    """

    class_names: tuple[str, ...]
    max_batch: int = 1
    concurrency: int = 1
    model_name: str = "function"
    description: str = ""
    provider: str = "none"
    device: str = "cpu"
    shown_from: float | None = None

    @abstractmethod
    def __call__(self, images: Sequence[Image]) -> list[Detections]:
        """One `Detections` per image, in order, boxes in that image's pixels."""

    def warm_up(self, size: tuple[int, int], max_batch: int | None = None) -> None:  # noqa: B027  optional
        """Do now what the first calls with up to `max_batch` images of `size` (width, height) would wait for."""

    def close(self) -> None:  # noqa: B027  optional
        """Release what it holds, as a model. May be called twice; a closed segmenter is not called again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Around(ModelSegmenter):
    """A segmenter around another one, `inner`, which it shares all but the `description` with."""

    def __init__(self, inner: ModelSegmenter, description: str) -> None:
        self._inner = inner
        self.class_names = inner.class_names
        self.max_batch = inner.max_batch
        self.concurrency = inner.concurrency
        self.model_name = inner.model_name
        self.provider = inner.provider
        self.device = inner.device
        self.shown_from = inner.shown_from
        self.description = description

    def warm_up(self, size: tuple[int, int], max_batch: int | None = None) -> None:
        self._inner.warm_up(size, max_batch)

    def close(self) -> None:
        self._inner.close()
