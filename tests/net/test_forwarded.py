"""Whose request it is, as trusted proxies say."""

from __future__ import annotations

import pytest

from gopush.config import values
from gopush.net.forwarded import client, trusted

PROXIES = ("10.0.0.0/8", "2001:db8:ffff::/48", "127.0.0.1")
PEER = "10.0.0.1"


@pytest.mark.parametrize(
    ("hops", "found"),
    [
        (b"203.0.113.7", "203.0.113.7"),
        (b"203.0.113.7:4711", "203.0.113.7"),
        (b"192.0.2.66, 203.0.113.7", "203.0.113.7"),
        (b"192.0.2.66, 203.0.113.7 , 10.1.2.3,\t127.0.0.1", "203.0.113.7"),
        (b"nonsense, 203.0.113.7", "203.0.113.7"),
        (b"10.9.9.9, 10.1.2.3", "10.9.9.9"),
        (b"2001:db8::1", "2001:db8::1"),
        (b"[2001:db8::1]:80, 2001:db8:ffff::1", "2001:db8::1"),
        (b"::ffff:203.0.113.7", "203.0.113.7"),
        (b"", PEER),
        (b"203.0.113.7,", PEER),
        (b"unknown", PEER),
        (b"203.0.113.7:x", PEER),
        (b"203.0.113.7:123456", PEER),
        (b"[2001:db8::1", PEER),
        (b"[2001:db8::1]80", PEER),
        (b"203.0.113.7 10.1.2.3", PEER),
        (b"\xff", PEER),
    ],
)
def test_the_last_hop_that_is_not_trusted_counts(hops: bytes, found: str) -> None:
    assert client({b"x-forwarded-for": hops}, PEER, PROXIES) == found


@pytest.mark.parametrize(
    ("hops", "found"),
    [
        (b"for=203.0.113.7", "203.0.113.7"),
        (b'proto=https; For="203.0.113.7:4711";by=10.0.0.1', "203.0.113.7"),
        (b'for=192.0.2.66, for="[2001:db8::1]:80";proto=http, for=10.1.2.3', "2001:db8::1"),
        (b'for=" , for=203.0.113.7', "203.0.113.7"),
        (b"for=unknown", PEER),
        (b"for=_hidden", PEER),
        (b"for=203.0.113.7, proto=http", PEER),
        (b'for="203.0.113.7', PEER),
        (b"203.0.113.7", PEER),
    ],
)
def test_rfc_7239_says_the_same(hops: bytes, found: str) -> None:
    assert client({b"forwarded": hops}, PEER, PROXIES) == found


def test_nobody_else_is_believed() -> None:
    headers = {b"x-forwarded-for": b"203.0.113.7", b"forwarded": b"for=203.0.113.7"}
    for peer in ("192.0.2.1", "", "11.0.0.1", "2001:db8::1"):
        assert client(headers, peer, PROXIES) == peer
    assert client(headers, PEER, ()) == PEER
    assert client(headers, "", ("unix",)) == "203.0.113.7"


def test_what_a_client_made_itself_does_not_come_before_what_its_proxy_said() -> None:
    headers = {b"x-forwarded-for": b"203.0.113.7", b"forwarded": b"for=192.0.2.66"}
    assert client(headers, PEER, PROXIES) == "203.0.113.7"


def test_thousands_of_hops_are_not_looked_at() -> None:
    assert client({b"x-forwarded-for": b"203.0.113.7" + b",10.0.0.2" * 5000}, PEER, PROXIES) == "10.0.0.2"


def test_networks_and_addresses_are_trusted() -> None:
    assert [trusted(PROXIES, address) for address in ("10.255.0.1", "127.0.0.1", "127.0.0.2", "::ffff:10.0.0.1")] == [
        *(True, True, False, True)
    ]
    assert values.proxies("10.0.0.7, 2001:db8::/32 unix") == ("10.0.0.7/32", "2001:db8::/32", "unix")
    assert values.proxies("") == ()
    with pytest.raises(ValueError, match=r"'10\.0\.0\.7/8', which has bits behind the network"):
        values.proxies("10.0.0.7/8")
    with pytest.raises(ValueError, match="'balancer', which is no address or network"):
        values.proxies("10.0.0.7 balancer")
