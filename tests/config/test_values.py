from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gopush.config import values

MANY = values.count()
FEW = values.count(1, 10)
ONE = values.one_of("redis", "sqlite")
SOME = values.some_of("tcp", "websocket")


@pytest.mark.parametrize(
    ("parse", "value", "found"),
    [
        (values.text, "", ""),
        (values.text, "any = thing", "any = thing"),
        (values.duration, "30s", 30),
        (values.duration, "1.5 h", 5400),
        (values.duration, "250ms", 0.25),
        (values.duration, "30d", 30 * 86400),
        (values.duration, "2m", 120),
        (values.size, "0", 0),
        (values.size, "256", 256),
        (values.size, "64 KiB", 65536),
        (values.size, "2MiB", 2**21),
        (values.size, "1GiB", 2**30),
        (values.size, "7B", 7),
        (MANY, "0", 0),
        (MANY, "2147483647", 2**31 - 1),
        (FEW, "1", 1),
        (FEW, "10", 10),
        (values.switch, "yes", True),
        (values.switch, "On", True),
        (values.switch, "TRUE", True),
        (values.switch, "1", True),
        (values.switch, "no", False),
        (values.switch, "off", False),
        (values.switch, "false", False),
        (values.switch, "0", False),
        (ONE, "sqlite", "sqlite"),
        (SOME, "tcp,websocket", ("tcp", "websocket")),
        (SOME, " websocket , tcp ", ("websocket", "tcp")),
        (SOME, "tcp", ("tcp",)),
        (values.node_name, "node-1.a_b", "node-1.a_b"),
        (values.node_name, "...", "..."),
        (values.addresses, "", ()),
        (values.addresses, "a.example:1, [::1]:2\n10.0.0.1:65535", ("a.example:1", "[::1]:2", "10.0.0.1:65535")),
        (values.host_names, "A.example, b.\nlocalhost", ("a.example", "b.", "localhost")),
        (values.origins, "https://a.example:65535 NULL", ("https://a.example:65535", "null")),
        (values.listeners, "", ()),
        (values.listeners, "localhost:6969", ("tcp:6969:interface=127.0.0.1",)),
        (values.listeners, "0.0.0.0:0", ("tcp:0:interface=0.0.0.0",)),
        (values.listeners, "[::1]:80", ("tcp6:80:interface=\\:\\:1",)),
        (
            values.listeners,
            "tcp:80\nunix:/run/s  10.0.0.1:1",
            ("tcp:80", "unix:/run/s", values.listeners("10.0.0.1:1")[0]),
        ),
        (values.listeners, "ssl:443:privateKey=k.pem", ("ssl:443:privateKey=k.pem",)),
    ],
)
def test_reads(parse: Callable[[str], Any], value: str, found: Any) -> None:
    assert parse(value) == found


@pytest.mark.parametrize(
    ("parse", "value"),
    [
        *((values.duration, value) for value in ("", "30", "s", "-1s", "0s", "1e3s", "1 parsec", "40000d", "٣s")),
        *((values.size, value) for value in ("", "-1", "1.5MiB", "1MB", "1 k", "1024GiB", "9" * 40, "٣")),
        *((MANY, value) for value in ("", "-1", "+1", "1.0", "1_0", "2147483648", "9" * 40, "٣")),
        *((FEW, value) for value in ("0", "11")),
        *((values.switch, value) for value in ("", "maybe", "2")),
        *((ONE, value) for value in ("", "Redis", "mysql")),
        *((SOME, value) for value in ("", "udp", "tcp udp", ",")),
        *((values.node_name, value) for value in ("", "a/b", "a b", "ä", "n" * 65, ".", "..")),
        *((values.addresses, value) for value in ("host", "host:", ":1", "host:0", "host:65536", "::1:80", "a:1;b:2")),
        *((values.addresses, value) for value in ("a_b..c:1", ".c:1", "z" * 64 + ".c:1")),
        *((values.listeners, value) for value in ("a_b..c:1", ".c:1", "z" * 64 + ".c:1", "z." * 150 + "z:1")),
        *((values.origins, f"https://a.example:{port}") for port in ("0", "65536", "99999")),
        *((values.host_names, value) for value in ("a_b..c", ".c", "z" * 64 + ".c", "z." * 150 + "z")),
        *(
            (values.listeners, value)
            for value in ("tcp:65536", "tcp6:port=99999", "ssl:65536:privateKey=k", "haproxy:tcp:65536")
        ),
        *((values.listeners, value) for value in ("6969", "tcp", "tcp:", "nothing", "host:65536", "*:80", "udp:1:2")),
    ],
)
def test_refuses_and_says_what_would_be_right(parse: Callable[[str], Any], value: str) -> None:
    with pytest.raises(ValueError, match=r"^(is|holds) .{10}"):
        parse(value)
