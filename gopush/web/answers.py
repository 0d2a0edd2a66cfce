"""The answers of both APIs: `{"ret":…,"data":{…}}`, bare or in a callback (protocol.md, sections 4 and 5)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

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
from gopush.http.request import Request
from gopush.http.response import Later, Response
from gopush.http.routing import Answered, Handler

JSON = "application/json;charset=utf-8"
JAVASCRIPT = "application/javascript;charset=utf-8"

_CALLBACK = re.compile(r"(?=.{1,64}\Z)[A-Za-z_$][A-Za-z0-9_$]*(?:\.[A-Za-z_$][A-Za-z0-9_$]*)*\Z")

log = Logger()


class Form(NamedTuple):
    """What differs between the forms of the API: the query's name of the callback, and what follows `ret`."""

    callback: str
    extra: bytes


NEW = Form("cb", b"")
OLD = Form("callback", b',"msg":"ok"')

Work = Callable[[Request], "bytes | Deferred[bytes]"]


class FailedError(Exception):
    """An answer other than `ret` 0 that comes with data."""

    def __init__(self, ret: int, data: bytes = b"") -> None:
        super().__init__(ret)
        self.ret = ret
        self.data = data


def api(work: Work) -> Handler:
    """A handler of the admin API: `work` gives the data (b"" for none), or raises what `ret` stands for."""

    def handle(request: Request) -> Answered:
        return _answer(request, work, answer)

    return handle


def later_api(work: Callable[[Request], Later]) -> Handler:
    """As api(), for work that makes its answer() itself, later."""

    def handle(request: Request) -> Response | Later:
        try:
            return work(request)
        except Exception as error:
            return answer(*_failed(error, request))

    return handle


def callback_api(form: Form, work: Work) -> Handler:
    """As api(), for the public API: the answer may be wanted in a callback."""

    def handle(request: Request) -> Answered:
        try:
            callback = request.query.text(form.callback)
        except ParameterError:
            return _javascript(form, "", RET_PARAMETER, b"")
        if callback and not _CALLBACK.match(callback):
            return _javascript(form, "", RET_PARAMETER, b"")
        return _answer(request, work, lambda ret, data: _javascript(form, callback, ret, data))

    return handle


_Render = Callable[[int, bytes], Response]


def _answer(request: Request, work: Work, render: _Render) -> Answered:
    try:
        data = work(request)
    except Exception as error:
        return render(*_failed(error, request))
    if not isinstance(data, Deferred):
        return render(RET_OK, data)

    def failed(failure: Failure) -> Response:
        return render(*_failed(failure.value, request))

    return data.addCallbacks(lambda found: render(RET_OK, found), failed)


def _failed(error: BaseException | None, request: Request) -> tuple[int, bytes]:
    """The `ret` and the data of an error; what nobody meant to raise is logged."""
    if isinstance(error, FailedError):
        return error.ret, error.data
    if isinstance(error, ParameterError):
        return RET_PARAMETER, b""
    if isinstance(error, NoNodeError):
        return RET_NO_NODE, b""
    if isinstance(error, UnavailableError):
        log.debug("{path} failed: {error}", path=request.path, error=error)
    else:
        failure = Failure(error)  # type: ignore[no-untyped-call]
        log.failure("{path} failed", failure, path=request.path)
    return RET_INTERNAL, b""


_STORED = Response(200, JSON, b'{"ret":0}')


def answer(ret: int, data: bytes) -> Response:
    """The answer of the admin API."""
    if not (ret or data):
        return _STORED
    return Response(200, JSON, _envelope(ret, b"", data))


def _javascript(form: Form, callback: str, ret: int, data: bytes) -> Response:
    body = _envelope(ret, form.extra, data)
    if not callback:
        return Response(200, JSON, body)
    # Line separators may stand in JSON, but not in the strings of older JavaScript.
    body = body.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    return Response(200, JAVASCRIPT, b"%b(%b)" % (callback.encode(), body))


def _envelope(ret: int, extra: bytes, data: bytes) -> bytes:
    return b'{"ret":%d%b,"data":%b}' % (ret, extra, data) if data else b'{"ret":%d%b}' % (ret, extra)
