"""How a subscription of the Python client ends in asyncio. Nobody listens: it tries again for ever."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import aclosing
from typing import Any

import pytest

from gopush_client import Message, Subscriber
from gopush_client.steps import Give, Pause, Steps
from gopush_client.subscription import Subscription
from tests.servers import free_port

BOUND = 0.05
PATIENCE = 10


def subscriber() -> Subscriber:
    return Subscriber(f"http://127.0.0.1:{free_port()}", "left")


async def nothing_goes_on() -> None:
    """Wait until there is no task but this one."""
    await asyncio.sleep(BOUND)  # a generator that was forgotten is closed by a task that begins only then
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    if others:
        _, pending = await asyncio.wait(others, timeout=PATIENCE)
        assert not pending


def run(main: Coroutine[Any, Any, None]) -> None:
    """And nothing is left to asyncio's handler of errors."""
    said: list[dict[str, Any]] = []

    async def quietly() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
        await main

    asyncio.run(quietly())
    assert not said


def test_it_is_closed_as_an_asynchronous_generator_is() -> None:
    async def main() -> None:
        async with aclosing(aiter(subscriber())) as messages:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(messages), BOUND)
            assert len(asyncio.all_tasks()) > 1
        assert len(asyncio.all_tasks()) == 1
        for _ in range(2):
            with pytest.raises(StopAsyncIteration):
                await anext(messages)
            await messages.aclose()
        unused = aiter(subscriber())
        await unused.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(unused)

    run(main())


def test_closing_it_ends_who_waits() -> None:
    async def main() -> None:
        messages = aiter(subscriber())

        async def wait() -> list[Message]:
            return [message async for message in messages]

        waiting = asyncio.create_task(wait())
        await asyncio.sleep(BOUND)
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(messages.aclose(), messages.aclose())
            assert await waiting == []
        await nothing_goes_on()

    run(main())


def test_a_cancelled_loop_ends_it_though_somebody_keeps_the_outcome() -> None:
    async def main() -> None:
        async def receive() -> None:
            async for _ in subscriber():
                pass

        receiving = asyncio.create_task(receive())
        await asyncio.sleep(BOUND)
        receiving.cancel()
        (outcome,) = await asyncio.gather(receiving, return_exceptions=True)
        await nothing_goes_on()
        assert isinstance(outcome, asyncio.CancelledError)

    run(main())


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "in another thread"])
def test_it_ends_with_the_last_who_has_it_though_an_error_is_kept(elsewhere: bool) -> None:
    async def main() -> None:
        kept = [aiter(subscriber())]
        with pytest.raises(TimeoutError) as late:
            await asyncio.wait_for(anext(kept[0]), BOUND)
        assert len(asyncio.all_tasks()) > 1
        if elsewhere:
            forgetting = threading.Thread(target=kept.clear)
            forgetting.start()
            forgetting.join()
        else:
            kept.clear()
        await nothing_goes_on()
        assert late.value.__cause__ is not None

    run(main())


def test_close_is_quiet_where_nobody_waits() -> None:
    async def main() -> None:
        receiver = subscriber()
        messages = aiter(receiver)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(messages), BOUND)
        receiver.close()
        await nothing_goes_on()

    run(main())


def test_what_nobody_took_before_it_was_closed_is_not_behind_the_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []

    def steps(_: Subscription) -> Steps[None]:
        try:
            for mid in (1, 2, 3):
                yield Pause(BOUND)
                yield Give(Message(mid, "1"))
        finally:
            ended.append("ended")

    monkeypatch.setattr(Subscription, "steps", steps)

    async def main() -> None:
        receiver = subscriber()
        messages = aiter(receiver)
        got = await asyncio.gather(anext(messages), anext(messages))  # each has its own
        assert sorted(message.mid for message in got) == [1, 2]
        waiting = asyncio.ensure_future(anext(messages))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.sleep(4 * BOUND)
        await messages.aclose()
        assert (receiver.cursor, ended) == (2, ["ended"])
        async for message in receiver:
            assert message.mid == 1
            break
        await nothing_goes_on()
        assert len(ended) == 2

    run(main())
