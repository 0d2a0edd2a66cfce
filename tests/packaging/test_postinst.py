"""What an upgrade of the packages restarts, with systemd and gopush played by scripts."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FAKES = {
    "systemctl": '[ -z "$UNITS" ] || echo "$UNITS" | tr " " "\\n" | sed "s/$/ loaded active running A comet/"; '
    "exit $SILENT",
    "deb-systemd-invoke": 'echo "$@" >>"$DONE"; [ "$2" != "$DEAD" ]',
    "systemd-sysusers": 'echo "$@" >>"$MADE"',
    "install": 'echo "$@" >>"$MADE"',
    "chgrp": "",
    "chmod": "",
    "gopush": 'echo "$1 $3" >>"$DONE"; case "$1 $3" in "$WRONG") exit 3;; esac',
}


@pytest.fixture(params=["gopush", "gopush-comet"])
def package(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def upgraded(package: str, tmp_path: Path, version: str = "1.0", **moods: str) -> tuple[list[str], str]:
    """What was done, and what was said."""
    for name, words in FAKES.items():
        fake = tmp_path / name
        fake.write_text(f"#!/bin/sh\n{words}\n")
        fake.chmod(0o755)
    text = (ROOT / "debian" / f"{package}.postinst").read_text()
    script = tmp_path / "postinst"
    text = text.replace("/run/systemd/system", str(tmp_path)).replace("/var/lib/gopush", str(tmp_path / "store"))
    script.write_text(text.replace("#DEBHELPER#", "UNITS="))
    done = tmp_path / "done"
    done.write_text("")
    units = " ".join(f"{package}{instance}.service" for instance in ("", "@a", "@b"))
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "DONE": str(done),
        "MADE": str(tmp_path / "made"),
        "UNITS": units,
    }
    environment |= {"DEAD": "", "WRONG": "", "SILENT": "0"} | moods
    ran = subprocess.run(
        ["sh", str(script), "configure", version], env=environment, capture_output=True, text=True, check=True
    )
    return done.read_text().splitlines(), ran.stderr


def ini(package: str, instance: str = "") -> str:
    return f"/etc/gopush/{package.removeprefix('gopush-')}{instance}.ini"


def test_one_after_the_other_each_ready_before_the_next(package: str, tmp_path: Path) -> None:
    done, said = upgraded(package, tmp_path)
    assert done == [
        f"check {ini(package)}",
        f"try-restart {package}.service",
        f"ready {ini(package)}",
        f"check {ini(package, '-a')}",
        f"try-restart {package}@a.service",
        f"ready {ini(package, '-a')}",
        f"check {ini(package, '-b')}",
        f"try-restart {package}@b.service",
        f"ready {ini(package, '-b')}",
    ]
    assert said == ""


INSTANCES = [("", ["@a", "@b"]), ("-a", ["@b"]), ("-b", [])]
"""Each with those after it."""


def names(package: str, instances: list[str]) -> str:
    return " ".join(f"{package}{instance}.service" for instance in instances)


@pytest.mark.parametrize(("instance", "after"), INSTANCES)
def test_one_that_is_refused_and_those_after_it_stay(
    package: str, instance: str, after: list[str], tmp_path: Path
) -> None:
    check = f"check {ini(package, instance)}"
    done, said = upgraded(package, tmp_path, WRONG=check)
    assert done[-1] == check
    rest = f", then those after it: {names(package, after)}" if after else ""
    unit = names(package, [instance.replace("-", "@")])
    assert said == f"{unit} is as it was: once its ini file is right, restart it{rest}\n"


@pytest.mark.parametrize("fault", ["dead", "not ready"])
@pytest.mark.parametrize(("instance", "after"), INSTANCES)
def test_those_after_one_that_does_not_start_or_is_not_ready_stay(
    package: str, instance: str, after: list[str], fault: str, tmp_path: Path
) -> None:
    unit, ready = names(package, [instance.replace("-", "@")]), f"ready {ini(package, instance)}"
    done, said = upgraded(package, tmp_path, **({"DEAD": unit} if fault == "dead" else {"WRONG": ready}))
    assert done[-1] == (f"try-restart {unit}" if fault == "dead" else ready)
    rest = f": once it is ready, restart those after it: {names(package, after)}" if after else ""
    assert said == f"{unit} is not ready, or cannot be asked{rest}\n"


@pytest.mark.parametrize("role", ["message", "web"])
def test_a_role_without_instances_is_restarted_unless_its_ini_file_is_refused(role: str, tmp_path: Path) -> None:
    package = f"gopush-{role}"
    check, unit = f"check {ini(package)}", f"{package}.service"
    assert upgraded(package, tmp_path, UNITS="") == ([], "")
    refused = f"{unit} is as it was: once its ini file is right, restart it\n"
    assert upgraded(package, tmp_path, WRONG=check) == ([check], refused)
    assert upgraded(package, tmp_path) == ([check, f"try-restart {unit}"], "")


@pytest.mark.parametrize("package", ["gopush", "gopush-comet", "gopush-message", "gopush-web"])
def test_where_systemctl_cannot_say_what_runs_the_package_is_configured_and_says_so(
    package: str, tmp_path: Path
) -> None:
    done, said = upgraded(package, tmp_path, SILENT="1")
    assert done == []
    assert re.fullmatch(rf"systemctl cannot say what runs: restart {package}\.service.* by hand\n", said)


def test_nothing_restarts_a_unit_before_its_ini_file_is_checked() -> None:
    """debhelper would."""
    rules = (ROOT / "debian" / "rules").read_text()
    calls = re.findall(r"^\tdh_installsystemd (.*)$", rules, re.MULTILINE)
    assert len(calls) == 2
    assert all("--no-restart-after-upgrade --no-stop-on-upgrade" in call for call in calls)


def test_nothing_is_restarted_where_nothing_ran_before(package: str, tmp_path: Path) -> None:
    assert upgraded(package, tmp_path, version="") == ([], "")


@pytest.mark.parametrize("version", ["", "1.0"])
@pytest.mark.parametrize("package", ["gopush", "gopush-comet", "gopush-message", "gopush-web"])
def test_the_user_and_the_directory_of_a_store_are_made_again(package: str, version: str, tmp_path: Path) -> None:
    """Who has removed the package may have deleted them. The owner of a directory that is there is systemd's affair: it
    looks into those alone that belong to another user."""
    upgraded(package, tmp_path, version)
    made, store = tmp_path / "made", tmp_path / "store"
    directory = [f"-d -o gopush -g gopush -m 750 {store}"] if package in ("gopush", "gopush-message") else []
    assert made.read_text().splitlines() == [f"{package}.conf", *directory]
    store.mkdir()
    made.unlink()
    upgraded(package, tmp_path, version)
    assert made.read_text().splitlines() == [f"{package}.conf"]
