"""`gopush convert`: a file of gopush-cluster becomes an ini file that gopush reads, and says what it is not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gopush.client import cli
from gopush.client.convert import BY_ROLE, ROLES, RULES, convert
from gopush.client.options import settings_of
from gopush.config.schema import load, options, render
from gopush.config.values import listeners
from gopush.message.redis.settings import Source

COMET = """\
# tuned by hand
[base]
user push push
pidfile /run/comet.pid
maxproc 4
tcp.bind 0.0.0.0:6969,10.0.0.2:7969
websocket.bind :6968
rpc.bind localhost:6970
pprof.bind localhost:6971
[zookeeper]
addr :2181,10.0.0.9:2181
timeout 30S
comet.path /old-comets
comet.node node3
comet.weight 2
[rpc]
retry 3s
[channel]
sndbuf.size 2kb
rcvbuf.size 256     # bytes
proto tcp
tcp.keepalive yes
maxsubscriber 128
auth yes
bucket 16
msgbuf.num 30
"""
MESSAGE = """\
[base]
rpc.bind localhost:8070
node.weight 3
[storage]
type redis
[redis]
timeout 28800s
idle 500
store 40
[redis.source]
node1:1 tcp@10.0.0.5:6379#s"cret,1
node2:2 unix@/run/redis.sock
[mysql]
clean 1h
[mysql.source]
node1:1 root:hunter2@tcp(10.0.0.6:3306)/push
[zookeeper]
path /old-messages
"""
WEB = """\
[base]
http.bind :8090
admin.bind 10.0.0.3:8091
http.servertimeout 10s
[zookeeper]
addr localhost:2181
timeout 30
migrate.path /old-lock
[rpc]
ping 2s
[res]
qqwry.path /tmp/x
"""


def converted(tmp_path: Path, role: str, text: str, capsys: pytest.CaptureFixture[str]) -> tuple[Any, str]:
    """The settings that gopush reads from what the command prints, and its comments."""
    original, ini = tmp_path / f"{role}.conf", tmp_path / f"{role}.ini"
    original.write_text(text)
    assert cli.main(["convert", str(original)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    ini.write_text(out)
    return load(settings_of(role), ini), "".join(re.findall(r"^#.*\n", out, re.MULTILINE))


def test_a_comets_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    comet, comments = converted(tmp_path, "comet", COMET, capsys)
    assert comet.user == "push"
    assert [bind.partition(":backlog")[0] for bind in comet.tcp_bind] == ["tcp:6969", "tcp:7969:interface=10.0.0.2"]
    assert comet.websocket_bind == ("tcp:6968",)
    assert (comet.node, comet.weight) == ("node3", 2)
    assert comet.zookeeper.hosts == ("localhost:2181", "10.0.0.9:2181")
    assert (comet.zookeeper.session_timeout, comet.zookeeper.comet_path) == (30, "/old-comets")
    assert (comet.sndbuf, comet.rcvbuf, comet.keepalive) == (2048, 256, True)
    assert (comet.proto, comet.max_subscribers, comet.auth) == (("tcp",), 128, True)
    # What the original has by default, and gopush better.
    assert (comet.msgbuf_messages, comet.rpc.retry) == (4096, 1)
    for where in ("[base] pidfile", "[base] maxproc", "[base] pprof.bind", "[rpc] retry = 3s", "[channel] bucket"):
        assert f"# Not taken over: {where}: " in comments, where
    assert "# Not taken over: [channel] msgbuf.num = 30: " in comments
    for thing in ("tcp.advertise", "websocket.advertise", "[zookeeper] user and secret"):
        assert re.search(rf"^# To do: .*{re.escape(thing)}", comments, re.MULTILINE), thing
    assert "[rpc] secret" not in comments


@pytest.mark.parametrize(("number", "found"), [("120", 4096), ("121", 121)])
def test_what_the_originals_example_says_is_nobodys_choice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], number: str, found: int
) -> None:
    comet, comments = converted(tmp_path, "comet", f"[channel]\nmsgbuf.num {number}\n", capsys)
    assert comet.msgbuf_messages == found
    assert (f"# Not taken over: [channel] msgbuf.num = {number}: " in comments) == (found == 4096)


def test_every_ipv6_address_is_every_ipv4_address_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody can bind both at one port."""
    web, _ = converted(tmp_path, "web", "[base]\nhttp.bind 0.0.0.0:8090,[::]:8090,:8094,[::]:8093\n", capsys)
    assert web.http_bind == (*listeners("[::]:8090"), "tcp:8094", *listeners("[::]:8093"))


def test_a_message_nodes_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message, comments = converted(tmp_path, "message", MESSAGE, capsys)
    assert (message.storage, message.store.store, message.weight) == ("redis", 40, 3)
    assert message.redis.sources == (
        Source("node1", 1, "10.0.0.5", 6379, "", 's"cret,1'),
        Source("node2", 2, "", 0, "/run/redis.sock", None),
    )
    assert message.redis.timeout == 1
    assert message.zookeeper.message_path == "/old-messages"
    assert "hunter2" not in comments
    assert "cret" not in comments
    assert comments.count("Not taken over") == 4


def test_a_web_nodes_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    web, comments = converted(tmp_path, "web", WEB, capsys)
    assert web.http_bind == ("tcp:8090",)
    assert web.rpc.ping == 2
    assert "# Not taken over: [zookeeper] timeout: '30' is not a duration with a unit" in comments
    assert "# Not taken over: [base] http.servertimeout: [http] idle is how long " in comments
    assert "# Not taken over: [zookeeper] migrate.path: keys move by themselves" in comments
    assert "# Not taken over: [res] qqwry.path: gopush has no such option" in comments
    assert "# To do: set [admin] keys" in comments


@pytest.mark.parametrize("role", ["comet", "message"])
@pytest.mark.parametrize("option", ["[zookeeper]\nweight", "[base]\nnode.weight"])
def test_a_weight_wherever_it_stands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], role: str, option: str
) -> None:
    found, comments = converted(tmp_path, role, f"{option} 3\n", capsys)
    assert found.weight == 3
    assert "Not taken over" not in comments


def test_what_gopush_would_go_by_a_default_for_is_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "[base]\nrpc.bind *:24068\nstat.bind *:1\nstat.bind :24072\n[storage]\ntype mysql\n[zookeeper]\ntimeout 30\n"
    _, comments = converted(tmp_path, "message", text, capsys)
    assert "# To do: set [base] rpc.bind, until then it is localhost:8070 (see below)\n" in comments
    assert "# Not taken over: [base] rpc.bind: '*:24068' holds '*:24068', which is no Twisted endpoint" in comments
    assert "# To do: set [storage] type, until then it is redis (see below)\n" in comments
    assert "# To do: set [zookeeper] timeout, until then it is 30s (see below)\n" in comments
    assert "# To do: set [base] stat.bind" not in comments, "a later line was taken"
    assert "# To do: set [redis] source to a Redis of gopush's own: its default may be the old cluster's" in comments
    _, comments = converted(tmp_path, "message", MESSAGE, capsys)
    assert "# To do: set [redis] source to a Redis of gopush's own: it names the old cluster's" in comments


def test_an_ini_file_is_none_of_gopush_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, text in (("comet.ini", render(settings_of("comet"))), ("node1.ini", "; mine\n[base]\nuser=nobody\n")):
        (tmp_path / name).write_text(text)
        assert cli.main(["convert", str(tmp_path / name)]) == cli.REFUSED
        out, err = capsys.readouterr()
        assert out == ""
        assert f"{name}: this is a gopush ini file already" in err


@pytest.mark.parametrize("command", [["convert"], ["check", "-c"]])
def test_a_file_that_is_missing_is_said_to_be_missing_whatever_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    for path, why in ((tmp_path / "nothing", "No such file or directory"), (tmp_path, "Is a directory")):
        assert cli.main([*command, str(path)]) == cli.REFUSED
        assert capsys.readouterr().err == f"gopush: {path}: cannot be read: {why}\n"


def test_whose_it_is_and_that_it_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "mine.conf"
    mine.write_text("[base]\nnode.weight 2\n")
    assert cli.main(["convert", str(mine)]) == cli.REFUSED
    assert "use --role" in capsys.readouterr().err
    assert cli.main(["convert", "--role", "message", str(mine)]) == 0
    assert "\n[node]\nweight = 2\n" in capsys.readouterr().out
    assert cli.main(["convert", str(tmp_path / "web.conf")]) == cli.REFUSED
    assert "cannot be read: No such file" in capsys.readouterr().err


_NAMES = st.sampled_from(sorted({*RULES, *BY_ROLE})).map(lambda name: name.split()) | st.tuples(st.text(), st.text())
_VALUES = st.sampled_from(["1", "yes", "30s", ":PORT", "tcp@h:PORT#p", "a,b", '"', "[x]", "= ;"]) | st.text(max_size=30)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(ROLES), st.lists(st.tuples(_NAMES, _VALUES)))
def test_whatever_stands_in_it_what_comes_out_is_read(
    tmp_path_factory: pytest.TempPathFactory, role: str, lines: list[Any]
) -> None:
    ini = tmp_path_factory.getbasetemp() / "converted.ini"
    text = "".join(
        f"[{section}]\n{name} {value.replace('PORT', str(port))}\n"  # no two ports are the same: that is refused
        for port, ((section, name), value) in enumerate(lines, 1)
    )
    ini.write_text(convert(text, role, options(settings_of(role))), "utf-8")
    load(settings_of(role), ini)
