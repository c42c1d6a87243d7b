"""Target and PartFile: where a result goes, and the file it grows in before it has its name.

A result is written beside its target under a partial name (`holiday.part.mp4`) and renamed when it is whole, so that
whatever bears the name a user asked for is complete.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from stream_seg.errors import OutputError

logger = logging.getLogger(__name__)

if sys.platform == "win32":

    def _lock(descriptor: int, *, shared: bool) -> bool:  # noqa: ARG001  as elsewhere
        return True  # an open file cannot be deleted, which is all the lock is for
else:
    import fcntl

    def _lock(descriptor: int, *, shared: bool) -> bool:
        """Lock an open file; whether that is possible, or the file system knows no locks."""
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True


_CIRCLE = "its symbolic links lead in a circle"

_LONGEST_NAME = 255
"""Bytes, in nearly all file systems."""


class TakenError(OutputError):
    """A file that may not be replaced has the name of a result; `kept` is where that is, None if it was not begun."""

    def __init__(self, message: str, kept: Path | None = None) -> None:
        super().__init__(message)
        self.kept = kept


@dataclass(frozen=True, slots=True)
class Target:
    """The file a result is wanted in. `path` is as the user wrote it; links are followed when writing.

    Raises `OutputError` when the file exists and may not be replaced (`TakenError`), when it is the input, or when its
    folder is missing or cannot be written to.
    """

    path: Path
    overwrite: bool = False
    source_path: str | Path | None = None

    def __post_init__(self) -> None:
        try:
            self._check()
        except (OSError, RuntimeError) as error:  # the latter is what pathlib says before Python 3.13
            cause = error.strerror if isinstance(error, OSError) else _CIRCLE
            raise OutputError(f"cannot write {self.path}: {cause}") from error

    def _check(self) -> None:
        if self.resolved.is_symlink():
            raise OutputError(f"cannot write {self.path}: {_CIRCLE}")
        folder = self.resolved.parent
        if not folder.is_dir():
            raise OutputError(f"cannot write {self.path}: the folder {folder} does not exist; create it first")
        if self.resolved.is_dir():
            raise OutputError(f"cannot write {self.path}: it is a folder; give the name of a file")
        if self.resolved.exists() and not self.resolved.is_file():
            raise OutputError(f"cannot write {self.path}: it is there already, and no file")
        self.refuse_input(self.source_path)
        self.refuse_taken()
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OutputError(f"cannot write {self.path}: no permission to write in the folder {folder}")

    @property
    def resolved(self) -> Path:
        """The file itself, symbolic links followed, so that replacing it leaves the links in place."""
        return self.path.resolve()

    def refuse_taken(self) -> None:
        """Raise `TakenError` when the file is there and not to be replaced."""
        if self.resolved.exists() and not self.overwrite:
            raise TakenError(f"{self.path} exists already; pass --overwrite (overwrite=True) to replace it")

    def refuse_input(self, source: str | Path | None) -> None:
        """Raise `OutputError` when `source` is the same file, by whatever name."""
        if source is not None and same_file(source, self.resolved):
            raise OutputError(f"{self.path} is the input itself; write to another file")

    def part_path(self, number: int) -> Path:
        """The partial name: `a.part.mp4`, then `a.part-2.mp4` and so on; shortened where that is no name any more."""
        counter = "" if number == 1 else f"-{number}"
        ending = f".part{counter}{self.path.suffix}"
        stem = shortened(self.path.stem, _LONGEST_NAME - len(os.fsencode(ending)))
        return self.resolved.with_name(stem + ending)


class PartFile:
    """The growing file of a result: a writable, seekable binary file whose failure keeps what was safely written.

    After a failed write (disk full) nothing more is written: `error` holds the failure, the file is cut back to the
    last `checkpoint`, and later writes are swallowed, so that a muxer's attempt to finish cannot damage what is there.

    A warning tells where it has another name than the first, and why: whoever reads along would read the wrong file.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.error: OSError | None = None
        self.path, self._descriptor = self._create()
        _lock(self._descriptor, shared=False)  # says, until it is closed, that the file is being written
        self._position = 0
        self._safe_size = 0
        self._header_size = 0

    def _create(self) -> tuple[Path, int]:
        others: list[Path] = []
        while True:
            path = self.target.part_path(len(others) + 1)
            try:
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
                descriptor = os.open(path, flags, 0o666)
            except FileExistsError:
                others.append(path)
            except OSError as error:
                raise OutputError(f"cannot write {self.target.path}: {error.strerror}") from error
            else:
                _tell_of(others, path)
                return path, descriptor

    def write(self, data: bytes) -> int:
        """Write all of `data` at the current position; raises `OSError` the first time that fails."""
        if self.error is None:
            try:
                write_all(self._descriptor, data)
            except OSError as error:
                self.error = error
                os.ftruncate(self._descriptor, self._safe_size)
                raise
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if self.error is None:
            self._position = os.lseek(self._descriptor, offset, whence)
        elif whence == os.SEEK_SET:
            self._position = offset
        return self._position

    def tell(self) -> int:
        return self._position

    def begin(self) -> None:
        """Note that what is in the file now is only its header, worth nothing by itself."""
        self._header_size = os.fstat(self._descriptor).st_size

    def checkpoint(self) -> None:
        """Note that the file, as long as it is now, can be read: what a failure later cuts it back to."""
        if self.error is None:
            self._safe_size = os.fstat(self._descriptor).st_size

    def is_empty(self) -> bool:
        """Whether nothing worth keeping was written."""
        return self._safe_size <= self._header_size

    def empty(self) -> None:
        """Begin again."""
        os.ftruncate(self._descriptor, 0)
        self._position = os.lseek(self._descriptor, 0, os.SEEK_SET)
        self._safe_size = 0

    def unwritable(self, error: Exception) -> OutputError:
        """The error to raise where writing has failed with `error`, which says what is kept."""
        kept = "" if self.is_empty() else f"; what was written until then is in {self.path}"
        cause = self.error or error
        return OutputError(f"cannot write {self.target.path}: {getattr(cause, 'strerror', None) or cause}{kept}")

    def keep(self, lack: str = "") -> Path | None:
        """Close the file under its partial name and say where it is, and what it lacks; None if it was deleted."""
        self.close()
        if self.left is None:
            logger.warning("%s was deleted while it was being written", self.path)
        else:
            logger.warning("what was written until then is in %s%s", self.path, lack)
        return self.left

    @property
    def left(self) -> Path | None:
        """Where the partial file is; None if it was deleted."""
        return self.path if self.path.exists() else None

    def close(self) -> None:
        """Close the file under its partial name."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def discard(self) -> None:
        """Close and delete."""
        self.close()
        self.path.unlink(missing_ok=True)

    def publish(self) -> None:
        """Close and give the file its name. Raises `OutputError`, and keeps the partial name, when that fails.

        It is a `TakenError` if the name is taken now.
        """
        self.close()
        try:
            if self.target.overwrite:
                self.path.replace(self.target.resolved)
            else:
                rename_unless_taken(self.path, self.target.resolved)
        except FileExistsError as error:
            raise TakenError(
                f"{self.target.path} appeared while it was being written; the result is in {self.path}", self.path
            ) from error
        except OSError as error:
            where = "the result is in the former" if self.left else "it was deleted while it was being written"
            raise OutputError(f"cannot rename {self.path} to {self.target.path}: {error.strerror}; {where}") from error


def shortened(name: str, longest: int) -> str:
    """The beginning of a name that takes so many bytes at most, in a file system."""
    while name and len(os.fsencode(name)) > longest:
        name = name[:-1]
    return name


def write_all(descriptor: int, data: bytes | bytearray) -> None:
    """Write all of `data`. Raises `OSError` also where a disk takes a part of it, as one that is nearly full does."""
    with memoryview(data) as rest:
        written = 0
        while written < len(rest):
            written += os.write(descriptor, rest[written:])


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all; until it is, what was there before stays. Raises OutputError.

    What is no file, such as a pipe, is written to as it is, and so is what the command prints to, as /dev/stdout may
    be.
    """
    try:
        if path.exists() and (not path.is_file() or _is_printed_to(path)):
            path.write_text(text, "utf-8")
            return
        part = PartFile(Target(path, overwrite=True))
        try:
            part.write(text.encode())
        except BaseException:  # also of an interruption
            part.discard()
            raise
        part.publish()
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error


def _is_printed_to(path: Path) -> bool:
    """Whether a file is where standard output or errors go: replaced, it would lack what is printed from then on."""
    found = path.stat()
    for descriptor in (1, 2):
        with suppress(OSError):  # of one that is closed
            if os.path.samestat(found, os.fstat(descriptor)):
                return True
    return False


def is_being_written(path: Path) -> bool:
    """Whether a `PartFile` of some process is open at `path`. Raises `OSError` when the file cannot be read."""
    with path.open("rb") as file:
        return not _lock(file.fileno(), shared=True)


def _tell_of(others: Sequence[Path], path: Path) -> None:
    """Warn that `others` have the names that come before the partial name `path`, and who left or writes them."""
    if not others:
        return
    left = [other for other in others if not _is_known_to_be_written(other)]
    first = (left or others)[0]
    more = f" (and {len(left) - 1} more)" if len(left) > 1 else ""
    what = "is left of a run that failed or was killed" if left else "is being written by another run"
    logger.warning("%s%s %s; what this run writes is %s until it is whole", first, more, what, path.name)


def _is_known_to_be_written(path: Path) -> bool:
    try:
        return is_being_written(path)
    except OSError:  # nobody can say so of a file that cannot be read, or is gone by now
        return False


def whole_name(path: Path) -> Path | None:
    """What a result is called once it is whole that may be called `path` until then; None for another name."""
    match = re.fullmatch(r"(.+)\.part(-\d+)?", path.stem, re.DOTALL)
    return None if match is None else path.with_name(match[1] + path.suffix)


def same_file(first: str | Path, second: Path) -> bool:
    """Whether both are there and one and the same; an address, however long, is no file."""
    try:
        return Path(first).samefile(second)
    except OSError:
        return False


def file_identity(path: Path) -> tuple[int, int] | None:
    """What a file has in common with itself under another name; None when it is not there."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def identities(paths: Iterable[Path]) -> set[tuple[int, int]]:
    """Those of all the files that are there."""
    return {identity for path in paths if (identity := file_identity(path)) is not None}


def rename_unless_taken(old: Path, new: Path) -> None:
    """Rename, raising `FileExistsError` if `new` exists, where the file system can say so without a race."""
    try:
        new.hardlink_to(old)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS, errno.EXDEV):
            raise
        if new.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(new)) from None
        old.rename(new)
    else:
        old.unlink()
