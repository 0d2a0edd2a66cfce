"""The options that every role of a cluster has: how it finds the others and how it speaks with them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from gopush.config.schema import Section
from gopush.config.values import addresses, count, duration, listeners, one_of, password, size, switch, text

LEAST_SECRET_BYTES = 16
LEAST_SESSION_SECONDS, LONGEST_SESSION_SECONDS = 1, 86400
"""Below, no connection is made in time. From 25 days on kazoo cannot ask for it; ZooKeeper grants no more than it is
configured for, 40 s by default."""
TICK_SECONDS = 0.5
"""By how much ZooKeeper may be late to end a session: its tickTime, as far as it is that short."""

_channel, _rpc, _token, _zookeeper = map(Section, ("channel", "rpc", "token", "zookeeper"))


def _secret(raw: str) -> str:
    """The secret as it stands in an ini file; empty: there is none."""
    secret = password(raw)
    size = len(secret.encode())
    if 0 < size < LEAST_SECRET_BYTES:
        raise ValueError(f"has only {size} bytes: use at least {LEAST_SECRET_BYTES} (openssl rand -hex 32 makes some)")
    return secret


def _session(value: str) -> float:
    seconds = duration(value)
    if not LEAST_SESSION_SECONDS <= seconds <= LONGEST_SESSION_SECONDS:
        raise ValueError("is not a duration from 1s to 1d")
    return seconds


def call_listeners(value: str) -> tuple[str, ...]:
    """The listeners() of `[base] rpc.bind`, one at least: a process is of no use to others that cannot call it."""
    found = listeners(value)
    if not found:
        raise ValueError("is nowhere that other nodes could call this process (try localhost:6970)")
    return found


def _servers(value: str) -> tuple[str, ...]:
    """The addresses() of ZooKeeper servers; may be empty."""
    if re.search(":[0-9]+/", value):
        raise ValueError("has a path behind a server: comet.path and message.path say where processes register")
    return addresses(value, "zookeeper1.example.org:2181")


def _some_servers(value: str) -> tuple[str, ...]:
    """The _servers(), one at least."""
    found = _servers(value)
    if not found:
        raise ValueError("names no server (try localhost:2181; only twistd gopush runs without ZooKeeper)")
    return found


def _znode(value: str) -> str:
    """The path of a znode below the root, as ZooKeeper has it."""
    root, *parts = value.split("/")
    if root or not parts or not all(part.isprintable() and part not in ("", ".", "..") for part in parts):
        raise ValueError("is no path in ZooKeeper (try /gopush/comets)")
    return value


def auth_option() -> bool:
    """Declares `[channel] auth`, which comets and web nodes share: in one process it is one line for both."""
    return _channel("auth", "no", switch, "whether subscribing and fetching offline messages need a token", live=True)


@dataclass(frozen=True)
class ZooKeeperSettings:
    """Section [zookeeper]."""

    hosts: tuple[str, ...] = _zookeeper(
        "addr", "localhost:2181", _some_servers, "the ZooKeeper servers, host:port, separated by commas"
    )
    session_timeout: float = _zookeeper("timeout", "30s", _session, "how long a silent process still counts as alive")
    comet_path: str = _zookeeper("comet.path", "/gopush-cluster-comet", _znode, "where comets register")
    message_path: str = _zookeeper("message.path", "/gopush-cluster-message", _znode, "where message nodes register")
    settle: float = _zookeeper("settle", "1s", duration, "how long a node must be absent before the others believe it")
    user: str = _zookeeper(
        "user", "", text, "the only user who may change registrations (digest scheme); empty: everybody may"
    )
    secret: str = _zookeeper("secret", "", password, "the password of that user; the same in the whole cluster")
    readable: bool = _zookeeper("readable", "yes", switch, "whether others may read what such a user registers")
    trusted: bool = _zookeeper(
        "trusted",
        "no",
        switch,
        "whether only the cluster can reach a ZooKeeper on other machines: it may be open then, without a user",
    )
    tls: bool = _zookeeper("tls", "no", switch, "whether to reach the ZooKeeper servers over TLS")
    tls_authorities: str = _zookeeper("tls.ca", "", text, "the file of their CA; empty: the CAs of the system")
    tls_certificate: str = _zookeeper(
        "tls.cert", "", text, "the file of this process's certificate, if they ask for one"
    )
    tls_key: str = _zookeeper("tls.key", "", text, "the file of its key")

    def __post_init__(self) -> None:
        if bool(self.user) != bool(self.secret) or ":" in self.user:
            raise ValueError("[zookeeper] user and secret: set both, the user without a colon, or none")
        if f"{self.comet_path}/".startswith(f"{self.message_path}/"):
            raise ValueError(
                f"[zookeeper] comet.path: {self.comet_path} is message.path, or lies below it, where message nodes are "
                "looked for (try /gopush/comets and /gopush/messages)"
            )

    def check_name(self, node: str) -> None:
        """Raise ValueError where a comet of this name would register where message nodes do: nobody would see it."""
        if f"{self.comet_path}/{node}" == self.message_path:
            raise ValueError(
                f"[base] node: {node} would register at {self.message_path}, which is [zookeeper] message.path: use "
                "another name, or path (try /gopush/comets and /gopush/messages)"
            )

    @property
    def death_lag(self) -> float:
        """How long the others may take for a session that has ended, until they believe it."""
        return self.settle + TICK_SECONDS

    @property
    def asked_timeout(self) -> float:
        """Of the session that ZooKeeper is asked for: the setting is what the cluster promises, and `death_lag` takes a
        part of it. One that is not twice as long as that leaves too little, and cannot be kept.
        """
        return max(self.session_timeout - self.death_lag, self.session_timeout / 2)


@dataclass(frozen=True)
class ClusterSettings(ZooKeeperSettings):
    """Section [zookeeper], where there may be no ZooKeeper."""

    hosts: tuple[str, ...] = _zookeeper(
        "addr",
        "",
        _servers,
        "the ZooKeeper servers of a cluster of equals, host:port, separated by commas; empty: this process is alone",
    )


@dataclass(frozen=True)
class TokenSettings:
    """Section [token], of what comets and web nodes must agree on."""

    algorithm: str = _token(
        "signed.alg",
        "none",
        one_of("none", "HS256", "RS256", "EdDSA"),
        "the algorithm of signed tokens (JWT): HS256, RS256, EdDSA, or none, which accepts no such tokens",
    )
    key_file: str = _token(
        "signed.key", "", text, "the file of their secret (HS256) or of the public key in PEM (the others)"
    )


@dataclass(frozen=True)
class RpcSettings:
    """Section [rpc]: calls to other processes."""

    ping: float = _rpc("ping", "1s", duration, "how often to try a failed peer again")
    retry: float = _rpc("retry", "1s", duration, "the longest wait between attempts to connect to a peer")
    call_timeout: float = _rpc(
        "timeout",
        "1s",
        duration,
        "how long a call to a message node may take before the caller asks another one; less than attempt",
    )
    attempt_timeout: float = _rpc(
        "attempt",
        "2s",
        duration,
        "how long a comet may take for a push before web asks another one; less than deadline",
    )
    push_deadline: float = _rpc(
        "deadline", "4s", duration, "how long a push may take to be stored; then gopush refuses it for good"
    )
    batch_messages: int = _rpc("batch.num", "1000", count(1, 100_000), "messages in one call at most")
    batch_bytes: int = _rpc("batch.size", "4MiB", size, "bytes in one call at most (one message may be more)")
    lane_messages: int = _rpc(
        "lane.num", "20000", count(1), "messages that may wait for one peer; gopush refuses more at once"
    )
    lane_bytes: int = _rpc("lane.size", "64MiB", size, "bytes that may wait for one peer")
    secret: str = _rpc(
        "secret",
        "",
        _secret,
        "the secret that all processes of the cluster share, 16 bytes or more; needed beyond loopback; empty: none",
    )
    previous_secret: str = _rpc(
        "secret.previous",
        "",
        _secret,
        "the secret before that one: others may prove either, while the cluster changes it, one process after the "
        "other; empty: none",
    )
    legacy_secret: bool = _rpc(
        "secret.legacy",
        "no",
        switch,
        "whether nodes of an older release, which prove the secret by MD5 and on one side only, are called and served: "
        "for one rolling upgrade",
    )
    tls_authorities: str = _rpc(
        "tls.ca",
        "",
        text,
        "the file of the cluster's own CA: with it calls go over TLS, and each side checks the other",
    )
    tls_certificate: str = _rpc("tls.cert", "", text, "the file of this process's certificate, in PEM")
    tls_key: str = _rpc("tls.key", "", text, "the file of its key")

    def __post_init__(self) -> None:
        if len({bool(self.tls_authorities), bool(self.tls_certificate), bool(self.tls_key)}) > 1:
            raise ValueError("[rpc] tls.ca, tls.cert and tls.key: set all three, or none")
        if self.previous_secret and (self.legacy_secret or not self.secret):
            raise ValueError("[rpc] secret.previous: needs a secret after it, and secret.legacy = no")
        times = {"timeout": self.call_timeout, "attempt": self.attempt_timeout, "deadline": self.push_deadline}
        for (inner, shorter), (outer, longer) in pairwise(times.items()):
            if shorter >= longer:
                raise ValueError(
                    f"[rpc] {inner}: {shorter:g} s is not below [rpc] {outer}, {longer:g} s:"
                    " no time would be left to ask another one"
                )

    @property
    def secrets(self) -> tuple[str, ...]:
        """Those that are proved and accepted; none: calls are welcome without."""
        return tuple(filter(None, (self.secret, self.previous_secret)))
