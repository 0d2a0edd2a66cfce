"""`gopush migrate`: which stores are meant, and what is wrong with how they are named."""

from __future__ import annotations

import argparse
import dataclasses
import re
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from gopush.client.options import installed, settings_of
from gopush.client.output import tell, write_outcome
from gopush.config.schema import load, read_file
from gopush.config.values import addresses, shown
from gopush.errors import SettingsError, StartError, UnavailableError
from gopush.message.migrate import Original, Target, migrate, take_in, when
from gopush.message.original import Passed
from gopush.model import MIDS_PER_SECOND, mid_at

CALL_SECONDS = 30.0
"""For each call: what is moved at once is more than a push."""

SHOWN_KEY_BYTES = 40
DONE = "the pass is over"
ORIGINAL = "cluster-redis"
_SECONDS = re.compile(r"[0-9]{1,11}(\.[0-9]{1,9})?")
_ADDRESS = re.compile(r"[^\s@,]+:[0-9]{1,5}(#\S+)?")
_STORAGE = re.compile(r"^\s*\[storage\]", re.MULTILINE)
_MID = re.compile(r"[0-9]{16,18}")


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `gopush migrate` is told."""
    command.add_argument(
        "--from",
        dest="source",
        type=_source,
        required=True,
        metavar="SOURCE",
        help=f"sqlite:FILE; or {ORIGINAL}:node1:1 tcp@localhost:6379, Redis of gopush-cluster, as in [redis] source",
    )
    command.add_argument(
        "--to",
        dest="target",
        required=True,
        metavar="TARGET",
        help="redis:node1:1 tcp@localhost:6379, as in [redis] source; hbase:host:port, with a /table if it is not "
        "gopush; or the ini file of the process that will serve it",
    )
    command.add_argument(
        "--before",
        type=_before,
        metavar="TIME",
        help=f"with {ORIGINAL}: move what it stored before; 2026-11-26T12:00:00Z, with its time zone, seconds since "
        "the epoch, or a mid",
    )


def _source(value: str) -> tuple[str, str]:
    kind, _, name = value.partition(":")
    if kind not in ("sqlite", ORIGINAL) or not name:
        raise argparse.ArgumentTypeError(
            f"{shown(value)} is not sqlite:FILE, nor {ORIGINAL}:node1:1 tcp@localhost:6379"
        )
    return kind, name


def _before(value: str) -> int:
    """The mid of a time."""
    if _MID.fullmatch(value):
        return int(value)
    if _SECONDS.fullmatch(value):
        return mid_at(float(value))
    try:
        named = datetime.fromisoformat(value)
        if named.tzinfo is not None:
            mid = mid_at(named.timestamp())
            when(mid)
            return mid
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"{value!r} is no time (try 2026-11-26T12:00:00Z, seconds since the epoch, or a mid)"
        ) from None
    plain = named.isoformat()
    raise argparse.ArgumentTypeError(f"{value!r} names no time zone (try {plain}Z, or {plain}+01:00 if that is yours)")


def run(asked: argparse.Namespace) -> None:
    """Make a pass."""
    from twisted.internet.selectreactor import SelectReactor

    from gopush.net.clock import steady

    kind, name = asked.source
    if (kind == ORIGINAL) != (asked.before is not None):
        raise SettingsError(
            f"--before: goes with --from {ORIGINAL}, and says from when on services push to both (docs/migration.md)"
        )
    target, reactor = _target(asked.target), steady(SelectReactor())
    try:
        if kind == ORIGINAL:
            source = _original(reactor, name, asked.before)
            write_outcome(take_in(reactor, source, asked.before, target(reactor), tell), DONE)
            _complete(source.passed)
            return
        passed = Passed()
        moved, is_over = migrate(reactor, Path(name), target(reactor), passed, tell)
        write_outcome(moved, DONE)
    except StartError as refused:
        raise SettingsError(str(refused)) from None
    except KeyboardInterrupt:
        tell("interrupted; what was moved so far stays: try again")
        raise
    if not is_over:
        raise UnavailableError("a process uses the source: stop it before the last pass")
    _complete(passed)


def _complete(left: Passed) -> None:
    """Raise SettingsError where messages stay behind for good."""
    if left.refused:
        keys = ", ".join(map(_shown_key, left.of))
        raise SettingsError(
            f"{left.refused} messages were not moved, and never can be (keys: {keys}{', ...' * left.others}): a key of "
            "gopush is 1 to 255 bytes of UTF-8 without control characters, a message is JSON in UTF-8, and in HBase of "
            "at most 10,000,000 bytes"
        )


def _shown_key(key: bytes) -> str:
    return repr(key[:SHOWN_KEY_BYTES])[1:] + "..." * (len(key) > SHOWN_KEY_BYTES)


def _original(reactor: Any, named: str, before: int) -> Original:
    from gopush.message.redis.original import OriginalRedis

    if before / MIDS_PER_SECOND > time.time():
        raise SettingsError(f"--before: {when(before)} is still to come: what is pushed until then would be missing")
    if _ADDRESS.fullmatch(named):  # all is read wherever it is, so that names and weights say nothing
        named = f"node1:1 tcp@{named}"
    return OriginalRedis(reactor, _redis_settings(f"--from {ORIGINAL}", named))


def _target(value: str) -> Callable[[Any], Target]:
    """What makes the store to move to, with its reactor."""
    from gopush.message.hbase.settings import HBaseSettings
    from gopush.message.store import StoreSettings

    kind, _, named = value.partition(":")
    if kind == "redis":
        return _into_redis(_redis_settings("--to redis", named), StoreSettings().head_life)
    if kind == "hbase":
        servers, slash, table = named.partition("/")
        if slash and not table:
            raise SettingsError(f"--to hbase: {named!r} names no table behind its /")
        try:
            hbase = HBaseSettings(addresses(servers, "localhost:9090"), table or "gopush", timeout=CALL_SECONDS)
        except ValueError as wrong:
            raise SettingsError(f"--to hbase: {servers!r} {wrong}") from None
        return _into_hbase(hbase, StoreSettings().head_life)
    return _of_file(value)


def _redis_settings(option: str, named: str) -> Any:
    from gopush.message.redis.settings import RedisSettings, sources

    try:
        return RedisSettings(timeout=CALL_SECONDS, sources=sources(named))
    except ValueError as wrong:
        raise SettingsError(f"{option}: {wrong}") from None


def _of_file(value: str) -> Callable[[Any], Target]:
    """The store that an ini file names."""
    path = Path(value)
    try:
        text = read_file(path)
    except SettingsError as wrong:
        raise SettingsError(
            f"--to: {shown(value)} is neither redis:SOURCE nor the ini file of gopush or of a message node, nor "
            f"hbase:HOST:PORT: as a file it {str(wrong).removeprefix(f'{path}: ')}"
        ) from None
    is_message = path.name.startswith("message")
    if not is_message and not _STORAGE.search(text):
        raise SettingsError(
            f"{path}: has no store ([storage]): name a message node's file (message.ini), or that of a process that is "
            "all of gopush, with redis or hbase"
        )
    settings = load(settings_of("message" if is_message else "gopush"), path)
    makers = {"redis": _into_redis, "hbase": _into_hbase}
    if settings.storage not in makers:
        raise SettingsError(f"{path}: [storage] type: {settings.storage} is no store to move to (set redis or hbase)")
    store = dataclasses.replace(getattr(settings, settings.storage), timeout=CALL_SECONDS)
    return makers[settings.storage](store, settings.store.head_life)


def _into_redis(settings: Any, head_life: float) -> Callable[[Any], Target]:
    from gopush.message.redis.take_over import RedisTakeOver

    return lambda reactor: RedisTakeOver(reactor, settings, head_life)


def _into_hbase(settings: Any, head_life: float) -> Callable[[Any], Target]:
    with installed("hbase"):
        from gopush.message.hbase.take_over import HBaseTakeOver
    return lambda reactor: HBaseTakeOver(reactor, settings, head_life)
