"""The manual page and the shell's completion of `gopush` know the command as it is."""

from __future__ import annotations

import argparse
import re
import subprocess
from pathlib import Path

import pytest

from gopush.client import cli
from gopush.client.options import ROLES

ROOT = Path(__file__).resolve().parents[2]
MANUAL = (ROOT / "docs" / "man" / "gopush.1").read_text()
COMPLETION = ROOT / "packaging" / "gopush.bash"


def _commands() -> dict[str, argparse.ArgumentParser]:
    """The parser of each command of `gopush`."""
    (commands,) = (action for action in cli._parser()._actions if isinstance(action, argparse._SubParsersAction))
    return dict(commands.choices)


def _options(command: str) -> set[str]:
    return {name for name in _commands()[command]._option_string_actions if name.startswith("--")}


def _completed(*words: str) -> set[str]:
    """What the shell offers in the place of the last word."""
    script = """
        _init_completion() { words=("${COMP_WORDS[@]}") cword=$COMP_CWORD cur=${words[cword]} prev=${words[cword-1]}; }
        . "$0"
        COMP_WORDS=(gopush "$@") COMP_CWORD=$#
        _gopush
        echo "${COMPREPLY[@]}"
    """
    done = subprocess.run(["bash", "-c", script, COMPLETION, *words], capture_output=True, text=True, timeout=30)
    assert done.stderr == ""
    return set(done.stdout.split())


def test_the_shell_completes_the_commands() -> None:
    assert _completed("") == {*_commands(), "--help", "--version"}


@pytest.mark.parametrize("command", _commands())
def test_the_shell_completes_the_options(command: str) -> None:
    assert _completed(command, "--") == _options(command)


@pytest.mark.parametrize("before", [("check", "--role"), ("ini",)])
def test_the_shell_completes_the_roles(before: tuple[str, ...]) -> None:
    assert _completed(*before, "") == set(ROLES)


def test_the_shell_completes_no_values_that_it_does_not_know() -> None:
    assert _completed("sub", "--mid", "--") == set()
    assert _completed("bench", "--rate", "--") == set()


@pytest.mark.parametrize("words", [("push", "--mid"), ("bench", "--auth")])
def test_the_shell_completes_what_follows_an_option_without_a_value(words: tuple[str, str]) -> None:
    assert _completed(*words, "--") == _options(words[0])


@pytest.mark.parametrize("command", _commands())
def test_the_manual_shows_each_command_with_its_options(command: str) -> None:
    (synopsis,) = re.findall(rf"^\.Cm {command}\n((?:\.(?:Op|Fl|Ar) .*\n)*)", MANUAL, re.MULTILINE)
    shown = {f"--{name}".replace("\\", "") for name in re.findall(r"Fl \\-([a-z\\-]+)", synopsis)}
    shown |= {"--config"} if "Fl c " in synopsis else set()
    assert shown == _options(command) - {"--help"}
