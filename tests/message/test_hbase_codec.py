"""Answers of a Thrift server that are not whole, or are no answers (gopush/message/hbase/codec.py)."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from thriftpy2.protocol import TBinaryProtocol
from thriftpy2.thrift import TApplicationException, TMessageType
from thriftpy2.transport import TMemoryBuffer

from gopush.message.hbase.codec import HBaseError, cells, idl, reply

ROWS = [
    idl.Result(row=b"row", columnValues=[idl.ColumnValue(b"m", b"s%d" % slot, b"x" * slot * 500) for slot in range(3)])
    for _ in range(2)
]
REGION = idl.RegionLocation(idl.ServerName("localhost"), idl.RegionInfo(1, b"gopush", b"start"))


def answer(name: str, result: Any, kind: int = TMessageType.REPLY, number: int = 7) -> bytes:
    """The frame that answers call `number`."""
    buffer = TMemoryBuffer()
    protocol = TBinaryProtocol(buffer)
    protocol.write_message_begin(name, kind, number)
    result.write(protocol)
    frame: bytes = buffer.getvalue()
    return frame


ANSWERS = [
    answer("getMultiple", idl.HBase.getMultiple_result(success=ROWS)),
    answer("getAllRegionLocations", idl.HBase.getAllRegionLocations_result(success=[REGION])),
    answer("checkAndMutate", idl.HBase.checkAndMutate_result(success=True)),
    answer("checkAndMutate", idl.HBase.checkAndMutate_result(io=idl.IOError(message="java.io.IOException: it failed"))),
    answer("getMultiple", TApplicationException(1, "unknown"), TMessageType.EXCEPTION),
]


@pytest.mark.parametrize("frame", ANSWERS)
def test_an_answer_that_was_cut_off_is_none(frame: bytes) -> None:
    """What is missing was taken from memory that held something else."""
    assert reply(frame)[0] == 7
    for size in range(len(frame)):
        with pytest.raises(Exception, match=r"."):
            reply(frame[:size])


def test_a_length_that_no_frame_has_costs_nothing() -> None:
    frame = answer("getMultiple", idl.HBase.getMultiple_result(success=[]))
    count = struct.Struct(">i")
    at = len(frame) - 1 - count.size
    assert count.unpack_from(frame, at) == (0,)
    for wrong in (1, 2**31 - 1):
        with pytest.raises(Exception, match="End of file"):
            reply(frame[:at] + count.pack(wrong) + frame[at + count.size :])


def test_whole_answers_are_read() -> None:
    found = cells(reply(ANSWERS[0])[1])
    assert found == [{("m", b"s%d" % slot): b"x" * slot * 500 for slot in range(3)}] * 2
    assert reply(ANSWERS[2]) == (7, True)
    assert isinstance(reply(ANSWERS[3])[1], HBaseError)
    assert isinstance(reply(ANSWERS[4])[1], HBaseError)
