"""A process that appends to a SQLite file for ever, about 1,000 messages a second, and prints each acknowledged mid."""

from __future__ import annotations

import sys
import time
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from gopush.message.sqlite.settings import SqliteSettings
from gopush.message.sqlite.store import SqliteStore
from gopush.message.store import StoreSettings
from gopush.model import Append, Appended, Push

BATCH = 10
SECONDS = 0.01


def main(path: str) -> None:
    reactor: Any = global_reactor
    store = SqliteStore(StoreSettings(1_000_000), SqliteSettings(path), reactor)

    def write() -> None:
        deadline = time.time() + 60
        appends = [Append(Push("k", b'"body"', 600, "", 60, deadline), 0) for _ in range(BATCH)]
        store.append(appends).addCallback(reported)

    def reported(answers: list[Appended]) -> None:
        # One write a line: what the pipe holds was acknowledged, and no line is torn.
        sys.stdout.write("".join(f"{answer.mid}\n" for answer in answers if answer.ret == 0))
        sys.stdout.flush()

    def opened(_: None) -> Deferred[LoopingCall]:
        return LoopingCall(write).start(SECONDS)

    store.start().addCallback(opened)
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1])
