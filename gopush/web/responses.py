"""The answers of both APIs: `{"ret":…,"data":{…}}`, bare or in a callback (protocol.md, sections 4 and 5)."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from gopush.errors import (
    RET_INTERNAL,
    RET_NO_NODE,
    RET_OK,
    RET_PARAMETER,
    NoNodeError,
    ParameterError,
    UnavailableError,
)
from gopush.model import json_string
from gopush.net.http.request import AnyResponse, Paged, Request, Response, explained, plain
from gopush.net.http.routes import Answered, Handler

JSON = "application/json;charset=utf-8"
JAVASCRIPT = "application/javascript;charset=utf-8"

_CALLBACK = re.compile(r"(?=.{1,64}\Z)[A-Za-z_$][A-Za-z0-9_$]*(?:\.[A-Za-z_$][A-Za-z0-9_$]*)*\Z")

FORBIDDEN = plain(403)
AWAY = "the nodes that this call needs did not answer in time, or the store cannot be reached: try again"

log = Logger()


class ApiForm(NamedTuple):
    """What differs between the forms of the API: the query's name of the callback, and what follows `ret`."""

    callback: str
    extra: bytes


NEW = ApiForm("cb", b"")
OLD = ApiForm("callback", b',"msg":"ok"')


class Pages(NamedTuple):
    """Data that is too large to be held: `more` gives the next piece, b"" at the end (see net.http.request.Paged)."""

    first: bytes
    more: Callable[[], Awaitable[bytes]]


Data = bytes | Pages
Work = Callable[[Request], "bytes | Deferred[bytes] | Deferred[Data]"]


class ForbiddenError(Exception):
    """The caller's API key is not good for what the body names: 403, and why."""


class FailedError(Exception):
    """An answer other than `ret` 0, why, and the data that come with it."""

    def __init__(self, ret: int, why: str, data: bytes = b"") -> None:
        super().__init__(why)
        self.ret = ret
        self.data = data


def api(work: Work) -> Handler:
    """A handler of the admin API: `work` gives the data (b"" for none), or raises what `ret` stands for."""
    return partial(_answer, work, answer)


def callback_api(form: ApiForm, work: Work) -> Handler:
    """As api(), for the public API: the answer may be wanted in a callback."""

    bare = partial(_javascript, form, "")

    def handle(request: Request) -> Answered:
        try:
            callback = request.query.get(form.callback)
            if callback and not _CALLBACK.match(callback):
                raise ParameterError(
                    f"{form.callback} is not the name of a JavaScript function of at most 64 characters"
                )
        except ParameterError as wrong:
            return bare(RET_PARAMETER, b"", reason(wrong, request))
        return _answer(work, partial(_javascript, form, callback) if callback else bare, request)

    return handle


class _Render(Protocol):
    def __call__(self, ret: int, data: Any, why: str = "") -> AnyResponse: ...


def _answer(work: Work, render: _Render, request: Request) -> Answered:
    try:
        data = work(request)
    except ForbiddenError as forbidden:
        return explained(FORBIDDEN, request, str(forbidden))
    except Exception as error:
        return render(*_failed(error, request))
    if not isinstance(data, Deferred):
        return render(RET_OK, data)
    coming: Deferred[Any] = data
    answered: Deferred[AnyResponse] = coming.addCallbacks(
        lambda found: render(RET_OK, found), lambda failure: render(*_failed(failure.value, request))
    )
    return answered


def reason(error: BaseException | None, request: Request) -> str:
    """Why a call failed, where its caller asks for that; strangers hear nothing of what lies within the cluster."""
    if not request.wants_why:
        return ""
    if isinstance(error, (ParameterError, NoNodeError, FailedError)):
        return str(error)
    return AWAY if isinstance(error, UnavailableError) else "an internal error of gopush, see its log"


def _failed(error: BaseException | None, request: Request) -> tuple[int, bytes, str]:
    """The `ret` and the data of an error, and why; what nobody meant to raise is logged."""
    why = reason(error, request)
    if isinstance(error, FailedError):
        return error.ret, error.data, why
    if isinstance(error, ParameterError):
        return RET_PARAMETER, b"", why
    if isinstance(error, NoNodeError):
        return RET_NO_NODE, b"", why
    if isinstance(error, UnavailableError):
        log.debug("{path} failed: {error}", path=request.path, error=error)
    else:
        failure = Failure(error)
        log.failure("{path} failed", failure, path=request.path)
    return RET_INTERNAL, b"", why


OK = Response(200, JSON, b'{"ret":0}')


def answer(ret: int, data: bytes, why: str = "") -> Response:
    """The answer of the admin API."""
    return Response(200, JSON, _envelope(ret, because(why), data))


def failure(error: Exception, request: Request) -> Response:
    """The answer of the admin API to a call that failed by this."""
    return answer(*_failed(error, request))


def because(why: str) -> bytes:
    """What an answer says after its `ret`."""
    return b',"why":%b' % json_string(why) if why else b""


def compact(data: object) -> bytes:
    """Data as JSON without blanks."""
    return json.dumps(data, separators=(",", ":")).encode()


def _javascript(form: ApiForm, callback: str, ret: int, data: Data, why: str = "") -> AnyResponse:
    content_type = JAVASCRIPT if callback else JSON
    extra = form.extra + because(why)
    if not callback and isinstance(data, bytes):
        return Response(200, content_type, _envelope(ret, extra, data))
    if isinstance(data, Pages):
        head, tail = _wrapped(callback, b'{"ret":%d%b,"data":' % (ret, extra), b"}")
        return Paged(200, content_type, head + _plain(callback, data.first), _rest(data, callback, tail).__anext__)
    return Response(200, content_type, b"".join(_wrapped(callback, _plain(callback, _envelope(ret, extra, data)))))


def _wrapped(callback: str, head: bytes, tail: bytes = b"") -> tuple[bytes, bytes]:
    return (b"%b(%b" % (callback.encode(), head), tail + b")") if callback else (head, tail)


def _plain(callback: str, data: bytes) -> bytes:
    """Line separators may stand in JSON, but not in the strings of older JavaScript."""
    if not callback:
        return data
    return data.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")


async def _rest(pages: Pages, callback: str, tail: bytes) -> AsyncIterator[bytes]:
    """All pages but the first, what stands behind them, and the end: see Paged."""
    while piece := await pages.more():
        yield _plain(callback, piece)
    yield tail
    yield b""


def _envelope(ret: int, extra: bytes, data: bytes) -> bytes:
    return b'{"ret":%d%b,"data":%b}' % (ret, extra, data) if data else b'{"ret":%d%b}' % (ret, extra)
