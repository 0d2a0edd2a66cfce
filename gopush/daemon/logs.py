"""One line for each event, as text or as JSON, with the role and the node of the process.

Events of gopush have their own levels; those of libraries below a warning count as debug.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from errno import EACCES
from stat import S_IMODE
from typing import Any

from twisted.logger import LogEvent, Logger, LogLevel, eventAsText, formatEvent
from twisted.python.logfile import LogFile

from gopush.config.schema import Section
from gopush.config.values import one_of

log = Logger()

OWN_NAMESPACES = ("gopush", "stdout", "stderr")
_LEVELS = {level.name: level for level in LogLevel.iterconstants()}

_log = Section("log")


@dataclass(frozen=True)
class LogSettings:
    """Section [log]."""

    format: str = _log(
        "format",
        "text",
        one_of("text", "json"),
        "the format of log lines: text, or json (an object for each line)",
        live=True,
    )
    level: str = _log(
        "level", "info", one_of(*_LEVELS), f"the lowest level that is logged: {', '.join(_LEVELS)}", live=True
    )


class Lines:
    """Makes an event a line, None where the level is too low. The settings are looked at for each event."""

    def __init__(self, settings: LogSettings, role: str, node: str) -> None:
        self._settings = settings
        self._role = role
        self._node = node

    def __call__(self, event: LogEvent) -> str | None:
        """The line, its end included. Nothing in an event can begin another one."""
        level = _level(event)
        if level < _LEVELS[self._settings.level]:
            return None
        message, traceback = _message(event), _traceback(event)
        if not (message or traceback):
            return None
        time = datetime.fromtimestamp(event.get("log_time", 0), UTC)
        line = self._json if self._settings.format == "json" else self._text
        return line(f"{time:%Y-%m-%dT%H:%M:%S}.{time.microsecond // 1000:03}Z", level.name, event, message, traceback)

    def _text(self, time: str, level: str, event: LogEvent, message: str, traceback: str) -> str:
        """A traceback follows in lines that begin with a tab."""
        source = f"{self._role} {self._node} {event.get('log_namespace', '-')}#{level}"
        more = "".join(f"\t{_printable(line)}\n" for line in traceback.splitlines())
        return f"{time} [{_printable(source)}] {_printable(message)}\n{more}"

    def _json(self, time: str, level: str, event: LogEvent, message: str, traceback: str) -> str:
        fields: dict[str, Any] = {"time": time, "level": level, "role": self._role, "node": self._node}
        fields |= {"namespace": event.get("log_namespace", ""), "message": message}
        if traceback:
            fields["traceback"] = traceback
        if _is_ours(event):
            for name, value in event.items():
                if _is_plain(value) and not name.startswith("log_"):
                    fields.setdefault(name, value)
        return json.dumps(fields, separators=(",", ":")).replace("\x7f", "\\u007f") + "\n"


def _level(event: LogEvent) -> Any:
    level = event.get("log_level") or LogLevel.info
    if level is LogLevel.critical and "log_failure" not in event and "failure" not in event and not _is_ours(event):
        return LogLevel.warn  # twistd's "Removing stale pidfile": twisted.python.log knows no other level for it
    return level if _is_ours(event) or level > LogLevel.info else LogLevel.debug


def _is_ours(event: LogEvent) -> bool:
    return str(event.get("log_namespace", "")).partition(".")[0] in OWN_NAMESPACES


def _message(event: LogEvent) -> str:
    if "failure" in event and "log_failure" not in event:  # twisted.python.log's: its text has the traceback in it
        return str(event.get("why") or "unhandled error")
    return formatEvent(event)


def _traceback(event: LogEvent) -> str:
    failure = event.get("log_failure", event.get("failure"))
    if failure is None:
        return ""
    return eventAsText({"log_failure": failure}, includeTimestamp=False, includeSystem=False).strip()


def _is_plain(value: object) -> bool:
    return isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value))


def _printable(text: str) -> str:
    """`text` with what controls a terminal or ends a line, in whatever alphabet, as escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def reopen(file: LogFile) -> None:
    """Write to the file that is at the path of a log now, where logrotate has moved or replaced the old one; else begin
    a new one beside it, as twistd does. Where that cannot be, say so, and go on as before."""
    old = os.fstat(file._file.fileno())
    replaced = os.path.exists(file.path)
    try:
        with open(file.path, "ab") as new:
            found = os.fstat(new.fileno())
            moved = not os.path.samestat(found, old)
        if not moved and not os.access(file.directory, os.W_OK):
            raise PermissionError(EACCES, os.strerror(EACCES), file.directory)
    except OSError as wrong:
        log.error(
            "{path}: the log stays where it was: {reason}", path=str(wrong.filename), reason=wrong.strerror or "unknown"
        )
        return
    # A daemon has another umask than when its first file was made; the mode of one that logrotate has made is left.
    file.defaultMode = S_IMODE((found if replaced else old).st_mode)
    if moved:
        file.reopen()
    else:
        file.rotate()
    log.info("the log goes on in {path}", path=file.path)
