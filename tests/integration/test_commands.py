"""Commands and settings of the documents that need no more than one process, as they stand there but for the ports."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gopush.client.options import settings_of
from gopush.config.schema import load
from gopush.web.settings import WebSettings
from tests.chaos.cluster import Node
from tests.clients import eventually
from tests.integration.systems import embedded
from tests.pages import ROOT, Shell, blocks
from tests.servers import free_port


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with embedded() as system:
        yield system.webs[0]


@pytest.fixture
def shell(node: Node, tmp_path: Path) -> Shell:
    """Where the process is that the commands mean."""
    environment = {"GOPUSH_WEB": node.address("http"), "GOPUSH_ADMIN": node.address("admin")}
    shell = Shell(tmp_path, environment)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(tmp_path / ".commands")
    return shell


def here(script: str, node: Node) -> str:
    for port, name in (("8090", "http"), ("8091", "admin")):
        script = re.sub(rf"\b(localhost|web1):{port}\b", node.address(name), script)
    return script


def test_two_terminals_of_the_readme(node: Node, shell: Shell) -> None:
    _, subscribe, push, *_ = blocks("README.md", "sh")
    (history,) = re.findall(r"`(\.venv/bin/gopush history [^`]*)`", (ROOT / "README.md").read_text())
    log = shell.directory / "said"
    with shell.start(f"exec {subscribe}", log) as subscribed:
        try:
            eventually(lambda: "subscribed to Terry-Mao" in log.read_text())
            shell.run(push)
            eventually(lambda: '{"msg":{"hello": "world"},' in log.read_text())
        finally:
            subscribed.terminate()
    assert '{"msg":{"hello": "world"},' in shell.run(history)


def test_a_deeply_nested_message_is_shown_and_keeps_nobody_out(node: Node, shell: Shell) -> None:
    """Python's decoder stops at a depth that gopush takes."""
    deep = "[" * 1500 + "]" * 1500
    shell.run(f"gopush push deep '{deep}'")
    assert f'{{"msg":{deep},' in shell.run("gopush history deep")
    log = shell.directory / "said"
    with shell.start("exec gopush sub deep", log) as subscribed:
        try:
            eventually(lambda: "subscribed to deep" in log.read_text())
            shell.run("gopush push deep 1")
            eventually(lambda: '{"msg":1,' in log.read_text())
        finally:
            subscribed.terminate()


def test_the_calls_of_the_http_api(node: Node, shell: Shell) -> None:
    command, answer = blocks("docs/http-api.md", "console")[0].splitlines()
    assert shell.run(here(command, node)) == answer
    block, _ = blocks("docs/http-api.md", "sh")
    *calls, stream = here(block, node).splitlines()
    assert len(calls) > 8
    for call in calls:
        said = shell.run(call)
        assert json.loads(said)["ret"] == 0, call
    assert '"msgs":[' in said  # what waits is there already
    said = shell.run(f"{stream.replace('curl', 'curl --max-time 1')} || test $? = 28")
    assert said.startswith("retry: ")


def test_the_tokens_of_the_page_of_security(node: Node, shell: Shell) -> None:
    (block,) = (block for block in blocks("docs/security.md", "sh") if "admin/token" in block)
    create, show, revoke, close = here(block, node).replace("key=K", "key=tokens").splitlines()
    made = json.loads(shell.run(create))["data"]
    assert list(made) == ["token", "expires"]
    assert len(json.loads(shell.run(show))["data"]["tokens"]) == 1
    assert json.loads(shell.run(revoke.replace("TOKEN", made["token"]))) == {"ret": 0, "data": {"revoked": True}}
    assert json.loads(shell.run(close)) == {"ret": 0, "data": {"closed": 0}}


def test_gopush_bench(node: Node, shell: Shell) -> None:
    (bench,) = (block for block in blocks("docs/operations.md", "sh") if block.startswith("gopush bench"))
    (shell.directory / "key").write_text(shell.run("gopush key bench"))
    assert "--keys 100 --rate 500 --seconds 60" in bench
    shell.run(here(bench, node).replace("--keys 100 --rate 500 --seconds 60", "--keys 5 --rate 20 --seconds 1"))


def test_secrets_and_keys_that_the_page_of_security_makes(shell: Shell) -> None:
    secret, key, *_ = blocks("docs/security.md", "sh")
    admin, token = blocks("docs/security.md", "ini")
    keys = shell.directory / "keys"
    keys.write_text(shell.run(key).splitlines()[-1] + "\n")
    ini = shell.directory / "web.ini"
    shell.run("openssl genpkey -algorithm ed25519 | openssl pkey -pubout >token.pem")
    text = f"[rpc]\nsecret = {shell.run(secret)}\n{admin}\n{token}".replace("/etc/gopush", str(shell.directory))
    ini.write_text(text)
    assert load(WebSettings, ini).api_keys == str(keys)
    assert shell.run(f"gopush check -c {ini}") == f"{ini}: good for web\n"


@pytest.mark.parametrize(("number", "role"), [(0, "message"), (1, "comet")])
def test_settings_of_the_page_of_administration(number: int, role: str, tmp_path: Path) -> None:
    ini = tmp_path / "some.ini"
    ini.write_text(blocks("docs/administration.md", "ini")[number])
    settings = load(settings_of(role), ini)
    assert settings != settings_of(role)()


def test_the_examples_of_the_python_package(node: Node, tmp_path: Path) -> None:
    receive, push = (here(block, node) for block in blocks("clients/python/README.md", "python"))
    receive = receive.replace('"Terry-Mao"', '"Ken", since=0').replace("message.data)", "message.data, flush=True)")
    environment = {"PYTHONPATH": str(ROOT / "clients" / "python")}
    subprocess.run([sys.executable, "-c", push], env=environment, timeout=60, check=True)
    command = [sys.executable, "-c", receive]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as receiving:
        try:
            assert receiving.stdout
            assert receiving.stdout.readline().endswith("{'hello': 'both'}\n")
        finally:
            receiving.terminate()


@pytest.mark.skipif(shutil.which("make") is None, reason="wants make")
@pytest.mark.parametrize(
    ("admin", "says"),
    [
        ("admin.bind = localhost:{}\n[admin]\nkeys = {}\n", "gopush runs. In two other terminals:\n"),
        ("admin.bind = tcp:{}:interface=127.0.0.1\n[admin]\nkeys = {}\n", "gopush runs, where etc/gopush.ini says\n"),
    ],
)
def test_make_run_says_when_gopush_runs(tmp_path: Path, admin: str, says: str) -> None:
    """Also where the admin port asks for keys, or is no host:port."""
    shell = Shell(tmp_path)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(tmp_path / ".commands")
    for name in ("setup.cfg", "pyproject.toml", ".venv/.ready"):
        (tmp_path / name).touch()
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "keys").write_text(shell.run("gopush key service 2>/dev/null"))
    (tmp_path / "etc").mkdir()
    bind = "".join(f"{name}.bind = localhost:{free_port()}\n" for name in ("tcp", "websocket", "stat", "http"))
    ini = f"[base]\nuser =\n{bind}{admin.format(free_port(), tmp_path / 'keys')}"
    (tmp_path / "etc" / "gopush.ini").write_text(ini)
    log = tmp_path / "said"
    with shell.start("exec make run", log) as run:
        try:
            eventually(lambda: says in log.read_text())
            with pytest.raises(AssertionError, match="a gopush runs already: end it"):
                shell.run("make run")
        finally:
            run.terminate()
