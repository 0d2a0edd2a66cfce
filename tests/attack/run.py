"""One attack, while honest subscribers listen."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from typing import NamedTuple

from tests.attack.attacks import BIG_KEY, BIG_MESSAGES, BUSY_KEY, FILES
from tests.attack.victim import Honest, Victim

BUSY_BODY = b'"%b"' % (b"x" * 20_000)
BIG_BODY = b'"%b"' % (b"x" * 400_000)
MANY_TOKENS = 20
REST_SECONDS = 8.0


def victim_of(name: str) -> Victim:
    """Whom this attack is meant for."""
    if name in ("files", "strangers"):
        return Victim(storage="redis", files=FILES)
    return Victim(0 if name == "flood" else 256, "sqlite" if name == "sqlite_tokens" else "memory")


class Outcome(NamedTuple):
    """`done`: what the attack counts. Delays of honest messages in ms, before and meanwhile; memory in KiB, before, at
    most and after; `processor`: how much of one the victim used meanwhile."""

    name: str
    done: int
    before_p99: float
    p50: float
    p99: float
    lost: int
    received: int
    memory: tuple[int, int, int]
    processor: float
    log: str


def _prepare(victim: Victim, name: str) -> str:
    """What the attack needs to be there; the token of its key."""
    if name in ("deaf_resumers", "big_resumes", "pipelined"):
        for _ in range(BIG_MESSAGES):
            victim.call("POST", f"/1/admin/push/private?key={BIG_KEY}&expire=3600", BIG_BODY)
        return victim.token(BIG_KEY)
    if name == "sqlite_tokens":
        for _ in range(MANY_TOKENS):
            victim.token(BUSY_KEY)
    return victim.token(BUSY_KEY)


def attack(victim: Victim, name: str, scale: float, seconds: float, honest: int = 100) -> Outcome:
    """Attack for so long at most."""
    token = _prepare(victim, name)
    calm = Honest(victim, honest)
    quiet_until = time.monotonic() + min(5.0, seconds)
    asyncio.run(calm.run(lambda: time.monotonic() > quiet_until))
    before = victim.memory
    used, started = victim.processor_seconds, time.monotonic()
    command = [sys.executable, "-m", "tests.attack.attacks", name, str(victim.tcp), str(victim.websocket)]
    command += [str(victim.web), str(victim.admin), str(victim.rpc), token]
    attacker = subprocess.Popen([*command, str(scale), str(seconds)], stdout=subprocess.PIPE)
    most = before
    listeners = Honest(victim, honest)

    def over() -> bool:
        nonlocal most
        most = max(most, victim.memory)
        if name == "deaf":
            victim.call("POST", f"/1/admin/push/private?key={BUSY_KEY}&expire=1", BUSY_BODY)
        return attacker.poll() is not None

    try:
        asyncio.run(listeners.run(over))
        processor = (victim.processor_seconds - used) / (time.monotonic() - started)
    finally:
        attacker.kill()
    out, _ = attacker.communicate()
    time.sleep(min(REST_SECONDS, seconds))
    return Outcome(
        name,
        int(out or b"0"),
        calm.percentile(0.99),
        listeners.percentile(0.5),
        listeners.percentile(0.99),
        listeners.lost,
        len(listeners.delays),
        (before, most, victim.memory),
        processor,
        victim.log,
    )
