"""What administrators do from the shell besides nodes: API keys, a key's content, tokens."""

from __future__ import annotations

import argparse
import json
import os
import re
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from gopush.client import options
from gopush.client.http import ask
from gopush.client.output import OutputError, read_stdin, write, write_outcome
from gopush.errors import ParameterError

ASK_SECONDS = 0.3
_DIGEST = re.compile("[0-9a-f]{64}")


def add_commands(commands: Any, epilog: str) -> None:
    """`key`, `token`, `delete`, `presence` and `backup`."""
    key = commands.add_parser(
        "key", help="make an API key, and its line for the file of [admin] keys; or show a key", epilog=epilog
    )
    key.add_argument("name", help="the name of its owner; or: show")
    key.add_argument("key", nargs="?", help="after show: the key to show (its messages, subscribers and tokens)")
    key.add_argument("--limit", metavar="N", help="how many pushes per second the new API key may make")
    key.add_argument("--scope", choices=["push", "admin"], help="the calls that it is good for (default: both)")
    key.add_argument("--prefix", help="how the keys begin that it is good for")
    options.add_admin(key)
    key.set_defaults(run=_key, usage=key.error, rest="key")
    token = commands.add_parser("token", help="create, list or revoke the tokens of a key's subscribers", epilog=epilog)
    token.add_argument("what", choices=["create", "list", "revoke"])
    token.add_argument("key")
    token.add_argument("token", nargs="?", help="revoke: the token, or its digest as listed; -: read it from stdin")
    token.add_argument(
        "--life", type=options.positive, metavar="SECONDS", help="how long the new token lives (default: the servers')"
    )
    options.add_admin(token)
    token.set_defaults(run=_token, usage=token.error, rest="token")
    delete = commands.add_parser("delete", help="delete a key's messages, and close its connections", epilog=epilog)
    delete.add_argument("key")
    options.add_admin(delete)
    delete.set_defaults(run=_delete)
    presence = commands.add_parser("presence", help="show who is connected to keys", epilog=epilog)
    presence.add_argument("key", nargs="+")
    options.add_admin(presence)
    presence.set_defaults(run=_presence, rest="key")
    backup = commands.add_parser("backup", help="copy the SQLite store to a new file, while it serves", epilog=epilog)
    backup.add_argument("file", help="the new file, on the machine of the process that has the database")
    options.add_admin(backup)
    backup.set_defaults(run=_backup)


def _ask(
    asked: argparse.Namespace, method: str, path: str, query: Mapping[str, str], body: bytes | None = None
) -> dict[str, Any]:
    return ask(options.admin(asked), method, path, query, body)


def _key(asked: argparse.Namespace) -> None:
    if asked.key is None:
        if asked.name == "show":
            asked.usage("show needs a key")
        _make(asked)
    elif asked.name != "show":
        asked.usage("an API key has one name")
    elif given := [f"--{name}" for name in ("limit", "scope", "prefix") if getattr(asked, name) is not None]:
        asked.usage(f"show takes no {', '.join(given)}")
    else:
        write(json.dumps(_ask(asked, "GET", "/1/admin/key", {"key": asked.key}), indent=2, ensure_ascii=False))


def _make(asked: argparse.Namespace) -> None:
    from gopush.web.keys import make

    key, line = make(asked.name, asked.limit, asked.scope or "", asked.prefix)
    where = "the file that [admin] keys names"
    write(f"# The key itself, which nobody can read from the line:\n{key}\n# The line, for {where}:\n{line}")


def _token(asked: argparse.Namespace) -> None:
    if (asked.token is None) == (asked.what == "revoke"):
        asked.usage("revoke needs a token" if asked.token is None else f"{asked.what} takes only a key")
    if asked.life is not None and asked.what != "create":
        asked.usage(f"{asked.what} takes no --life")
    if asked.what == "create":
        life = {} if asked.life is None else {"life": str(asked.life)}
        token = _ask(asked, "POST", "/1/admin/token", {"key": asked.key, **life})["token"]
        try:
            write(token)
        except OutputError as wrong:  # not as what has worked: who asked has no token
            raise OutputError(f"a token is made, but {wrong}") from None
    elif asked.what == "list":
        for listed in _ask(asked, "GET", "/1/admin/token", {"key": asked.key})["tokens"]:
            write(f"{listed['digest']}  until {_time(listed['expires'])}")
    else:
        token = read_stdin().decode(errors="replace").strip() if asked.token == "-" else asked.token
        name = "digest" if _DIGEST.fullmatch(token) else "token"
        if not _ask(asked, "DELETE", "/1/admin/token", {"key": asked.key, name: token})["revoked"]:
            raise ParameterError(f"{asked.admin} knows no such token of this key")


def _delete(asked: argparse.Namespace) -> None:
    _ask(asked, "POST", "/1/admin/msg/del", {}, urlencode({"key": asked.key}).encode())


def _presence(asked: argparse.Namespace) -> None:
    for there in _ask(asked, "POST", "/1/admin/presence", {}, json.dumps({"k": asked.key}).encode())["presence"]:
        over = ", ".join(f"{number} {kind}" for kind, number in there["over"].items())
        count = "?" if there["count"] is None else there["count"]
        since = "" if there["since"] is None else f"  since {_time(there['since'])}"
        write(f"{there['key']}  {count}{f' ({over})' if over else ''}{since}")


def _backup(asked: argparse.Namespace) -> None:
    """The process makes the copy; this only asks how far it is."""
    query = {"file": _whole_path(asked.file), "id": uuid.uuid4().hex}
    while (found := _ask(asked, "POST", "/1/admin/backup", query))["state"] != "done":
        time.sleep(ASK_SECONDS)
    write_outcome(f"{query['file']}  {found['size']} bytes", "the copy is made")


def _whole_path(file: str) -> str:
    """Of a file that may be named from where the command runs. Raises ParameterError where that has no name to send."""
    hint = "name the file with its whole path"
    try:
        path = os.path.abspath(file)
    except OSError as wrong:
        raise ParameterError(f"the working directory has no name ({wrong.strerror}): {hint}") from None
    if not options.is_text(path):
        raise ParameterError(f"the working directory's name is not UTF-8: {hint}")
    return path


def _time(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return str(seconds)
