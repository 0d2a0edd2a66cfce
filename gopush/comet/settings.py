"""The options of a comet (etc/comet.ini)."""

from __future__ import annotations

from dataclasses import dataclass, field

from gopush.config.endpoints import refuse_shared
from gopush.config.schema import Section
from gopush.config.values import count, duration, listeners, node_name, own_addresses, size, some_of, switch, text
from gopush.daemon.logs import LogSettings
from gopush.net.limits import ConnectionSettings
from gopush.rpc.settings import RpcSettings, TokenSettings, ZooKeeperSettings, auth_option, call_listeners

LARGEST_BUFFER = 2**31 - 1
"""The kernel takes no more, and no connection could be made."""

_base, _channel, _tcp = map(Section, ("base", "channel", "tcp"))


def _buffer(value: str) -> int:
    if (found := size(value)) > LARGEST_BUFFER:
        raise ValueError(f"is more than the kernel takes: {LARGEST_BUFFER} bytes")
    return found


@dataclass(frozen=True)
class SubscriberSettings:
    """What a comet grants to those who connect; equal nodes have it too."""

    proto: tuple[str, ...] = _base(
        "proto", "tcp,websocket", some_of("tcp", "websocket"), "the protocols that clients may speak"
    )
    tcp_bind: tuple[str, ...] = _base(
        "tcp.bind", "localhost:6969", listeners, "where TCP clients connect: endpoints, separated by blanks"
    )
    websocket_bind: tuple[str, ...] = _base(
        "websocket.bind", "localhost:6968", listeners, "where WebSocket clients connect"
    )
    stat_bind: tuple[str, ...] = _base("stat.bind", "localhost:6972", listeners, "where to read statistics")
    tcp_advertise: tuple[str, ...] = _base(
        "tcp.advertise", "", own_addresses, "the address that look-ups give to TCP clients, host:port; empty: as bound"
    )
    websocket_advertise: tuple[str, ...] = _base(
        "websocket.advertise", "", own_addresses, "the address that look-ups give to WebSocket clients; empty: as bound"
    )
    sndbuf: int = _tcp(
        "sndbuf.size", "2048", _buffer, "send buffer of a connection in the kernel; 0: the kernel's choice", live=True
    )
    rcvbuf: int = _tcp(
        "rcvbuf.size", "256", _buffer, "receive buffer of a connection in the kernel; 0: the kernel's choice", live=True
    )
    keepalive: bool = _tcp("tcp.keepalive", "no", switch, "TCP keepalive on client connections", live=True)
    max_subscribers: int = _channel("maxsubscriber", "64", count(1), "connections that one key may have", live=True)
    handshake: float = _channel("handshake", "5s", duration, "how long a client may take to subscribe", live=True)
    auth: bool = auth_option()
    msgbuf_messages: int = _channel(
        "msgbuf.num", "4096", count(1), "messages that may wait for a slow subscriber before it is closed", live=True
    )
    msgbuf_bytes: int = _channel("msgbuf.size", "2MiB", size, "bytes that may wait for a slow subscriber", live=True)
    sweep: float = _channel(
        "sweep", "30s", duration, "how often the comet compares every channel with the store", live=True
    )
    tokens: TokenSettings = field(default_factory=TokenSettings)
    connections: ConnectionSettings = field(default_factory=ConnectionSettings)

    @property
    def clients(self) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
        """Where clients connect, as bound and as advertised, by the protocols that are on."""
        every = {
            "tcp": (self.tcp_bind, self.tcp_advertise),
            "websocket": (self.websocket_bind, self.websocket_advertise),
        }
        return {proto: every[proto] for proto in self.proto}

    @property
    def binds(self) -> dict[str, tuple[str, ...]]:
        """The endpoints that are listened on, by their options."""
        return {"stat.bind": self.stat_bind, **{f"{proto}.bind": bind for proto, (bind, _) in self.clients.items()}}


@dataclass(frozen=True)
class CometSettings(SubscriberSettings):
    """All of etc/comet.ini."""

    user: str = _base("user", "nobody", text, "the user that the process becomes when root starts it; empty: stay root")
    node: str = _base("node", "node1", node_name, "the name on the ring; a standby has the name of its node")
    weight: int = _base("weight", "1", count(1, 1000), "the node's share of the ring")
    rpc_bind: tuple[str, ...] = _base(
        "rpc.bind", "localhost:6970", call_listeners, "where other nodes call this process"
    )
    rpc_advertise: tuple[str, ...] = _base(
        "rpc.advertise", "", own_addresses, "the address that other nodes call; empty: as bound"
    )
    zookeeper: ZooKeeperSettings = field(default_factory=ZooKeeperSettings)
    rpc: RpcSettings = field(default_factory=RpcSettings)
    log: LogSettings = field(default_factory=LogSettings)

    def __post_init__(self) -> None:
        refuse_shared({**self.binds, "rpc.bind": self.rpc_bind})
        self.zookeeper.check_name(self.node)
