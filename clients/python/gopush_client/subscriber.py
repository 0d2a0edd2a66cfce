"""Receive the messages of a key."""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from gopush_client import asynchronous, blocking, wire
from gopush_client.subscription import Subscription, Token
from gopush_client.wire import Message

LEAST_HEARTBEAT_SECONDS = 30


class Subscriber:
    """A key's messages, each once and in order, through whatever happens to connections and servers.

    `for message in subscriber` in a thread, `async for message in subscriber` in asyncio; one of them at a time. It
    ends with close(). Raises RefusedError where coming back would be pointless; all else it repeats.

    `cursor` is the mid of the last message that it gave: who begins anew with `since=cursor` misses nothing.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        since: int | str | None = None,
        token: Token = "",
        heartbeat: int = 30,
        on_gap: Callable[[], object] = lambda: None,
        on_state: Callable[[str, str], object] = lambda *_: None,
        context: ssl.SSLContext | None = None,
        comet_tls: bool | None = None,
    ) -> None:
        """`url`: of a web node's public port. `since`: begin after this mid (or its digits); 0: with all that is kept;
        None: with what is new. `token`: of the subscriber, or a function (of coroutines too) that fetches one; it is
        called anew when one is refused. `heartbeat`: seconds, from 30 on.

        `on_gap()`: messages were trimmed away before they could be read. `on_state(state, why)`: "connecting", "live"
        or "away". `context`: for TLS, None: the system's authorities; comets are reached over TLS where the web node
        is, or as `comet_tls` says. Raises ValueError or TypeError.
        """
        where = wire.url(url)
        if heartbeat < LEAST_HEARTBEAT_SECONDS:
            raise ValueError(f"a heartbeat has at least {LEAST_HEARTBEAT_SECONDS} seconds")
        if not isinstance(token, str) and not callable(token):
            raise TypeError("a token is a string, or a function that fetches one")
        self._context = context
        self._subscription = Subscription(
            url=where,
            key=wire.check_key(key),
            heartbeat=heartbeat,
            token=token,
            cursor=None if since is None else wire.mid(since),
            comet_tls=where.tls if comet_tls is None else comet_tls,
            on_gap=on_gap,
            on_state=on_state,
            clock=time.monotonic,
            random=random.random,
        )
        self._driver: blocking.Driver | asynchronous.Driver | None = None
        self._closed = False

    @property
    def cursor(self) -> int | None:
        """The mid of the last message; None: nothing is known yet."""
        return self._subscription.cursor

    def __iter__(self) -> Iterator[Message]:
        driver = blocking.Driver(blocking.Connections(self._context), self._context)
        self._driver = driver
        if not self._closed:
            for message in driver.drive(self._subscription.steps()):
                self._subscription.cursor = message.mid
                yield message

    def __aiter__(self) -> _Messages:
        driver = asynchronous.Driver(asynchronous.Connections(self._context), self._context)
        self._driver = driver
        if self._closed:
            driver.stop()
        return _Messages(self._subscription, driver)

    def close(self) -> None:
        """End the iteration; from any thread."""
        self._closed = True
        if self._driver is not None:
            self._driver.stop()


class _Messages:
    """Those of a subscription. Who gives up waiting for one, as asyncio.wait_for() does, ends nothing by that: the next
    call goes on waiting. It ends with aclose(), or when nobody has this iterator any more.
    """

    def __init__(self, subscription: Subscription, driver: asynchronous.Driver) -> None:
        self._subscription = subscription
        self._driver = driver
        self._given = driver.drive(subscription.steps())
        self._next: asyncio.Future[Message | None] | None = None  # until somebody has it; None in it: the end

    def __aiter__(self) -> _Messages:
        return self

    async def __anext__(self) -> Message:
        while True:
            coming = self._next = self._next or asyncio.ensure_future(anext(self._given, None))
            try:
                await asyncio.wait([coming])
            except asyncio.CancelledError:
                del self  # who keeps the error keeps this frame, but not by that the subscription
                raise
            if self._next is coming:  # nobody else took it
                break
        self._next = None
        message = coming.result()
        if message is None:
            raise StopAsyncIteration
        self._subscription.cursor = message.mid  # not before somebody has it: what nobody took comes again
        return message

    async def aclose(self) -> None:
        """End the subscription, for whoever waits for a message too."""
        self._driver.stop()
        coming = self._next
        if coming is not None:
            await asyncio.wait([coming])
            if self._next is coming:
                self._next = None
        await self._given.aclose()

    def __del__(self) -> None:
        # In any thread, and amid anything. Where nothing is waited for, asyncio closes the generator.
        if self._next is not None:
            with suppress(RuntimeError):  # the loop has ended
                self._next.get_loop().call_soon_threadsafe(self._driver.stop)
