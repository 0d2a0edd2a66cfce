"""The `gopush` command: a device and a service for the shell, and a look at ini files.

Exit statuses: 0 it worked; 1 it did not work now, trying again may help; 2 wrong usage; 3 refused, trying the same
again is pointless; 130 interrupted.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import re
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import gopush
from gopush.client import bench
from gopush.client.http import address, administer, history, nodes, push
from gopush.client.subscriber import Subscriber
from gopush.config.schema import Option, load, render
from gopush.config.values import addresses, impossible
from gopush.errors import GopushError, NoNodeError, ParameterError, SettingsError, StartError, UnavailableError
from gopush.model import MAX_CURSOR, MAX_INT64


class OutputError(GopushError):
    """What was found out cannot be written."""


FAILED = 1
REFUSED = 3
RETRY_SECONDS = 0.5
EPILOG = "Exit status: 0 done, 1 failed for now, 2 wrong usage, 3 refused, 130 interrupted."
ROLES = {
    "comet": "gopush.comet.settings:CometSettings",
    "message": "gopush.message.settings:MessageSettings",
    "web": "gopush.web.settings:WebSettings",
    "gopush": "gopush.embedded:EmbeddedSettings",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command of `arguments` (None: the process's own); answers the exit status, unless it is interrupted."""
    try:
        asked = _parse(arguments)
        asked.run(asked)
        return 0
    except BrokenPipeError:
        # Who read stdout has seen enough.
        _drop_stdout()
        return 0
    except (ParameterError, SettingsError) as wrong:
        _tell(str(wrong))
        return REFUSED
    except GopushError as wrong:
        _tell(str(wrong))
        return FAILED


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    with _writing():
        try:
            asked, unknown = parser.parse_known_args(arguments)
        except SystemExit:
            if sys.stdout is not None:
                sys.stdout.flush()  # what --version and --help have printed
            raise
    if unknown:
        parser.error("unknown arguments")  # not which ones: one may be a token whose option is misspelt
    for name, value in vars(asked).items():
        if isinstance(value, str) and name != "json" and not _is_text(value):
            parser.error(f"{name}: is not UTF-8")
    return asked


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("gopush", description="Push messages and receive them.", epilog=EPILOG)
    parser.add_argument("--version", action="version", version=f"gopush {gopush.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    sub = commands.add_parser("sub", help="receive a key's messages, one line of JSON each", epilog=EPILOG)
    sub.add_argument("key")
    _add_web(sub)
    sub.add_argument(
        "--mid", type=_mid, help="begin after this message; 0: with all that are kept (default: what is new)"
    )
    sub.add_argument("--heartbeat", type=_int64, default=30, metavar="SECONDS", help="(default: 30)")
    sub.add_argument("--count", type=_positive, metavar="N", help="end after N messages")
    sub.add_argument("--once", action="store_true", help="end with the connection instead of connecting again")
    sub.set_defaults(run=_sub)

    pusher = commands.add_parser("push", help="push a message to a key", epilog=EPILOG)
    pusher.add_argument("key")
    pusher.add_argument("json", help="the message; -: what stdin holds")
    _add_admin(pusher)
    pusher.add_argument("--expire", type=_int64, default=600, metavar="SECONDS", help="keep it so long (default: 600)")
    pusher.add_argument("--id", default="", help="a repeat with the same id is not pushed again")
    pusher.add_argument(
        "--wait", type=_seconds, default=0, metavar="SECONDS", help="try again for so long (default: 0)"
    )
    pusher.add_argument("--mid", action="store_true", help="print the message's mid")
    pusher.set_defaults(run=_push)

    offline = commands.add_parser("history", help="print a key's kept messages", epilog=EPILOG)
    offline.add_argument("key")
    _add_web(offline)
    offline.add_argument("--after", type=_mid, default=0, metavar="MID", help="only those after this one")
    offline.set_defaults(run=_history)

    load = commands.add_parser("bench", help="subscribe and push, and tell how fast that was", epilog=EPILOG)
    _add_admin(load)
    bench.add_options(load)
    load.set_defaults(run=_bench)

    maker = commands.add_parser("key", help="make an API key, and its line for [admin] keys", epilog=EPILOG)
    maker.add_argument("name", help="whose it will be")
    maker.set_defaults(run=_key)

    _add_admin_commands(commands)

    hbase = commands.add_parser("hbase", help="make the table of a store in HBase, if it is not there", epilog=EPILOG)
    hbase.add_argument("what", choices=["create"], metavar="create")
    hbase.add_argument(
        "--thrift", type=_address, default="localhost:9090", metavar="HOST:PORT", help="(default: localhost:9090)"
    )
    hbase.add_argument("--table", default="gopush", help="(default: gopush)")
    hbase.add_argument("--regions", type=_positive, default=1, metavar="N", help="that it begins with (default: 1)")
    hbase.set_defaults(run=_create_table)

    check = commands.add_parser("check", help="tell whether an ini file can be used", epilog=EPILOG)
    check.add_argument("-c", "--config", type=Path, required=True, metavar="FILE")
    check.add_argument("--role", choices=ROLES, help="whose it is (default: what its name begins with)")
    check.set_defaults(run=_check)

    ini = commands.add_parser("ini", help="print a role's ini file with all defaults", epilog=EPILOG)
    ini.add_argument("role", choices=ROLES)
    ini.set_defaults(run=_ini)
    return parser


def _add_web(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--web", type=address, default="localhost:8090", metavar="HOST:PORT", help="(default: localhost:8090)"
    )
    command.add_argument("--token", default="", help="the subscriber's token")


def _add_admin(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--admin", type=address, default="localhost:8091", metavar="HOST:PORT", help="(default: localhost:8091)"
    )
    command.add_argument("--api-key-file", type=Path, metavar="FILE", help="its first line is the API key")


def _add_admin_commands(commands: Any) -> None:
    lister = commands.add_parser("nodes", help="list the processes of the cluster", epilog=EPILOG)
    lister.set_defaults(run=_nodes)
    weight = commands.add_parser("weight", help="change a node's share, until it ends", epilog=EPILOG)
    drain = commands.add_parser("drain", help="hand over all that a node has", epilog=EPILOG)
    undrain = commands.add_parser("undrain", help="take a node back", epilog=EPILOG)
    for name, command in (("weight", weight), ("drain", drain), ("undrain", undrain)):
        command.add_argument("node", help="its name: all its processes; or the RPC address of one")
        command.set_defaults(run=_administer, call=f"node/{name}", named=("node",))
    weight.add_argument("weight", help="from 1 to 1000")
    weight.set_defaults(named=("node", "weight"))
    close = commands.add_parser("close", help="close a key's connections", epilog=EPILOG)
    close.add_argument("key")
    close.set_defaults(run=_administer, call="key/close", named=("key",))
    for command in (lister, weight, drain, undrain, close):
        _add_admin(command)


def _mid(value: str) -> int:
    if not (value.isdecimal() and int(value) <= MAX_CURSOR):
        raise argparse.ArgumentTypeError(f"{value!r} is no mid")
    return int(value)


def _int64(value: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,19}", value) or not -MAX_INT64 <= int(value) <= MAX_INT64:
        raise argparse.ArgumentTypeError(f"{value!r} is no whole number of at most 64 bits")
    return int(value)


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{value!r} is no number of seconds")
    return seconds


def _is_text(value: str) -> bool:
    """Whether an argument can be sent: Python keeps bytes that are not UTF-8 as halves of surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _address(value: str) -> str:
    try:
        (address,) = addresses(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{value!r} is not host:port") from None
    return address


def _positive(value: str) -> int:
    if not (value.isdecimal() and int(value) > 0):
        raise argparse.ArgumentTypeError(f"{value!r} is no number from 1")
    return int(value)


def _sub(asked: argparse.Namespace) -> None:
    _check_stdout()
    device = Subscriber(asked.web, asked.key, asked.token, asked.heartbeat, asked.mid, _tell)
    for number, message in enumerate(device.messages(follow=not asked.once), 1):
        _print(message)
        if number == asked.count:
            return


def _push(asked: argparse.Namespace) -> None:
    body = _stdin() if asked.json == "-" else os.fsencode(asked.json)
    end = time.monotonic() + asked.wait
    mid = _push_until(end, asked.admin, asked.key, body, asked.expire, asked.id, _api_key(asked))
    if asked.mid:
        try:
            _print("(not told)" if mid is None else mid)
        except OutputError as wrong:
            _tell(f"the message is stored, but {wrong}")  # who pushes again would push it twice


def _push_until(end: float, admin: str, key: str, body: bytes, expire: int, id: str, api_key: str) -> int | None:
    """Push, again where it failed for now; one id for all attempts, so that it is one message."""
    id = id or uuid.uuid4().hex
    while True:
        try:
            return push(admin, key, body, expire, id, api_key)
        except (UnavailableError, NoNodeError):
            if time.monotonic() + RETRY_SECONDS > end:
                raise
            time.sleep(RETRY_SECONDS)


def _bench(asked: argparse.Namespace) -> None:
    _check_stdout()
    bench.run(asked, _api_key(asked), _print)


def _nodes(asked: argparse.Namespace) -> None:
    columns = ("role", "node", "state", "weight", "connections", "channels", "age", "version")
    rows = [[*columns, "rpc"]]
    for node in nodes(asked.admin, _api_key(asked)):
        rows.append([*("-" if node[column] is None else node[column] for column in columns), node["rpc"][0]])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        _print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _administer(asked: argparse.Namespace) -> None:
    query = {name: getattr(asked, name) for name in asked.named}
    for value in administer(asked.admin, asked.call, query, _api_key(asked)).values():
        _print(value)


def _api_key(asked: argparse.Namespace) -> str:
    key = _first_line(asked.api_key_file) if asked.api_key_file else ""
    if not re.fullmatch("[!-~]*", key):
        raise SettingsError(f"{asked.api_key_file}: line 1 is no API key (make one with gopush key NAME)")
    return key


def _first_line(path: Path) -> str:
    """The first line that is no comment: the file may hold all that `gopush key` has printed."""
    try:
        lines = path.read_text().splitlines()
        return next((line.strip() for line in lines if line.strip() and not line.startswith("#")), "")
    except (OSError, UnicodeDecodeError) as wrong:
        raise SettingsError(f"{path}: cannot be read: {getattr(wrong, 'strerror', 'not UTF-8')}") from None


def _key(asked: argparse.Namespace) -> None:
    from gopush.web.keys import make

    key, line = make(asked.name)
    _print(
        f"# The key, for who pushes; nobody can read it from the line:\n{key}\n# The line, for [admin] keys:\n{line}"
    )


def _history(asked: argparse.Namespace) -> None:
    for message in history(asked.web, asked.key, asked.after, asked.token):
        _print(message)


def _check(asked: argparse.Namespace) -> None:
    role = asked.role or next((role for role in ROLES if asked.config.name.startswith(role)), None)
    if role is None:
        raise SettingsError(f"{asked.config}: whose it is cannot be told from the name; use --role")
    settings = load(_settings(role), asked.config)
    if missing := list(settings.missing()) if role == "gopush" else []:
        raise SettingsError("\n".join(f"{asked.config}: {lack}" for lack in missing))
    try:
        _could_start(role, settings)
    except (SettingsError, StartError) as wrong:
        raise SettingsError(f"{asked.config}: {wrong}") from None
    _print(f"{asked.config}: good for {role}")


def _could_start(role: str, settings: Any) -> None:
    """Make all that a process of the role is made of, as its start does; bind and start nothing."""
    from twisted.internet.selectreactor import SelectReactor

    from gopush.daemon.listeners import find_user

    if settings.user and os.geteuid() == 0:
        find_user(settings.user)
    for opt, named in _addresses(settings):
        host = named.rpartition(":")[0]
        if not host.startswith("[") and impossible(host):
            raise SettingsError(f"[{opt.section}] {opt.name}: {named!r}: such a host name cannot be")
    node = "gopush.embedded" if role == "gopush" else f"gopush.{role}.node"
    resolve_name(node).make_node(SelectReactor(), settings)


def _addresses(settings: Any) -> Iterator[tuple[Option, str]]:
    """Every "host:port" in the settings, with its option."""
    for field in dataclasses.fields(settings):
        value, opt = getattr(settings, field.name), field.metadata.get("option")
        if opt is None:
            yield from _addresses(value)
        elif opt.parse is addresses:
            yield from ((opt, named) for named in value)


def _create_table(asked: argparse.Namespace) -> None:
    try:
        from gopush.message.hbase.create import create
    except ModuleNotFoundError as missing:
        raise SettingsError(
            f"this needs {missing.name}, which is not installed (pip install 'gopush[hbase]')"
        ) from None
    _print(create(asked.thrift, asked.table, asked.regions))


def _ini(asked: argparse.Namespace) -> None:
    _print(render(_settings(asked.role)), end="")


def _settings(role: str) -> type[Any]:
    found: type[Any] = resolve_name(ROLES[role])
    return found


def _stdin() -> bytes:
    if sys.stdin is None:
        raise ParameterError("stdin is closed")
    try:
        return sys.stdin.buffer.read()
    except OSError as wrong:
        raise ParameterError(f"stdin cannot be read: {wrong.strerror}") from None


def _check_stdout() -> None:
    if sys.stdout is None:
        raise OutputError("stdout is closed")


def _print(words: object, end: str = "\n") -> None:
    """Write words, or bytes as they are. Raises OutputError, and BrokenPipeError where nobody reads any more."""
    _check_stdout()
    content = words if isinstance(words, bytes) else str(words).encode(errors="surrogateescape")
    with _writing():
        sys.stdout.buffer.write(content + end.encode())
        sys.stdout.buffer.flush()


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as wrong:
        _drop_stdout()
        raise OutputError(f"stdout cannot be written: {wrong.strerror}") from None


def _drop_stdout() -> None:
    """Have nothing flushed at the exit: what is left could not be written then either."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _tell(words: str) -> None:
    if sys.stderr is not None:
        with suppress(OSError):
            print(f"gopush: {words}", file=sys.stderr, flush=True)
