"""What an ini file says that a process can run with, and that hardly anybody means: `gopush check` and each start warn
of it, a line for each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from gopush.config.endpoints import words
from gopush.config.reload import lasting
from gopush.config.schema import values
from gopush.net.certificates import ends_soon

Values = Mapping[tuple[str, str], Any]
"""By section and option."""

_TLS = ("tls.ca", "tls.cert", "tls.key")


class _Use(NamedTuple):
    """What some options of a section are for: whether that is so, and what would make it so."""

    section: str
    options: tuple[str, ...]
    used: Callable[[Values], Any]
    by: str


_USES = (
    _Use("zookeeper", _TLS, lambda of: of["zookeeper", "tls"], "[zookeeper] tls = yes"),
    _Use("zookeeper", ("tls.key",), lambda of: of["zookeeper", "tls.cert"], "[zookeeper] tls.cert"),
    _Use("rpc", _TLS, lambda of: of["zookeeper", "addr"], "[zookeeper] addr"),
    _Use("token", ("signed.key",), lambda of: of["token", "signed.alg"] != "none", "[token] signed.alg"),
    _Use(
        "redis",
        _TLS,
        lambda of: of["storage", "type"] != "redis" or any(source.tls for source in of["redis", "source"]),
        "rediss@ or rediss-sentinel@ in [redis] source",
    ),
    _Use(
        "redis",
        ("sentinel.password",),
        lambda of: of["storage", "type"] != "redis" or any(source.sentinels for source in of["redis", "source"]),
        "sentinel@ or rediss-sentinel@ in [redis] source",
    ),
    _Use("hbase", _TLS, lambda of: of["storage", "type"] != "hbase" or of["hbase", "tls"], "[hbase] tls = yes"),
)
"""Files and secrets that one believes in once they are set. The options of another store deceive nobody."""


def oversights(settings: Any, is_empty: bool) -> Iterator[str]:
    """The warnings, once all of the process is made: by then it is known which certificates it uses. `is_empty`: the
    ini file holds no option.
    """
    if is_empty:
        yield "holds no option: all are the defaults"
    of = {(opt.section, opt.name): value for opt, value in values(settings)}
    yield from _unused(of)
    yield from _late(settings.zookeeper)
    yield from _ending(of)


def _unused(of: Values) -> Iterator[str]:
    for section, names, used, by in _USES:
        found = [name for name in names if of.get((section, name))]
        if found and not used(of):
            verb, them = ("are", "them") if len(found) > 1 else ("is", "it")
            yield f"[{section}] {', '.join(found)} {verb} set, and not used: {by} would use {them}"


def _late(zookeeper: Any) -> Iterator[str]:
    promised, least = zookeeper.session_timeout, 2 * zookeeper.death_lag
    if zookeeper.hosts and promised < least:
        yield (
            f"[zookeeper] timeout: {promised:g} s is too short to keep: look-ups may name a dead process for "
            f"{zookeeper.asked_timeout + zookeeper.death_lag:g} s (let it be {least:g}s or more, or settle shorter)"
        )


def _ending(of: Values) -> Iterator[str]:
    now = time.time()
    for option, file in dict.fromkeys(_certificates(of)):
        ends = ends_soon(lasting(file), now)
        if ends is not None:
            verb = "has ended" if ends <= now else "ends"
            when = datetime.fromtimestamp(ends, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
            yield f"{option}: {file}: the certificate {verb} at {when}: renew it (docs/certificates.md)"


def _certificates(of: Values) -> Iterator[tuple[str, str]]:
    """Each option that names a certificate, and its file."""
    for (section, name), value in of.items():
        if name == "tls.cert" and value:
            yield f"[{section}] {name}", value
        elif name.endswith(".bind"):
            for kind, _, named in map(words, value):
                if kind == "ssl" and "privateKey" in named:
                    yield f"[{section}] {name}", named.get("certKey", named["privateKey"])
