"""The Python client and a real gopush: in threads and in asyncio, through what kills servers and connections."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gopush.web.keys import make
from gopush_client import AsyncPublisher, Message, Publisher, Push, RefusedError, Subscriber, UnavailableError
from tests.chaos.cluster import Node
from tests.clients import eventually
from tests.integration.systems import clustered, embedded
from tests.servers import free_port
from tests.servers.authority import Authority

CLIENT = Path(__file__).resolve().parents[2] / "clients" / "python"
WAYS = ("threads", "asyncio")


class Receiver:
    """A subscriber in a thread of its own, by either way."""

    def __init__(self, way: str, subscriber: Subscriber) -> None:
        self.messages: list[Message] = []
        self.wrong: Exception | None = None
        self._subscriber = subscriber
        self._stop: Callable[[], object] = subscriber.close
        self._thread = threading.Thread(target=self._run, args=(way,))

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._thread.join(20)
        assert not self._thread.is_alive()

    @property
    def numbers(self) -> list[int]:
        return [message.data["n"] for message in self.messages]

    def _run(self, way: str) -> None:
        try:
            if way == "asyncio":
                asyncio.run(self._receive())
            else:
                for message in self._subscriber:
                    self.messages.append(message)
        except RefusedError as wrong:
            self.wrong = wrong

    async def _receive(self) -> None:
        loop = asyncio.get_running_loop()
        self._stop = lambda: loop.call_soon_threadsafe(self._subscriber.close)
        try:
            async for message in self._subscriber:
                self.messages.append(message)
        finally:
            self._stop = self._subscriber.close


class States(list[str]):
    def add(self, state: str, why: str) -> None:
        self.append(state)

    @property
    def live(self) -> int:
        return self.count("live")


@contextmanager
def receiving(way: str, node: Node, key: str) -> Iterator[Receiver]:
    """Once it is subscribed."""
    states = States()
    with Receiver(way, Subscriber(f"http://{node.address('http')}", key, on_state=states.add)) as receiver:
        eventually(lambda: states.live > 0)
        yield receiver


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with embedded() as system:
        yield system.webs[0]


@pytest.fixture
def publisher(node: Node) -> Iterator[Publisher]:
    with Publisher(f"http://{node.address('admin')}") as made:
        yield made


def close(node: Node, key: str) -> None:
    """End the key's one connection."""
    with socket.create_connection(("127.0.0.1", node.ports["admin"])) as admin:
        admin.sendall(b"POST /1/admin/key/close?key=%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % key.encode())
        assert b'"closed":1' in admin.recv(4096)


def through(ways: list[Receiver], publisher: Publisher, key: str, disturb: Callable[[], object]) -> None:
    """All receive all that is pushed before, while and after something happens: once, and in order."""
    for number in range(5):
        publisher.push(key, {"n": number})
    disturbing = threading.Thread(target=disturb)
    disturbing.start()
    for number in range(5, 25):
        publisher.push(key, {"n": number})
    disturbing.join(60)
    for number in range(25, 30):
        publisher.push(key, {"n": number})
    for receiver in ways:
        eventually(lambda receiver=receiver: len(receiver.messages) >= 30)  # type: ignore[misc]
        assert receiver.numbers == list(range(30))
        mids = [message.mid for message in receiver.messages]
        assert mids == sorted(set(mids))


def test_all_arrives_once_and_in_order_through_a_killed_process(node: Node) -> None:
    def kill() -> None:
        node.kill()
        node.start()

    with (
        receiving("threads", node, "killed") as one,
        receiving("asyncio", node, "killed") as other,
        Publisher(f"http://{node.address('admin')}", deadline=60) as publisher,
    ):
        through([one, other], publisher, "killed", kill)


def test_all_arrives_once_and_in_order_through_a_killed_comet() -> None:
    with clustered() as system:
        web = system.webs[0]
        with receiving("threads", web, "k") as one, receiving("asyncio", web, "k") as other:
            owner = one._subscriber._driver._socket.getpeername()[1]  # type: ignore[union-attr]
            (comet,) = [node for node in system.nodes if node.ports.get("tcp") == owner]
            with Publisher(f"http://{web.address('admin')}") as publisher:
                through([one, other], publisher, "k", comet.kill)


@pytest.mark.parametrize("way", WAYS)
def test_who_is_cut_before_its_first_message_misses_nothing(node: Node, publisher: Publisher, way: str) -> None:
    key = f"early-{way}"
    publisher.push(key, {"n": 0})
    states = States()
    back = threading.Event()

    def hold(state: str, why: str) -> None:
        """Between two connections something is pushed."""
        if state == "away":
            publisher.push(key, {"n": 1})
            back.set()
        states.add(state, why)

    with Receiver(way, Subscriber(f"http://{node.address('http')}", key, on_state=hold)) as receiver:
        eventually(lambda: states.live == 1)
        close(node, key)
        eventually(lambda: states.live == 2 and back.is_set())
        eventually(lambda: receiver.numbers == [1])


def test_who_is_cut_before_its_first_message_hears_of_a_gap() -> None:
    with embedded({"storage": {"store": "20"}}) as system, Publisher(system.admins[0]) as publisher:
        (node,) = system.webs
        for way in WAYS:
            for since in (None, 0):
                hears_of_a_gap(node, publisher, f"gap-{way}-{since}", way, since)


def hears_of_a_gap(node: Node, publisher: Publisher, key: str, way: str, since: int | None) -> None:
    states = States()

    def hold(state: str, why: str) -> None:
        """Between two connections more is pushed than the key keeps."""
        if state == "away":
            list(publisher.push_stream((key, {"n": number}) for number in range(30)))
        states.add(state, why)

    def gap() -> None:
        states.add("gap", "")

    subscriber = Subscriber(f"http://{node.address('http')}", key, since=since, on_gap=gap, on_state=hold)
    with Receiver(way, subscriber) as receiver:
        eventually(lambda: states.live == 1)
        close(node, key)
        eventually(lambda: receiver.numbers == list(range(10, 30)))
    assert states == ["connecting", "live", "away", "connecting", "live", "gap"]


def test_since_gives_what_is_kept_behind_a_mid(node: Node, publisher: Publisher) -> None:
    mids = [publisher.push("since", {"n": number}) for number in range(3)]
    subscriber = Subscriber(f"http://{node.address('http')}", "since", since=mids[0])
    found = []
    for message in subscriber:
        found.append(message)
        if len(found) == 2:
            subscriber.close()
    assert [message.mid for message in found] == mids[1:]
    assert subscriber.cursor == mids[2]
    assert list(subscriber) == []


class Losing:
    """Stands before an admin port; loses the answers of the first `lost` requests after they were carried out."""

    def __init__(self, to: int, lost: int) -> None:
        self.port = free_port()
        self.requests = 0
        self._to = to
        self._lost = lost
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, socket.create_connection(("127.0.0.1", self._to)) as server:
                server.sendall(self._request(client))
                answer = server.recv(1 << 16)
                self.requests += 1
                if self.requests > self._lost:
                    client.sendall(answer)

    def _request(self, client: socket.socket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            data += client.recv(1 << 16)
        length = int(data.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        while len(data.partition(b"\r\n\r\n")[2]) < length:
            data += client.recv(1 << 16)
        return data

    def close(self) -> None:
        self._listener.close()


def kept(node: Node, key: str) -> list[Message]:
    """All messages of a key, behind which another one is pushed."""
    subscriber = Subscriber(f"http://{node.address('http')}", key, since=0)
    Publisher(f"http://{node.address('admin')}").push(key, "last")
    found = []
    for message in subscriber:
        if message.data == "last":
            subscriber.close()
        else:
            found.append(message)
    return found


@pytest.mark.parametrize("way", WAYS)
def test_a_push_whose_answer_was_lost_is_stored_once(node: Node, way: str) -> None:
    losing = Losing(node.ports["admin"], lost=2)
    url, key = f"http://127.0.0.1:{losing.port}", f"lost-{way}"

    async def push() -> int:
        async with AsyncPublisher(url) as publisher:
            return await publisher.push(key, {"n": 1})

    mid = asyncio.run(push()) if way == "asyncio" else Publisher(url).push(key, {"n": 1})
    assert losing.requests == 3
    assert [message.mid for message in kept(node, key)] == [mid]
    losing.close()


def test_lines_are_stored_once_and_in_order(node: Node, publisher: Publisher) -> None:
    keys = [f"line-{number % 7}" for number in range(1200)]
    pushes = [Push(key, {"n": number}) for number, key in enumerate(keys)]
    answered = list(publisher.push_stream([*pushes[:600], ("line-x", b"{"), ("line-y", {1}), *pushes[600:]]))
    assert [pushed.push.key for pushed in answered] == [*keys[:600], "line-x", "line-y", *keys[600:]]
    for _ in range(2):
        refused = answered.pop(600)
        assert (refused.mid, refused.ret) == (None, 65534)
        assert "JSON" in refused.why
    messages = kept(node, "line-3")
    assert [message.data["n"] for message in messages] == list(range(3, 1200, 7))
    assert [message.mid for message in messages] == [pushed.mid for pushed in answered[3::7]]


def test_bytes_in_a_stream_are_taken_and_refused_as_in_a_single_push(publisher: Publisher) -> None:
    messages = [b"1\n2", b"1\r2", b"tr\nue", b'"a\nb"', b'1,"k":"other"', b'{"a":\r\n1}']
    answered = list(publisher.push_stream(("breaks", message) for message in messages))
    assert [pushed.ret for pushed in answered] == [65534, 65534, 65534, 65534, 65534, 0]
    for message in messages[:-1]:
        with pytest.raises(RefusedError):
            publisher.push("breaks", message)


def test_the_same_calls_in_asyncio(node: Node) -> None:
    async def push() -> None:
        async with AsyncPublisher(f"http://{node.address('admin')}") as publisher:
            mids = await publisher.push_many(["many-1", "many-2"], {"x": "\u00fc"})
            assert mids.keys() == {"many-1", "many-2"}
            answered = [pushed async for pushed in publisher.push_stream(("many-1", number) for number in range(3))]
            assert [message.mid for message in kept(node, "many-1")] == [
                mids["many-1"],
                *(pushed.mid for pushed in answered),
            ]
            with pytest.raises(RefusedError, match="not JSON"):
                await publisher.push("many-1", b"{")
            await asyncio.gather(*(publisher.push("many-3", number) for number in range(50)))
            assert len(kept(node, "many-3")) == 50

    asyncio.run(push())


def test_one_publisher_serves_many_threads(node: Node, publisher: Publisher) -> None:
    def push() -> None:
        for number in range(20):
            publisher.push("threads", number)

    threads = [threading.Thread(target=push) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(kept(node, "threads")) == 160


def test_nobody_there_is_said_after_the_deadline() -> None:
    with pytest.raises(UnavailableError, match=r"http://127\.0\.0\.1:\d+: .*refused") as caught:
        Publisher(f"http://127.0.0.1:{free_port()}", deadline=0.5).push("k", 1)
    assert caught.value.id


@pytest.mark.parametrize("way", WAYS)
def test_keys_tokens_and_tls(tmp_path: Path, way: str) -> None:
    key, line = make("service")
    keys = tmp_path / "keys"
    keys.write_text(line + "\n")
    authority = Authority(tmp_path)
    issued = authority.issue("server")
    ports = {name: free_port() for name in ("http.bind", "admin.bind", "tcp.bind")}
    binds = {name: f"ssl:{port}:interface=127.0.0.1:{issued.endpoint}" for name, port in ports.items()}
    advertised = {"tcp.advertise": f"localhost:{ports['tcp.bind']}"}
    node = Node("gopush", "gopush", tmp_path, {"admin": {"keys": str(keys)}, "channel": {"auth": "yes"}})
    node.ports.update({name.partition(".")[0]: port for name, port in ports.items()})
    node.set({"base": {**binds, **advertised}})
    context = ssl.create_default_context(cafile=authority.path)
    public, admin = (f"https://localhost:{ports[name]}" for name in ("http.bind", "admin.bind"))
    try:
        node.start()
        with pytest.raises(RefusedError, match="401"):
            Publisher(admin, context=context).push("k", 1)
        with pytest.raises(UnavailableError, match=r"(?i)certificate"):
            Publisher(admin, key, deadline=0.2).push("k", 1)

        async def push() -> int:
            async with AsyncPublisher(admin, key, context=context) as publisher:
                return await publisher.push("k", {"n": 1})

        with Publisher(admin, key, context=context) as publisher:
            mid = asyncio.run(push()) if way == "asyncio" else publisher.push("k", {"n": 1})
            refused = Subscriber(public, "k", token="wrong", context=context, since=0)
            with Receiver(way, refused) as receiver:
                eventually(lambda: receiver.wrong is not None)
            tokens = iter(["outdated", token(ports["admin.bind"], key, context)])
            subscriber = Subscriber(public, "k", token=lambda: next(tokens), context=context, since=0)
            with Receiver(way, subscriber) as receiver:
                eventually(lambda: len(receiver.messages) == 1)
                assert receiver.messages[0].mid == mid
    finally:
        node.kill()


def token(port: int, api_key: str, context: ssl.SSLContext) -> str:
    url = f"https://localhost:{port}/1/admin/token?key=k"
    asking = urllib.request.Request(url, b"", {"Authorization": f"Bearer {api_key}"})
    with urllib.request.urlopen(asking, context=context, timeout=20) as answer:
        return str(json.load(answer)["data"]["token"])


def test_it_needs_nothing_but_python(node: Node) -> None:
    code = (
        "import sys, gopush_client as g; "
        f"mid = g.Publisher('{node.address('admin')}').push('alone', 1); "
        f"s = g.Subscriber('{node.address('http')}', 'alone', since=0); m = next(iter(s)); "
        "others = {name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names - {'__main__'}; "
        "print(m.mid == mid, others)"
    )
    command = [sys.executable, "-S", "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(CLIENT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "True {'gopush_client'}\n", done.stdout + done.stderr


def test_who_gives_up_waiting_in_asyncio_ends_nothing(node: Node, publisher: Publisher) -> None:
    """wait_for() around each message: after the first one that came too late the subscription ended, silently."""
    states = States()

    async def receive() -> None:
        subscriber = Subscriber(f"http://{node.address('http')}", "given-up", on_state=states.add)
        coming = aiter(subscriber)
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(coming), 0.5)
        assert states == ["connecting", "live"]
        before = subscriber.cursor
        mids = [await asyncio.to_thread(publisher.push, "given-up", number) for number in range(3)]
        await asyncio.sleep(0.5)
        assert subscriber.cursor == before  # it has come, and nobody has it
        assert (await anext(coming)).mid == subscriber.cursor == mids[0]
        assert [(await anext(coming)).mid for _ in mids[1:]] == mids[1:]
        waiting = asyncio.ensure_future(anext(coming))
        await asyncio.sleep(0)
        waiting.cancel()
        subscriber.close()
        with pytest.raises(StopAsyncIteration):
            await anext(coming)

    asyncio.run(receive())


def test_what_nobody_took_in_asyncio_comes_again(node: Node, publisher: Publisher) -> None:
    async def receive() -> None:
        subscriber = Subscriber(f"http://{node.address('http')}", "not-taken", since=0)
        coming = aiter(subscriber)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(coming), 0.5)
        mid = await asyncio.to_thread(publisher.push, "not-taken", 1)
        await asyncio.sleep(0.5)
        del coming
        async for message in subscriber:
            assert message.mid == mid
            break
        await asyncio.sleep(0.1)
        assert len(asyncio.all_tasks()) == 1  # nothing goes on where nobody waits

    asyncio.run(receive())
