"""The whole way of a message, from HTTP to devices: both modes, real processes, real sockets."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Coroutine, Iterable, Iterator
from itertools import chain
from typing import Any, TypeVar

import pytest
import quickjs

from tests.chaos.subscriber import Subscriber
from tests.chaos.wire import Device, Http, TcpDevice, WebSocketDevice
from tests.integration.systems import System, clustered, embedded

T = TypeVar("T")
PATIENCE = 30.0
BEAT_SECONDS = 10.0


@pytest.fixture(scope="module", params=[embedded, clustered], ids=lambda mode: mode.__name__)
def system(request: pytest.FixtureRequest) -> Iterator[System]:
    with request.param() as running:
        yield running


def run(test: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(test, 300))


async def push(http: Http, key: str, body: bytes, **query: Any) -> Any:
    """The `data` of a push that must be stored."""
    answer = await http.call("POST", "/1/admin/push/private", {"key": key, "expire": 600} | query, body, PATIENCE)
    assert answer["ret"] == 0, answer
    return answer.get("data")


async def subscribe(system: System, key: str, *, websocket: bool, mid: int | None = None) -> Device:
    opens = WebSocketDevice.open if websocket else TcpDevice.open
    while True:
        http = Http(system.public)
        answer = await http.call("GET", "/1/server/get", {"k": key, "p": 1 if websocket else 2}, b"", PATIENCE)
        http.close()
        if answer["ret"] == 0:
            device: Device = await opens(answer["data"]["server"], key, mid)
            if await device.receive() == b"+h":
                return device
            device.close()
        await asyncio.sleep(0.1)


async def ended(task: asyncio.Task[None]) -> None:
    """Cancel for sure: before Python 3.12 asyncio.wait_for() may swallow it."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=0.1)


async def received(device: Device) -> Any:
    """The next message, past the answers to heartbeats."""
    while (data := await asyncio.wait_for(device.receive(), PATIENCE)) == b"+h":
        pass
    return json.loads(data)


async def beat(devices: Callable[[], Iterable[Device]]) -> None:
    """Keep subscribers that wait for long: who says nothing is closed after its heartbeat and a little more."""
    while True:
        await asyncio.sleep(BEAT_SECONDS)
        for device in devices():
            device.beat()


def test_a_push_through_any_web_reaches_tcp_and_websocket_subscribers_on_all_comets(system: System) -> None:
    async def test() -> None:
        keys = [f"road-{i}" for i in range(40)]  # a ring of two nodes spreads them over both
        devices = {key: [await subscribe(system, key, websocket=ws) for ws in (False, True)] for key in keys}
        for admin in system.admins:
            http = Http(admin)
            for key in keys:
                await push(http, key, json.dumps({"for": key, "through": admin}).encode())
                for device in devices[key]:
                    assert (await received(device))["msg"] == {"for": key, "through": admin}

    run(test())


@pytest.mark.parametrize("size", [64 << 10, 1 << 20])
def test_big_messages_arrive_whole(system: System, size: int) -> None:
    async def test() -> None:
        key = f"big-{size}"
        devices = [await subscribe(system, key, websocket=ws) for ws in (False, True)]
        body = json.dumps("é" * (size // 2), ensure_ascii=False).encode()
        await push(Http(system.admin), key, body)
        for device in devices:
            assert (await received(device))["msg"] == json.loads(body)
        missed = await Http(system.public).call("GET", "/1/msg/get", {"k": key, "m": 0}, b"", PATIENCE)
        assert missed["data"]["msgs"][0]["msg"] == json.loads(body)

    run(test())


def test_keys_and_bodies_in_any_script(system: System) -> None:
    async def test() -> None:
        for key in ("用户-1", "é", "with space", "a+b&c=d", "🚀"):
            devices = [await subscribe(system, key, websocket=ws) for ws in (False, True)]
            await push(Http(system.admin), key, '{"ключ":"значение 🚀"}'.encode())
            for device in devices:
                assert (await received(device))["msg"] == {"ключ": "значение 🚀"}

    run(test())


@pytest.mark.parametrize("count", [300, pytest.param(1000, marks=pytest.mark.slow)])
def test_many_keys_with_three_subscribers_each_miss_nothing(system: System, count: int) -> None:
    async def test() -> None:
        keys = [f"many-{i}" for i in range(count)]
        devices: dict[str, list[Device]] = {}
        beating = asyncio.create_task(beat(lambda: chain(*devices.values())))
        for start in range(0, len(keys), 100):
            some = keys[start : start + 100]
            joined = await asyncio.gather(
                *(subscribe(system, key, websocket=ws) for key in some for ws in (False, True, False))
            )
            devices |= {key: list(joined[3 * i : 3 * i + 3]) for i, key in enumerate(some)}
        https = [Http(system.admin) for _ in range(10)]
        for number in range(3):
            await asyncio.gather(
                *(push_each(http, keys[i :: len(https)], number) for i, http in enumerate(https)),
            )
        for key in keys:
            for device in devices.pop(key):
                assert [(await received(device))["msg"] for _ in range(3)] == [[key, number] for number in range(3)]
                device.close()
        beating.cancel()

    async def push_each(http: Http, keys: list[str], number: int) -> None:
        for key in keys:
            await push(http, key, json.dumps([key, number]).encode())

    run(test())


def test_a_mid_is_the_same_everywhere_and_exact_in_javascript(system: System) -> None:
    """protocol.md, section 3: exact as doubles; a neighbour that JavaScript prints is snapped."""

    async def test() -> None:
        key, http, public = "same-mid", Http(system.admin), Http(system.public)
        devices = [await subscribe(system, key, websocket=ws) for ws in (False, True)]
        mids = [(await push(http, key, b"%d" % i, mid=1))["mid"] for i in range(10)]
        live = [[await asyncio.wait_for(device.receive(), PATIENCE) for _ in mids] for device in devices]
        offline = await public.call("GET", "/1/msg/get", {"k": key, "m": mids[0] - 16}, b"", PATIENCE)
        resumed = await subscribe(system, key, websocket=False, mid=mids[0] - 16)
        assert [json.loads(frame)["mid"] for frame in live[0]] == mids
        assert [json.loads(frame)["mid"] for frame in live[1]] == mids
        assert [message["mid"] for message in offline["data"]["msgs"]] == mids
        assert [(await received(resumed))["mid"] for _ in mids] == mids
        context = quickjs.Context()
        for mid, frame in zip(mids, live[0], strict=True):
            # JSON.stringify may print a neighbour; what the program holds is exactly the mid.
            exact = context.eval(f"BigInt(JSON.parse({json.dumps(frame.decode())}).mid).toString()")
            assert int(exact) == mid
            printed = int(context.eval(f"JSON.stringify(JSON.parse({json.dumps(frame.decode())}).mid)"))
            after = await public.call("GET", "/1/msg/get", {"k": key, "m": printed}, b"", PATIENCE)
            assert [message["mid"] for message in after.get("data", {"msgs": []})["msgs"]] == [
                m for m in mids if m > mid
            ]

    run(test())


@pytest.mark.parametrize(("least_reconnects", "pushes"), [(50, 1500), pytest.param(200, 5000, marks=pytest.mark.slow)])
def test_who_reconnects_all_the_time_during_pushes_gets_each_message_once_in_order(
    system: System, least_reconnects: int, pushes: int
) -> None:
    async def test() -> None:
        key = "restless"
        pushing = asyncio.create_task(push_all(key))
        await asyncio.gather(
            *(come_and_go(key, websocket, resumes, pushing) for websocket in (False, True) for resumes in (False, True))
        )

    async def come_and_go(key: str, websocket: bool, resumes: bool, pushing: asyncio.Task[list[str]]) -> None:
        restless = Subscriber(
            key, websocket=websocket, resumes=resumes, alert=False, webs=lambda: system.publics, seed=key
        )
        stay = random.Random(f"{websocket} {resumes}")
        reconnects = 0
        while not pushing.done() or reconnects < least_reconnects:
            listening = asyncio.create_task(restless.run())
            await asyncio.sleep(stay.uniform(0.01, 0.08))
            await ended(listening)
            reconnects += 1
        ids = await pushing
        last = asyncio.create_task(restless.run())
        for _ in range(int(PATIENCE / 0.05)):
            await asyncio.sleep(0.05)
            if len(restless.seen) == len(ids):
                break
        await ended(last)
        assert list(restless.seen) == ids
        faults = restless.faults
        assert (faults.duplicated_mids, faults.duplicated_ids, faults.out_of_order, faults.gaps) == (0, 0, 0, 0)

    async def push_all(key: str) -> list[str]:
        """The ids in the order of their mids: ten publishers at once."""
        mids: dict[str, int] = {}
        await asyncio.gather(*(publish(key, range(start, pushes, 10), mids) for start in range(10)))
        return sorted(mids, key=mids.__getitem__)

    async def publish(key: str, numbers: range, mids: dict[str, int]) -> None:
        http = Http(system.admin)
        for number in numbers:
            id = f"{key}-{number}"
            mids[id] = (await push(http, key, json.dumps({"id": id}).encode(), mid=1))["mid"]

    run(test())
