"""What services call: push to one key or many, delete a key's messages (protocol.md, section 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from twisted.internet.defer import Deferred

from gopush.errors import RET_INTERNAL, RET_OK, RET_PARAMETER, ParameterError
from gopush.model import Pushed, json_string
from gopush.net.http.request import Form, Promise, Request, Response
from gopush.net.http.routes import Route, Routes
from gopush.routing.comets import Comets
from gopush.routing.messages import Messages
from gopush.web import params
from gopush.web.envelopes import REPEATS, key_names
from gopush.web.keys import check_keys
from gopush.web.params import PublishRequest
from gopush.web.publisher import Publisher, why_not
from gopush.web.responses import OK, FailedError, answer, api, failure
from gopush.web.settings import HttpSettings


class PushApi:
    """Pushes and deletions."""

    def __init__(self, messages: Messages, comets: Comets, publisher: Publisher, settings: HttpSettings) -> None:
        self._messages = messages
        self._comets = comets
        self._publisher = publisher
        self._settings = settings

    def routes(self) -> Routes:
        """The routes of the admin port."""
        push = {"POST": Route(self._push, self._settings.body)}
        clean = {"POST": Route(api(self._clean))}
        return {
            "/1/admin/push/private": push,
            "/admin/push": push,
            "/1/admin/push/mprivate": {"POST": Route(api(self._push_many), self._settings.multi_body)},
            "/1/admin/msg/del": clean,
            "/admin/msg/clean": clean,
        }

    def _push(self, request: Request) -> Response | Promise:
        """What services call most: its steps are all here."""
        try:
            query = request.query
            key = params.valid_key(query.get("key"))
            expire = params.decimal(query.get("expire") or "", self._settings.max_expire, "expire")
            push_id = _push_id(request)
            with_mid = query.get("mid") == "1"
            params.check_json(request.body)
            if request.caller is not None:
                request.caller.take(1)
        except ParameterError as wrong:
            self._publisher.count(RET_PARAMETER)
            return failure(wrong, request)
        except Exception as wrong:
            return failure(wrong, request)
        promise = Promise()
        self._publisher.push_soon(
            PublishRequest(key, request.body, expire, push_id), partial(_settle, promise, with_mid, request)
        )
        return promise

    def _push_many(self, request: Request) -> Deferred[bytes]:
        try:
            expire = params.decimal(request.query.text("expire"), self._settings.max_expire, "expire")
            message, names = _envelope(request.body, self._settings.multi_keys, self._settings.body)
            check_keys(request, names)
            push_id = _push_id(request)
        except ParameterError:
            self._publisher.count(RET_PARAMETER)  # once: which keys it has is not known
            raise
        pushing = self._publisher.push_to(names, message, expire, push_id, partial(_take, request))
        return pushing.addCallback(partial(_multiple, names, request.query.get("mid") == "1"))

    def _clean(self, request: Request) -> Deferred[bytes]:
        key = params.key(Form(request.body), "key")
        check_keys(request, (key,))
        return Deferred.fromCoroutine(self._clean_key(key))

    async def _clean_key(self, key: str) -> bytes:
        """The log goes first: a subscriber that is closed and comes back at once must not find it."""
        await self._messages.delete(key)
        await self._comets.close(key)
        return b""


def _push_id(request: Request) -> str | None:
    """The publisher's id: of the query, else of the header; None where there is none."""
    found = request.query.get("id")
    if found is None and (header := request.headers.get(b"idempotency-key")) is not None:
        found = header.decode("utf-8", "surrogateescape")
    return None if found is None else params.push_id(found)


def _take(request: Request, pushes: int) -> bool:
    """Whether the caller, if any, may push so many more."""
    return request.caller is None or bool(request.caller.try_take(pushes))


def _multiple(names: Sequence[str], with_mids: bool, answers: Sequence[Pushed]) -> bytes:
    if not with_mids and all(answer.ret == RET_OK for answer in answers):
        return b""
    pushed = dict(zip(names, answers, strict=True))
    failed = [name for name, answer in pushed.items() if answer.ret != RET_OK]
    data = _multiple_data(pushed, failed, with_mids=with_mids)
    if len(failed) == len(names):
        rets, reasons = {answer.ret for answer in answers}, {why_not(answer) for answer in answers}
        ret = rets.pop() if len(rets) == 1 else RET_INTERNAL
        raise FailedError(ret, reasons.pop() if len(reasons) == 1 else "no key could be served", data)
    return data


def _settle(promise: Promise, with_mid: bool, request: Request, pushed: Pushed) -> None:
    if pushed.ret != RET_OK:
        promise.give(answer(pushed.ret, b"", why_not(pushed) if request.wants_why else ""))
    elif with_mid:
        promise.give(answer(RET_OK, b'{"mid":%d}' % pushed.mid))
    else:
        promise.give(OK)


def _envelope(body: bytes, most_keys: int, most_bytes: int) -> tuple[bytes, list[str]]:
    """The message and the keys, each once, of `{"m":"<json as a string>","k":"k1,k2"}`; `k` may be a list too."""
    found = params.properties(params.decode(body), strings=REPEATS * most_keys)
    text, names = (found[name].value if name in found else None for name in ("m", "k"))
    if not isinstance(text, str):
        raise ParameterError("m must be a string that holds the message's JSON")
    keys = key_names(names, most_keys)
    try:
        message, _ = text.encode(), "".join(keys).encode()
    except UnicodeEncodeError:
        raise ParameterError(f"m or k {params.HALF_PAIR}") from None
    if len(message) > most_bytes:
        raise ParameterError(f"m has {len(message)} bytes, and a message at most {most_bytes}")
    params.check_json(message, "m")
    return message, keys


def _multiple_data(pushed: Mapping[str, Pushed], failed: Sequence[str], *, with_mids: bool) -> bytes:
    parts = []
    if failed:
        parts.append(b'"fk":[%b]' % b",".join(json_string(name) for name in failed))
    if with_mids:
        stored = [(name, answer.mid) for name, answer in pushed.items() if answer.ret == RET_OK]
        parts.append(b'"mids":{%b}' % b",".join(b"%b:%d" % (json_string(name), mid) for name, mid in stored))
    return b"{%b}" % b",".join(parts) if parts else b""
