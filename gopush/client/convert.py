"""Ini files from gopush-cluster's comet.conf, message.conf and web.conf. Pure.

Those hold sections and, under them, a name and a value on each line, with a blank between the two. Source of names and
meanings: the original's example files and docs/protocol.md, section 9.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from gopush.config.schema import Option
from gopush.config.values import shown

_SIZE = re.compile(r"([0-9]+)\s*([kmg]?)b?", re.IGNORECASE)
_DURATION = re.compile(r"([0-9]+)\s*(ms|s|m|h)", re.IGNORECASE)
_SOURCE = re.compile(r"(tcp|unix)@([^#\s]+)(?:#(.*))?")
_ANY = re.compile(r"(?:0\.0\.0\.0)?:([0-9]+)")
_ASSIGNED = re.compile(r"[a-z._]+=", re.IGNORECASE)
_NAME = re.compile(r"[a-z.]{1,24}")
_LOOPBACK = re.compile(r"(localhost|127\.[0-9.]+|\[::1\]):[0-9]+")


class Line(NamedTuple):
    """One option of an original file, and where it stood."""

    number: int
    section: str
    name: str
    value: str

    @property
    def where(self) -> str:
        """For people; what looks like no name may be a password."""
        plain = all(map(_NAME.fullmatch, (self.section, self.name)))
        return f"[{self.section}] {self.name}" if plain else f"line {self.number}"


def _lines(text: str) -> Iterator[Line]:
    section = ""
    for number, raw in enumerate(text.splitlines(), 1):
        line = re.sub(r"\s+#.*", "", f" {raw}").strip()
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1].strip()
        elif line and not line.startswith("#"):
            name, _, value = line.partition(" ")
            yield Line(number, section, name, value.strip())


def _first_word(value: str) -> str:
    """nobody of "nobody nobody": the group is the user's."""
    return value.split()[0] if value else ""


def _binds(value: str) -> str:
    """Addresses by commas; one without a host is every address of the machine. [::] is that, too, and takes IPv4."""
    words = [word for word in re.split(r"[,\s]+", value) if word]
    binds = [f"tcp:{match[1]}" if (match := _ANY.fullmatch(word)) else word for word in words]
    included = {f"tcp:{word.removeprefix('[::]:')}" for word in words if word.startswith("[::]:")}
    return " ".join(bind for bind in binds if bind not in included)


def _servers(value: str) -> str:
    return ",".join(f"localhost{word}" if word.startswith(":") else word for word in re.split(r"[,\s]+", value) if word)


def _size(value: str) -> str:
    match = _SIZE.fullmatch(value)
    if match is None:
        raise ValueError("is not a size")
    return match[1] + ({"k": "KiB", "m": "MiB", "g": "GiB"}[match[2].lower()] if match[2] else "")


def _duration(value: str) -> str:
    match = _DURATION.fullmatch(value)
    if match is None:
        raise ValueError("is not a duration with a unit")
    return f"{match[1]}{match[2].lower()}"


class Rule(NamedTuple):
    """Where an option goes, and how its value is written there. `usual`: the original's default, and what stands in its
    example files; `why` says why gopush does not take it over.
    """

    to: str
    write: Callable[[str], str] = str
    usual: tuple[str, ...] = ()
    why: str = ""


_MESSAGES = "gopush closes a subscriber that is 4096 messages or 2 MiB behind"
RULES = {
    "base user": Rule("base user", _first_word),
    "base tcp.bind": Rule("base tcp.bind", _binds),
    "base websocket.bind": Rule("base websocket.bind", _binds),
    "base rpc.bind": Rule("base rpc.bind", _binds),
    "base stat.bind": Rule("base stat.bind", _binds),
    "base http.bind": Rule("base http.bind", _binds),
    "base admin.bind": Rule("base admin.bind", _binds),
    "base addr": Rule("base http.bind", _binds),
    "base adminaddr": Rule("base admin.bind", _binds),
    "channel proto": Rule("base proto"),
    "channel sndbuf.size": Rule("tcp sndbuf.size", _size),
    "channel rcvbuf.size": Rule("tcp rcvbuf.size", _size),
    "channel tcp.keepalive": Rule("tcp tcp.keepalive"),
    "channel maxsubscriber": Rule("channel maxsubscriber"),
    "channel auth": Rule("channel auth"),
    "channel msgbuf.num": Rule("channel msgbuf.num", usual=("30", "120"), why=f"{_MESSAGES}; a burst is no reason"),
    "zookeeper addr": Rule("zookeeper addr", _servers),
    "zookeeper timeout": Rule("zookeeper timeout", _duration),
    "zookeeper comet.path": Rule("zookeeper comet.path"),
    "zookeeper message.path": Rule("zookeeper message.path"),
    "zookeeper comet.node": Rule("base node"),
    "zookeeper node": Rule("base node"),
    "zookeeper comet.weight": Rule("base weight"),
    "rpc ping": Rule("rpc ping", _duration),
    "rpc retry": Rule(
        "rpc retry", _duration, ("3s",), "gopush has 1s: a push has 4 s, and a node that is back serves it"
    ),
    "storage type": Rule("storage type"),
    "redis store": Rule("storage store"),
    "redis maxstore": Rule("storage store"),
}
"""By section and name. One of another section, or of a role that lacks it, counts as unknown."""

WEIGHTS = {"comet": "base weight", "message": "node weight"}
BY_ROLE = {
    "base node.weight": WEIGHTS,
    "zookeeper weight": WEIGHTS,
    "zookeeper path": {"comet": "zookeeper comet.path", "message": "zookeeper message.path"},
}
"""Where an option goes that two roles have in different places. Not all versions have all of them."""

GONE = {
    "pidfile": "twistd has --pidfile",
    "dir": "twistd has --rundir",
    "log": "twistd has --logfile, and [log] level says which lines there are",
    "logfile": "twistd has --logfile",
    "loglevel": "[log] level is debug, info, warn or error",
    "maxproc": "a process is one reactor; start one for each core",
    "pprof.bind": "it is for Go programs; /stat?type=python and /metrics are at stat.bind",
    **dict.fromkeys(("bufio.instance", "bufio.num", "bucket"), "it tunes the Go program"),
    "ketama.base": "the ring has 255 points for each weight",
    "migrate.path": "keys move by themselves",
    "http.servertimeout": "[http] idle is how long a connection may be idle, or a request incomplete",
    **dict.fromkeys(
        ("idle", "active", "maxidle", "maxactive"),
        "there is no pool: a message node has two connections to each server",
    ),
    "idletimeout": "there is no pool",
    "timeout": "there is no pool; [redis] timeout is how long Redis may take to answer",
}
MYSQL = "gopush keeps messages in Redis, HBase, SQLite or memory, which let them expire by themselves"
ROLES = ("comet", "message", "web")


def is_ini(text: str) -> bool:
    """Whether a line is name = value, as in gopush's own files; those of gopush-cluster have a blank alone."""
    return any(line.value.startswith("=") or _ASSIGNED.match(line.name) for line in _lines(text))


def convert(text: str, role: str, options: Sequence[Option]) -> str:
    """The ini file of a `role`, one of ROLES, which has these options; comments say what it cannot take over."""
    found = _Conversion(role, options)
    sources: list[str] = []
    for line in _lines(text):
        if line.section == "redis.source" and role == "message":
            sources.append(_source(line))
        else:
            found.take(line)
    if sources:
        found.put("redis source", ", ".join(sources), "[redis.source]")
    taken = found.taken
    lines = ["# What gopush convert made of a file of gopush-cluster. All options there are: gopush ini " + role]
    lines += [f"# To do: {thing}" for thing in (*found.to_do(), *_to_do(role, taken))]
    lines += [f"# Not taken over: {thing}" for thing in found.left]
    for section in dict.fromkeys(opt.section for opt in options):
        names = [opt.name for opt in options if opt.section == section and f"{section} {opt.name}" in taken]
        lines += ["", f"[{section}]"] if names else []
        lines += [f"{name} = {taken[f'{section} {name}']}" for name in names]
    return "\n".join(lines) + "\n"


class _Conversion:
    """What becomes of a file: what is `taken`, by "section name", and what is `left`, with the reason."""

    def __init__(self, role: str, options: Sequence[Option]) -> None:
        self.taken: dict[str, str] = {}
        self.left: list[str] = []
        self._role = role
        self._known = {f"{opt.section} {opt.name}": opt for opt in options}
        self._missed: set[str] = set()

    def take(self, line: Line) -> None:
        """Take an option over, or not."""
        place = f"{line.section} {line.name}"
        rule = Rule(BY_ROLE[place][self._role]) if self._role in BY_ROLE.get(place, {}) else RULES.get(place)
        if line.section.partition(".")[0] == "mysql" or (place == "storage type" and line.value == "mysql"):
            self._miss(place, f"{line.where}: {MYSQL}")
        elif rule is None or rule.to not in self._known:
            self.left.append(f"{line.where}: {GONE.get(line.name, 'gopush has no such option')}")
        elif line.value in rule.usual:
            self.left.append(f"{line.where} = {line.value}: {rule.why}")
        else:
            try:
                value = rule.write(line.value)
            except ValueError as wrong:
                self._miss(rule.to, f"{line.where}: {shown(line.value)} {wrong}")
            else:
                self.put(rule.to, value, line.where)

    def put(self, place: str, value: str, where: str) -> None:
        """Take a value over if gopush can read it."""
        try:
            self._known[place].parse(value)
        except ValueError as wrong:
            found = "a server" if place == "redis source" else shown(value)
            self._miss(place, f"{where}: {found} {wrong}")
        else:
            self.taken[place] = value

    def _miss(self, place: str, why: str) -> None:
        self.left.append(why)
        self._missed.add(place)

    def to_do(self) -> Iterator[str]:
        """What the file sets and nothing was taken for: gopush would go by a default that nobody chose."""
        for place, opt in self._known.items():
            if place in self._missed and place not in self.taken:
                yield f"set [{opt.section}] {opt.name}, until then it is {opt.default or 'empty'} (see below)"


def _source(line: Line) -> str:
    """node1:1 tcp@localhost:6379#password, as a gopush ini file has it; anything else stays as it is, and gopush
    refuses it.
    """
    match = _SOURCE.fullmatch(line.value)
    if match is None:
        return f"{line.name} {line.value}"
    password = match[3]
    if password and re.search(r'[,\s"]', password):
        password = '"' + re.sub(r'(["\\])', r"\\\1", password) + '"'
    return f"{line.name} {match[1]}@{match[2]}" + (f"#{password}" if password else "")


def _to_do(role: str, taken: dict[str, str]) -> Iterator[str]:
    """What gopush needs beyond one machine, and the original did not have."""

    def far(name: str) -> bool:
        return any(not _LOOPBACK.fullmatch(word) for word in taken.get(f"base {name}", "").split())

    for name in ("tcp", "websocket", "rpc"):
        binds = taken.get(f"base {name}.bind", "")
        if re.search(r"\btcp:|0\.0\.0\.0|\[::\]", binds):
            yield f"set [base] {name}.advertise, the address that others reach, for {name}.bind is every address"
    if far("rpc.bind"):
        yield "set [rpc] secret, the same in every process (openssl rand -hex 32), or [rpc] tls.*"
    if far("admin.bind"):
        yield "set [admin] keys, a file of API keys (gopush key NAME prints a line of it)"
    servers = taken.get("zookeeper addr", "")
    if any(not _LOOPBACK.fullmatch(server) for server in servers.split(",") if server):
        yield "set [zookeeper] user and secret, or trusted = yes where only the cluster reaches ZooKeeper"
    if role == "message" and taken.get("storage type", "redis") == "redis":
        whose = "it names" if "redis source" in taken else "its default may be"
        yield (
            f"set [redis] source to a Redis of gopush's own: {whose} the old cluster's (both can use one if they must: "
            "what gopush keeps begins with [redis] prefix)"
        )
    if role != "web" or servers:
        yield "while the old cluster runs, give gopush [zookeeper] comet.path and message.path of its own, and ports"
