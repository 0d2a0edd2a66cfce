"""Push line by line: any number of messages in one call, in bounded memory.

Each line is `{"k":<key>,"m":<any JSON value>,"expire":<seconds>,"id":<optional>}`; each is answered by one line, in the
same order: `{"ret":0,"mid":…}`, or the `ret` alone. A bad line fails alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from gopush.errors import RET_INTERNAL, RET_OK, RET_PARAMETER, ParameterError
from gopush.model import Pushed
from gopush.net.http.request import Request
from gopush.net.http.routes import Answer, Routes, StreamRoute
from gopush.web import lines
from gopush.web.keys import OUTSIDE, covers, may_push, take
from gopush.web.lines import LineSplitter
from gopush.web.publisher import CALLER_LIMIT, MAX_WAITING, MAX_WAITING_BYTES, Publisher, PublishRequest, why_not
from gopush.web.responses import FailedError, because

CONTENT_TYPE = "application/x-ndjson;charset=utf-8"

CallSoon = Callable[[Callable[[], None]], object]


class Bulk:
    """The bulk calls. `later` calls a function in the reactor's next turn; `max_line` in bytes."""

    def __init__(self, publisher: Publisher, call_soon: CallSoon, max_line: int) -> None:
        self._publisher = publisher
        self._call_soon = call_soon
        self._max_line = max_line

    def routes(self) -> Routes:
        """The routes of the admin port."""
        return {"/1/admin/push/bulk": {"POST": StreamRoute(self._open, CONTENT_TYPE)}}

    def _open(self, request: Request, answer: Answer) -> BulkCall:
        return BulkCall(self._publisher, answer, self._call_soon, LineSplitter(self._max_line), request)


class BulkCall:
    """One bulk call: a Receiver."""

    def __init__(
        self, publisher: Publisher, answer: Answer, call_soon: CallSoon, splitter: LineSplitter, request: Request
    ) -> None:
        self._request = request
        self._wants_why = request.wants_why
        self._publisher = publisher
        self._answer = answer
        self._call_soon = call_soon
        self._lines = splitter
        self._results: deque[_Result] = deque()
        self._waiting_bytes = 0
        self._ended = self._leaving = False
        self._lost = False
        self._scheduled = False
        self._paused = False

    def received(self, piece: bytes) -> None:
        """See Receiver."""
        self._lines.feed(piece)
        self._go_on()

    def ended(self) -> None:
        """See Receiver."""
        self._ended = True
        self._lines.end()
        self._go_on()

    def drained(self) -> None:
        """See Receiver."""
        self._go_on()

    def leaving(self) -> None:
        """See Receiver. Half a line is none: the client sends again what has no answer."""
        self._leaving = True
        self._go_on()

    def lost(self) -> None:
        """See Receiver: what is under way goes on, no further line is taken."""
        self._lost = True

    def _go_on(self) -> None:
        """Take lines while there is room for what they make, and push what they want together."""
        requests: list[PublishRequest] = []
        results: list[_Result] = []
        line: bytes | None = b""
        room = 0 if self._lost or self._answer.stalled else MAX_WAITING - len(self._results)
        while room > 0 and self._waiting_bytes < MAX_WAITING_BYTES and (line := self._lines.next()) is not None:
            room -= 1
            result = _Result(len(line))
            self._results.append(result)
            self._waiting_bytes += len(line)
            try:
                requests.append(self._publish_request(line))
                results.append(result)
            except FailedError as failed:
                result.line = self._line(failed.ret, str(failed))
                self._flush_soon()
        if requests:
            self._publisher.push(requests, partial(self._settle, results))
        self._set_paused(line is not None and not self._lost)
        if (self._ended or self._leaving) and line is None and not self._results:
            self._answer.finish()

    def _set_paused(self, paused: bool) -> None:
        if paused != self._paused:
            self._paused = paused
            (self._answer.pause if paused else self._answer.resume)()

    def _publish_request(self, line: bytes) -> PublishRequest:
        """What a line wants. Raises FailedError."""
        try:
            if not line:
                raise ParameterError(f"the line is empty, or longer than {self._lines.limit} bytes")
            key, body, expire, push_id = lines.read(line)
            if not covers(self._request, key):
                raise ParameterError(OUTSIDE)
            seconds = self._publisher.expire(expire)
        except ParameterError as wrong:
            self._publisher.count(RET_PARAMETER)
            raise FailedError(RET_PARAMETER, why=str(wrong)) from None
        if not may_push(self._request):
            raise FailedError(RET_INTERNAL, why=CALLER_LIMIT.why)
        take(self._request, 1)
        return PublishRequest(key, body, seconds, push_id)

    def _settle(self, results: Sequence[_Result], indexes: Sequence[int], answers: Sequence[Pushed]) -> None:
        for index, pushed in zip(indexes, answers, strict=True):
            result = results[index]
            if pushed.ret == RET_OK:
                result.line = b'{"ret":0,"mid":%d}\n' % pushed.mid
            else:
                result.line = self._line(pushed.ret, why_not(pushed))
        self._flush_soon()

    def _line(self, ret: int, why: str) -> bytes:
        """The answer to what was not pushed."""
        return b'{"ret":%d%b}\n' % (ret, because(why if self._wants_why else ""))

    def _flush_soon(self) -> None:
        if not self._scheduled and self._results[0].line:
            self._scheduled = True
            self._call_soon(self._flush)

    def _flush(self) -> None:
        """Write the results whose turn it is, all in one piece."""
        self._scheduled = False
        ready = []
        while self._results and self._results[0].line:
            result = self._results.popleft()
            self._waiting_bytes -= result.size
            ready.append(result.line)
        if not self._lost:
            self._answer.write(b"".join(ready))
            self._go_on()


class _Result:
    """The answer to a line of `size` bytes, once it is there."""

    __slots__ = ("line", "size")

    def __init__(self, size: int) -> None:
        self.line = b""
        self.size = size
