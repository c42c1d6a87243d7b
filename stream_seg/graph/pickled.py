"""Reads the pickles that PyTorch writes for a state_dict, without executing anything.

A pickle is a program for a stack machine whose GLOBAL and REDUCE opcodes can import and call whatever they name. This
interpreter knows the opcodes that occur in checkpoints and gives four names a meaning of its own; nothing is imported
and nothing else is called, so a hostile file can only be refused.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any, NoReturn

import numpy as np

from stream_seg.errors import ModelError

STORAGE_TYPES: Mapping[str, str] = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
"""Storage classes of module torch, and how their elements lie in the file."""

_MAX_DIMENSIONS = 8


@dataclass(frozen=True, slots=True)
class Storage:
    """A stretch of memory that tensors look into, to be found in the file under its key."""

    key: str
    element: str
    count: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """A view of a storage; offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Name:
    """What a GLOBAL opcode names; it stays a name."""

    module: str
    attribute: str

    def __str__(self) -> str:
        return f"{self.module}.{self.attribute}"


class _Mark:
    """Where a run of stack items begins."""


# The values of a pickle are whatever the file says: str, int, float, bool, None, list, tuple, dict and the above.
Item = Any


def load(stream: IO[bytes]) -> Item:
    """The object of one pickle, the stream left behind its end: dicts, lists, numbers and `Tensor`s.

    Raises ModelError, in one sentence, for anything a state_dict does not need.
    """
    machine = _Machine()
    try:
        # pickletools only parses: it says which opcodes there are and decodes their arguments.
        for opcode, argument, _ in pickletools.genops(stream):
            machine.step(opcode.name, argument)
    except ModelError:
        raise
    except (
        ValueError,
        IndexError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        MemoryError,
        UnicodeError,
    ) as error:
        raise ModelError(f"the weights are not a sound pickle ({type(error).__name__}: {error})") from error
    return machine.result()


class _Machine:
    """The stack machine."""

    def __init__(self) -> None:
        self._stack: list[Item] = []
        self._memo: dict[int, Item] = {}

    def step(self, opcode: str, argument: Item) -> None:
        """Execute one opcode."""
        if opcode in _LITERALS:
            self._stack.append(_LITERALS[opcode](argument))
        elif opcode in _ACTIONS:
            _ACTIONS[opcode](self, argument)
        elif opcode not in _IGNORED:
            raise ModelError(f"refused: the weights hold a pickle opcode ({opcode}) that no state_dict needs")

    def result(self) -> Item:
        if len(self._stack) != 1:
            raise ModelError("the weights are not a sound pickle: it does not end with one object")
        return self._stack[0]

    def pop_to_mark(self) -> list[Item]:
        items: list[Item] = []
        while not isinstance(item := self._stack.pop(), _Mark):
            items.append(item)
        return items[::-1]

    def push_tuple(self, count: int) -> None:
        items = [self._stack.pop() for _ in range(count)]
        self._stack.append(tuple(items[::-1]))

    def push_name(self, argument: str) -> None:
        module, _, attribute = argument.partition(" ")
        self._stack.append(_allowed(_Name(module, attribute)))

    def push_name_from_stack(self, _argument: None) -> None:
        attribute, module = self._stack.pop(), self._stack.pop()
        self._stack.append(_allowed(_Name(str(module), str(attribute))))

    def push_storage(self, _argument: None) -> None:
        self._stack.append(_storage(self._stack.pop()))

    def call(self, _argument: None) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        meaning = _MEANINGS.get(str(function)) if isinstance(function, _Name) else None
        if meaning is None or not isinstance(arguments, tuple):
            _refuse(function)
        self._stack.append(meaning(*arguments))

    def set_items(self, _argument: None) -> None:
        self._update(self.pop_to_mark())

    def set_item(self, _argument: None) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._update([key, value])

    def extend(self, _argument: None) -> None:
        items = self.pop_to_mark()
        self._list().extend(items)

    def append(self, _argument: None) -> None:
        item = self._stack.pop()
        self._list().append(item)

    def forget_attributes(self, _argument: None) -> None:
        """BUILD sets attributes; in a state_dict only the version notes of its modules, which nobody needs here."""
        self._stack.pop()
        if not isinstance(self._stack[-1], dict):
            _refuse(self._stack[-1])

    def memoize(self, _argument: None) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def put(self, argument: int) -> None:
        self._memo[int(argument)] = self._stack[-1]

    def get(self, argument: int) -> None:
        self._stack.append(self._memo[int(argument)])

    def _update(self, pairs: list[Item]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict):
            _refuse(target)
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            # Only simple keys: hashing a tuple of tuples a million deep would exhaust the stack of the interpreter.
            if not isinstance(key, str | int):
                _refuse(key)
            target[key] = value

    def _list(self) -> list[Item]:
        target = self._stack[-1]
        if not isinstance(target, list):
            _refuse(target)
        return target


_LITERALS: Mapping[str, Callable[[Item], Item]] = {
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "BINFLOAT", "FLOAT"), lambda value: value),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE", "BINSTRING", "SHORT_BINSTRING"), lambda value: value),
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_DICT": lambda _: {},
    "EMPTY_LIST": lambda _: [],
    "EMPTY_TUPLE": lambda _: (),
    "MARK": lambda _: _Mark(),
}

_ACTIONS: Mapping[str, Callable[[_Machine, Item], None]] = {
    "TUPLE": lambda machine, _: machine._stack.append(tuple(machine.pop_to_mark())),
    "TUPLE1": lambda machine, _: machine.push_tuple(1),
    "TUPLE2": lambda machine, _: machine.push_tuple(2),
    "TUPLE3": lambda machine, _: machine.push_tuple(3),
    "GLOBAL": _Machine.push_name,
    "STACK_GLOBAL": _Machine.push_name_from_stack,
    "BINPERSID": _Machine.push_storage,
    "REDUCE": _Machine.call,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.extend,
    "BUILD": _Machine.forget_attributes,
    "MEMOIZE": _Machine.memoize,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
}

_IGNORED = frozenset({"PROTO", "FRAME", "STOP"})


def _ordered_dict(items: Item = ()) -> dict[Item, Item]:
    if items:
        raise ModelError("refused: the weights build a dictionary in a way that no state_dict does")
    return {}


def _tensor(storage: Item, offset: Item, shape: Item, strides: Item, *_gradient: Item) -> Tensor:
    """torch._utils._rebuild_tensor_v2: checked here, so that a view never leaves its storage."""
    numbers = (offset, *shape, *strides)
    sound = isinstance(storage, Storage) and all(_is_count(number) for number in numbers)
    if not sound or len(shape) != len(strides) or len(shape) > _MAX_DIMENSIONS:
        raise ModelError("the weights describe a tensor that makes no sense")
    elements = int(np.prod(shape, dtype=object))
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if elements > storage.count or (elements and last >= storage.count):
        raise ModelError(f"the weights describe a tensor of shape {tuple(shape)} that reaches beyond its data")
    return Tensor(storage, offset, tuple(shape), tuple(strides))


_MEANINGS: Mapping[str, Callable[..., Item]] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda data, *_gradient: data,
}


def _allowed(name: _Name) -> _Name:
    is_storage = name.module == "torch" and name.attribute in STORAGE_TYPES
    if not (is_storage or str(name) in _MEANINGS):
        _refuse(name)
    return name


def _storage(identity: Item) -> Storage:
    """A persistent id: ("storage", class, key, device, count), in old files with a sixth, empty field."""
    match identity:
        case ("storage", _Name(module="torch", attribute=kind), str(key), str(), count, *view) if (
            kind in STORAGE_TYPES and _is_count(count) and view in ([], [None])
        ):
            return Storage(key, STORAGE_TYPES[kind], count)
    raise ModelError("the weights refer to data in a way that no state_dict does")


def _is_count(number: Item) -> bool:
    return type(number) is int and 0 <= number < 2**63


def _refuse(what: Item) -> NoReturn:
    name = str(what) if isinstance(what, _Name) else f"a {type(what).__name__}"
    raise ModelError(
        f"refused: the weights ask for {name[:80]!r}, and a state_dict holds nothing but tensors; save "
        "model.state_dict(), or have a model that is no Mask R-CNN exported to ONNX by what it was made with"
    )
