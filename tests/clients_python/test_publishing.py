"""How the Python client pushes, step by step (protocol.md, sections 5 and 10)."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from gopush_client import Publisher, Push, RefusedError, UnavailableError, publishing
from gopush_client.publishing import Publishing, line
from gopush_client.steps import Call, Pause, Step
from gopush_client.wire import Answer, url
from tests.clients_python.walk import Walk


class Web:
    """Answers calls with what is next; the last answer is that to all that follow. A TimeoutError comes in its time."""

    def __init__(self, *answers: Any, deadline: float = 20.0) -> None:
        self.answers = list(answers)
        self.walk = Walk(self.answer)
        self.publishing = Publishing(url("https://web"), {"X": "y"}, deadline, self.walk.clock, lambda: 0.5)

    def answer(self, step: Step) -> Any:
        if isinstance(step, Call):
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if isinstance(answer, TimeoutError):
                self.walk.now += step.seconds
            if isinstance(answer, OSError):
                raise answer
            return answer if isinstance(answer, Answer) else Answer(200, answer)
        return None

    @property
    def calls(self) -> list[Call]:
        return self.walk.of(Call)

    def queries(self) -> list[dict[str, list[str]]]:
        return [parse_qs(urlsplit(call.path).query) for call in self.calls]


def test_what_is_unknown_or_failed_for_now_is_repeated_with_one_id() -> None:
    web = Web(OSError("reset"), b'{"ret":65535}', b'{"ret":1001}', Answer(429, b""), b'{"ret":0,"data":{"mid":160}}')
    assert web.walk.run(web.publishing.push("K\u00fc&", {"a": "\u00fc"}, 60, None)) == 160
    first, *others = web.queries()
    assert len(others) == 4
    assert all(other == first for other in others)
    assert (first["key"], first["expire"], first["mid"]) == (["K\u00fc&"], ["60"], ["1"])
    assert len(first["id"][0]) == 32
    assert {call.body for call in web.calls} == {'{"a":"\u00fc"}'.encode()}
    assert web.calls[0].headers["X"] == "y"


def test_an_id_that_is_given_stays_also_where_it_is_empty() -> None:
    """It became another one for each call, so that a repeat was stored again; gopush refuses it (section 10)."""
    web = Web(b'{"ret":65534}')
    for pushing in (web.publishing.push("K", 1, 60, ""), web.publishing.push_many(["K"], 1, 60, "")):
        with pytest.raises(RefusedError):
            web.walk.run(pushing)
    assert [urlsplit(call.path).query.count("id=&") + call.path.endswith("&id=") for call in web.calls] == [1, 1]
    assert json.loads(line(Push("K", 1, 60, "")).data)["id"] == ""
    assert len(json.loads(line(("K", 1)).data)["id"]) == 32


def test_the_deadline_ends_it_and_the_error_bears_the_id() -> None:
    web = Web(OSError("connection refused"))
    with pytest.raises(UnavailableError, match=r"https://web:443: connection refused") as caught:
        web.walk.run(web.publishing.push("K", 1, 60, "mine"))
    assert caught.value.id == "mine"
    assert 15 < web.walk.now - 1000 <= 20
    pauses = [pause.seconds for pause in web.walk.of(Pause)]
    assert pauses[:6] == pytest.approx([0.075, 0.15, 0.3, 0.6, 1.2, 1.5])


def test_an_error_without_words_has_its_name() -> None:
    web = Web(TimeoutError())
    with pytest.raises(UnavailableError, match=r"https://web:443: TimeoutError"):
        web.walk.run(web.publishing.push("K", 1, 60, None))


@pytest.mark.parametrize("what", ["push", "push_many", "push_lines"])
@pytest.mark.parametrize(("deadline", "latest"), [(0, 1), (1, 1), (10, 11), (20, 21), (50, 51)])
def test_a_web_that_says_nothing_holds_nobody_longer_than_the_deadline(
    what: str, deadline: float, latest: float
) -> None:
    """But for the second that the last attempt has at least."""
    web = Web(TimeoutError("timed out"), deadline=deadline)
    if what == "push_lines":
        (result,) = web.walk.run(web.publishing.push_lines([line(Push("k", 1))]))
        assert result.ret == 65535
    else:
        steps = (
            web.publishing.push("k", 1, 60, None) if what == "push" else web.publishing.push_many(["k"], 1, 60, None)
        )
        with pytest.raises(UnavailableError, match="timed out"):
            web.walk.run(steps)
    assert min(deadline, 1) <= web.walk.now - 1000 <= latest
    assert max(call.seconds for call in web.calls) <= 30


@pytest.mark.parametrize(("deadline", "more"), [(60, 52), (20, 12), (5, 0)])
def test_a_large_message_may_be_sent_until_the_deadline(deadline: float, more: float) -> None:
    """Each attempt began anew after 8 s: over a slow line none was ever complete."""
    web = Web(b'{"ret":0,"data":{"mid":16}}', deadline=deadline)
    assert web.walk.run(web.publishing.push("K", "x" * 500_000, 60, None)) == 16
    (call,) = web.calls
    assert (call.seconds, call.sending) == (min(deadline, 8), more)
    pieces = list(call.pieces())
    assert b"".join(piece for piece, _ in pieces).endswith(b"\r\n\r\n" + call.body)
    assert pieces[0][1] - call.seconds == min(0.25, more)
    assert pieces[-1][1] - call.seconds == pytest.approx(min(500_000 / 65536, more), abs=0.3)


@pytest.mark.parametrize(
    "answer",
    [
        b'{"ret":65534,"why":"the message is not JSON"}',
        Answer(401, b"Unauthorized: x"),
        Answer(413, b"Request Entity Too Large\n"),
    ],
)
def test_what_is_refused_is_not_repeated(answer: Any) -> None:
    web = Web(answer)
    with pytest.raises(RefusedError):
        web.walk.run(web.publishing.push("K", b"{", 60, None))
    assert len(web.calls) == 1


@pytest.mark.parametrize("what", ["push", "push_many", "push_lines"])
def test_what_a_proxy_refuses_in_its_place_is_repeated(what: str) -> None:
    """gopush names the status in words, in plain text."""
    page = [Answer(status, b"<html>Forbidden", plain=False) for status in (301, 403, 404)]
    web = Web(*page, Answer(404, b"404 page not found\n"), Answer(404, b""), OSError("enough"))
    steps: Any = web.publishing.push("k", 1, 60, None)
    if what == "push_many":
        steps = web.publishing.push_many(["k"], 1, 60, None)
    if what == "push_lines":
        (result,) = web.walk.run(web.publishing.push_lines([line(Push("k", 1))]))
        assert "enough" in result.why
    else:
        with pytest.raises(UnavailableError, match="enough"):
            web.walk.run(steps)
    assert len(web.calls) > 5


@pytest.mark.parametrize("key", ["", "a\nb", "k" * 256, "\ud800", "\x7f", "\x80", "\x9f", "\u2028", "\u2029"])
def test_no_key_is_found_out_here(key: str) -> None:
    web = Web(b"")
    with pytest.raises(ValueError, match=r"key|surrogates"):
        web.walk.run(web.publishing.push(key, 1, 60, None))
    assert web.calls == []


def test_only_keys_that_failed_are_pushed_to_again() -> None:
    web = Web(
        b'{"ret":0,"data":{"fk":["b","c"],"mids":{"a":16}}}',
        Answer(200, b'{"ret":65535,"data":{"fk":["b","c"]}}'),
        b'{"ret":0,"data":{"mids":{"b":32,"c":48}}}',
    )
    assert web.walk.run(web.publishing.push_many(["a", "b", "a", "c"], {"x": 1}, 60, None)) == {
        "a": 16,
        "b": 32,
        "c": 48,
    }
    bodies = [json.loads(call.body) for call in web.calls]
    assert [body["k"] for body in bodies] == [["a", "b", "c"], ["b", "c"], ["b", "c"]]
    assert {body["m"] for body in bodies} == {'{"x":1}'}
    assert len({query["id"][0] for query in web.queries()}) == 1


def test_many_keys_go_in_several_calls_and_those_that_never_worked_are_named() -> None:
    stored = json.dumps({"ret": 0, "data": {"mids": {f"k{number}": 16 for number in range(1000)}}}).encode()
    web = Web(stored, b'{"ret":65535}')
    with pytest.raises(UnavailableError) as caught:
        web.walk.run(web.publishing.push_many([f"k{number}" for number in range(1002)], 1, 60, "one"))
    assert (caught.value.failed, len(caught.value.mids), caught.value.id) == (["k1000", "k1001"], 1000, "one")
    assert [len(json.loads(call.body)["k"]) for call in web.calls[:3]] == [1000, 2, 2]


def test_many_keys_take_no_longer_than_the_deadline_however_many_calls_they_are() -> None:
    """Each call had the time that was left when the attempt began."""
    web = Web(TimeoutError("timed out"))
    answer = web.walk._answer

    def slow(step: Step) -> Any:
        if isinstance(step, Call):
            web.walk.now += min(4.0, step.seconds)
            return Answer(200, b'{"ret":0,"data":{}}')
        return answer(step)

    web.walk._answer = slow
    with pytest.raises(UnavailableError, match="50000 keys could not be served") as caught:
        web.walk.run(web.publishing.push_many([f"k{number}" for number in range(50_000)], 1, 60, None))
    assert len(caught.value.failed) == 50_000
    assert 19 <= web.walk.now - 1000 <= 21


@pytest.mark.parametrize(
    ("size", "keys", "seconds"),
    [
        (0, 1000, 8),
        (8, 1000, 8),
        (16, 1000, 12),
        (64, 1000, 30),
        (1 << 10, 64, 30),
        (4 << 10, 16, 30),
        (65 << 10, 1, 30),
    ],
)
def test_a_large_message_goes_to_fewer_keys_a_call_which_has_time_for_all_of_them(
    monkeypatch: pytest.MonkeyPatch, size: int, keys: int, seconds: int
) -> None:
    """gopush was still at work as the call was repeated: it pushes to so many keys at once, and then to the next. A
    call with little is given up early, as others, so that it can be repeated where a node is dead."""
    monkeypatch.setattr(publishing, "MOST_KEYS_BYTES", 64 << 10)
    monkeypatch.setattr(publishing, "GROUP_BYTES", 8 << 10)
    web = Web(Answer(200, b'{"ret":65535}'), deadline=60)
    answer = web.answer

    def slow(step: Step) -> Any:
        web.walk.now += 60 if isinstance(step, Call) else 0
        return answer(step)

    web.walk._answer = slow
    with pytest.raises(UnavailableError):
        web.walk.run(web.publishing.push_many([f"k{number}" for number in range(1000)], b"1" * size, 60, None))
    (call,) = web.calls
    assert (len(json.loads(call.body)["k"]), call.seconds) == (keys, seconds)


def test_a_later_call_that_is_refused_tells_what_is_stored() -> None:
    """So that a repeat doubles nothing."""
    stored = json.dumps({"ret": 0, "data": {"mids": {f"k{number}": 16 for number in range(1000)}}}).encode()
    web = Web(stored, Answer(403, b"Forbidden: a key is outside of the API key's prefix"))
    with pytest.raises(RefusedError, match="prefix") as caught:
        web.walk.run(web.publishing.push_many([f"k{number}" for number in range(1002)], 1, 60, None))
    assert (caught.value.failed, len(caught.value.mids)) == (["k1000", "k1001"], 1000)
    assert caught.value.id == web.queries()[0]["id"][0]


def test_a_push_that_is_refused_in_the_end_has_its_id() -> None:
    """An earlier attempt may be stored."""
    web = Web(TimeoutError(), Answer(401, b"Unauthorized"))
    with pytest.raises(RefusedError) as caught:
        web.walk.run(web.publishing.push("k", 1, 60, "mine"))
    assert caught.value.id == "mine"


def test_lines_that_were_not_answered_are_repeated_and_bad_ones_are_not() -> None:
    lines = [line(Push(f"k{number}", {"n": number}, 60)) for number in range(4)]
    web = Web(
        b'{"ret":0,"mid":16}\n{"ret":65534,"why":"bad"}\n{"ret":65535}\n',
        OSError("reset"),
        b'{"ret":0,"mid":32}\n{"ret":0,"mid":48}\n',
    )
    results = web.walk.run(web.publishing.push_lines(lines))
    assert [(result.mid, result.ret, result.why) for result in results] == [
        (16, 0, ""),
        (None, 65534, "bad"),
        (32, 0, ""),
        (48, 0, ""),
    ]
    assert [result.push.key for result in results] == ["k0", "k1", "k2", "k3"]
    first, second, third = ([json.loads(text) for text in call.body.splitlines()] for call in web.calls)
    assert second == third == first[2:]
    assert first[0]["m"] == {"n": 0}
    assert len({each["id"] for each in first}) == 4


def test_lines_past_the_deadline_are_unknown() -> None:
    web = Web(b'{"ret":65535,"why":"away"}\n', deadline=1)
    (result,) = web.walk.run(web.publishing.push_lines([line(Push("k", b'{\r\n"a":1}', 60, "i"))]))
    assert (result.mid, result.ret, result.id) == (None, 65535, "i")
    assert "away" in result.why
    assert web.calls[0].body == b'{"k": "k", "expire": 60, "id": "i","m":{\t\t"a":1}}\n'
    web = Web(Answer(401, b"Unauthorized"))
    with pytest.raises(RefusedError, match="401"):
        web.walk.run(web.publishing.push_lines([line(Push("k", 1))]))


@pytest.mark.parametrize(
    "message",
    [b'1,"k":"other"', b'1 , "m":2', b"1}", b'{"a":"}"}}', b'1}\n{"k":"other","m":1', b'"\\\\","m":2', b'""],'],
)
def test_bytes_that_are_more_than_one_value_are_no_other_properties_of_their_line(message: bytes) -> None:
    made = line(Push("k", message))
    assert made.data == b""
    assert "not JSON" in made.why


@pytest.mark.parametrize(
    "text", ['"},\\"],"', '{"a":[1,{"b":"\\\\"}],"c":2}', " [] ", "1" * 5000, "[" * 50_000 + "]" * 50_000]
)
def test_bytes_that_are_one_value_are_sent_as_they_are(text: str) -> None:
    assert (
        line(Push("k", text.encode(), 60, "i")).data == b'{"k": "k", "expire": 60, "id": "i","m":%b}\n' % text.encode()
    )


def nested(depth: int) -> list[Any]:
    made: list[Any] = []
    for _ in range(depth):
        made = [made]
    return made


BAD: list[tuple[Any, ...]] = [
    ("", 1),
    (None, 1),
    (b"k", 1),
    ("k", {1}),
    ("k", float("nan")),
    ("k", "\ud800"),
    ("k", nested(100_000)),
    ("k", b"1,2"),
    ("k", 1, b"60"),
    ("k", 1, 60, b"id"),
]


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_a_line_that_cannot_be_sent_is_refused_alone_and_in_its_place(bad: tuple[Any, ...]) -> None:
    web = Web(b'{"ret":65535}\n{"ret":0,"mid":32}\n', b'{"ret":0,"mid":16}\n')
    results = web.walk.run(web.publishing.push_lines([line(push) for push in (("a", 1), bad, ("b", 2))]))
    assert [(result.mid, result.ret) for result in results] == [(16, 0), (None, 65534), (32, 0)]
    assert results[1].push[: len(bad)] == bad
    assert results[1].why
    assert [len(call.body.splitlines()) for call in web.calls] == [2, 1]


class Bulk:
    """A connection to a web node that stores each line it gets."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    def call(self, call: Call, _hold: object) -> Answer:
        lines = [json.loads(text) for text in call.body.splitlines()]
        self.keys += [each["k"] for each in lines]
        return Answer(200, b'{"ret":0,"mid":16}\n' * len(lines))


@pytest.mark.parametrize("bad", [("k",), (), ("k", 1, 60, "id", 5), "kx", b"kx", {"k": 1, "m": 2}, ["k"], 5, None])
def test_what_is_no_push_at_all_fails_alone_too(bad: Any) -> None:
    """It raised, and took the outcomes of up to 499 others along; a text of two letters was a key and a message."""
    publisher = Publisher("http://web")
    publisher._connections = bulk = Bulk()  # type: ignore[assignment]
    results = list(publisher.push_stream([("a", 1), bad, Push("b", 2), ["c", 3]]))  # type: ignore[list-item]
    assert [(result.mid, result.ret) for result in results] == [(16, 0), (None, 65534), (16, 0), (16, 0)]
    assert results[1].push == Push("", bad)
    assert results[1].why == "not a tuple (key, message, expire, id)"
    assert bulk.keys == ["a", "b", "c"]


@pytest.mark.parametrize("keys", ["abc", b"abc"])
def test_one_text_is_not_many_keys(keys: Any) -> None:
    """It was pushed to a, b and c."""
    publisher = Publisher("http://web")
    publisher._connections = bulk = Bulk()  # type: ignore[assignment]
    with pytest.raises(TypeError, match="key"):
        publisher.push_many(keys, 1)
    assert bulk.keys == []


def test_lines_that_cannot_be_sent_need_no_call() -> None:
    web = Web(Answer(401, b"Unauthorized"))
    (result,) = web.walk.run(web.publishing.push_lines([line(Push("", 1, 60, "i"))]))
    assert (result.push, result.id, result.mid, result.ret) == (Push("", 1, 60, "i"), "i", None, 65534)
    assert "a key has 1 to 255 bytes" in result.why
    assert web.calls == []


def test_lines_of_what_is_not_gopush_are_repeated_whatever_they_say() -> None:
    web = Web(b"[" * 100_000, b'{"ret":0,"mid":1e400}\n', b'{"ret":0,"mid":16}\n')
    (result,) = web.walk.run(web.publishing.push_lines([line(Push("k", 1))]))
    assert (result.mid, len(web.calls)) == (16, 3)


@pytest.mark.parametrize("garbage", ["null", '"abc"', "[]", "{}", "1.5", "1e400", "true"])
def test_a_mid_that_is_none_is_not_gopush(garbage: str) -> None:
    """It was a ValueError or a TypeError, without an id, of which there was one attempt."""
    web = Web(b'{"ret":0,"data":{"mid":%b}}' % garbage.encode(), b'{"ret":0,"data":{"mid":16}}')
    assert web.walk.run(web.publishing.push("k", 1, 60, None)) == 16
    web = Web(b'{"ret":0,"data":{"mids":{"k":%b}}}' % garbage.encode(), b'{"ret":0,"data":{"mids":{"k":16}}}')
    assert web.walk.run(web.publishing.push_many(["k"], 1, 60, None)) == {"k": 16}
    web = Web(b'{"ret":0,"mid":%b}\n' % garbage.encode(), b'{"ret":0,"mid":16}\n')
    (result,) = web.walk.run(web.publishing.push_lines([line(Push("k", 1))]))
    assert (result.mid, len(web.calls)) == (16, 2)


@pytest.mark.parametrize("garbage", [b"[1]", b"null", b'"abc"', b"5", b'["kk"]'])
def test_mids_that_are_none_are_not_gopush(garbage: bytes) -> None:
    web = Web(b'{"ret":0,"data":{"mids":%b}}' % garbage, deadline=1)
    with pytest.raises(UnavailableError, match="what answers is not gopush") as caught:
        web.walk.run(web.publishing.push_many(["k"], 1, 60, "mine"))
    assert (caught.value.id, caught.value.failed) == ("mine", ["k"])


@pytest.mark.parametrize("deadline", [float("nan"), -1])
def test_a_deadline_that_never_comes_is_said_at_once(deadline: float) -> None:
    """A push was repeated for ever."""
    with pytest.raises(ValueError, match="deadline"):
        Publisher("http://web", deadline=deadline)
