"""`POST /1/admin/push/bulk`: line by line, answered in order, in bounded memory."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest

from gopush.model import OnPushed, Pushed
from gopush.net.http.request import Request
from gopush.web.bulk import BulkCall
from gopush.web.lines import LineSplitter
from gopush.web.params import PublishRequest
from gopush.web.publisher import MAX_WAITING
from gopush.web.settings import HttpSettings
from tests.http.client import PATIENCE, Answer, Client
from tests.web.conftest import World
from tests.web.fakes import NOW

PATH = "/1/admin/push/bulk"
HEAD = f"POST {PATH} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".encode()


def results(answer: Answer) -> list[Any]:
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/x-ndjson;charset=utf-8"
    assert answer.body.endswith(b"\n") or not answer.body
    return [json.loads(line) for line in answer.body.splitlines()]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def test_lines_are_pushed_and_answered_in_order(world: World) -> None:
    lines = [
        b'{"k":"a","m":{"x": 1.0e0,"x":12345678901234567890},"expire":60}',
        b' {"expire": 0 , "m" : "t\\u0065xt" ,"id":"i\\u0064","k":"\xe4\xbd\xa0"} \r',
        b'{"k":"a","m":' + b"[" * 5000 + b"]" * 5000 + b',"expire":4294967295,"more":[1]}',
        b'{"k":"a","m":null,"expire":1}',
    ]
    answer = world.post(PATH, b"\n".join(lines))
    pushes = world.comets.pushes
    assert [(push.key, push.body, push.expire) for push in pushes] == [
        ("a", b'{"x": 1.0e0,"x":12345678901234567890}', 60),
        ("\u4f60", b'"t\\u0065xt"', 0),
        ("a", b"[" * 5000 + b"]" * 5000, 2**32 - 1),
        ("a", b"null", 1),
    ]
    assert (pushes[1].id, pushes[1].dedupe, pushes[0].dedupe) == ("id", 60, 0)
    assert {push.deadline for push in pushes} == {NOW + 4}
    first, second, third = (message.mid for message in world.messages.logs["a"])
    other = world.messages.logs["\u4f60"][0].mid
    assert answer.body == b"".join(b'{"ret":0,"mid":%d}\n' % mid for mid in (first, other, second, third))


def test_an_empty_body_has_no_results_and_the_connection_goes_on(world: World) -> None:
    with Client(world.admin.port) as client:
        assert results(client.request("POST", PATH)) == []
        assert results(client.request("POST", PATH, b'{"k":"a","m":1,"expire":1}\n'))[0]["ret"] == 0
        assert results(client.request("POST", PATH, b"x")) == [{"ret": 65534}]


@pytest.mark.parametrize(
    "line",
    [
        *(b"", b" ", b"x", b"[]", b"{}", b"\xff", b'{"k":"a","m":1}', b'{"k":"a","expire":1}', b'{"m":1,"expire":1}'),
        *(b'{"k":"","m":1,"expire":1}', b'{"k":1,"m":1,"expire":1}', b'{"k":["a"],"m":1,"expire":1}'),
        *(b'{"k":"a","m":,"expire":1}', b'{"k":"a","m":NaN,"expire":1}', b'{"k":"\\ud800","m":1,"expire":1}'),
        *(b'{"k":"a","m":1,"expire":-1}', b'{"k":"a","m":1,"expire":1.0}', b'{"k":"a","m":1,"expire":"1"}'),
        *(
            b'{"k":"a","m":1,"expire":4294967296}',
            b'{"k":"a","m":1,"expire":1,"id":""}',
            b'{"k":"a","m":1,"expire":null}',
        ),
        *(b'{"k":"a","m":1,"expire":1,"id":null}', b'{"k":"a","m":1,"expire":1,"id":"' + b"i" * 256 + b'"}'),
        *(
            b'{"k":"a","m":1,"expire":1}}',
            b'{"k":"a","m":1,"expire":1,"id":"\\ud800"}',
            b'{"k":"a","m":1,"expire":1} 1',
        ),
    ],
)
def test_a_bad_line_fails_alone(world: World, line: bytes) -> None:
    good = b'{"k":"a","m":1,"expire":1}'
    answer = world.post(PATH, b"\n".join([good, line, good, b""]))
    assert [result["ret"] for result in results(answer)] == [0, 65534, 0]
    assert [push.body for push in world.comets.pushes] == [b"1", b"1"]
    assert world.web.counters.pushes[65534] == 1


def test_a_line_over_the_limit_fails_alone(world: World) -> None:
    mib = 1 << 20
    good = b'{"k":"a","m":1,"expire":1}'
    most = b'{"k":"a","expire":1,"m":"%b"}'
    most %= b"x" * (4 * mib - len(most) + 2)
    assert len(most) == 4 * mib
    answer = world.post(PATH, b"\n".join([good, most, most + b" ", good, b"x" * 9 * mib, good, b"x" * 5 * mib]))
    assert [result["ret"] for result in results(answer)] == [0, 0, 65534, 0, 65534, 0, 65534]


def test_what_a_comet_refuses_with_is_reported_in_its_line(world: World) -> None:
    world.comets.refuse = {"a": 0, "b": 1001, "c": 65535}.__getitem__
    body = "\n".join(json.dumps({"k": key, "m": 1, "expire": 1}) for key in "abcab")
    assert [result["ret"] for result in results(world.post(PATH, body))] == [0, 1001, 65535, 0, 1001]


def test_results_come_while_lines_still_come(world: World) -> None:
    with Client(world.admin.port) as client:
        client.send(HEAD)
        assert client.silent(0.1)
        for number in range(3):
            client.send(chunk(b'{"k":"a","m":%d,' % number))
            client.send(chunk(b'"expire":1}\n{"k":'))
            if number == 0:
                client._until(b"\r\n\r\n")
            assert json.loads(client._chunk())["ret"] == 0
            client.send(chunk(b'"b","m":1,"expire":1}\n'))
            assert json.loads(client._chunk())["ret"] == 0
        client.send(chunk(b""))
        assert client._chunk() == b""


class Turns:
    """The ends of a bulk call, worked by hand: what its pushes wait for, its answers, and its next turns."""

    stalled = False

    def __init__(self) -> None:
        self.under_way: list[tuple[OnPushed, int, str]] = []
        self.later: list[Callable[[], None]] = []
        self.out = b""
        self.finished = False

    def push(self, requests: Sequence[PublishRequest], answered: OnPushed) -> None:
        self.under_way += [(answered, index, request.key) for index, request in enumerate(requests)]

    def count(self, ret: int) -> None:
        pass

    def soon(self, call: Callable[[], None]) -> None:
        self.later.append(call)

    def write(self, data: bytes) -> None:
        self.out += data

    def finish(self) -> None:
        assert not self.finished
        self.finished = True

    def pause(self) -> None:
        pass

    resume = pause


@pytest.mark.parametrize("seed", range(50))
def test_answers_keep_the_order_of_their_lines_however_they_come(seed: int) -> None:
    random, turns = Random(seed), Turns()
    call = BulkCall(turns, HttpSettings(body=1000), Request(b"POST", PATH.encode()), turns)  # type: ignore[arg-type]
    good = [random.random() < 0.8 for _ in range(200)]
    lines = [b'{"k":"%d","m":1,"expire":1}\n' % line if ok else b"x\n" for line, ok in enumerate(good)]
    left = list(lines)
    while not turns.finished:
        what = random.randrange(3)
        if what == 0 and left:
            call.received(b"".join(left[: (pieces := random.randrange(1, 30))]))
            del left[:pieces]
            if not left:
                call.ended()
        elif what == 1 and turns.under_way:
            answered, index, key = turns.under_way.pop(random.randrange(len(turns.under_way)))
            answered([index], [Pushed(65535 if int(key) % 7 == 0 else 0, 16 * int(key))])
        elif what == 2 and turns.later:
            turns.later.pop(0)()
    assert [json.loads(line) for line in turns.out.splitlines()] == [
        {"ret": 65534} if not ok else {"ret": 65535} if line % 7 == 0 else {"ret": 0, "mid": 16 * line}
        for line, ok in enumerate(good)
    ]
    assert not call._groups
    assert call._waiting == call._waiting_bytes == 0


def test_a_bounded_number_of_pushes_is_under_way(world: World) -> None:
    world.comets.hold = True
    count = 20_000
    line = b'{"k":"a","m":"%b","expire":1}\n' % (b"x" * 1000)
    with Client(world.admin.port) as client:
        sent = HEAD + chunk(line * count) + chunk(b"")
        sender = threading.Thread(target=client.send, args=(sent,), daemon=True)
        sender.start()
        until = time.monotonic() + PATIENCE
        while len(world.comets.held) < MAX_WAITING:
            assert time.monotonic() < until
            time.sleep(0.01)
        time.sleep(0.2)
        assert sender.is_alive()
        assert len(world.comets.held) == MAX_WAITING
        world.comets.hold = False
        world.in_reactor(world.comets.answer_all)
        assert len(results(client.answer())) == count
        sender.join(PATIENCE)
    assert world.comets.most_held == MAX_WAITING


def test_100_000_lines_pass_in_bounded_memory(world: World) -> None:
    count, batch = 100_000, 500
    world.comets.pushes = _Forgetful()
    world.messages.append = lambda key, body, now=NOW: 16  # type: ignore[method-assign]

    def send(client: Client) -> None:
        client.send(HEAD)
        for start in range(0, count, batch):
            lines = (
                b'{"k":"key-%d","m":{"n":%d},"expire":60,"id":"i"}\n' % (n, n) for n in range(start, start + batch)
            )
            client.send(chunk(b"".join(lines)))
        client.send(chunk(b""))

    world.comets._first = _Forgetful()  # type: ignore[assignment]
    with Client(world.admin.port) as client:
        sender = threading.Thread(target=send, args=(client,), daemon=True)
        before = most = sys.getallocatedblocks()
        sender.start()
        client._until(b"\r\n\r\n")
        lines = 0
        while piece := client._chunk():
            lines += piece.count(b'{"ret":0,"mid":16}\n')
            most = max(most, sys.getallocatedblocks())
        sender.join(PATIENCE)
    assert lines == count
    assert most - before < count / 2  # a line that is kept takes several blocks


class _Forgetful(list[Any]):
    """Takes everything and keeps nothing."""

    def append(self, item: object) -> None:
        pass

    def get(self, name: object) -> None:
        pass

    def __setitem__(self, name: object, value: object) -> None:
        pass


def test_a_client_that_goes_away_stops_the_taking_of_lines(world: World) -> None:
    world.comets.hold = True
    with Client(world.admin.port) as client:
        client.send(HEAD + chunk(b'{"k":"a","m":1,"expire":1}\n' * 10))
        until = time.monotonic() + PATIENCE
        while len(world.comets.held) < 10:
            assert time.monotonic() < until
            time.sleep(0.01)
    while world.admin.factory.channels:
        assert time.monotonic() < until
        time.sleep(0.01)
    world.in_reactor(world.comets.answer_all)
    assert len(world.messages.logs["a"]) == 10


def test_a_process_that_ends_answers_the_lines_that_came_and_closes(world: World) -> None:
    """It did not read on, and waited for the rest until the connection was idle for too long."""
    line = b'{"k":"a","m":1,"expire":60}\n'
    world.comets.hold = True
    with Client(world.admin.port) as client:
        client.send(HEAD + chunk(line * 10 + b'{"k":"a","m":2,'))
        until = time.monotonic() + PATIENCE
        while len(world.comets.held) < 10:
            assert time.monotonic() < until
            time.sleep(0.01)
        began = time.monotonic()
        world.in_reactor(lambda: bool(world.admin.factory.stop()))
        client.send(chunk(line))  # nobody reads that
        world.in_reactor(world.comets.answer_all)
        client._until(b"\r\n\r\n")
        answers = b"".join(iter(client._chunk, b""))
        assert answers.count(b'{"ret":0,"mid":') == len(answers.splitlines()) == 10
        assert time.monotonic() - began < 2
        assert client.closed()
    assert len(world.messages.logs["a"]) == 10


def test_lines_however_they_are_cut() -> None:
    data = b"one\n\ntwo\nthree is too long\nfour\nlast"
    for size in range(1, len(data) + 1):
        lines, found = LineSplitter(5), list[bytes]()
        for at in range(0, len(data), size):
            lines.feed(data[at : at + size])
            found += lines.take(10, 100)
        lines.end()
        assert lines.waiting
        found += lines.take(10, 100)
        assert found == [b"one", b"", b"two", b"", b"four", b"last"]
        assert not lines.waiting


def test_no_more_lines_are_taken_than_there_is_room_for() -> None:
    lines = LineSplitter(5)
    lines.feed(b"one\ntwo\n\nfour\n")
    assert lines.take(0, 100) == lines.take(1, 0) == []
    assert lines.take(1, 100) == [b"one"]
    assert lines.take(10, 3) == [b"two"]
    assert lines.take(2, 100) == [b"", b"four"]
    assert lines.take(2, 100) == []


def test_a_long_line_is_not_kept() -> None:
    lines = LineSplitter(100)
    for _ in range(1000):
        lines.feed(b"x" * 1000)
        assert not lines.waiting
        assert len(lines._buffer) <= 2000
    lines.end()
    assert lines.take(10, 100) == [b""]
