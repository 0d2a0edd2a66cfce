"""README.md, "A cluster on one machine", word for word but for the ports."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PORT = re.compile(r"\b7[0-4][0-9]{2}\b")
COMMANDS = {"twistd": "twisted.scripts.twistd:run", "gopush": "gopush.__main__:main"}


def blocks() -> list[str]:
    section = (ROOT / "README.md").read_text("utf-8").split("\n## A cluster on one machine\n")[1].split("\n## ")[0]
    return re.findall(r"```sh\n(.*?)```", section, re.DOTALL)


def free_shift(ports: set[int]) -> int:
    """What can be added to all ports so that they are free."""
    for shift in range(13000, 50000, 400):
        with suppress(OSError):
            for port in ports:
                with socket.socket() as candidate:
                    candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    candidate.bind(("127.0.0.1", port + shift))
            return shift
    raise AssertionError("no free ports")


class Checkout:
    """A directory as the README expects it, with this Python in the place of .venv."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.configs = {file.name: file.read_text("utf-8") for file in (ROOT / "etc" / "cluster").iterdir()}
        self.shift = free_shift({int(port) for text in self.configs.values() for port in PORT.findall(text)})
        (path / "etc" / "cluster").mkdir(parents=True)
        (path / ".venv" / "bin").mkdir(parents=True)
        for name, text in self.configs.items():
            (path / "etc" / "cluster" / name).write_text(self.shifted(text))
        for name, target in COMMANDS.items():
            module, _, function = target.partition(":")
            command = path / ".venv" / "bin" / name
            command.write_text(
                f"#!{sys.executable}\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n"
            )
            command.chmod(0o755)

    def shifted(self, text: str) -> str:
        return PORT.sub(lambda port: str(int(port[0]) + self.shift), text)

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        script = self.shifted(script.replace("make venv\n", ""))
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with (self.path / "out").open("w+") as out, (self.path / "err").open("w+") as err:
            # Files, not pipes: what goes on in the background keeps them open.
            command = ["bash", "-euc", script]
            done = subprocess.run(command, cwd=self.path, env=environment, stdout=out, stderr=err, timeout=180)
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(command, done.returncode, out.read(), err.read() + self.logs())

    def logs(self) -> str:
        return "".join(f"--- {log.name}\n{log.read_text()}" for log in self.path.glob("var/cluster/*.log"))


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    checkout = Checkout(tmp_path)
    yield checkout
    for pid in tmp_path.glob("var/cluster/*.pid"):
        with suppress(ProcessLookupError, FileNotFoundError, ValueError):
            os.kill(int(pid.read_text()), 9)


def test_the_cluster_comes_up_delivers_and_ends(checkout: Checkout) -> None:
    stores, cluster, messages, end = blocks()
    for block in (stores, cluster):
        done = checkout.run(block)
        assert done.returncode == 0, done.stderr
    pids = {pid.stem: int(pid.read_text()) for pid in (checkout.path / "var" / "cluster").glob("*.pid")}
    roles = {Path(name).stem for name in checkout.configs if name.endswith(".ini")}
    assert pids.keys() == roles | {"redis", "zookeeper"}

    done = checkout.run(messages)
    assert done.returncode == 0, done.stderr
    bodies = [line.split(',"mid":')[0] for line in done.stdout.splitlines()]
    assert bodies == ['{"msg":{"through": "web-1"}', '{"msg":{"through": "web-2"}']
    assert "Traceback" not in done.stderr

    done = checkout.run(
        end + "for pid in " + " ".join(map(str, pids.values())) + "; do tail --pid=$pid -f /dev/null; done"
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
