"""docs/balancers.md's configurations, before two members that are killed and restarted, one by one and then both: all
arrives once, in order.

Who receives: a page of another origin (the browser's own EventSource in two lines, gopush.js in five), Node, and the
Python client.
"""

from __future__ import annotations

import configparser
import itertools
import json
import os
import re
import shutil
import ssl
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from gopush_client import Subscriber
from tests.browser.browser import Browser
from tests.chaos.cluster import ALONE, Cluster, Node
from tests.clients_js.pages import site
from tests.event_source import wait_for
from tests.integration.systems import settle
from tests.integration.test_balancers import GOPUSH, HAPROXY, LISTENED, NGINX, NGINX_STREAM
from tests.servers import free_port
from tests.servers.authority import Authority
from tests.servers.balancers import STREAM, haproxy, nginx

pytestmark = pytest.mark.skipif(
    not (shutil.which("haproxy") and shutil.which("nginx") and STREAM.exists()),
    reason="wants haproxy, nginx-light, libnginx-mod-stream",
)

KEY = "page"
PAGE = """<!doctype html>
<title>somebody's</title>
<link rel="icon" href="data:,">
<script src="@NAMED@/gopush.js"></script>
<script>
  window.got = {};
  window.live = {};
  window.said = [];
  window.failed = {};
  function watch(name, url, transport) {
    got[name] = [];
    if (transport) {
      const onMessage = ({ msg, mid }) => got[name].push([msg.n, mid]);
      const onState = (state, why) => {
        live[name] = state === "live";
        said = [...said.slice(-30), `${name} ${state} ${why} ${Math.round(performance.now() / 1000)} s`];
      };
      gopush.subscribe(url, "page", { transport, onMessage, onState });
    } else {
      const events = new EventSource(`${url}/sub?key=page&heartbeat=30`);
      events.onmessage = event => got[name].push([JSON.parse(event.data).msg.n, event.lastEventId]);
      events.onopen = () => { live[name] = true; };
      failed[name] = 0;
      events.onerror = () => {
        live[name] = events.readyState === 2 ? "given up" : false;
        failed[name]++;
      };
    }
  }
  for (const [balancer, url] of Object.entries(@URLS@)) {
    watch(`EventSource, ${balancer}`, url);
    watch(`sse, ${balancer}`, url, "sse");
  }
  watch("ws", "@NAMED@", "ws");
</script>
"""


class Publisher:
    """Pushes numbers, one after the other, through any member; each until it is acknowledged."""

    def __init__(self, cluster: Cluster) -> None:
        self.pushed: list[list[Any]] = []
        self._admins = itertools.cycle([node.address("admin") for node in cluster.nodes.values()])
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> list[list[Any]]:
        self._over.set()
        self._thread.join(60)
        return self.pushed

    def _run(self) -> None:
        for number in itertools.count():
            while (mid := self._push(number)) is None:
                self._over.wait(0.05)
            self.pushed.append([number, mid])
            if self._over.wait(0.05):
                return

    def _push(self, number: int) -> str | None:
        url = f"http://{next(self._admins)}/1/admin/push/private?key={KEY}&expire=600&mid=1&id=n{number}"
        request = urllib.request.Request(url, json.dumps({"n": number}).encode())
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                said = json.load(answer)
        except OSError:
            return None
        return str(said["data"]["mid"]) if said["ret"] == 0 else None


class Balanced:
    """Two members behind both balancers; `named`: the one that look-ups name."""

    def __init__(self, named: str) -> None:
        self.cluster = Cluster(members=ALONE)
        del self.cluster.nodes["member-3"]
        self.members = list(self.cluster.nodes.values())
        self.directory = self.cluster.directory
        self.authority = Authority(self.directory)
        issued = self.authority.issue("push")
        (self.directory / "push.pem").write_bytes(issued.certificate.read_bytes() + issued.key.read_bytes())
        self.ports = {balancer: {port: free_port() for port in LISTENED} for balancer in ("haproxy", "nginx")}
        for node, (websocket, tcp) in zip(self.members, ((6968, 6969), (6978, 6979)), strict=True):
            node.set(self._settings(node, self.ports[named][websocket], self.ports[named][tcp]))
        self.urls = {balancer: f"https://localhost:{ports[443]}" for balancer, ports in self.ports.items()}
        self.named = self.urls[named]

    @contextmanager
    def running(self) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(self.cluster.running())
            self.settle()
            ports = self.ports["nginx"]
            http, stream = self._placed(NGINX, "nginx"), self._placed(NGINX_STREAM, "nginx")
            stack.enter_context(nginx(http, stream, *ports.values()))
            stack.enter_context(haproxy(self._placed(HAPROXY, "haproxy"), *self.ports["haproxy"].values()))
            yield

    def settle(self) -> None:
        settle(self.members, comets=2, messages=2)

    def holder(self) -> Node:
        """The member that has the key."""
        for node in self.members:
            url = f"http://{node.address('stat')}/stat?type=channel&key={KEY}"
            with urllib.request.urlopen(url, timeout=10) as answer:
                if json.load(answer)["channel"]["conn"]:
                    return node
        raise AssertionError("nobody has it")

    def _settings(self, node: Node, websocket: int, tcp: int) -> dict[str, dict[str, str]]:
        """Those of docs/balancers.md, on ports of this test."""
        parser = configparser.ConfigParser(delimiters=("=",))
        parser.read_string(GOPUSH.replace("10.0.0.7", "127.0.0.1"))
        found = {section: dict(parser[section]) for section in parser.sections()}
        bound = {"8090": node.ports["http"], "6968": node.ports["websocket"], "6969": node.ports["tcp"]}
        base = {
            name: re.sub(r"tcp:(\d+)", lambda at: f"tcp:{bound[at[1]]}:interface=127.0.0.1", value)
            for name, value in found["base"].items()
        }
        base |= {"websocket.advertise": f"localhost:{websocket}", "tcp.advertise": f"localhost:{tcp}"}
        return {**found, "base": base}

    def _placed(self, block: str, balancer: str) -> str:
        """A configuration of docs/balancers.md, on ports of this test."""
        for host, node in zip(("10.0.0.2", "10.0.0.3"), self.members, strict=True):
            for port, name in (("8090", "http"), ("6968", "websocket"), ("6969", "tcp")):
                block = block.replace(f"{host}:{port}", node.address(name))
        listen = self.ports[balancer]
        block = re.sub(r"(bind :|listen )(\d+)", lambda at: f"{at[1].rstrip(':')}127.0.0.1:{listen[int(at[2])]}", block)
        return re.sub(r"/etc/(?:haproxy|nginx)/push", str(self.directory / "push"), block)


class Receivers:
    """All who have subscribed, by name, and what they got: a list of [number, mid] each."""

    def __init__(self, page: Browser, stack: ExitStack, balanced: Balanced) -> None:
        self._page = page
        self._got: dict[str, list[list[Any]]] = {"python": []}
        self._live: set[str] = set()
        context = ssl.create_default_context(cafile=balanced.authority.path)
        subscriber = Subscriber(
            balanced.named, KEY, context=context, comet_tls=False, on_state=lambda state, _: self._say("python", state)
        )
        stack.callback(subscriber.close)
        threading.Thread(target=self._receive, args=(subscriber,), daemon=True).start()
        if shutil.which("node"):
            self._got["node"] = []
            receive = Path(__file__).resolve().parents[1] / "clients_js" / "receive.mjs"
            node = subprocess.Popen(
                ["node", str(receive), balanced.named, KEY, "{}"],
                env={**os.environ, "NODE_EXTRA_CA_CERTS": str(balanced.authority.path)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.callback(node.kill)
            threading.Thread(target=self._read, args=(node,), daemon=True).start()

    def _say(self, name: str, state: str) -> None:
        if state == "live":
            self._live.add(name)

    def _receive(self, subscriber: Subscriber) -> None:
        for message in subscriber:
            self._got["python"].append([message.data["n"], str(message.mid)])

    def _read(self, node: subprocess.Popen[str]) -> None:
        assert node.stdout is not None
        for line in node.stdout:
            said = json.loads(line)
            if isinstance(said, str):
                self._say("node", said)
            else:
                self._got["node"].append(said)

    def live(self) -> bool:
        """Whether all have been live."""
        states = self._page.driver.execute_script("return live")
        return self._live == set(self._got) and len(states) == 5 and all(states.values())

    def failed(self) -> int:
        """How often each of the browser's own EventSources has failed, or the one that has failed least."""
        return int(min(self._page.driver.execute_script("return Object.values(failed)")))

    def got(self) -> dict[str, list[list[Any]]]:
        return {**self._got, **json.loads(self._page.driver.execute_script("return JSON.stringify(got)"))}

    def wait_for(self, count: int, when: str) -> None:
        """Until all have so many."""
        try:
            wait_for(lambda: all(len(messages) >= count for messages in self.got().values()))
        except AssertionError:
            counts = {name: len(messages) for name, messages in self.got().items()}
            live, said = self._page.driver.execute_script("return [live, said]")
            console = self._page.complaints()[-8:]
            raise AssertionError(f"{when}: not all have {count}: {counts}; {live}; {said}; {console}") from None


def receive_all(page: Browser, named: str, *, origins: bool, whole: bool) -> None:
    """`origins`: whether the members list the page's. `whole`: each is killed, and then restarted; else one of each.
    Then both are killed.
    """
    balanced = Balanced(named)
    html = PAGE.replace("@NAMED@", balanced.named).replace("@URLS@", json.dumps(balanced.urls))
    page.driver.execute_cdp_cmd("Security.setIgnoreCertificateErrors", {"ignore": True})
    with ExitStack() as stack:
        origin = stack.enter_context(site(html))
        if origins:
            for node in balanced.members:
                node.set({"connections": {"origins": origin}})
        stack.enter_context(balanced.running())
        page.driver.get(origin)
        stack.callback(page.driver.get, "about:blank")
        receivers = Receivers(page, stack, balanced)
        wait_for(receivers.live)
        publisher = Publisher(balanced.cluster)
        stack.callback(publisher.stop)
        receivers.wait_for(10, "at first")
        first = balanced.holder()
        second = next(node for node in balanced.members if node is not first)
        ends = [*((node, "kill") for node in (first, second)), *((node, "stop") for node in (first, second))]
        for node, end in ends if whole else ((first, "kill"), (second, "stop")):
            getattr(node, end)()
            receivers.wait_for(len(publisher.pushed) + 20, f"after the {end} of {node.name}")
            node.start()
            balanced.settle()
        failed = receivers.failed()
        for node in balanced.members:
            node.kill()
        wait_for(lambda: receivers.failed() >= failed + 2)  # the streams ended, and nobody was there
        for node in balanced.members:
            node.start()
        balanced.settle()
        receivers.wait_for(len(publisher.pushed) + 20, "after the kill of both")
        pushed = publisher.stop()
        receivers.wait_for(len(pushed), "in the end")
        for name, messages in receivers.got().items():
            assert messages == pushed, name


def test_all_arrives_through_a_kill_and_a_restart(page: Browser) -> None:
    receive_all(page, "haproxy", origins=True, whole=False)


@pytest.mark.slow
@pytest.mark.parametrize("origins", [False, True])
@pytest.mark.parametrize("named", ["haproxy", "nginx"])
def test_all_arrives_through_kills_and_a_rolling_restart(page: Browser, named: str, origins: bool) -> None:
    receive_all(page, named, origins=origins, whole=True)
