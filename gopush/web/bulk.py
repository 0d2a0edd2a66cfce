"""Push line by line: any number of messages in one call, in bounded memory.

Each line is `{"k":<key>,"m":<any JSON value>,"expire":<seconds>,"id":<optional>}`; each is answered by one line, in the
same order: `{"ret":0,"mid":…}`, or the `ret` alone. A bad line fails alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial

from gopush.errors import RET_INTERNAL, RET_OK, RET_PARAMETER, ParameterError
from gopush.model import Pushed
from gopush.net.http.request import Request
from gopush.net.http.routes import Answer, Routes, StreamRoute
from gopush.web import lines
from gopush.web.keys import OUTSIDE, ApiKeys
from gopush.web.lines import LineSplitter
from gopush.web.params import PublishRequest
from gopush.web.publisher import CALLER_LIMIT, MAX_WAITING, MAX_WAITING_BYTES, Publisher, why_not
from gopush.web.responses import FailedError, because
from gopush.web.settings import HttpSettings

CONTENT_TYPE = "application/x-ndjson;charset=utf-8"


class Bulk:
    """The bulk calls."""

    def __init__(self, publisher: Publisher, settings: HttpSettings, keys: ApiKeys | None) -> None:
        self._publisher = publisher
        self._settings = settings
        self._keys = keys

    def routes(self) -> Routes:
        """The routes of the admin port."""
        return {"/1/admin/push/bulk": {"POST": StreamRoute(self._open, CONTENT_TYPE)}}

    def _open(self, request: Request, answer: Answer) -> BulkCall:
        return BulkCall(self._publisher, self._settings, request, answer, self._keys)


class BulkCall:
    """One bulk call: a Receiver."""

    def __init__(
        self,
        publisher: Publisher,
        settings: HttpSettings,
        request: Request,
        answer: Answer,
        keys: ApiKeys | None = None,
    ) -> None:
        self._caller = request.caller
        self._keys = keys
        self._wants_why = request.wants_why
        self._publisher = publisher
        self._answer = answer
        self._lines = LineSplitter(settings.body)
        self._most_expire = settings.max_expire
        self._groups: deque[_Group] = deque()
        self._waiting = self._waiting_bytes = 0  # lines that were taken, whose answer is not written
        self._ended = self._leaving = False
        self._lost = self._shut_out = False
        self._scheduled = False
        self._paused = False

    def received(self, piece: bytes) -> None:
        """See Receiver."""
        if not self._shut_out:
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
        """Take lines while there is room for what they make, and push what they want together.

        Of a caller whose key is not good any more it takes none, as of one that leaves: who sends them again gets 401.
        """
        if self._lost:
            return
        if self._keys is not None and not (self._shut_out or self._keys.know(self._caller)):
            self._shut_out = self._leaving = True
            self._lines = LineSplitter(self._lines.limit)
        room = 0 if self._answer.stalled else MAX_WAITING - self._waiting
        if taken := self._lines.take(room, MAX_WAITING_BYTES - self._waiting_bytes):
            self._push(taken)
        self._set_paused(self._lines.waiting)
        if (self._ended or self._leaving) and not self._lines.waiting and not self._groups:
            self._answer.finish()

    def _push(self, taken: Sequence[bytes]) -> None:
        """Push what lines want; those that cannot be pushed have their answers at once."""
        answers = list[bytes]()
        requests, asking = list[PublishRequest](), list[int]()
        for line in taken:
            try:
                requests.append(self._publish_request(line))
                asking.append(len(answers))
                answers.append(b"")
            except FailedError as failed:
                answers.append(self._line(failed.ret, str(failed)))
        group = _Group(list(map(len, taken)), answers, len(requests))
        self._waiting += len(taken)
        self._waiting_bytes += sum(group.sizes)
        self._groups.append(group)
        self._flush_soon()
        if requests:
            self._publisher.push(requests, partial(self._settle, group, asking))

    def _set_paused(self, paused: bool) -> None:
        if paused != self._paused:
            self._paused = paused
            (self._answer.pause if paused else self._answer.resume)()

    def _publish_request(self, line: bytes) -> PublishRequest:
        """What a line wants. Raises FailedError."""
        try:
            if not line:
                raise ParameterError(f"the line is empty, or longer than {self._lines.limit} bytes")
            request = lines.read(line, self._most_expire)
            if self._caller is not None and not self._caller.covers(request.key):
                raise ParameterError(OUTSIDE)
        except ParameterError as wrong:
            self._publisher.count(RET_PARAMETER)
            raise FailedError(RET_PARAMETER, str(wrong)) from None
        if self._caller is not None and not self._caller.try_take(1):
            self._publisher.count_limited(1)
            raise FailedError(RET_INTERNAL, CALLER_LIMIT.why)
        return request

    def _settle(self, group: _Group, asking: Sequence[int], indexes: Sequence[int], answers: Sequence[Pushed]) -> None:
        for index, pushed in zip(indexes, answers, strict=True):
            ret, mid = pushed
            line = b'{"ret":0,"mid":%d}\n' % mid if ret == RET_OK else self._line(ret, why_not(pushed))
            group.answers[asking[index]] = line
        group.missing -= len(answers)
        self._flush_soon()

    def _line(self, ret: int, why: str) -> bytes:
        """The answer to what was not pushed."""
        return b'{"ret":%d%b}\n' % (ret, because(why if self._wants_why else ""))

    def _flush_soon(self) -> None:
        if not self._scheduled and self._groups[0].ready:
            self._scheduled = True
            self._publisher.soon(self._flush)

    def _flush(self) -> None:
        """Write the answers whose turn it is, all in one piece."""
        self._scheduled = False
        ready: list[bytes] = []
        while self._groups and (group := self._groups[0]).ready:
            answers, size = group.take()
            ready += answers
            self._waiting_bytes -= size
            if group.taken:
                self._groups.popleft()
        self._waiting -= len(ready)
        if not self._lost:
            self._answer.write(b"".join(ready))
            self._go_on()


class _Group:
    """Lines that were taken together: their `sizes` in bytes, and their `answers`, b"" for each that is `missing`."""

    __slots__ = ("_at", "answers", "missing", "sizes")

    def __init__(self, sizes: Sequence[int], answers: list[bytes], missing: int) -> None:
        self.sizes = sizes
        self.answers = answers
        self.missing = missing
        self._at = 0

    @property
    def ready(self) -> bool:
        """Whether the next answer is there."""
        return self.answers[self._at] != b""

    @property
    def taken(self) -> bool:
        """Whether all answers were taken."""
        return self._at == len(self.answers)

    def take(self) -> tuple[list[bytes], int]:
        """The answers up to the first that is missing, and the sizes of their lines summed up."""
        start = self._at
        self._at = self.answers.index(b"", start) if self.missing else len(self.answers)
        return self.answers[start : self._at], sum(self.sizes[start : self._at])
