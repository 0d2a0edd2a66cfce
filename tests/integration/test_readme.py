"""The clusters of README.md and of docs/operations.md, word for word but for the ports."""

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

from tests.pages import COMMANDS, ROOT, blocks, section

PORT = re.compile(r"\b7[0-4][0-9]{2}\b")


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
    """A directory as the README expects it, with this Python in the place of .venv. `kind`: of cluster, in etc/."""

    def __init__(self, path: Path, kind: str) -> None:
        self.path = path
        self.kind = kind
        self.configs = {file.name: file.read_text("utf-8") for file in (ROOT / "etc" / kind).iterdir()}
        self.shift = free_shift({int(port) for text in self.configs.values() for port in PORT.findall(text)})
        (path / "etc" / kind).mkdir(parents=True)
        (path / ".venv" / "bin").mkdir(parents=True)
        for name, text in self.configs.items():
            (path / "etc" / kind / name).write_text(self.shifted(text))
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
        script = self.shifted(re.sub(r"make venv(\n| && )", "", script))
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with (self.path / "out").open("w+") as out, (self.path / "err").open("w+") as err:
            # Files, not pipes: what goes on in the background keeps them open.
            command = ["bash", "-euc", script]
            done = subprocess.run(command, cwd=self.path, env=environment, stdout=out, stderr=err, timeout=180)
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(command, done.returncode, out.read(), err.read() + self.logs())

    def logs(self) -> str:
        return "".join(f"--- {log.name}\n{log.read_text()}" for log in self.path.glob(f"var/{self.kind}/*.log"))

    def pids(self) -> dict[str, int]:
        return {pid.stem: int(pid.read_text()) for pid in (self.path / "var" / self.kind).glob("*.pid")}

    def end(self, script: str, pids: dict[str, int]) -> None:
        """All of them end."""
        waiting = "; ".join(f"tail --pid={pid} -f /dev/null" for pid in pids.values())
        done = self.run(f"{script}\n{waiting}")
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr


@pytest.fixture(params=["cluster", "roles"])
def checkout(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Checkout]:
    checkout = Checkout(tmp_path, request.param)
    yield checkout
    for pid in tmp_path.glob("var/*/*.pid"):
        with suppress(ProcessLookupError, FileNotFoundError, ValueError):
            os.kill(int(pid.read_text()), 9)


@pytest.mark.parametrize("checkout", ["cluster"], indirect=True)
def test_one_process_grows_to_three_in_five_commands(checkout: Checkout) -> None:
    text = section("README.md", "From one process to three")
    prepared, commands, messages, killed, end = blocks("README.md", "sh", "From one process to three")
    lines = commands.splitlines()
    assert len(lines) == 5
    done = checkout.run(prepared + commands)
    assert done.returncode == 0, done.stderr
    pids = checkout.pids()
    assert pids.keys() == {"redis", "zookeeper", "node1", "node2", "node3"}

    done = checkout.run(messages)
    assert done.returncode == 0, done.stderr
    bodies = [line.split(',"mid":')[0] for line in done.stdout.splitlines()]
    assert bodies == [checkout.shifted(f'{{"msg":{{"through": {port}}}') for port in (7006, 7016, 7026)]
    assert "Traceback" not in done.stderr
    (check,) = re.findall(r"`(gopush check [^`]*)`", text)
    for name in ("node1", "node2", "node3"):
        done = checkout.run(f".venv/bin/{check.replace('FILE', f'etc/cluster/{name}.ini')}")
        assert done.returncode == 0, done.stderr

    (nodes,) = re.findall(r"`(.venv/bin/gopush nodes [^`]*)`", text)
    listing = f"until {nodes} >listed && [ $(grep -c active listed) = %d ]; do sleep 0.2; done; cat listed"
    done = checkout.run(listing % 6)
    assert done.returncode == 0, done.stderr
    done = checkout.run(killed)
    assert done.returncode == 0, done.stderr
    assert [line.split(',"mid":')[0] for line in done.stdout.splitlines()] == [*bodies, '{"msg":"after the kill"']
    done = checkout.run(listing % 4)
    assert done.returncode == 0, done.stderr
    assert "node1" not in done.stdout
    checkout.end(end, {name: pid for name, pid in pids.items() if name != "node1"})


@pytest.mark.parametrize("checkout", ["roles"], indirect=True)
def test_the_cluster_of_roles_comes_up_delivers_and_ends(checkout: Checkout) -> None:
    _, stores, cluster, messages, end = blocks("docs/operations.md", "sh", "Separate roles")
    for block in (stores, cluster):
        done = checkout.run(block)
        assert done.returncode == 0, done.stderr
    pids = checkout.pids()
    roles = {Path(name).stem for name in checkout.configs if name.endswith(".ini")}
    assert pids.keys() == roles | {"redis", "zookeeper"}

    done = checkout.run(messages)
    assert done.returncode == 0, done.stderr
    bodies = [line.split(',"mid":')[0] for line in done.stdout.splitlines()]
    assert bodies == ['{"msg":{"through": "web-1"}', '{"msg":{"through": "web-2"}']
    assert "Traceback" not in done.stderr

    (calls,) = blocks("docs/administration.md", "sh")
    calls = re.sub(r"^gopush", ".venv/bin/gopush", calls, flags=re.MULTILINE)
    standby = checkout.configs["comet-1-standby.ini"]
    calls = calls.replace(
        "10.0.0.7:6970", re.findall(r"rpc.bind = (\S+)", standby)[0].replace("localhost", "127.0.0.1")
    )
    done = checkout.run(f"export GOPUSH_ADMIN=localhost:7041\n{calls}.venv/bin/gopush nodes")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^comet +node2 +draining +3 ", done.stdout, re.MULTILINE), done.stdout
    checkout.end(end, pids)
