"""When a comet has a port for web nodes alone, and what cannot be one (integration/test_feed_port.py subscribes)."""

from __future__ import annotations

from pathlib import Path

import pytest

from gopush.client import cli
from gopush.comet.feed_port import wanted
from gopush.comet.settings import SubscriberSettings
from gopush.config.values import listeners
from gopush.daemon.listeners import beside
from gopush.net.limits import ConnectionSettings

TLS = listeners("localhost:6969 ssl:6969:privateKey=k")


@pytest.mark.parametrize(
    ("settings", "is_wanted"),
    [
        (SubscriberSettings(), False),
        (SubscriberSettings(proto=("tcp",)), False),
        (SubscriberSettings(tcp_bind=("systemd:domain=INET:index=0",)), False),
        (SubscriberSettings(proto=("websocket",)), True),
        (SubscriberSettings(tcp_bind=TLS), True),
        (SubscriberSettings(tcp_bind=("haproxy:tcp:6969",)), True),
        (SubscriberSettings(connections=ConnectionSettings(most_of_address=1)), True),
        (SubscriberSettings(feed_bind=listeners("localhost:6971")), True),
    ],
)
def test_it_is_there_where_that_of_clients_is_no_good(settings: SubscriberSettings, is_wanted: bool) -> None:
    assert wanted(settings) is is_wanted


def test_it_is_beside_that_of_calls() -> None:
    assert beside(listeners("localhost:6970")) == ("tcp:0:interface=127.0.0.1:backlog=4096",)
    assert beside(listeners("[::1]:6970")) == ("tcp6:0:interface=\\:\\:1:backlog=4096",)
    assert beside(listeners("systemd:domain=INET:index=0 tcp:6970")) == ("tcp:0:interface=:backlog=4096",)
    assert beside(()) == ()


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ("feed.bind = ssl:6971:privateKey=k", "[base] feed.bind: ssl:6971:privateKey=k: write tcp:; [rpc] tls.ca"),
        ("feed.bind = haproxy:tcp:6971", "[base] feed.bind: haproxy:tcp:6971: write tcp:"),
        ("feed.bind = 0.0.0.0:6971", "[base] feed.bind: tcp:6971:interface=0.0.0.0"),
    ],
)
def test_check_says_what_cannot_be_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: str, complaint: str
) -> None:
    ini = tmp_path / "comet.ini"
    ini.write_text(f"[base]\nuser =\n{lines}\n")
    assert cli.main(["check", "-c", str(ini)]) == cli.REFUSED
    assert complaint in capsys.readouterr().err
