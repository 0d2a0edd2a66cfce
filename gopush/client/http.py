"""The HTTP calls of devices (protocol.md, section 4), of services (5) and of administrators (10). Blocking.

What fails raises ParameterError where trying again is pointless, else NoNodeError or UnavailableError.
"""

from __future__ import annotations

import json
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.client import BadStatusLine, HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, TypeVar
from urllib.parse import urlencode

from gopush.client.address import SECURE, Server, plain
from gopush.config.values import impossible
from gopush.errors import (
    RET_NO_NODE,
    RET_OK,
    RET_PARAMETER,
    GopushError,
    NoNodeError,
    ParameterError,
    UnavailableError,
)

TIMEOUT_SECONDS = 10
LEAST_SENT_BYTES = 1 << 16
"""What has to be sent in a second of a large message, besides."""

LONGEST_REASON = 300
TRANSIENT = (
    *(HTTPStatus.FOUND, HTTPStatus.SEE_OTHER, HTTPStatus.TEMPORARY_REDIRECT),
    *(HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS),
)
"""Statuses below 500 that may be others the next time. gopush redirects nobody: something in between does, as the
network of a hotel does until its guest has logged in.
"""
RETRY_SECONDS = 0.5
TCP = "2"
SECRETS = {"t", "token"}
"""Parameters, besides the API key, that a stranger must not see."""
# Numbers stay text: they may have more digits than Python turns into an int.
DECODER = json.JSONDecoder(parse_int=str, parse_float=str)
_BRACKET = re.compile(r'(?:[^"\[\]{}]|"(?:[^"\\]|\\.)*+")*+([\[\]{}])')
"""The next one that is not within a string, and what is before it."""


T = TypeVar("T")


def again(wait: float, call: Callable[[], T]) -> T:
    """Call, and for `wait` seconds again where that fails for now."""
    end = time.monotonic() + wait
    while True:
        try:
            return call()
        except (UnavailableError, NoNodeError):
            if time.monotonic() + RETRY_SECONDS > end:
                raise
            time.sleep(RETRY_SECONDS)


def look_up(web: Server, key: str) -> str:
    """The "host:port" of the comet that takes the key's TCP subscribers: see config.values.host_port."""
    answer = _call(web, "GET", "/1/server/get", {"k": key, "p": TCP})
    with _understood(web.address):
        found = str(DECODER.decode(answer)["data"]["server"])
    host, _, port = found.rpartition(":")
    if not port.isdecimal() or not 0 < int(port[:6]) < 65536 or impossible(host):
        raise UnavailableError(f"{web.address} named no address to connect to")
    return found


def history(web: Server, key: str, after: int, token: str = "") -> list[bytes]:
    """The key's kept messages after the mid `after`, each as it was answered, digit for digit."""
    query = {"k": key, "m": str(after)} | ({"t": token} if token else {})
    text = _call(web, "GET", "/1/msg/get", query)
    start = text.find('"msgs":[')
    with _understood(web.address):
        return [] if start < 0 else _objects(text, start + len('"msgs":['))


def health(server: Server) -> None:
    """Raise UnavailableError, with the reason, unless the process there can do its work."""
    connection = _connection(server)
    try:
        connection.request("GET", "/health")
        with _understood(server.address):
            said = json.loads(connection.getresponse().read())
            ready, reason = said["ready"], _readable(str(said.get("reason", "")))
    except (OSError, HTTPException) as wrong:
        why = getattr(wrong, "strerror", None) or _readable(str(wrong))
        raise UnavailableError(f"{server.address} cannot be reached: {why}") from None
    finally:
        connection.close()
    if not ready:
        raise UnavailableError(f"{server.address} is not ready: {reason}")


def push(admin: Server, key: str, body: bytes, expire: int, id: str | None = None) -> int | None:
    """Push a message to a key, to be kept for `expire` seconds; answers its mid, None where that is not told.

    `id` tells repeats apart.
    """
    query = {"key": key, "expire": str(expire), "mid": "1"} | ({} if id is None else {"id": id})
    answer = _call(admin, "POST", "/1/admin/push/private", query, body)
    try:
        return int(DECODER.decode(answer)["data"]["mid"])
    except (ValueError, KeyError, TypeError):
        return None  # `ret` was 0: it is stored


def nodes(admin: Server) -> list[dict[str, Any]]:
    """The processes of the cluster (section 10); numbers as text."""
    answer = _call(admin, "GET", "/1/admin/nodes", {})
    with _understood(admin.address):
        return [dict(node) for node in DECODER.decode(answer)["data"]["nodes"]]


def administer(admin: Server, call: str, query: Mapping[str, str]) -> dict[str, Any]:
    """One of the calls of section 10 that change something: "node/drain"; answers its data."""
    try:
        return ask(admin, "POST", f"/1/admin/{call}", query)
    except NoNodeError:
        if "node" not in query:
            raise
        there = "\n"
        with suppress(GopushError):
            there += f"registered are: {', '.join(sorted({node['node'] for node in nodes(admin)}))}"
        raise NoNodeError(f"{query['node']} is not registered{there.rstrip()}") from None


def ask(admin: Server, method: str, path: str, query: Mapping[str, str], body: bytes | None = None) -> dict[str, Any]:
    """Any call of the admin port; answers its data."""
    answer = _call(admin, method, path, query, body)
    with _understood(admin.address):
        return dict(json.loads(answer).get("data", {}))


def create_token(admin: Server, key: str) -> str:
    """A token for a subscriber of the key."""
    data = ask(admin, "POST", "/1/admin/token", {"key": key})
    with _understood(admin.address):
        return str(data["token"])


def authorization(api_key: str) -> dict[str, str]:
    """The headers that show an API key; without one, none."""
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}


def untrusted(address: str, wrong: ssl.SSLCertVerificationError) -> str:
    """What to say of a certificate that is no good."""
    return f"{address} is not trusted: {_readable(wrong.verify_message)} (--cacert FILE names its CA)"


def _objects(text: str, position: int) -> list[bytes]:
    """The objects, as they are written, of the JSON array that begins before `position`, however deeply they nest."""
    found = []
    while text[position] != "]":
        end = _end(text, position)
        found.append(text[position:end].encode())
        position = end + (text[end] == ",")
    return found


def _end(text: str, position: int) -> int:
    """Where the object or array that begins here ends."""
    depth = 0
    while bracket := _BRACKET.match(text, position):
        position = bracket.end()
        depth += 1 if bracket[1] in "[{" else -1
        if depth <= 0:
            return position
    raise ValueError("it does not end")


def _ret(answer: str) -> tuple[int, str]:
    """`ret` and `why`, which stand before the data: that may be nested more deeply than Python decodes."""
    head, data, _ = answer.partition(',"data":')
    said = DECODER.decode(head + "}" if data else head)
    return int(said["ret"]), _readable(str(said.get("why", "")))


def _call(server: Server, method: str, path: str, query: Mapping[str, str], body: bytes | None = None) -> str:
    address = server.address
    try:
        connection = _connection(server)
        try:
            if not address.startswith(SECURE) and (server.api_key or SECRETS & query.keys()):
                _expect_clear(connection, address)
            if connection.sock is None:
                connection.connect()
            connection.sock.settimeout(TIMEOUT_SECONDS + len(body or b"") / LEAST_SENT_BYTES)
            connection.request(
                method, f"{path}?{urlencode(query)}", body, {"Prefer": "why", **authorization(server.api_key)}
            )
            response = connection.getresponse()
            with _understood(address):
                answer = response.read().decode()
        finally:
            connection.close()
        if response.status != 200:
            transient = response.status >= 500 or response.status in TRANSIENT
            refused = UnavailableError if transient else ParameterError
            raise refused(f"{address} answered {response.status} {response.reason}{_hint(response.status, answer)}")
        with _understood(address):
            _raise_for(address, *_ret(answer))
    except ssl.SSLCertVerificationError as wrong:
        raise ParameterError(untrusted(address, wrong)) from None
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError):  # it ends or begins just now, or its balancer does
        raise UnavailableError(f"{address} cannot be reached: it ended the TLS connection") from None
    except ssl.SSLError as wrong:
        raise ParameterError(f"{address} does not speak TLS that gopush understands: {wrong.reason or wrong}") from None
    except TimeoutError:
        raise UnavailableError(f"{address} did not answer in time") from None
    except (OSError, HTTPException, ValueError) as wrong:  # a ValueError is a name or a header that cannot be
        why = getattr(wrong, "strerror", None) or _readable(str(wrong))
        raise UnavailableError(f"{address} cannot be reached: {why}{_tls_hint(wrong, address)}") from None
    return answer


def _connection(server: Server) -> HTTPConnection:
    if server.address.startswith(SECURE):
        return HTTPSConnection(plain(server.address), timeout=TIMEOUT_SECONDS, context=server.context)
    return HTTPConnection(server.address, timeout=TIMEOUT_SECONDS)


def _expect_clear(connection: HTTPConnection, address: str) -> None:
    """Ask for something that is no secret, before one is sent in the clear. Raises ParameterError at a TLS port."""
    try:
        connection.request("GET", "/health")
        response = connection.getresponse()
        response.read()
        clear = response.status != HTTPStatus.BAD_REQUEST  # what nginx says where TLS is wanted
    except ConnectionRefusedError:
        raise
    except (HTTPException, ConnectionError):
        clear = False
    if not clear:
        raise ParameterError(
            f"{address} does not speak plain HTTP, and gopush sent it no secret (try https://{address})"
        )


def _tls_hint(wrong: Exception, address: str) -> str:
    no_http = isinstance(wrong, BadStatusLine) and not address.startswith(SECURE)
    return f" (if it speaks TLS: https://{address})" if no_http else ""


@contextmanager
def _understood(address: str) -> Iterator[None]:
    """Around the reading of an answer: raises UnavailableError where it is not gopush's."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise UnavailableError(f"{address} did not answer as gopush does") from None


def _hint(status: int, answer: str) -> str:
    """What is wrong, from the answer's text after the name of its status, or the option that helps."""
    if status == 401:
        return ": it needs an API key that it knows (--api-key-file FILE)"
    _, _, why = answer.partition("\n")[0].partition(": ")
    return f": {_readable(why)}" if why else ""


def _readable(words: str) -> str:
    """What somebody else wrote, for a terminal."""
    return "".join(char if char.isprintable() else "?" for char in words[:LONGEST_REASON])


def _raise_for(address: str, ret: int, why: str) -> None:
    """`why`: empty where an older gopush does not say it."""
    if ret == RET_PARAMETER:
        raise ParameterError(f"{address} refused: {why or 'a parameter is wrong, or the message is not JSON'} (65534)")
    if ret == RET_NO_NODE:
        raise NoNodeError(f"{address}: {why or 'no comet can serve the key'} (1001)")
    if ret != RET_OK:
        raise UnavailableError(f"{address} failed: {why or 'try again'} ({ret})")
