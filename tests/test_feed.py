"""What comes for the subscriptions of other processes, as it is read there."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gopush.feed import unframed
from gopush.model import GAP, TCP_RAW, Message

MESSAGES = st.builds(Message, st.integers(0, 2**63 - 1), st.text().map(lambda text: json.dumps(text).encode()))


@given(st.lists(MESSAGES | st.sampled_from([b"+h\r\n", GAP, b"-n\r\n"])))
def test_what_is_framed_is_found_again(items: list[Message | bytes]) -> None:
    data = b"".join(TCP_RAW.message(item) if isinstance(item, Message) else item for item in items)
    assert unframed(data) == items


@pytest.mark.parametrize(
    "data",
    [
        b"+h",
        b"$5\r\n",
        b'$7\r\n{"msg":\r\n',
        b"$x\r\n\r\n",
        TCP_RAW.message(Message(16, b"1"))[:-1],
        TCP_RAW.message(Message(16, b"1")).replace(b"16", b"-x"),
    ],
)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        unframed(data)
