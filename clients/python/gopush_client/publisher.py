"""Push messages."""

from __future__ import annotations

import random
import re
import ssl
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Any, Self

from gopush_client import asynchronous, blocking, wire
from gopush_client.publishing import MOST_BYTES, MOST_LINES, Line, Publishing, Push, Pushed, line

DEADLINE_SECONDS = 20.0
_API_KEY = re.compile(r"[!-~]*")


def _publishing(url: str, api_key: str, deadline: float) -> Publishing:
    if not _API_KEY.fullmatch(api_key):
        raise ValueError("an API key has printable ASCII characters alone")
    if not deadline >= 0:  # no number, either
        raise ValueError(f"a deadline is a number of seconds, from 0: {deadline!r}")
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    return Publishing(wire.url(url), headers, deadline, time.monotonic, random.random)


class _Batch:
    """Lines that go out together."""

    def __init__(self) -> None:
        self._lines: list[Line] = []
        self._bytes = 0

    def add(self, push: Push | tuple[Any, ...]) -> list[Line]:
        """Add one; gives those that are full without it."""
        made = line(push)
        full = self.take() if self._bytes + len(made.data) > MOST_BYTES or len(self._lines) >= MOST_LINES else []
        self._lines.append(made)
        self._bytes += len(made.data)
        return full

    def take(self) -> list[Line]:
        """All that there are."""
        taken, self._lines, self._bytes = self._lines, [], 0
        return taken


class Publisher:
    """Pushes from threads; any number of them may share one. AsyncPublisher has the same calls for asyncio.

    Each push has an id and is repeated until it is stored, once, or `deadline` seconds have passed (the last attempt
    has one at least): then it is an UnavailableError, which bears the id. RefusedError: repeating it is pointless.
    """

    def __init__(
        self,
        url: str,
        api_key: str = "",
        *,
        deadline: float = DEADLINE_SECONDS,
        context: ssl.SSLContext | None = None,
    ) -> None:
        """`url`: of a web node's admin port. `deadline`: below half of `[push] dedupe` (60 s), the time for which ids
        are remembered. `context`: for TLS, None: the system's authorities. Raises ValueError."""
        self._publishing = _publishing(url, api_key, deadline)
        self._connections = blocking.Connections(context)

    def push(self, key: str, message: Any, *, expire: int = 600, id: str | None = None) -> int:
        """Push what json.dumps() takes, or bytes that are JSON, to be kept for `expire` seconds; gives its mid."""
        return int(self._run(self._publishing.push(key, message, expire, id)))

    def push_many(
        self, keys: Iterable[str], message: Any, *, expire: int = 600, id: str | None = None
    ) -> dict[str, int]:
        """Push one message to many keys; gives their mids. An error tells which keys `failed`, and the
        `mids` of the others."""
        return dict(self._run(self._publishing.push_many(keys, message, expire, id)))

    def push_stream(self, pushes: Iterable[Push | tuple[Any, ...]]) -> Iterator[Pushed]:
        """Push any number of messages, hundreds in a call; gives what became of each, in their order.

        A line is a Push, or a tuple `(key, message, expire, id)` whose last two may be left out.
        """
        batch = _Batch()
        for push in pushes:
            if lines := batch.add(push):
                yield from self._run(self._publishing.push_lines(lines))
        if lines := batch.take():
            yield from self._run(self._publishing.push_lines(lines))

    def close(self) -> None:
        """Close its connections."""
        self._connections.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, steps: Any) -> Any:
        return blocking.Driver(self._connections).run(steps)


class AsyncPublisher:
    """As Publisher, for asyncio."""

    def __init__(
        self,
        url: str,
        api_key: str = "",
        *,
        deadline: float = DEADLINE_SECONDS,
        context: ssl.SSLContext | None = None,
    ) -> None:
        """See Publisher."""
        self._publishing = _publishing(url, api_key, deadline)
        self._connections = asynchronous.Connections(context)

    async def push(self, key: str, message: Any, *, expire: int = 600, id: str | None = None) -> int:
        """See Publisher."""
        return int(await self._run(self._publishing.push(key, message, expire, id)))

    async def push_many(
        self, keys: Iterable[str], message: Any, *, expire: int = 600, id: str | None = None
    ) -> dict[str, int]:
        """See Publisher."""
        return dict(await self._run(self._publishing.push_many(keys, message, expire, id)))

    async def push_stream(
        self, pushes: Iterable[Push | tuple[Any, ...]] | AsyncIterable[Push | tuple[Any, ...]]
    ) -> AsyncIterator[Pushed]:
        """See Publisher; what gives the messages may be asynchronous, but nothing is sent because time passes."""
        batch = _Batch()
        async for push in _each(pushes):
            if lines := batch.add(push):
                for pushed in await self._run(self._publishing.push_lines(lines)):
                    yield pushed
        if lines := batch.take():
            for pushed in await self._run(self._publishing.push_lines(lines)):
                yield pushed

    async def close(self) -> None:
        """Close its connections."""
        self._connections.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _run(self, steps: Any) -> Any:
        return await asynchronous.Driver(self._connections).run(steps)


async def _each(pushes: Any) -> AsyncIterator[Any]:
    if hasattr(pushes, "__aiter__"):
        async for push in pushes:
            yield push
    else:
        for push in pushes:
            yield push
