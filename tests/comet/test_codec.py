"""protocol.md, section 1: the request, byte by byte, and what its arguments may be."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gopush import model
from gopush.comet.codec import MAX_LINE_BYTES, SubRequest, parse_subscribe, whole
from gopush.comet.session import State
from gopush.comet.tcp import TcpFactory
from gopush.errors import ParameterError
from gopush.model import MAX_CURSOR, Subscribe, subscribe
from tests.clients import request
from tests.comet.harness import World
from tests.fuzz.targets import _Transport

EXAMPLE = b"*5\r\n$3\r\nsub\r\n$9\r\nTerry-Mao\r\n$2\r\n30\r\n$5\r\ntoken\r\n$5\r\n1.0.5\r\n"
VALID = [
    (b"sub", b"k", b"30"),
    (b"sub", b"Terry-Mao", b"30", b"token"),
    (b"sub", b"Terry-Mao", b"30", b"token", b"1.0.5"),
    (b"sub", b"Terry-Mao", b"30", b"token", b"1.0.5", b"17000000000000016"),
    (b"sub", "ключ-日本-😀".encode(), b"86400", b"", b"", b"0"),
    (b"sub", b"a\rb", b"$1 *3\r"),  # what an argument holds is not the framing's business, but for line ends
    (b"sub", b"k" * 255, b"3" * 32, b"t" * 4096, b"v" * 64, b"1" * 32),
]

Outcome = tuple[list[bytes], bytes] | None


def in_lines(data: bytes) -> Outcome:
    """The arguments and what follows them, line by line; None: more bytes are wanted."""
    request = SubRequest()
    while b"\n" in data:
        line, data = data.split(b"\n", 1)
        arguments = request.take(line)
        if arguments is not None:
            return arguments, data
    if not request.begins(data):
        raise ParameterError("no beginning")
    return None


def refused_at(data: bytes) -> int | None:
    """After which byte the request is refused, where they come one at a time."""
    for end in range(len(data) + 1):
        try:
            if in_lines(data[:end]) is not None:
                return None
        except ParameterError:
            return end - 1
    return None


def test_the_example_of_the_protocol() -> None:
    arguments, rest = whole(EXAMPLE) or ([], b"")
    assert parse_subscribe(arguments) == Subscribe("Terry-Mao", 30, "token", "1.0.5", None)
    assert rest == b""


@pytest.mark.parametrize("rest", [b"", b"hhh", b"\r\n", b"*3\r\n$3\r\nsub\r\n"])
@pytest.mark.parametrize("arguments", VALID, ids=range(len(VALID)))
def test_a_request_is_read_in_lines_or_in_one_piece(arguments: tuple[bytes, ...], rest: bytes) -> None:
    """Heartbeats may arrive right behind `sub` in the same segment."""
    data = request(*arguments) + rest
    assert in_lines(data) == whole(data) == (list(arguments), rest)


@pytest.mark.parametrize("arguments", VALID, ids=range(len(VALID)))
def test_no_beginning_of_a_request_is_refused(arguments: tuple[bytes, ...]) -> None:
    data = request(*arguments)
    for end in range(len(data)):
        assert in_lines(data[:end]) is None
        assert whole(data[:end]) is None


@pytest.mark.parametrize("count", [3, 4, 5, 6])
def test_three_to_six_elements(count: int) -> None:
    arguments = [b"sub", b"k", b"30", b"t", b"1", b"16"][:count]
    assert in_lines(request(*arguments)) == (arguments, b"")


@pytest.mark.parametrize(
    ("packet", "index"),
    [
        # wrong prefix
        (b"sub k 30\r\n", 0),
        (b"GET /sub HTTP/1.1\r\n", 0),
        (b"\r\n*3\r\n", 0),
        (b"\x00", 0),
        (b"h", 0),
        (b"*3\r\n*", 4),
        (b"*3\r\n3\r\n", 4),
        (b"*3\r\n$3\r\nsub\r\n*", 13),
        # N outside the range, or no number
        (b"*0\r\n", 1),
        (b"*1\r\n", 1),
        (b"*2\r\n$3\r\n", 1),
        (b"*7\r\n", 1),
        (b"*9", 1),
        (b"*33", 2),
        (b"*03\r\n", 1),
        (b"*-1\r\n", 1),
        (b"*+3\r\n", 1),
        (b"* 3\r\n", 1),
        (b"*\r\n", 1),
        (b"*3 \r\n", 2),
        ("*٣\r\n".encode(), 1),
        # no CRLF
        (b"*3\n", 2),
        (b"*3\r\r\n", 3),
        (b"*3\r$", 3),
        (b"*3\r\n$3\n", 6),
        (b"*3\r\n$3\rs", 7),
        (b"*3\r\n$3\r\nsub\n", 11),
        (b"*3\r\n$3\r\nsub\r$", 12),
        # a length that is no number, too big, or not what follows
        (b"*3\r\n$-1\r\n", 5),
        (b"*3\r\n$\r\n", 5),
        (b"*3\r\n$x\r\n", 5),
        (b"*3\r\n$ 3\r\n", 5),
        (b"*3\r\n$+3\r\n", 5),
        (b"*3\r\n$3x", 6),
        (b"*3\r\n$3.0", 6),
        (b"*3\r\n$9\r\n", 5),
        (b"*3\r\n$99999999999999999999", 5),
        (b"*3\r\n$000003", 10),
        (b"*3\r\n$3\r\nsub\r\n$256\r\n", 16),
        (b"*3\r\n$3\r\nsub\r\n$1\r\nk\r\n$33\r\n", 22),
        (b"*4\r\n$3\r\nsub\r\n$1\r\nk\r\n$2\r\n30\r\n$4097\r\n", 32),
        (b"*5\r\n$3\r\nsub\r\n$1\r\nk\r\n$2\r\n30\r\n$0\r\n\r\n$65\r\n", 36),
        (b"*6\r\n$3\r\nsub\r\n$1\r\nk\r\n$2\r\n30\r\n$0\r\n\r\n$0\r\n\r\n$33\r\n", 42),
        (b"*3\r\n$2\r\nsub\r\n", 10),
        (b"*3\r\n$4\r\nsub\r\n", 12),
        (b"*3\r\n$0\r\nsub\r\n", 8),
    ],
)
def test_refused_at_the_first_byte_that_cannot_belong_to_a_request(packet: bytes, index: int) -> None:
    assert refused_at(packet) == index
    assert in_lines(packet[:index]) is None
    assert whole(packet + request(b"sub", b"k", b"30")) is None


@pytest.mark.parametrize("key", ["ключ", "日本", "é", "a😀", "naïve key"])
def test_the_length_that_the_java_sdk_sends_is_refused_never_misread(key: str) -> None:
    """It sends the number of characters (of UTF-16) where bytes are meant."""
    characters = len(key.encode("utf-16-le")) // 2
    data = b"*3\r\n$3\r\nsub\r\n$%d\r\n%b\r\n$2\r\n30\r\n" % (characters, key.encode())
    assert refused_at(data) == data.index(key.encode()) + characters
    assert whole(data) is None


def test_a_key_in_ascii_from_the_java_sdk_is_served() -> None:
    assert in_lines(request(b"sub", b"Terry-Mao", b"30")) == ([b"sub", b"Terry-Mao", b"30"], b"")


# --- whatever arrives ---

PIECES = st.sampled_from(
    [
        b"*",
        b"$",
        b"\r\n",
        b"\r",
        b"\n",
        b"3",
        b"6",
        b"0",
        b"-1",
        b"sub",
        b"k" * 255,
        b"30",
        b"h",
        b"*3\r\n",
        b"$3\r\nsub\r\n",
    ]
)
STREAMS = st.one_of(
    st.binary(max_size=200),
    st.lists(PIECES, max_size=30).map(b"".join),
    st.lists(st.binary(max_size=12), min_size=3, max_size=6).map(lambda arguments: request(*arguments)),
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A request with one place changed, then anything."""
    data = bytearray(request(*draw(st.sampled_from(VALID[:5]))))
    at = draw(st.integers(0, len(data)))
    data[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(data) + draw(st.binary(max_size=20))


@given(st.one_of(STREAMS, damaged()))
def test_nothing_raises_but_a_refusal_and_one_piece_means_what_its_lines_mean(data: bytes) -> None:
    """No input may raise, hang, or hold more than a few KB before `sub` is accepted."""
    found = whole(data)
    try:
        lines = in_lines(data)
    except ParameterError:
        assert found is None
    else:
        assert found is None or found == lines
        assert (refused_at(data) is None) is True


@pytest.mark.parametrize(
    "start", [b"", b"*3\r\n$3\r\nsub\r\n$255\r\n", b"*4\r\n$3\r\nsub\r\n$1\r\nk\r\n$2\r\n30\r\n$4096\r\n"]
)
def test_an_endless_line_is_refused_once_it_is_too_long(start: bytes) -> None:
    assert refused_at(start + b"x" * 5000) == len(start) + int(start.rpartition(b"$")[2] or 0)


def spoken(data: bytes, cuts: list[int]) -> tuple[bytes, State, int]:
    """What a connection on which this arrives is told, where it stands then, and how many heartbeats it sent."""
    world = World()
    subscriber: Any = TcpFactory(world.comet).buildProtocol(None)
    transport: Any = _Transport()  # type: ignore[no-untyped-call]
    subscriber.makeConnection(transport)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in pairwise(edges):
        subscriber.dataReceived(data[start:end])
        assert len(subscriber._buffer) <= MAX_LINE_BYTES
    world.turns()
    subscriber.connectionLost()
    return transport.value(), subscriber._session.state, world.comet.counters.refused_parameter


@given(st.one_of(STREAMS, damaged()), st.lists(st.integers(0, 300), max_size=8))
@settings(max_examples=300)
def test_cuts_change_nothing(data: bytes, cuts: list[int]) -> None:
    """No input may raise, hang, or hold more than a few KB before `sub` is accepted."""
    assert spoken(data, cuts) == spoken(data, [])


# --- what the arguments mean ---


def ask(heartbeat: str = "30", key: str = "k", token: str = "", mid: str | None = None) -> Subscribe:
    return subscribe(key, heartbeat, token, "1", mid)


@pytest.mark.parametrize(
    ("heartbeat", "seconds"),
    [
        ("30", 30),
        ("+30", 30),
        ("030", 30),
        ("+030", 30),
        ("31", 31),
        ("86400", 86400),
        (str(2**63 - 1), 2**63 - 1),
        ("0" * 31 + "30", 30),
        ("+" + "0" * 5000 + str(2**63 - 1), 2**63 - 1),
    ],
)
def test_heartbeat(heartbeat: str, seconds: int) -> None:
    assert ask(heartbeat).heartbeat == seconds
    assert parse_subscribe([b"sub", b"k", heartbeat.encode()]).heartbeat == seconds


@pytest.mark.parametrize(
    "heartbeat",
    [
        "",
        "29",
        "0",
        "-30",
        "+",
        "++30",
        "+-30",
        " 30",
        "30 ",
        "30\n",
        "\t30",
        "3 0",
        "3_0",
        "30.0",
        "3e1",
        "0x1e",
        "thirty",
        "٣٠",
        "\uff13\uff10",
        "³0",
        str(2**63),
        "1" + "0" * 30,
        "0" * 5000,
        "0" * 5000 + "29",
        "0" * 5000 + str(2**63),
        "+" + "0" * 5000 + "x",
        "9" * 100,
    ],
)
def test_bad_heartbeat(heartbeat: str) -> None:
    with pytest.raises(ParameterError):
        ask(heartbeat)
    with pytest.raises(ParameterError):
        parse_subscribe([b"sub", b"k", heartbeat.encode()])


@pytest.mark.parametrize(
    ("mid", "cursor"),
    [
        ("0", 0),
        ("16", 16),
        ("+16", 16),
        ("016", 16),
        ("-0", 0),
        ("-5", 0),
        ("-100", -96),
        ("17000000000000016", 17000000000000016),
        ("17000000000000017", 17000000000000016),
        ("17000000000000014", 17000000000000016),
        ("17000000000000023", 17000000000000016),
        ("17000000000000009", 17000000000000016),
        (str(2**63 - 1), MAX_CURSOR),
        (str(2**63 - 9), MAX_CURSOR),
        (str(-(2**63)), -(2**63)),
        ("0" * 5000, 0),
        ("0" * 5000 + "17000000000000016", 17000000000000016),
        ("-" + "0" * 5000 + str(2**63), -(2**63)),
    ],
)
def test_mid_is_snapped_to_the_nearest_multiple_of_16(mid: str, cursor: int) -> None:
    """protocol.md, section 3: what JavaScript printed is snapped, saturating at the ends of int64."""
    assert ask(mid=mid).mid == cursor
    assert parse_subscribe([b"sub", b"k", b"30", b"", b"", mid.encode()]).mid == cursor


@pytest.mark.parametrize(
    "mid",
    [
        "",
        " ",
        "x",
        "1.0",
        "1e3",
        "1 ",
        " 1",
        "1_6",
        "--1",
        "+",
        "-",
        "١٦",
        "0x10",
        str(2**63),
        str(-(2**63) - 1),
        "0" * 5000 + str(2**63),
        "9" * 33,
    ],
)
def test_bad_mid(mid: str) -> None:
    with pytest.raises(ParameterError):
        ask(mid=mid)
    with pytest.raises(ParameterError):
        parse_subscribe([b"sub", b"k", b"30", b"", b"", mid.encode()])


def test_without_a_sixth_element_there_is_no_mid() -> None:
    assert parse_subscribe([b"sub", b"k", b"30", b"t", b"1.0.5"]).mid is None


@pytest.mark.parametrize(
    "key", ["k", "a b", "a,b", "ключ", "日本", "😀", "k" * 255, "é" * 127 + "k", "no\u00a0break", "'\"\\", "*3", "$"]
)
def test_key(key: str) -> None:
    assert ask(key=key).key == key


@pytest.mark.parametrize(
    "key",
    [
        "",
        "k" * 256,
        "é" * 128,
        "a\nb",
        "a\r\nb",
        "\x00",
        "\x1f",
        "\x7f",
        "\x80",
        "\x9f",
        "a\u2028b",
        "\u2029",
        "\ud800",
    ],
)
def test_bad_key(key: str) -> None:
    with pytest.raises(ParameterError):
        ask(key=key)


@pytest.mark.parametrize(("token", "good"), [("", True), ("t" * 4096, True), ("t" * 4097, False), ("a\nb", False)])
def test_token(token: str, good: bool) -> None:
    if good:
        assert ask(token=token).token == token
    else:
        with pytest.raises(ParameterError):
            ask(token=token)


def test_a_client_that_gives_no_version_and_one_that_gives_an_empty_one_are_of_before_1_0() -> None:
    assert parse_subscribe([b"sub", b"k", b"30", b"t"]).version == ""
    assert parse_subscribe([b"sub", b"k", b"30", b"t", b""]).version == ""
    assert parse_subscribe([b"sub", b"k", b"30"]).token == ""


@pytest.mark.parametrize("command", [b"", b"SUB", b"Sub", b"subs", b"su", b"pub", b"sub "])
def test_unknown_command(command: bytes) -> None:
    with pytest.raises(ParameterError):
        parse_subscribe([command, b"k", b"30"])


@pytest.mark.parametrize("at", range(6))
def test_arguments_are_utf8(at: int) -> None:
    arguments = [b"sub", b"k", b"30", b"t", b"1", b"16"]
    arguments[at] = b"\xff\xfe"
    with pytest.raises(ParameterError):
        parse_subscribe(arguments)


@given(st.lists(st.binary(max_size=40), min_size=3, max_size=6))
def test_whatever_the_arguments_hold_nothing_raises_but_a_refusal(arguments: list[bytes]) -> None:
    try:
        asked = parse_subscribe([b"sub", *arguments[1:]])
    except ParameterError:
        return
    assert asked.key
    assert 30 <= asked.heartbeat < 2**63


def test_replies() -> None:
    assert model.HEARTBEAT == b"+h\r\n"
    assert model.REFUSE_PARAMETER == b"-p\r\n"
    assert model.REFUSE_TOKEN == b"-a\r\n"
    assert model.REFUSE_KEY == b"-c\r\n"
    assert model.REFUSE_NODE == b"-n\r\n"
    assert model.REFUSE_LIMIT == b"-l\r\n"
    assert model.GAP == b"+g\r\n"
