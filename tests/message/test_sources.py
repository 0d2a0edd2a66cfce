from __future__ import annotations

import pytest

from gopush.message.redis.settings import Source, sources


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("node1:1 tcp@localhost:6379", [Source("node1", 1, "localhost", 6379, "", None)]),
        ("a:2 tcp@10.0.0.1:1#pass#word,", [Source("a", 2, "10.0.0.1", 1, "", "pass#word")]),
        (
            r'a:1 tcp@h:1#"pa,ss \"word\\", b:1 unix@/x#"y"',
            [Source("a", 1, "h", 1, "", 'pa,ss "word\\'), Source("b", 1, "", 0, "/x", "y")],
        ),
        (
            "a:1 tcp@[::1]:6379, b:1000 unix@/run/redis.sock#x\n",
            [Source("a", 1, "::1", 6379, "", None), Source("b", 1000, "", 0, "/run/redis.sock", "x")],
        ),
    ],
)
def test_sources(value: str, expected: list[Source]) -> None:
    """protocol.md, section 9: node1:1 tcp@localhost:6379#password (name:weight)."""
    assert list(sources(value)) == expected


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", "names no Redis server"),
        ("node1 tcp@localhost:6379", "'node1 tcp@localhost:6379', which is not name:weight"),
        ("node1:0 tcp@localhost:6379", "which is not name:weight"),
        ("node1:1 tcp@localhost:0", "which is not"),
        ("node1:1 tcp@localhost:65536", "which is not"),
        ("node1:1 tcp@localhost", "which is not"),
        ("node1:1 udp@localhost:6379", "which is not"),
        (
            "node1:1 tcp@redis..example:6379",
            "holds 'node1:1 tcp@redis..example:6379': its host is not a valid host name",
        ),
        (f"node1:1 tcp@{'z' * 64}.example:6379", "is not a valid host name"),
        ("node1:1 rediss@.example:6379", "is not a valid host name"),
        (f"node1:1 tcp@{'z.' * 150}z:6379", "is not a valid host name"),
        (f"node1:1 tcp@{'ä' * 70}:6379", "holds as number 1 what is not shown: its host is not a valid host name"),
        ("node/1:1 tcp@localhost:6379", "is not a node name"),
        ("a:1 tcp@h:1, a:1 tcp@h:2", "gives two Redis servers the same name"),
    ],
)
def test_what_cannot_be_read_is_said(value: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        sources(value)


def test_no_password_is_ever_shown() -> None:
    with pytest.raises(ValueError, match="which is not") as refused:
        sources("node1:1 tcp@localhost#hunter2")
    assert "hunter2" not in str(refused.value)
    with pytest.raises(ValueError, match="not shown: its host") as refused:
        sources("node1:1 tcp@redis..example:6379#hunter2")
    assert "hunter2" not in str(refused.value)


def test_an_address_for_people() -> None:
    found = sources("a:1 tcp@h:1, b:1 unix@/x")
    assert [source.address for source in found] == ["h:1", "/x"]
