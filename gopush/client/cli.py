"""The `gopush` command: a device and a service for the shell, and a look at ini files.

Exit statuses: 0 it worked; 1 it did not work now, trying again may help; 2 wrong usage; 3 refused, trying the same
again is pointless; 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import uuid
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import gopush
from gopush.client import administration, bench, inifiles, options
from gopush.client.http import administer, again, ask, history, nodes, push
from gopush.client.output import (
    NoReaderError,
    check_stdout,
    read_stdin,
    tell,
    write,
    write_message,
    write_outcome,
    writing,
)
from gopush.client.subscriber import Subscriber
from gopush.errors import GopushError, ParameterError, SettingsError

FAILED = 1
REFUSED = 3
_OPTION = re.compile("--[a-z][a-z-]{1,24}")
EPILOG = "Exit status: 0 done, 1 failed for now, 2 wrong usage, 3 refused, 130 interrupted."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command of `arguments` (None: the process's own); answers the exit status, unless it is interrupted."""
    try:
        asked = _parse(arguments)
        asked.run(asked)
        return 0
    except NoReaderError:
        return 0  # only where the work of a command is its output: see write_outcome()
    except (ParameterError, SettingsError) as wrong:
        tell(str(wrong))
        return REFUSED
    except GopushError as wrong:
        tell(str(wrong))
        return FAILED


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    _check_command(sys.argv[1:] if arguments is None else arguments, parser)
    with writing():
        try:
            asked, unknown = parser.parse_known_args(arguments)
        except SystemExit:
            if sys.stdout is not None:
                sys.stdout.flush()  # what --version and --help have printed
            raise
    if unknown and not _took_words(asked, unknown):
        names = [name for name in (word.partition("=")[0] for word in unknown) if _OPTION.fullmatch(name)]
        said = " ".join(names) or "(it takes fewer words, or other options: see --help)"
        parser.error(f"unknown arguments {said}")  # no other words: one may be a token
    for name, value in vars(asked).items():
        if isinstance(value, str) and name != "json" and not options.is_text(value):
            parser.error(f"{name}: is not UTF-8")
    options.fill(asked, parser.error)
    return asked


def _took_words(asked: argparse.Namespace, words: list[str]) -> bool:
    """Give a command the words behind its options: argparse has settled by then that an optional one is missing."""
    if any(word.startswith("-") and word != "-" for word in words) or "rest" not in asked:
        return False
    there = getattr(asked, asked.rest)
    if isinstance(there, list):
        there += words
    elif there is None and len(words) == 1:
        setattr(asked, asked.rest, words[0])
    else:
        return False
    return True


def _check_command(arguments: Sequence[str], parser: argparse.ArgumentParser) -> None:
    """End with a hint where the command is mistyped."""
    commands = next(list(action.choices) for action in parser._actions if action.choices)
    if arguments and not arguments[0].startswith("-") and arguments[0] not in commands:
        near = get_close_matches(arguments[0], commands, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(commands)}"
        parser.error(f"{arguments[0][:40]!r} is no command; {hint}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("gopush", description="Push messages and receive them.", epilog=EPILOG)
    parser.add_argument("--version", action="version", version=f"gopush {gopush.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_sub(commands)
    _add_push(commands)

    offline = commands.add_parser("history", help="print a key's kept messages", epilog=EPILOG)
    offline.add_argument("key")
    options.add_web(offline)
    offline.add_argument("--token", default="", help="the subscriber's token")
    offline.add_argument("--after", type=options.mid, default=0, metavar="MID", help="only messages after this one")
    offline.set_defaults(run=_history)

    load = commands.add_parser("bench", help="subscribe, push, and show how fast that was", epilog=EPILOG)
    options.add_admin(load)
    bench.add_options(load)
    load.set_defaults(run=bench.run)

    _add_admin_commands(commands)
    administration.add_commands(commands, EPILOG)
    inifiles.add_commands(commands, EPILOG)
    return parser


def _add_sub(commands: Any) -> None:
    sub = commands.add_parser("sub", help="receive a key's messages, one line of JSON each", epilog=EPILOG)
    sub.add_argument("key")
    options.add_web(sub, several=True)
    options.add_comet_tls(sub)
    sub.add_argument("--token", default="", help="the subscriber's token")
    sub.add_argument(
        "--mid", type=options.mid, help="begin after this message; 0: with all kept messages (default: with new ones)"
    )
    sub.add_argument("--heartbeat", type=options.int64, default=30, metavar="SECONDS", help="(default: 30)")
    sub.add_argument("--count", type=options.positive, metavar="N", help="end after N messages")
    sub.add_argument("--once", action="store_true", help="end with the connection instead of connecting again")
    sub.set_defaults(run=_sub)


def _add_push(commands: Any) -> None:
    pusher = commands.add_parser("push", help="push a message to a key", epilog=EPILOG)
    pusher.add_argument("key")
    pusher.add_argument("json", help="the message; -: read it from stdin")
    options.add_admin(pusher)
    pusher.add_argument(
        "--expire", type=options.int64, default=600, metavar="SECONDS", help="how long to keep it (default: 600)"
    )
    pusher.add_argument("--id", help="gopush does not push a repeat with the same id again")
    pusher.add_argument(
        "--wait",
        type=options.seconds,
        default=0,
        metavar="SECONDS",
        help="for how long to try again (default: 0): as one message, up to [push] dedupe (60)",
    )
    pusher.add_argument("--mid", action="store_true", help="print the message's mid")
    pusher.set_defaults(run=_push)


def _add_admin_commands(commands: Any) -> None:
    lister = commands.add_parser("nodes", help="list the processes of the cluster", epilog=EPILOG)
    lister.add_argument("--json", action="store_true", help="print all that is known, as a JSON array")
    lister.set_defaults(run=_nodes)
    weight = commands.add_parser("weight", help="change a node's share, until it ends", epilog=EPILOG)
    drain = commands.add_parser("drain", help="have a node hand over all that it has", epilog=EPILOG)
    undrain = commands.add_parser("undrain", help="take a node back", epilog=EPILOG)
    for name, command, done in (
        ("weight", weight, "the weight is changed"),
        ("drain", drain, "the node drains"),
        ("undrain", undrain, "the node is taken back"),
    ):
        command.add_argument("node", help="the name of a node, for all its processes; or the RPC address of one")
        command.set_defaults(run=_administer, call=f"node/{name}", named=("node",), done=done)
    weight.add_argument("weight", help="from 1 to 1000")
    weight.set_defaults(named=("node", "weight"))
    close = commands.add_parser("close", help="close a key's connections", epilog=EPILOG)
    close.add_argument("key")
    close.set_defaults(run=_administer, call="key/close", named=("key",), done="the connections are closed")
    for command in (lister, weight, drain, undrain, close):
        options.add_admin(command)


def _sub(asked: argparse.Namespace) -> None:
    check_stdout()
    device = Subscriber(
        asked.web, asked.key, asked.token, asked.heartbeat, asked.mid, tell, asked.comet_tls, options.context(asked)
    )
    for number, message in enumerate(device.messages(follow=not asked.once), 1):
        write_message(message)
        if number == asked.count:
            return


def _push(asked: argparse.Namespace) -> None:
    body = read_stdin() if asked.json == "-" else os.fsencode(asked.json)
    admin = options.admin(asked)
    id = uuid.uuid4().hex if asked.id is None else asked.id  # one id for all attempts: it is one message
    mid = again(asked.wait, lambda: push(admin, asked.key, body, asked.expire, id))
    if asked.mid:
        # A repeat would push it twice.
        write_outcome("(not told)" if mid is None else mid, "the message is stored")


def _nodes(asked: argparse.Namespace) -> None:
    if asked.json:
        data = ask(options.admin(asked), "GET", "/1/admin/nodes", {})
        write(json.dumps(data["nodes"], ensure_ascii=False))
        return
    columns = ("role", "node", "state", "weight", "connections", "channels", "age", "version")
    rows = [[*columns, "rpc"]]
    for node in nodes(options.admin(asked)):
        rows.append([*("-" if node[column] is None else node[column] for column in columns), node["rpc"][0]])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        write("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _administer(asked: argparse.Namespace) -> None:
    query = {name: getattr(asked, name) for name in asked.named}
    for value in administer(options.admin(asked), asked.call, query).values():
        write_outcome(value, asked.done)


def _history(asked: argparse.Namespace) -> None:
    for message in history(options.web(asked), asked.key, asked.after, asked.token):
        write_message(message)
