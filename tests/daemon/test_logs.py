"""Lines: one for each event, that of a hostile one included."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.logger import LogEvent, Logger, LogLevel, globalLogPublisher
from twisted.python import log as old_log
from twisted.python.failure import Failure

from gopush.daemon.logs import Lines, LogSettings

TIME = 1_700_000_000.12345
STAMP = "2023-11-14T22:13:20.123Z"
HOSTILE = "\n\r\0\x1b\x7f\x85\u2028\u2029\u202e\ud800"


def event(text: str = "{word} came", level: LogLevel = LogLevel.info, space: str = "gopush.some", **fields: Any) -> Any:
    return {"log_time": TIME, "log_format": text, "log_level": level, "log_namespace": space, **fields}


def text(event: LogEvent, **settings: str) -> str | None:
    return Lines(LogSettings(**settings), "comet", "node1")(event)


def parsed(event: LogEvent, **settings: str) -> dict[str, Any]:
    line = text(event, format="json", **settings)
    assert line is not None
    assert line.endswith("\n")
    assert len(line.splitlines()) == 1
    fields: dict[str, Any] = json.loads(line)
    return fields


def boom(words: str) -> Failure:
    try:
        raise ValueError(words)
    except ValueError:
        return Failure()


def test_a_line_of_text_names_time_role_node_source_and_level() -> None:
    assert text(event(word="It")) == f"{STAMP} [comet node1 gopush.some#info] It came\n"


def test_a_line_of_json_has_the_plain_fields_of_the_event() -> None:
    assert parsed(event(word="It", count=3, share=0.5, on=True, peer=object(), bad=float("nan"), log_more=1)) == {
        "time": STAMP,
        "level": "info",
        "role": "comet",
        "node": "node1",
        "namespace": "gopush.some",
        "message": "It came",
        "word": "It",
        "count": 3,
        "share": 0.5,
        "on": True,
    }


def test_no_field_of_an_event_takes_the_place_of_one_of_the_lines_own() -> None:
    own = {"role": "web", "node": "x", "time": "never", "level": "y", "message": "", "namespace": "z"}
    fields = parsed(event(word="It") | own)
    assert (fields["role"], fields["node"], fields["namespace"]) == ("comet", "node1", "gopush.some")
    assert (fields["time"], fields["level"], fields["message"]) == (STAMP, "info", "It came")


@pytest.mark.parametrize("level", ["debug", "info", "warn", "error", "critical"])
def test_the_level_is_the_least_that_is_reported(level: str) -> None:
    levels = list(LogLevel.iterconstants())
    reported = [one.name for one in levels if text(event(level=one, word="It"), level=level)]
    assert reported == [one.name for one in levels if one >= LogLevel.lookupByName(level)]


def test_both_settings_can_change_at_any_time() -> None:
    settings = LogSettings()
    lines = Lines(settings, "comet", "node1")
    assert lines(event(level=LogLevel.debug)) is None
    object.__setattr__(settings, "level", "debug")
    object.__setattr__(settings, "format", "json")
    assert json.loads(lines(event(level=LogLevel.debug, word="It")) or "")["level"] == "debug"


@pytest.mark.parametrize("space", ["twisted.internet.base", "log_legacy", "autobahn.twisted", ""])
def test_what_libraries_say_is_for_debugging_unless_they_warn(space: str) -> None:
    assert text(event(space=space)) is None
    assert "#debug]" in (text(event(space=space), level="debug") or "")
    assert "#warn]" in (text(event(space=space, level=LogLevel.warn)) or "")


@pytest.mark.parametrize("char", [*HOSTILE, "\r\n"])
def test_nothing_begins_another_line(char: str) -> None:
    """Neither in a line of text nor in one of JSON, neither in a key nor in what is wrong with it."""
    hostile = event("{word} came", word=f"a{char}forged", space=f"gopush.{char}forged")
    line = text(hostile)
    assert line is not None
    assert line.splitlines() == [line[:-1]]
    assert line[:-1].isprintable()
    line.encode()
    assert parsed(hostile)["word"] == f"a{char}forged"
    encoded = text(hostile, format="json") or ""
    assert encoded.isascii()
    assert encoded[:-1].isprintable()


def test_a_traceback_is_a_field_or_lines_that_begin_with_a_tab() -> None:
    failed = event("It failed", LogLevel.critical, log_failure=boom(f"no{HOSTILE}{STAMP} [forged]"))
    first, *others = (text(failed) or "").split("\n")
    assert first == f"{STAMP} [comet node1 gopush.some#critical] It failed"
    assert others.pop() == ""
    assert others[0] == "\tTraceback (most recent call last):"
    assert any("ValueError: no" in line for line in others)
    assert all(line.startswith("\t") and line[1:].isprintable() for line in others)
    fields = parsed(failed)
    assert fields["message"] == "It failed"
    assert fields["traceback"].startswith("Traceback (most recent call last):")
    assert "forged" in fields["traceback"]


def test_an_event_that_cannot_be_formatted_is_reported_all_the_same() -> None:
    assert "Unable to format event" in (text(event("{missing.word}")) or "")


def test_an_event_without_words_is_no_line() -> None:
    assert text(event("")) is None


@pytest.fixture
def heard() -> Any:
    events: list[Any] = []
    observer: Any = events.append
    globalLogPublisher.addObserver(observer)
    yield events
    globalLogPublisher.removeObserver(observer)


def test_old_and_new_ways_of_logging_give_lines(heard: list[Any]) -> None:
    old_log.err(boom("old"), "it broke")
    Logger(namespace="gopush.some").failure("it broke", boom("new"))
    old, new = heard
    first, *others = (text(old) or "").splitlines()
    assert first.endswith("[comet node1 log_legacy#critical] it broke")
    assert others[-1] == "\tbuiltins.ValueError: old"
    assert parsed(new)["message"] == "it broke"
    assert "ValueError: new" in parsed(new)["traceback"]


def test_what_twistd_does_about_a_left_pid_file_is_no_catastrophe(heard: list[Any]) -> None:
    """Its log knows an error or nothing; with a traceback it stays one."""
    old_log.msg("Removing stale pidfile /run/gopush.pid", isError=True)
    line = text(heard[-1])
    assert line is not None
    assert line.endswith("[comet node1 log_legacy#warn] Removing stale pidfile /run/gopush.pid\n")
