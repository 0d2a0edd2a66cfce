"""API keys: who may call the admin port (protocol.md, section 5).

The file has a line for each key, `name:sha256:limit`, of which the limit (pushes per second) may be missing; `gopush
key NAME` makes a key and its line. A key is 256 random bits, which nobody finds by trying: a plain SHA-256 hides it as
well as a slow hash would, and costs a request nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from secrets import token_urlsafe

from gopush.config.reload import ReloadingFile, lasting
from gopush.errors import SettingsError
from gopush.net.http.request import TEXT, Request, Response, explained, plain
from gopush.net.http.routes import Refuse, Routes
from gopush.web.access import guarded
from gopush.web.peers import WebCounters

MAX_KEYS = 1000
_LINE = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,64}):(?P<digest>[0-9a-f]{64})(?::(?P<limit>[1-9][0-9]{0,6}))?")
_UNAUTHORIZED = Response(
    401,
    TEXT,
    b"Unauthorized: this call wants an API key, in the header Authorization: Bearer KEY, or X-Api-Key: KEY\n",
    (("WWW-Authenticate", 'Bearer realm="gopush"'),),
)
_TOO_MANY = plain(429, ("Retry-After", "1"))


class Caller:
    """Who holds a key. `limit`: pushes per second, in the long run; None: any number."""

    __slots__ = ("_at", "_left", "_now", "digest", "limit", "name")

    def __init__(self, name: str, digest: bytes, limit: int | None, now: Callable[[], float]) -> None:
        self.name = name
        self.digest = digest
        self.limit = limit
        self._now = now
        self._left = float(limit or 0)
        self._at = now()

    @property
    def may_push(self) -> bool:
        """Whether the limit allows another call; who has spent more than there was waits until it is made up for."""
        if self.limit is None:
            return True
        now = self._now()
        self._left = min(float(self.limit), self._left + max(0.0, now - self._at) * self.limit)
        self._at = now
        return self._left > 0

    def take(self, pushes: int) -> None:
        """So many messages were pushed."""
        self._left -= pushes if self.limit is not None else 0


class ApiKeys:
    """The keys of a file, which is read anew when it changes. Raises SettingsError where it can't be used at first."""

    def __init__(self, path: Path, now: Callable[[], float]) -> None:
        self._path = lasting(path)
        self._now = now
        self._callers: Sequence[Caller] = ()
        self._file = ReloadingFile([self._path], self._read)

    def find(self, key: bytes) -> Caller | None:
        """Whose key this is. All are compared, in constant time."""
        given = sha256(key).digest()
        found = None
        for caller in self._file.value:
            if compare_digest(caller.digest, given):
                found = caller
        return found

    def _read(self) -> Sequence[Caller]:
        before = {(caller.name, caller.digest, caller.limit): caller for caller in self._callers}
        read = parse(self._path.read_bytes(), str(self._path), self._now)
        # Who stays keeps what it has spent.
        self._callers = [before.get((caller.name, caller.digest, caller.limit), caller) for caller in read]
        return self._callers


def parse(text: bytes, where: str, now: Callable[[], float]) -> list[Caller]:
    """The callers that a file names. Raises SettingsError, which never shows what stands there."""
    callers = []
    for number, line in enumerate(text.decode("utf-8", "replace").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise SettingsError(f"{where}: line {number} is not name:sha256 or name:sha256:limit (try gopush key NAME)")
        limit = int(match["limit"]) if match["limit"] else None
        callers.append(Caller(match["name"], bytes.fromhex(match["digest"]), limit, now))
    if not callers:
        raise SettingsError(f"{where}: holds no key (try gopush key NAME)")
    if len(callers) > MAX_KEYS:
        raise SettingsError(f"{where}: holds more than {MAX_KEYS} keys")
    return callers


def make(name: str) -> tuple[str, str]:
    """A new key, and the line for the file. Raises SettingsError for what is no name."""
    key = token_urlsafe(32)
    line = f"{name}:{sha256(key.encode()).hexdigest()}"
    if not _LINE.fullmatch(line):
        raise SettingsError(f"{name!r} is no name for a key (letters, digits, '.', '-' and '_', at most 64)")
    return key, line


def locked(routes: Routes, keys: ApiKeys, guard: Refuse, counters: WebCounters) -> Routes:
    """`routes`, with 401 for who has no key and 429 for who pushes too much, before the body is read.

    A browser shows no key by itself, so who has one passes from anywhere; of others `guard` is asked first.
    """

    def refuse(request: Request) -> Response | None:
        caller = keys.find(_given(request.headers))
        if caller is None:
            refused = guard(request)
            counters.wrong_keys += refused is None
            return refused or _UNAUTHORIZED
        request.caller = caller
        if not caller.may_push:
            counters.limited_keys += 1
            return explained(_TOO_MANY, request, f"this API key may push {caller.limit} times a second")
        return None

    return guarded(routes, refuse)


def take(request: Request, pushes: int) -> None:
    """Put so many pushes to the account of the caller."""
    if request.caller is not None:
        request.caller.take(pushes)


def may_push(request: Request) -> bool:
    """Whether the caller's limit allows one more push, within a call that is under way."""
    return request.caller is None or request.caller.may_push


def _given(headers: Mapping[bytes, bytes]) -> bytes:
    scheme, _, credentials = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer":
        return credentials.strip()
    return headers.get(b"x-api-key", b"")
