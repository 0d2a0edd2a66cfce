"""protocol.md, section 10: /metrics."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

import gopush
from gopush.daemon.gc import THRESHOLDS
from tests.chaos.cluster import Node
from tests.chaos.wire import Http, TcpDevice
from tests.clients import opening
from tests.integration.systems import embedded
from tests.stats import table

MONITORING = Path(__file__).resolve().parents[2] / "docs" / "monitoring"
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())
ALERTS = str(Path(__file__).resolve().parent / "alerts.yml")


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with embedded() as system:
        yield system.webs[0]


def text(node: Node) -> str:
    with urllib.request.urlopen(f"http://{node.address('stat')}/metrics", timeout=30) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        read: str = answer.read().decode()
        return read


def numbers(node: Node) -> dict[str, float]:
    found = {}
    for family in text_string_to_metric_families(text(node)):
        for sample in family.samples:
            found[sample.name + "".join(f"{{{value}}}" for value in sample.labels.values())] = sample.value
    return found


def test_the_numbers_move_with_what_happens(node: Node) -> None:
    async def happen() -> None:
        device = await TcpDevice.open(node.address("tcp"), "k", None)
        assert await device.receive() == b"+h"
        http = Http(node.address("admin"))
        for _ in range(5):
            answer = await http.call("POST", "/1/admin/push/private", {"key": "k", "expire": 60}, b"1", 30)
            assert answer == {"ret": 0}
            assert json.loads(await device.receive())["msg"] == 1
        await http.call("POST", "/1/admin/push/private", {"key": "k", "expire": "x"}, b"1", 30)
        during.update(numbers(node))
        device.close()

    before = numbers(node)
    during: dict[str, float] = {}
    asyncio.run(happen())

    def moved(name: str) -> float:
        return during[name] - before[name]

    assert moved("gopush_comet_connections") == 1
    assert moved("gopush_comet_channels") == 1
    assert moved("gopush_comet_opened_connections_total{tcp}") == 1
    assert moved("gopush_comet_pushes_total{stored}") == 5
    assert moved("gopush_comet_deliveries_total") == 5
    assert moved("gopush_message_saves_total") == 5
    assert moved("gopush_message_store_seconds_count{append}{sqlite}") == 5
    assert moved("gopush_message_batch_messages_sum") == 5
    assert moved("gopush_web_pushes_total{0}") == 5
    assert moved("gopush_web_pushes_total{65534}") == 1
    assert moved("gopush_web_push_seconds_count") == 5
    assert moved("gopush_web_push_seconds_sum") > 0


def test_collections_of_the_garbage_collector_are_counted(node: Node) -> None:
    """A message of so many lists makes the collector look at the young ones while it is checked."""
    before = numbers(node)["gopush_gc_pause_seconds_count{0}"]
    lists = b"[%b]" % b",".join([b"[]"] * 2 * THRESHOLDS[0])
    url = f"http://{node.address('admin')}/1/admin/push/private?key=lists&expire=0"
    with urllib.request.urlopen(url, lists, timeout=30) as answer:
        assert answer.read() == b'{"ret":0}'
    assert numbers(node)["gopush_gc_pause_seconds_count{0}"] > before


def test_names_and_meanings_are_as_prometheus_has_them(node: Node) -> None:
    units = ("_seconds", "_bytes", "_messages", "_calls")
    for family in text_string_to_metric_families(text(node)):
        assert family.name.startswith(("gopush_", "process_", "python_")), family.name
        assert len(family.documentation) > 10, family.name
        if family.name.startswith("gopush_"):
            assert re.fullmatch(r"[A-Z0-9].*\.", family.documentation), family.name
        if family.type == "histogram" and not is_old(family):
            assert family.name.endswith(units), family.name
        names = {sample.name for sample in family.samples}
        assert all(name.endswith("_total") == (family.type == "counter") for name in names), family.name


def is_old(family: Metric) -> bool:
    return "this one goes with the next release" in family.documentation


def test_old_names_tell_the_same_for_a_release(node: Node) -> None:
    families = list(text_string_to_metric_families(text(node)))
    shown = {family.name: family for family in families if not family.name.startswith(("process_", "gopush_process_"))}
    old = [family for family in shown.values() if is_old(family)]
    assert len(old) >= 40
    for family in old:
        new, _, label = family.documentation.split(",")[0].removeprefix("As ").partition("{")
        samples = shown[new.removesuffix("_total")].samples
        if value := label[:-1].partition("=")[2].strip('"'):
            samples = [sample for sample in samples if value in sample.labels.values()]
        for suffix in ("_count", "_sum") if family.type == "histogram" else ("",):
            sums = [sum(one.value for one in each if one.name.endswith(suffix)) for each in (samples, family.samples)]
            assert sums[0] == sums[1], family.name
    process = {family.name for family in families if family.name.startswith("process_")}
    assert {f"gopush_{name}" for name in process} < {family.name for family in families}


def test_connections_are_counted_by_transport_and_bytes_in_both_directions(node: Node) -> None:
    async def happen() -> None:
        device = await TcpDevice.open(node.address("tcp"), "t", None)
        assert await device.receive() == b"+h"
        with contextlib.closing(subscribed(node.address("websocket"), "t")) as browser:
            http = Http(node.address("admin"))
            body = b"%d" % 10**99
            await http.call("POST", "/1/admin/push/private", {"key": "t", "expire": 60}, body, 30)
            assert body in await device.receive()
            assert body in browser.recv(1000)
            during.update(numbers(node))
        device.close()

    before = numbers(node)
    during: dict[str, float] = {}
    asyncio.run(happen())

    def moved(name: str) -> float:
        return during[name] - before[name]

    for transport, number in (("tcp", 1), ("websocket", 1), ("sse", 0)):
        assert moved(f"gopush_comet_open_connections{{{transport}}}") == number
        assert moved(f"gopush_comet_opened_connections_total{{{transport}}}") == number
    assert moved("gopush_comet_connections") == 2
    assert 200 < moved("gopush_comet_sent_bytes_total") < 400
    assert 100 < moved("gopush_comet_received_bytes_total") < 500
    assert moved("gopush_http_received_bytes_total{admin}") > 100
    assert moved("gopush_http_sent_bytes_total{admin}") > 100


def subscribed(address: str, key: str) -> socket.socket:
    """A WebSocket that has its subscription."""
    host, _, port = address.rpartition(":")
    browser = socket.create_connection((host, int(port)), timeout=30)
    browser.sendall(opening(f"/sub?key={key}&heartbeat=30&ver=1"))
    came = b""
    while not came.endswith(b"+h\r\n"):
        came += browser.recv(1000)
    return browser


def test_requests_are_counted_by_route_and_status_whatever_strangers_ask_for(node: Node) -> None:
    def ask(target: bytes, method: bytes = b"GET") -> bytes:
        host, _, port = node.address("http").rpartition(":")
        with socket.create_connection((host, int(port)), timeout=30) as client:
            client.sendall(b"%b %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % (method, target))
            return client.makefile("rb").read()

    before = numbers(node)
    assert ask(b"/1/server/get?k=k&p=1").startswith(b"HTTP/1.1 200")
    assert ask(b"/1/server/%67et?k=k&p=1").startswith(b"HTTP/1.1 200")
    assert ask(b"/1/server/get", b"PUT").startswith(b"HTTP/1.1 405")
    for number in range(20):
        assert ask(b"/%d" % number).startswith(b"HTTP/1.1 404")
    assert ask(b"/" + b"x" * 20000).startswith(b"HTTP/1.1 414")
    after = numbers(node)

    def moved(route: str, status: int) -> float:
        name = f"gopush_http_requests_total{{http}}{{{route}}}{{{status}}}"
        return after[name] - before.get(name, 0)

    assert moved("/1/server/get", 200) == 2
    assert moved("/1/server/get", 405) == 1
    assert moved("", 404) == 20
    assert moved("", 414) == 1
    assert not [name for name in after if "{/3}" in name]


def test_what_runs_is_shown(node: Node) -> None:
    (shown,) = re.findall(r"^gopush_build_info\{(.*)\} 1\.0$", text(node), re.MULTILINE)
    assert f'version="{gopush.__version__}"' in shown.split(",")


def test_the_page_of_all_metrics_is_as_the_code_has_them() -> None:
    assert table.DOCUMENT.read_text() == table.document(), f"run {table.COMMAND}"


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = DASHBOARD["panels"]
    return [panel for panel in found if panel["type"] != "row"]


def expressions() -> list[str]:
    """Those of the dashboard, with something in the place of its variables, and those of the alerts."""
    asked = [target["expr"] for panel in panels() for target in panel["targets"]]
    asked = [expression.replace("$__rate_interval", "1m").replace("$", "") for expression in asked]
    return asked + re.findall(r"^ +expr: (.*)$", (MONITORING / "alerts.yml").read_text(), re.MULTILINE)


def test_the_dashboard_and_the_alerts_ask_for_what_there_is_and_stays(node: Node) -> None:
    families = [family for family in text_string_to_metric_families(text(node)) if not is_old(family)]
    shown = {sample.name for family in families for sample in family.samples}
    shown |= {f"{family.name}_total" for family in families if family.type == "counter"}
    shown |= {family.name for family in families if family.type == "gauge"}  # of certificates, where it uses some
    asked = expressions()
    assert len(asked) > 60
    for expression in asked:
        assert set(re.findall(r"\b(?:gopush|process)_\w+", expression)) <= shown, expression


def test_the_dashboard_is_in_rows_says_what_it_shows_and_can_be_narrowed() -> None:
    assert [panel["type"] for panel in DASHBOARD["panels"]].count("row") > 5
    assert DASHBOARD["panels"][0]["type"] == "row"
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables.keys() == {"source", "job", "instance"}
    assert 'job=~"$job"' in variables["instance"]["definition"]
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for panel in panels():
        assert len(panel["description"]) > 10, panel["title"]
        for target in panel["targets"]:
            names = re.findall(r"\b(?:gopush|process)_\w+|\bup\b", target["expr"])
            assert target["expr"].count('job=~"$job", instance=~"$instance"') == len(names) > 0, panel["title"]


def test_prometheus_yml_is_right_for_one_process_as_it_stands_and_for_roles_without_its_hashes() -> None:
    def targets(config: str) -> dict[str, str]:
        return dict(re.findall(r'^  - job_name: (\S+)\n +static_configs: \[\{targets: \["(\S+)"\]\}\]$', config, re.M))

    config = (MONITORING / "prometheus.yml").read_text()
    assert targets(config) == {"gopush": defaults("gopush")}
    roles = targets(re.sub(r"^  # (?=- job_name|  static)", "  ", config, flags=re.MULTILINE))
    assert roles == {"gopush": defaults("gopush")} | {
        f"gopush-{role}": defaults(role) for role in ("comet", "message", "web")
    }


def defaults(role: str) -> str:
    """Where its statistics port is, as etc/ has it."""
    (bind,) = re.findall(r"^stat.bind = (.*)$", (MONITORING.parents[1] / "etc" / f"{role}.ini").read_text(), re.M)
    return str(bind)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not here (Debian: prometheus)")
def test_promtool_has_nothing_to_say_against_them(node: Node, tmp_path: Path) -> None:
    shown = "\n\n".join(f"# {block}" for block in text(node).split("# ") if "python_" not in block)
    rules = [{"record": f"expression:{number}", "expr": asked} for number, asked in enumerate(expressions())]
    (tmp_path / "dashboard.yml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    for arguments in (
        ["check", "metrics"],
        ["check", "config", str(MONITORING / "prometheus.yml")],
        ["check", "rules", str(MONITORING / "alerts.yml")],
        ["check", "rules", str(tmp_path / "dashboard.yml")],
        ["test", "rules", ALERTS],
    ):
        done = subprocess.run(["promtool", *arguments], input=shown, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        assert not done.stderr, done.stderr


def test_no_alert_comes_when_what_it_tells_of_is_over() -> None:
    """A rate shows a burst for as long as its window: what holds for no longer than that may have been one."""
    alerts = (MONITORING / "alerts.yml").read_text().split("- alert: ")[1:]
    rates = [(re.findall(r"\brate\(.*?\[(\d+)m", alert), re.findall(r" for: (\d+)", alert)) for alert in alerts]
    assert sum(bool(windows) for windows, _ in rates) > 8
    for alert, (windows, (holds,)) in zip(alerts, rates, strict=True):
        assert all(int(window) < int(holds) for window in windows), alert


def test_every_alert_says_what_to_do() -> None:
    alerts = (MONITORING / "alerts.yml").read_text()
    assert alerts.count("- alert: ") == alerts.count(" summary: ") == alerts.count(" action: ") > 5
