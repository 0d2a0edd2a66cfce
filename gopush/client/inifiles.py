"""What the `gopush` command does where servers are: looks at ini files and their processes, prints and converts them,
moves a store.
"""

from __future__ import annotations

import argparse
import os
import ssl
from collections.abc import Iterable, Iterator
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from gopush.client import convert
from gopush.client import migrate as move
from gopush.client.address import SECURE, Server, trust
from gopush.client.http import again, health
from gopush.client.options import ROLES, installed, positive, seconds, settings_of
from gopush.client.output import tell, write, write_outcome
from gopush.config.schema import load, load_file, options, read_file, render, values
from gopush.config.values import addresses
from gopush.errors import SettingsError, StartError
from gopush.message.hbase.settings import table_name


def add_commands(commands: Any, epilog: str) -> None:
    """`hbase create`, `migrate`, `check`, `ready`, `ini` and `convert`."""
    hbase = commands.add_parser("hbase", help="make the table of a store in HBase, unless it is there", epilog=epilog)
    hbase.add_argument("what", choices=["create"], metavar="create")
    hbase.add_argument(
        "--thrift", type=_address, default="localhost:9090", metavar="HOST:PORT", help="(default: localhost:9090)"
    )
    hbase.add_argument("--table", type=_table, default="gopush", help="(default: gopush)")
    hbase.add_argument(
        "--regions", type=positive, default=1, metavar="N", help="how many regions it begins with (default: 1)"
    )
    hbase.set_defaults(run=_create_table)

    migrate = commands.add_parser(
        "migrate", help="move what one process, or gopush-cluster, keeps into Redis or HBase", epilog=epilog
    )
    move.add_arguments(migrate)
    migrate.set_defaults(run=move.run)

    check = commands.add_parser("check", help="say whether gopush can use an ini file", epilog=epilog)
    _add_config(check)
    check.set_defaults(run=_check)

    ready = commands.add_parser("ready", help="say whether the process of an ini file can do its work", epilog=epilog)
    _add_config(ready)
    ready.add_argument(
        "--wait", type=seconds, default=0, metavar="SECONDS", help="for how long to ask again (default: 0)"
    )
    ready.set_defaults(run=_ready)

    ini = commands.add_parser("ini", help="print a role's ini file with all defaults", epilog=epilog)
    ini.add_argument("role", choices=ROLES)
    ini.set_defaults(run=_ini)

    converter = commands.add_parser(
        "convert", help="print the ini file for a comet.conf, message.conf or web.conf of gopush-cluster", epilog=epilog
    )
    converter.add_argument("file", type=Path)
    converter.add_argument(
        "--role", choices=convert.ROLES, help="the role that it is for (default: what its name begins with)"
    )
    converter.set_defaults(run=_convert)


def _add_config(command: argparse.ArgumentParser) -> None:
    command.add_argument("-c", "--config", type=Path, required=True, metavar="FILE")
    command.add_argument("--role", choices=ROLES, help="the role that it is for (default: what its name begins with)")


def _address(value: str) -> str:
    try:
        (address,) = addresses(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{value!r} is not host:port") from None
    return address


def _table(value: str) -> str:
    try:
        return table_name(value)
    except ValueError as wrong:
        raise argparse.ArgumentTypeError(f"{value!r} {wrong}") from None


def _check(asked: argparse.Namespace) -> None:
    from gopush.daemon.listeners import refuse_unbindable
    from gopush.daemon.oversights import oversights

    role = asked.role or _role(asked.config, ROLES)
    settings, is_empty = load_file(settings_of(role), asked.config)
    if missing := list(settings.missing()) if role == "gopush" else []:
        raise SettingsError("\n".join(f"{asked.config}: {lack}" for lack in missing))
    try:
        _make(role, settings)
        for name, endpoint in _endpoints(settings):
            refuse_unbindable(name, endpoint)
        if role != "web":
            _check_own_name(settings)
        warnings = [*oversights(settings, is_empty), *_check_addresses(settings)]
        warnings += _check_user(role, settings) if settings.user and os.geteuid() == 0 else ()
    except (SettingsError, StartError) as wrong:
        raise SettingsError(f"{asked.config}: {wrong}") from None
    write(f"{asked.config}: good for {role}")
    for warning in warnings:
        tell(f"{asked.config}: {warning}")


def _ready(asked: argparse.Namespace) -> None:
    from gopush.daemon.listeners import local

    settings: Any = load(settings_of(asked.role or _role(asked.config, ROLES)), asked.config)
    found = local(getattr(settings, "subscribers", settings).stat_bind)
    if found is None:
        raise SettingsError(f"{asked.config}: [base] stat.bind: holds no TCP address with a port, where to ask")
    address, certificate, key = found
    context = _context(certificate, key) if address.startswith(SECURE) else None
    server = Server(address, context=context)
    again(asked.wait, lambda: health(server))


def _context(certificate: str, key: str) -> ssl.SSLContext:
    # Its certificate is for the name that others call it by. On this machine nobody else has the port, and the question
    # is no secret.
    context = trust(None, insecure=True)
    if certificate:
        try:
            context.load_cert_chain(certificate, key, password="")
        except OSError as wrong:
            raise SettingsError(f"{certificate}: cannot be shown, with {key}: {wrong.strerror}") from None
    return context


def _check_addresses(settings: Any) -> Iterator[str]:
    """Warnings where this machine lacks an address to listen on. No errors: it may get it, or another one will."""
    from gopush.daemon.listeners import lacking

    for name, endpoint in _endpoints(settings):
        if why := lacking(endpoint):
            yield f"[base] {name}: {endpoint}: as this machine is now, a start fails: {why}"


def _check_user(role: str, settings: Any) -> Iterator[str]:
    """Warnings where `[base] user` cannot read gopush, or use the files that a process needs once it runs. No errors:
    one that systemd starts as another user never becomes this one. Raises SettingsError where there is no such user.
    """
    from gopush.daemon.start import as_user, find_user, is_default, unfit_user

    pending = find_user(settings.user)
    unfit = unfit_user(settings.user, pending.pw_uid, pending.pw_gid)
    if unfit:
        default = "good only where another user than root starts it"
        yield f"{unfit}: {default if is_default(settings) else 'root may not be able to start it'}"
    if refusal := as_user(pending.pw_uid, pending.pw_gid, lambda: _refusal(role, settings)):
        yield f"[base] user: once the process is {settings.user!r}: {refusal}"


def _refusal(role: str, settings: Any) -> str:
    """Why this user cannot make all that a process of the role is made of; empty: it can."""
    try:
        _make(role, settings)
    except (SettingsError, StartError) as wrong:
        return str(wrong)
    return ""


def _make(role: str, settings: Any) -> None:
    """Make all that a process of the role is made of, as its start does, and look at its database."""
    from twisted.internet.selectreactor import SelectReactor

    from gopush.message.sqlite.file import refuse_unfit

    package = "embedded" if role == "gopush" else role
    resolve_name(f"gopush.{package}.node").make_node(SelectReactor(), settings)
    if getattr(settings, "storage", "") == "sqlite":
        refuse_unfit(settings.sqlite.path)


def _endpoints(settings: Any) -> Iterator[tuple[str, str]]:
    """What is listened on, each with its option."""
    for opt, value in values(settings):
        if opt.name.endswith(".bind"):
            yield from ((opt.name, endpoint) for endpoint in value)


def _check_own_name(settings: Any) -> None:
    """Others call this process by its advertised address, and look for that in its certificate."""
    from gopush.daemon.listeners import advertised
    from gopush.net.certificates import names

    bind = settings.called_at if hasattr(settings, "called_at") else settings.rpc_bind
    if not settings.rpc.tls_certificate or not bind:
        return
    certificate = Path(settings.rpc.tls_certificate)
    for address in advertised("rpc", bind, settings.rpc_advertise):
        host = address.rpartition(":")[0].strip("[]")
        if not names(certificate.read_bytes(), host):
            raise SettingsError(
                f"[rpc] tls.cert: {certificate}: is not for {host}, which others call this process by "
                f"([base] rpc.advertise): make one with that name or address (subjectAltName)"
            )


def _create_table(asked: argparse.Namespace) -> None:
    with installed("hbase"):
        from gopush.message.hbase.create import create
    write_outcome(create(asked.thrift, asked.table, asked.regions), "the table is there")


def _ini(asked: argparse.Namespace) -> None:
    write(render(settings_of(asked.role)), end="")


def _convert(asked: argparse.Namespace) -> None:
    text = read_file(asked.file)
    if convert.is_ini(text):
        raise SettingsError(f"{asked.file}: this is a gopush ini file already (gopush check says whether it is good)")
    role = asked.role or _role(asked.file, convert.ROLES)
    write(convert.convert(text, role, options(settings_of(role))), end="")


def _role(path: Path, roles: Iterable[str]) -> str:
    """The role that a file's name begins with. Raises SettingsError, also where there is no such file."""
    role = next((role for role in roles if path.name.startswith(role)), None)
    if role is None:
        read_file(path)
        raise SettingsError(f"{path}: its name does not say which role it is for; use --role")
    return role
