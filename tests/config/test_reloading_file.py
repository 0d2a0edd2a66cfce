"""What is read from files that change: the log says it once for a file, and only where it has changed."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import formatEvent, globalLogPublisher

from gopush.config import reload as files
from gopush.config.reload import ReloadingFile
from gopush.errors import SettingsError
from tests.fixtures import Logged


@pytest.fixture
def lines(tmp_path: Path) -> Iterator[list[str]]:
    """What is logged of files of this test."""
    found: list[str] = []

    def observe(event: Any) -> None:
        line = formatEvent(event)
        if event.get("log_namespace") == "gopush.config.reload" and f"{tmp_path}/" in line:
            found.append(line)

    observer: Any = observe
    globalLogPublisher.addObserver(observer)
    yield found
    globalLogPublisher.removeObserver(observer)


class Pair:
    """A certificate and its key, as far as this goes: both hold the same words. Several parts of a process read it."""

    def __init__(self, directory: Path) -> None:
        self.certificate, self.key, self.authority = (directory / name for name in ("cert", "key", "ca"))
        self.write("first")
        self.authority.write_text("ca")
        paths = [self.certificate, self.key]
        self.readers = [ReloadingFile(paths, self._read), ReloadingFile([self.authority, *paths], self._read)]

    def write(self, words: str, key: str = "") -> None:
        for path, content in ((self.certificate, words), (self.key, key or words)):
            path.with_suffix(".new").write_text(content)
            path.with_suffix(".new").rename(path)

    def _read(self) -> str:
        if self.certificate.read_text() != self.key.read_text():
            raise SettingsError(f"{self.certificate}: does not fit")
        return self.certificate.read_text()

    def values(self) -> list[str]:
        return [reader.value for reader in self.readers]


def test_one_line_for_each_file_that_has_changed(tmp_path: Path, lines: list[str]) -> None:
    pair = Pair(tmp_path)
    files.reload()
    assert lines == []
    pair.write("second")
    files.reload()
    assert lines == [f"read anew: {pair.certificate}", f"read anew: {pair.key}"]
    files.reload()
    assert len(lines) == 2
    assert pair.values() == ["second"] * 2


def test_what_is_wrong_is_one_line_and_one_more_where_somebody_asks_again(tmp_path: Path, lines: list[str]) -> None:
    pair = Pair(tmp_path)
    pair.write("second", "another")
    files.reload()
    wrong = f"{pair.certificate}: does not fit; gopush keeps what it read before"
    assert lines == [wrong]
    files.reload()
    assert lines == [wrong] * 2
    assert pair.values() == ["first"] * 2


def test_a_certificate_that_came_before_its_key_is_named_once_both_are_there(tmp_path: Path, lines: list[str]) -> None:
    pair = Pair(tmp_path)
    pair.write("second", "first")
    files.reload()
    pair.key.write_text("second, and then some")
    pair.certificate.write_text("second, and then some")
    files.reload()
    assert lines[1:] == [f"read anew: {pair.certificate}", f"read anew: {pair.key}"]


def test_a_mistake_in_reading_one_leaves_its_value_and_the_other_files(
    tmp_path: Path, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_badly() -> str:
        if paths[0].read_text() == "bad":
            raise RuntimeError("a mistake")
        return paths[0].read_text()

    paths = [tmp_path / "bad", tmp_path / "good"]
    for path in paths:
        path.write_text("first")
    readers = [ReloadingFile(paths[:1], read_badly), ReloadingFile(paths[1:], paths[1].read_text)]
    monkeypatch.setattr(files, "_all", readers)
    paths[0].write_text("bad")
    paths[1].write_text("second")
    files.reload()
    assert [reader.value for reader in readers] == ["first", "second"]
    assert len(logged.tracebacks()) == 1
    monkeypatch.setattr(files, "LOOK_SECONDS", 0.0)
    paths[0].write_text("good now")
    assert readers[0].value == "good now"


def test_what_cannot_be_read_is_read_once_its_mode_is_right_and_is_one_line_until_then(
    tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mode that is changed shows in no stamp."""
    refuse = False

    def read() -> str:
        if refuse:
            raise PermissionError(errno.EACCES, "permission denied", str(path))
        return path.read_text()

    monkeypatch.setattr(files, "LOOK_SECONDS", 0.0)
    path = tmp_path / "keys"
    path.write_text("first")
    reader = ReloadingFile([path], read)
    path.write_text("second")
    refuse = True
    assert [reader.value for _ in range(3)] == ["first"] * 3
    refuse = False
    assert reader.value == "second"
    wrong = f"{path}: cannot be read: permission denied; gopush keeps what it read before"
    assert lines == [wrong, f"read anew: {path}"]


def test_parts_that_know_different_versions_say_what_is_wrong_once_each(
    tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LOOK_SECONDS", 0.0)
    pair = Pair(tmp_path)
    pair.write("second")
    assert pair.readers[0].value == "second"
    pair.key.write_text("third, and then some")
    for _ in range(3):
        assert pair.values() == ["second", "first"]
    assert lines[2:] == [f"{pair.certificate}: does not fit; gopush keeps what it read before"] * 2


def test_what_was_mended_and_is_wrong_once_more_is_news(
    tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LOOK_SECONDS", 0.0)
    path = tmp_path / "keys"
    path.write_text("first")
    reader = ReloadingFile([path], path.read_text)
    missing = f"{path}: cannot be read: No such file or directory; gopush keeps what it read before"
    for text in ("second", "third"):
        path.unlink()
        assert [reader.value for _ in range(3)] != [text] * 3
        path.write_text(text)
        assert reader.value == text
    assert [line for line in lines if line.endswith("before")] == [missing, missing]


def test_what_goes_away_and_comes_back_unchanged_is_news_each_time(
    tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many parts of a process read it."""
    monkeypatch.setattr(files, "LOOK_SECONDS", 0.0)
    pair = Pair(tmp_path)
    missing = f"{pair.key}: cannot be read: No such file or directory; gopush keeps what it read before"
    for times in range(1, 4):
        pair.key.rename(tmp_path / "away")
        for _ in range(3):
            assert pair.values() == ["first"] * 2
        assert lines == [missing] * times
        (tmp_path / "away").rename(pair.key)
        assert pair.values() == ["first"] * 2
