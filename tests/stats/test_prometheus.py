"""protocol.md, section 10: /metrics."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.chaos.cluster import Node
from tests.chaos.wire import Http, TcpDevice
from tests.integration.systems import embedded

MONITORING = Path(__file__).resolve().parents[2] / "docs" / "monitoring"
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
    assert moved("gopush_comet_connections_added_total") == 1
    assert moved("gopush_comet_messages_succeeded_total") == 5
    assert moved("gopush_comet_deliveries_total") == 5
    assert moved("gopush_message_saves_total") == 5
    assert moved("gopush_message_store_seconds_count{append}{sqlite}") == 5
    assert moved("gopush_message_append_batch_sum") == 5
    assert moved("gopush_web_pushes_total{0}") == 5
    assert moved("gopush_web_pushes_total{65534}") == 1
    assert moved("gopush_web_push_seconds_count") == 5
    assert moved("gopush_web_push_seconds_sum") > 0


def test_collections_of_the_garbage_collector_are_counted(node: Node) -> None:
    before = numbers(node)["gopush_gc_pause_seconds_count{0}"]
    deadline = time.monotonic() + 30
    while numbers(node)["gopush_gc_pause_seconds_count{0}"] == before:
        assert time.monotonic() < deadline


def test_all_names_are_ours_or_pythons(node: Node) -> None:
    for family in text_string_to_metric_families(text(node)):
        assert family.name.startswith(("gopush_", "python_gc_")), family.name
        assert family.documentation


def test_the_dashboard_and_the_alerts_ask_for_what_there_is(node: Node) -> None:
    shown = set(re.findall(r"^(gopush_\w+)", text(node), re.MULTILINE))
    panels = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    asked += re.findall(r"^ +expr: (.*)$", (MONITORING / "alerts.yml").read_text(), re.MULTILINE)
    assert len(asked) > 30
    for expression in asked:
        assert set(re.findall(r"gopush_\w+", expression)) <= shown, expression


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not here (Debian: prometheus)")
def test_promtool_has_nothing_to_say_against_them(node: Node) -> None:
    for arguments in (
        ["check", "metrics"],
        ["check", "rules", str(MONITORING / "alerts.yml")],
        ["test", "rules", ALERTS],
    ):
        done = subprocess.run(["promtool", *arguments], input=text(node), capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        assert not done.stderr, done.stderr


def test_every_alert_says_what_to_do() -> None:
    alerts = (MONITORING / "alerts.yml").read_text()
    assert alerts.count("- alert: ") == alerts.count(" summary: ") == alerts.count(" action: ") > 5
