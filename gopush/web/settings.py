"""The options of a web node (etc/web.ini)."""

from __future__ import annotations

from dataclasses import dataclass, field

from gopush.config.endpoints import refuse_shared
from gopush.config.schema import Section
from gopush.config.values import count, duration, host_names, listeners, origins, own_name, size, text
from gopush.daemon.logs import LogSettings
from gopush.net.limits import ConnectionSettings
from gopush.rpc.settings import RpcSettings, TokenSettings, ZooKeeperSettings, auth_option

LEAST_BODY = 256
"""Below, hardly a push would get through: somebody has forgotten the unit."""

_admin, _base, _http, _push, _token = map(Section, ("admin", "base", "http", "push", "token"))


def _body(value: str) -> int:
    if (found := size(value)) < LEAST_BODY:
        raise ValueError(f"is too small for a push, {LEAST_BODY} bytes at least (try 4MiB)")
    return found


@dataclass(frozen=True)
class HttpSettings:
    """Both HTTP interfaces; equal nodes have them too."""

    http_bind: tuple[str, ...] = _base(
        "http.bind", "localhost:8090", listeners, "where clients look up and fetch: endpoints"
    )
    admin_bind: tuple[str, ...] = _base("admin.bind", "localhost:8091", listeners, "where services push")
    idle: float = _http(
        "idle", "10s", duration, "how long a connection may be idle, or a request incomplete, before gopush closes it"
    )
    body: int = _http("body.size", "4MiB", _body, "the largest pushed message, with its envelope")
    multi_body: int = _http("mprivate.size", "16MiB", _body, "the largest body of a multiple push")
    multi_keys: int = _http("mprivate.keys", "100000", count(1), "how many keys a multiple push may have", live=True)
    dedupe: float = _push(
        "dedupe",
        "60s",
        duration,
        "how long gopush remembers a publisher's id at least; never less than twice [rpc] deadline",
        live=True,
    )
    key_rate: int = _push(
        "key.rate",
        "0",
        count(),
        "pushes per second for one key, through this process; more fail; 0: any number",
        live=True,
    )
    max_expire: int = _push(
        "expire.max",
        "4294967295",
        count(1, 2**32 - 1),
        "the longest expire, in seconds, that a push may ask for",
        live=True,
    )
    token_life: float = _token(
        "life", "30d", duration, "how long a new token lives, unless its call says how long", live=True
    )
    api_keys: str = _admin(
        "keys", "", text, "the file of the API keys that the admin port asks for (gopush key); needed beyond loopback"
    )
    admin_origins: tuple[str, ...] = _admin(
        "origins",
        "",
        origins,
        "web sites, besides the admin port itself, whose pages may call it: https://www.example.org",
        live=True,
    )
    admin_hosts: tuple[str, ...] = _admin(
        "hosts",
        "",
        host_names,
        "names in Host, besides localhost and addresses, by which clients may read the admin port while it has no keys",
        live=True,
    )
    public_urls: tuple[str, ...] = _admin(
        "public",
        "",
        origins,
        "where browsers reach the public port, for the pages: https://push.example.org; empty: on the pages' own host",
    )
    auth: bool = auth_option()
    tokens: TokenSettings = field(default_factory=TokenSettings)
    connections: ConnectionSettings = field(default_factory=ConnectionSettings)

    @property
    def binds(self) -> dict[str, tuple[str, ...]]:
        """The endpoints that are listened on, by their options."""
        return {"http.bind": self.http_bind, "admin.bind": self.admin_bind}


@dataclass(frozen=True)
class WebSettings(HttpSettings):
    """All of etc/web.ini."""

    user: str = _base("user", "nobody", text, "the user that the process becomes when root starts it; empty: stay root")
    node: str = _base("node", "", own_name, "the name of this process in its log; empty: the name of the machine")
    stat_bind: tuple[str, ...] = _base(
        "stat.bind", "localhost:8092", listeners, "where to read its statistics and its health"
    )
    zookeeper: ZooKeeperSettings = field(default_factory=ZooKeeperSettings)
    rpc: RpcSettings = field(default_factory=RpcSettings)
    log: LogSettings = field(default_factory=LogSettings)

    def __post_init__(self) -> None:
        refuse_shared({**self.binds, "stat.bind": self.stat_bind})
