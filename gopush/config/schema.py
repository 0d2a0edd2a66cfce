"""Ini files to frozen, typed settings. A role declares its options as fields of a dataclass, each by its Section.

Only adopt() changes them, and only those declared `live`, which code has to read whenever it needs them. Each mistake
in a file is one line: file, section, option, what was found, what would be right.
"""

from __future__ import annotations

import configparser
import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from gopush.config.values import shown
from gopush.errors import SettingsError

SECRETS = frozenset({"secret", "secret.previous", "sentinel.password", "source"})
"""The options whose values are never shown."""

_NEAR_SECRET = re.compile(r"\b(secret|password|source|token|keys?)\b")
"""In the place of an option: somebody may write a secret there, so an error does not show what is written."""

_PLAIN = re.compile(r"[A-Za-z.]{1,24}")
"""What a mistyped name looks like; a password mostly does not."""

_SECTION = re.compile(r"\[(?P<header>[^]]+(?=\]\s*([#;].*)?$)|.*\].*)")
"""Where other text than a comment stands behind it, it is part of the name: configparser would drop it."""

_MOST_BYTES = 16 << 20

HEADER = """\
# All options with their defaults. A duration has a unit (ms, s, m, h, d), a size may have one (B, KiB, MiB, GiB).
# Addresses to listen on: Twisted endpoint strings or host:port, separated by blanks or on further, indented lines.
# At SIGHUP the process reads the file anew; options marked with it change then, all others at the next start.
"""

S = TypeVar("S")
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Option:
    """One line of an ini file: its place, its default as written there, how it is read, what it means.

    `live`: it can be changed while the process runs.
    """

    section: str
    name: str
    default: str
    parse: Callable[[str], Any]
    help: str
    live: bool = False


class Section:
    """A section of the ini file; called, it declares one of its options as a field of a settings dataclass."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, name: str, default: str, parse: Callable[[str], T], help: str, *, live: bool = False) -> T:
        """`parse` raises ValueError saying what would be right."""
        declared = Option(self._name, name, default, parse, help, live)
        return dataclasses.field(default_factory=lambda: parse(default), metadata={"option": declared})


def options(settings: type[Any]) -> list[Option]:
    """All declared options, those of nested settings included, in their order; what several parts share, once."""
    found = []
    for field in dataclasses.fields(settings):
        if "option" in field.metadata:
            found.append(field.metadata["option"])
        elif (nested := _nested(field)) is not None:
            found.extend(options(nested))
    return list(dict.fromkeys(found))


def values(settings: Any) -> Iterator[tuple[Option, Any]]:
    """Each option with its value, those of nested settings included; what several parts share, once for each."""
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if "option" in field.metadata:
            yield field.metadata["option"], value
        else:
            yield from values(value)


def render(settings: type[Any]) -> str:
    """The ini file of the defaults: every option once, with its meaning and its default."""
    sections: dict[str, list[Option]] = {}
    for opt in options(settings):
        sections.setdefault(opt.section, []).append(opt)
    lines = [HEADER]
    for section, found in sections.items():
        lines.append(f"[{section}]\n")
        lines.extend(
            f"# {opt.help}{' (SIGHUP)' if opt.live else ''}\n{opt.name} = {opt.default}".rstrip() + "\n"
            for opt in found
        )
    return "\n".join(lines)


def load(settings: type[S], path: Path | None) -> S:
    """Read `path` (None: the defaults) into `settings`. Raises SettingsError."""
    return load_file(settings, path)[0]


def load_file(settings: type[S], path: Path | None) -> tuple[S, bool]:
    """See load(); and whether the file holds no option, as who cannot write leaves one."""
    content, found = _read(path) if path is not None else ("", {})
    _refuse_unknown(path, content, found, options(settings))
    try:
        return _build(settings, path, found), path is not None and not any(found.values())
    except ValueError as wrong:
        raise SettingsError(f"{path or 'the defaults'}: {wrong}") from None


def adopt(settings: Any, read: Any) -> tuple[list[str], list[str]]:
    """Take the live options from settings that were read later; gives the names of those that changed, and of those
    that cannot.
    """
    adopted: list[str] = []
    fixed: list[str] = []
    for field in dataclasses.fields(settings):
        opt, value = field.metadata.get("option"), getattr(read, field.name)
        if opt is None:
            more_adopted, more_fixed = adopt(getattr(settings, field.name), value)
            adopted += more_adopted
            fixed += more_fixed
        elif value != getattr(settings, field.name):
            (adopted if opt.live else fixed).append(f"[{opt.section}] {opt.name}")
            if opt.live:
                object.__setattr__(settings, field.name, value)
    return list(dict.fromkeys(adopted)), list(dict.fromkeys(fixed))


def _build(settings: type[S], path: Path | None, found: Mapping[str, Mapping[str, str]]) -> S:
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cast(Any, settings)):
        opt = field.metadata.get("option")
        if opt is None:
            values[field.name] = _build(cast(type[Any], _nested(field)), path, found)
        elif opt.name in found.get(opt.section, {}):
            values[field.name] = _parse(path, opt, found[opt.section][opt.name])
    return settings(**values)


def _nested(field: dataclasses.Field[Any]) -> type[Any] | None:
    """The settings class of a field declared with field(default_factory=Class)."""
    factory: Any = field.default_factory
    return factory if dataclasses.is_dataclass(factory) and isinstance(factory, type) else None


def _read(path: Path) -> tuple[str, Mapping[str, Mapping[str, str]]]:
    """The text, and what it says. Raises SettingsError, which never shows a line: any of them may hold a secret."""
    parser = configparser.ConfigParser(
        interpolation=None, delimiters=("=",), comment_prefixes=("#", ";"), default_section="\0", strict=True
    )
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.SECTCRE = _SECTION
    content = read_file(path)
    try:
        parser.read_string(content, str(path))
    except configparser.Error as wrong:
        raise SettingsError(f"{path}: {_malformed(wrong)}") from None
    return content, {name: dict(parser[name]) for name in parser.sections()}


def read_file(path: Path) -> str:
    """The text of a file that somebody wrote. Raises SettingsError, also for one that does not end within reason."""
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES)
        if len(content) == _MOST_BYTES:
            raise SettingsError(f"{path}: has {_MOST_BYTES >> 20} MiB or more: this is another file")
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except OSError as wrong:
        raise SettingsError(f"{path}: cannot be read: {wrong.strerror}") from None
    except UnicodeDecodeError as wrong:
        raise SettingsError(f"{path}: is not UTF-8 at byte {wrong.start}") from None


def _malformed(wrong: configparser.Error) -> str:
    errors = getattr(wrong, "errors", ())
    line = f"line {errors[0][0] if errors else getattr(wrong, 'lineno', '?')}"
    if isinstance(wrong, configparser.MissingSectionHeaderError):
        return f"{line}: stands before the first [section]"
    if isinstance(wrong, configparser.DuplicateSectionError):
        return f"{line}: the [section] was there before"
    if isinstance(wrong, configparser.DuplicateOptionError):
        return f"{line}: the option was there before in this [section]"
    return f"{line}: is neither [section] nor option = value (what goes on with the line before is indented)"


def _refuse_unknown(
    path: Path | None, content: str, found: Mapping[str, Mapping[str, str]], declared: Sequence[Option]
) -> None:
    known: dict[str, set[str]] = {}
    for opt in declared:
        known.setdefault(opt.section, set()).add(opt.name)
    for section, lines in found.items():
        if "]" in section:
            line, _ = _index(content, section)
            more = "holds more than [section]: an option has a line of its own"
            raise SettingsError(f"{path}: line {line}: {'names no section' if section.startswith(']') else more}")
        if section not in known:
            names = ", ".join(f"[{name}]" for name in known)
            shown = _shown(f"[{section}]", section, *_index(content, section))
            raise SettingsError(f"{path}: {shown}: is no section here (there are {names})")
        for name in lines:
            if name not in known[section]:
                names = ", ".join(sorted(known[section]))
                shown = _shown(f"[{section}] {name}", name, *_index(content, section, name))
                raise SettingsError(f"{path}: {shown}: is no option here (there are {names})")


def _index(content: str, section: str, name: str | None = None) -> tuple[int, bool]:
    """The line of a section or an option, and whether it may be the rest of a secret, which stands before it."""
    current, secret = "", False
    for number, line in enumerate(map(str.strip, content.split("\n")), 1):
        if line.startswith("["):
            if name is None and (line.startswith(f"[{section}]") or line == f"[{section}"):
                return number, secret
            current, secret = line, False
        found, is_option, _ = line.partition("=")
        if is_option and current.startswith(f"[{section}]") and found.rstrip() == name:
            return number, secret
        secret = secret or bool(_NEAR_SECRET.search(found))
    return 0, True


def _shown(words: str, name: str, line: int, after_secret: bool) -> str:
    """What is wrong, by its name where that can be no secret, else by its line."""
    return f"line {line}" if after_secret or not _PLAIN.fullmatch(name) else words


def _may_be_secret(opt: Option, raw: str) -> bool:
    """A mistyped number beside secrets is none, where a number is meant; nor is what is missing there."""
    is_number = type(opt.parse(opt.default)) in (int, float) and re.match(r"[-+.]?(\d|(nan|inf)?\Z)", raw)
    return opt.name in SECRETS or (not is_number and bool(_NEAR_SECRET.search(f"{opt.section} {opt.name}")))


def _parse(path: Path | None, opt: Option, raw: str) -> Any:
    try:
        return opt.parse(raw)
    except ValueError as wrong:
        found = "(hidden)" if _may_be_secret(opt, raw) else shown(raw)
        hint = "; a comment has a line of its own" if re.search(r"\s[#;]", raw) else ""
        raise SettingsError(f"{path}: [{opt.section}] {opt.name}: {found} {wrong}{hint}") from None
