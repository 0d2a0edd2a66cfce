"""Who may reach the doors of a cluster: without a secret or keys, nobody but this machine. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from gopush.config.endpoints import WITH_PORT, ip, place
from gopush.errors import StartError


def refuse_open_doors(endpoints: Iterable[str], secret: str) -> None:
    """Raise StartError where a Twisted endpoint string would let strangers in: not loopback, and no secret is set."""
    for endpoint in endpoints:
        if not secret and not stays_home(endpoint):
            raise StartError(
                f"[base] rpc.bind: {endpoint} can be reached from other machines: "
                "set [rpc] secret (the same in the whole cluster), or listen on 127.0.0.1"
            )


def refuse_open_admin(endpoints: Iterable[str], keys: str) -> None:
    """As refuse_open_doors(), for the port where services push and the file of their API keys; clients of a balancer
    may be anywhere.
    """
    for endpoint in endpoints:
        if not keys and endpoint.startswith("haproxy:"):
            raise StartError(
                f"[base] admin.bind: {endpoint} is reached through a balancer: set [admin] keys, a file of API keys "
                "(gopush key NAME prints a line of it), or listen on 127.0.0.1 without haproxy:"
            )
        if not keys and not stays_home(endpoint):
            raise StartError(
                f"[base] admin.bind: {endpoint} can be reached from other machines: "
                "set [admin] keys, a file of API keys (gopush key NAME prints a line of it), or listen on 127.0.0.1"
            )


def refuse_open_zookeeper(addresses: Iterable[str], guarded: bool) -> None:
    """As refuse_open_doors(), for ZooKeeper servers ("host:port"): whoever writes there takes part."""
    for address in addresses:
        if not guarded and not is_home(address):
            raise StartError(
                f"[zookeeper] addr: {address} can be reached from other machines: set [zookeeper] user and secret "
                "(the same in the whole cluster), or trusted = yes where only the cluster can reach it"
            )


def is_home(address: str) -> bool:
    """Whether "host:port" is this machine's own, which every machine understands as itself."""
    host = address.rpartition(":")[0].strip("[]")
    return host == "localhost" or _is_loopback(host)


def stays_home(endpoint: str) -> bool:
    """Whether only this machine can connect to a Twisted endpoint string."""
    kind, interface, _ = place(endpoint)
    return kind == "unix" or (kind in WITH_PORT and _is_loopback(interface))


def _is_loopback(interface: str) -> bool:
    address = ip(interface)
    return address is not None and address.is_loopback
