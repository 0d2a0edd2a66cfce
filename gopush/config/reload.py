"""What is read from files that change while a process runs: keys, certificates. It is read anew without a restart."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from twisted.logger import Logger

from gopush.errors import SettingsError

LOOK_SECONDS = 1.0
"""How often the files are looked at, at most."""

T = TypeVar("T")
Stamp = tuple[int, int, int] | None
"""What tells a file from an earlier one of its name; None: it is not there."""
Changes = list[tuple[Path, Stamp]]

log = Logger()


class ReloadingFile(Generic[T]):
    """The value that `read` makes of `paths`, made anew once one of them has changed.

    The first reading raises SettingsError where it fails. Later, the log says what is wrong with the files, and the
    value stays as it was. `option` names the files, and begins each error. It is for where somebody may write a secret
    in the place of a path: then no error shows a path that cannot be read.
    """

    def __init__(self, paths: Sequence[Path], read: Callable[[], T], option: str = "") -> None:
        self._paths = tuple(paths)
        self._read = read
        self._option = option
        self._good = self._look()
        """As the files were when reading them last went well."""
        self._wrong = False
        self._looked = time.monotonic()
        self._value = self._read_now()
        _all.add(self)

    @property
    def value(self) -> T:
        """What the files say. Where they cannot be used they are read again each second: a mode that is put right shows
        in no stamp."""
        if time.monotonic() - self._looked >= LOOK_SECONDS:
            self._looked = time.monotonic()
            if self._look() != self._good:
                self.reload()
            elif self._wrong:
                self._is_right()
        return self._value

    def reload(self) -> None:
        """Read now, changed or not. The log has one line for each file that has changed, however many parts of the
        process read it, and one for what is wrong."""
        now = self._look()
        stamps = zip(self._paths, now, self._good, strict=True)
        changes = [(path, stamp) for path, stamp, good in stamps if stamp != good]
        self._wrong = True
        try:
            self._value = self._read_now()
        except SettingsError as wrong:
            if _is_news(str(wrong), changes):
                log.error("{wrong}; gopush keeps what it read before", wrong=str(wrong))
            return
        except Exception:  # neither a new connection nor the other files are to suffer from that
            paths = ", ".join(map(str, self._paths))
            if _is_news(paths, changes):
                log.failure("{paths} cannot be read anew; gopush keeps what it read before", paths=paths)
            return
        for path, stamp in changes:
            if _announced.get(path) != stamp:
                _announced[path] = stamp
                log.info("read anew: {path}", path=str(path))
        self._good = now
        self._is_right()

    def _is_right(self) -> None:
        """What goes wrong from here on is news. The client of ZooKeeper reads its files in a thread of its own."""
        self._wrong = False
        _refused.difference_update([said for said in list(_refused) if said[1] in self._paths])

    def _read_now(self) -> T:
        try:
            return self._read()
        except OSError as failed:
            file = "the file" if self._option else f"{failed.filename}:"
            wrong = f"{file} cannot be read: {failed.strerror}"
        except SettingsError as refused:
            wrong = str(refused)
        raise SettingsError(f"{self._option}: {wrong}" if self._option else wrong)

    def _look(self) -> list[Stamp]:
        return [_stamp(path) for path in self._paths]


def reload() -> None:
    """Read all watched files of this process anew: what SIGHUP asks for. What is still wrong is said again."""
    _refused.clear()
    for file in list(_all):
        file.reload()


def lasting(path: str | Path) -> Path:
    """Where a file is, for as long as a process runs: its directory may be changed, or removed ("../gopush.ini")."""
    absolute = Path(path).absolute()
    direct = Path(os.path.normpath(absolute))
    with suppress(OSError):
        if os.path.samefile(direct.parent, absolute.parent):  # not so where .. stands behind a link
            return direct
    return absolute


def _is_news(wrong: str, changes: Changes) -> bool:
    """Whether the log has yet to say this of these changes."""
    said = {(wrong, None, None), *((wrong, path, stamp) for path, stamp in changes)}
    news = not said <= _refused
    _refused.update(said)
    return news


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


_all: WeakSet[ReloadingFile[Any]] = WeakSet()
_announced: dict[Path, Stamp] = {}
"""What the log has said of files that were read anew."""
_refused: set[tuple[str, Path | None, Stamp]] = set()
"""What the log has said is wrong, and with which changes."""
