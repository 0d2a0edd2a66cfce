"""Whether a Redis server will do: its version and mode, what it may drop, and what we may run there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import uuid4

from twisted.internet.defer import DeferredList

from gopush.errors import UnavailableError
from gopush.message.redis.connection import RedisConnection, UnfitError, log_in
from gopush.message.redis.settings import RedisSettings, Source

OLD_REDIS = ("2", "3", "4", "5")
"""They lack KEEPTTL."""

NEEDED = (
    *("INFO server", "PING", "TIME", "SCRIPT LOAD return", "EVAL return 0", "EVALSHA 0 0"),
    *("RPUSH NAME 0", "LPUSH NAME 0", "PEXPIRE NAME 60000", "SET NAME 0 NX", "GET NAME", "SETRANGE NAME 0 0"),
    *("LINDEX NAME 0", "LLEN NAME", "LRANGE NAME 0 0", "PTTL NAME"),
    *("ZADD NAME 0 0", "ZCOUNT NAME 0 0", "ZRANGE NAME 0 0", "ZRANGEBYSCORE NAME 0 0", "ZREM NAME 0"),
    *("ZREMRANGEBYRANK NAME 0 0", "ZREMRANGEBYSCORE NAME 0 0", "ZSCORE NAME 0"),
    *("LTRIM NAME 1 0", "EXPIREAT NAME 1", "DEL NAME"),
)
"""What we and our scripts run, on a list of a moment: for most of these it is of the wrong type, and no harm done. What
only some settings need: WAIT is tried with these, ROLE says itself where it is refused.
"""


async def prepare(
    connection: RedisConnection, source: Source, settings: RedisSettings, scripts: Iterable[bytes]
) -> str:
    """Check the server, and load the scripts. Gives its run id."""
    if source.password is not None:
        await log_in(connection, source.password)
    if source.sentinels:
        _refuse_replica(await connection.execute_command("ROLE"))
    facts = _facts(await connection.execute_command("INFO", "server"))
    _refuse_old(facts)
    _refuse_cluster(_facts(await connection.execute_command("INFO", "cluster")))
    await refuse_unfit(connection, settings)
    for script in scripts:
        await connection.execute_command("SCRIPT", "LOAD", script)
    return facts.get("run_id", "")


async def refuse_unfit(connection: RedisConnection, settings: RedisSettings) -> None:
    """Raise UnfitError where the server may drop messages, or refuses what we need: both may change while it serves."""
    await _refuse_few_rights(connection, settings)
    await _refuse_eviction(connection)


async def _refuse_few_rights(connection: RedisConnection, settings: RedisSettings) -> None:
    """A script would end halfway. They are tried outside of one: in it each version words its refusal anew."""
    name = f"{settings.prefix}rights:{uuid4().hex}"  # nobody else's
    needed = (*NEEDED, *(["WAIT 0 0"] if settings.wait else []))
    # Who may not delete a name must not make it.
    refused = await _refused(connection, name, ["DEL NAME"]) or await _refused(connection, name, needed)
    if refused:
        raise UnfitError(
            f"it refuses {', '.join(refused)} (tried on {settings.prefix}rights:…; all names that begin with "
            f"{settings.prefix} are needed: docs/security.md has the ACL)"
        )


async def _refused(connection: RedisConnection, name: str, needed: Iterable[str]) -> list[str]:
    tried = [[name if word == "NAME" else word for word in one.split()] for one in needed]
    answers = await DeferredList([connection.execute_command(*words) for words in tried], consumeErrors=True)
    return [
        words[0]
        for words, (answered, answer) in zip(tried, answers, strict=True)
        if not answered and str(answer.value).startswith(("NOPERM ", "ERR unknown command"))
    ]


def _facts(info: bytes) -> dict[str, str]:
    return dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)


def _refuse_old(facts: dict[str, str]) -> None:
    version = facts.get("redis_version", "?")
    if version.partition(".")[0] in OLD_REDIS:
        raise UnfitError(f"it is Redis {version}, which is too old (6.0 is needed)")


def _refuse_replica(role: list[Any]) -> None:
    if role[0] != b"master":
        raise UnavailableError("the sentinels name a server that is no master")


def _refuse_cluster(facts: dict[str, str]) -> None:
    if facts.get("cluster_enabled") == "1":
        raise UnfitError(
            "it runs in cluster mode, which takes no script over several keys (list servers of their own: gopush "
            "spreads the keys itself)"
        )


async def _refuse_eviction(connection: RedisConnection) -> None:
    facts = _facts(await connection.execute_command("INFO", "memory"))
    policy = facts.get("maxmemory_policy", "noeviction")
    if facts.get("maxmemory", "0") != "0" and policy != "noeviction":
        raise UnfitError(f"its maxmemory-policy is {policy}, which may drop messages (noeviction is needed)")
