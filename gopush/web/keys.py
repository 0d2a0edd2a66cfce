"""API keys: who may call the admin port (protocol.md, section 5).

The file has a line for each key, `name:sha256:limit:scope:prefix`, of which the last three may be empty or missing: the
limit in pushes per second; `push` or `admin`, where it is good for one of them only; what the keys that it is good for
begin with. `gopush key NAME` makes a key and its line. A key is 256 random bits, which nobody finds by trying: a plain
SHA-256 hides it as well as a slow hash would, and costs a request nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from hmac import compare_digest
from http import HTTPStatus
from pathlib import Path
from secrets import token_urlsafe
from typing import NamedTuple

from gopush.config.reload import ReloadingFile, lasting
from gopush.errors import ParameterError, SettingsError
from gopush.model import is_key
from gopush.net.http.request import TEXT, Request, Response, explained, plain
from gopush.net.http.routes import Answered, AnyRoute, Handler, Refuse, Route, Routes
from gopush.web.calls import ADMIN
from gopush.web.counters import WebCounters
from gopush.web.responses import FORBIDDEN, ForbiddenError

MAX_KEYS = 1000
_LIMIT = re.compile("[1-9][0-9]{0,6}")
_LINE = re.compile(
    r"(?P<name>[A-Za-z0-9._-]{1,64}):(?P<digest>[0-9a-f]{64})"
    rf"(?::(?P<limit>{_LIMIT.pattern}|)(?::(?P<scope>push|admin|)(?::(?P<prefix>.*))?)?)?[ \t]*"
)
_FORM = "name:sha256, name:sha256:limit or name:sha256:limit:scope:prefix (scope: push or admin)"
_KEY = re.compile(r"[A-Za-z0-9_-]{43}")
_OF_NOTHING = sha256(b"").digest()
_UNAUTHORIZED = Response(
    401,
    TEXT,
    b"Unauthorized: this call wants an API key that is known here, in the header Authorization: Bearer KEY, "
    b"or X-Api-Key: KEY\n",
    (("WWW-Authenticate", 'Bearer realm="gopush"'),),
)
_TOO_MANY = plain(429, ("Retry-After", "1"))


class KeyUse(NamedTuple):
    """What a call needs of an API key: its scope ("": any), and where the call names the keys that it is about.

    `named`: "query": as `key`; "body": the handler looks, with check_keys(); "": it is about no key, or about all.
    """

    scope: str
    named: str


_USES = {call.path: KeyUse(call.scope, call.named) for call in ADMIN} | {"/openapi.json": KeyUse("", "body")}
_OTHER_USE = KeyUse("admin", "")


@dataclass(eq=False, repr=False, slots=True)
class Caller:
    """The holder of an API key. `limit`: pushes per second, in the long run; None: any number.

    `scope`: "push", "admin", or "" for both; `prefix`: what the keys begin with that it may name.
    """

    name: str
    digest: bytes
    limit: int | None
    _now: Callable[[], float]
    scope: str = ""
    prefix: str = ""
    _left: float = field(init=False)
    _at: float = field(init=False)

    def __post_init__(self) -> None:
        self._left = float(self.limit or 0)
        self._at = self._now()

    @property
    def may_push(self) -> bool:
        """Whether the limit allows another call; a caller that has spent more than there was waits until that is made
        up for.
        """
        if self.limit is None:
            return True
        now = self._now()
        self._left = min(float(self.limit), self._left + max(0.0, now - self._at) * self.limit)
        self._at = now
        return self._left > 0

    @property
    def line(self) -> tuple[object, ...]:
        """What its line says."""
        return self.name, self.digest, self.limit, self.scope, self.prefix

    def why_not(self, use: KeyUse, request: Request) -> str:
        """Why the key is not good for a call; "" where it is, or where the handler has to look."""
        if self.scope and use.scope and self.scope != use.scope:
            return f"this API key is for {self.scope} calls, and this is not one"
        if not self.prefix or use.named == "body":
            return ""
        if not use.named:
            return "this API key is for the keys of one prefix, and this call is about all keys"
        try:
            key = request.query.text("key")
        except ParameterError:
            key = ""
        return "" if self.covers(key) else OUTSIDE

    def covers(self, key: str) -> bool:
        """Whether it may name this key of a channel."""
        return key.startswith(self.prefix)

    def take(self, pushes: int) -> None:
        """So many messages were pushed."""
        self._left -= pushes if self.limit is not None else 0

    def try_take(self, pushes: int) -> bool:
        """take(), within a call that is under way, where the limit allows any."""
        allowed = self.may_push
        if allowed:
            self.take(pushes)
        return allowed


class ApiKeys:
    """The keys of a file, which is read anew when it changes. Raises SettingsError where it can't be used at first."""

    def __init__(self, path: Path, now: Callable[[], float]) -> None:
        self._path = lasting(path)
        self._now = now
        self._callers: Sequence[Caller] = ()
        self._file = ReloadingFile([self._path], self._read, "[admin] keys")

    def find(self, key: bytes) -> Caller | None:
        """The caller with this key, b"" being none. Compares all keys, each in constant time."""
        if not key:
            return None
        given = sha256(key).digest()
        found = None
        for caller in self._file.value:
            if compare_digest(caller.digest, given):
                found = caller
        return found

    def know(self, caller: Caller) -> bool:
        """Whether the file still says of this caller what it said when it was found."""
        return caller in self._file.value

    def _read(self) -> Sequence[Caller]:
        before = {caller.line: caller for caller in self._callers}
        read = parse(self._path.read_bytes(), str(self._path), self._now)
        # A caller that stays keeps what it has spent.
        self._callers = [before.get(caller.line, caller) for caller in read]
        return self._callers


def parse(text: bytes, where: str, now: Callable[[], float]) -> list[Caller]:
    """The callers that a file names. Raises SettingsError, which never shows what stands there."""
    lines = text.decode("utf-8", "replace").splitlines()
    callers = [caller for line in lines if (caller := _caller(line.lstrip(), now)) is not None]
    digests = {caller.digest for caller in callers}
    for number, line in enumerate(lines, 1):
        if (caller := _caller(line.lstrip(), now)) is not None and caller.digest == _OF_NOTHING:
            raise SettingsError(
                f"{where}: line {number} is of an empty key, an unset variable perhaps (try gopush key NAME)"
            )
        if not line.strip() or line.startswith("#") or caller is not None:
            continue
        # The file may hold all that `gopush key` has printed, so also a key whose line is here.
        if not _KEY.fullmatch(line.strip()) or sha256(line.strip().encode()).digest() not in digests:
            raise SettingsError(f"{where}: line {number} is not {_FORM} (try gopush key NAME)")
    if not callers:
        raise SettingsError(f"{where}: holds no key (try gopush key NAME)")
    if len(callers) > MAX_KEYS:
        raise SettingsError(f"{where}: holds more than {MAX_KEYS} keys")
    return callers


def _caller(line: str, now: Callable[[], float]) -> Caller | None:
    """The caller that a line names; None where it has another form."""
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    prefix = match["prefix"] or ""
    if prefix and not _is_prefix(prefix):
        return None
    limit = int(match["limit"]) if match["limit"] else None
    return Caller(match["name"], bytes.fromhex(match["digest"]), limit, now, match["scope"] or "", prefix)


def _is_prefix(prefix: str) -> bool:
    return is_key(prefix) and "\ufffd" not in prefix


def make(name: str, limit: str | None = None, scope: str = "", prefix: str | None = None) -> tuple[str, str]:
    """A new key, and the line for the file. Raises SettingsError for what makes none; an empty limit or prefix may be
    a script's variable that was not set, and would make a key for more.
    """
    key = token_urlsafe(32)
    digest = sha256(key.encode()).hexdigest()
    if _caller(f"{name}:{digest}", float) is None:
        raise SettingsError(f"{name!r} is no name for a key (letters, digits, '.', '-' and '_', at most 64)")
    if limit is not None and not _LIMIT.fullmatch(limit):
        raise SettingsError(f"the limit {limit!r} is not a number of pushes per second from 1 to 9999999")
    if prefix is not None and not _is_prefix(prefix):
        raise SettingsError(
            f"the prefix {prefix!r} is not what a key begins with (1 to 255 bytes of UTF-8, no controls)"
        )
    line = f"{name}:{digest}:{limit or ''}:{scope}:{prefix or ''}"
    return key, line if prefix else line.rstrip(":")


def locked(routes: Routes, keys: ApiKeys, guard: Refuse, counters: WebCounters) -> Routes:
    """`routes`, with 401 for callers without a key, 403 for those whose key is for other calls or other keys, and 429
    for those that push too much, before the body is read.

    A browser shows no key by itself, so a caller with one passes from anywhere; for others `guard` is asked first.
    """
    lock = _Lock(keys, guard, counters)
    return {
        path: {method: lock.put_on(route, _USES.get(path, _OTHER_USE)) for method, route in methods.items()}
        for path, methods in routes.items()
    }


class _Lock:
    """See locked()."""

    def __init__(self, keys: ApiKeys, guard: Refuse, counters: WebCounters) -> None:
        self._keys = keys
        self._guard = guard
        self._counters = counters

    def put_on(self, route: AnyRoute, use: KeyUse) -> AnyRoute:
        if isinstance(route, Route) and use.named == "body":
            route = replace(route, handler=partial(self._counted, route.handler))
        return replace(route, refuse=partial(self._refuse, use))

    def _refuse(self, use: KeyUse, request: Request) -> Response | None:
        given = _given(request.headers)
        caller = self._keys.find(given)
        if caller is None:
            return self._guard(request) or self._unknown(given)
        request.caller = caller
        if why := caller.why_not(use, request):
            self._counters.outside_scope += 1
            return explained(FORBIDDEN, request, why)
        if not caller.may_push:
            self._counters.limited_keys += 1
            return explained(_TOO_MANY, request, f"this API key may push {caller.limit} times a second")
        return None

    def _unknown(self, given: bytes) -> Response:
        if given:
            self._counters.wrong_keys += 1
        else:
            self._counters.missing_keys += 1  # a page that asks for one, most often
        return _UNAUTHORIZED

    def _counted(self, handler: Handler, request: Request) -> Answered:
        """A handler that looks itself at the keys that a body names."""
        answered = handler(request)
        self._counters.outside_scope += isinstance(answered, Response) and answered.status == HTTPStatus.FORBIDDEN
        return answered


OUTSIDE = "this API key is for keys with another prefix"


def check_keys(request: Request, keys: Iterable[str]) -> None:
    """Raise ForbiddenError where one of them is not the caller's to name."""
    if request.caller is not None and not all(map(request.caller.covers, keys)):
        raise ForbiddenError(OUTSIDE)


def _given(headers: Mapping[bytes, bytes]) -> bytes:
    scheme, _, credentials = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer":
        return credentials.strip()
    return headers.get(b"x-api-key", b"")
