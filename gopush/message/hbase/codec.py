"""Calls to a Thrift2 server as frames, by thriftpy2 and the names in hbase.thrift."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from importlib.resources import as_file, files
from io import BytesIO
from typing import Any

import thriftpy2
from thriftpy2.protocol import TBinaryProtocol
from thriftpy2.thrift import TApplicationException, TMessageType
from thriftpy2.transport import TBufferedTransport, TMemoryBuffer

from gopush.errors import UnavailableError
from gopush.message.hbase.row import Cells, Put, Wanted

FAMILIES = (b"m", b"i", b"t")
"""What the table has: messages, ids, tokens."""

FRAME_BYTES = 64 << 20
"""Thrift's own limit has to be as high (hbase.regionserver.thrift.framed.max_frame_size_in_mb)."""

MOST_NAMES = 4
_TABLE_ALONE = re.compile(r"\S+( is disabled\.)?")
_NO_TABLE = "HBase does not serve the table (is it disabled, or dropped?)"
_EQUAL = 2
_TTL = struct.Struct(">q")

with as_file(files("gopush.message.hbase").joinpath("hbase.thrift")) as _path:
    idl: Any = thriftpy2.load(str(_path), module_name="gopush_hbase_thrift")

Get = tuple[bytes, Wanted]
"""A row, and which of its cells to read."""


class HBaseError(UnavailableError):
    """HBase says that a call failed, by the names of its exceptions: the whole `text` may hold keys. The write may have
    happened all the same.
    """

    def __init__(self, text: str | None) -> None:
        self.text = " ".join((text or "").split())
        names = dict.fromkeys(re.findall(r"\w+(?:Exception|Error)\b", self.text))
        unnamed = _NO_TABLE if _TABLE_ALONE.fullmatch(self.text) else "an error that it does not explain"
        super().__init__(", ".join(list(names)[:MOST_NAMES]) or unnamed)


def request(name: str, number: int, arguments: Any) -> bytes:
    """The frame of a call."""
    buffer = TMemoryBuffer()
    protocol = TBinaryProtocol(buffer)
    protocol.write_message_begin(name, TMessageType.CALL, number)
    arguments.write(protocol)
    protocol.write_message_end()
    frame: bytes = buffer.getvalue()
    return frame


def reply(frame: bytes) -> tuple[int, Any]:
    """The number of the call that a frame answers, and the answer: an HBaseError where it failed. Raises where it is
    no answer.
    """
    protocol = TBinaryProtocol(TBufferedTransport(BytesIO(frame)))  # a TMemoryBuffer reads on behind its end
    name, kind, number = protocol.read_message_begin()
    if kind == TMessageType.EXCEPTION:
        raised = TApplicationException()
        raised.read(protocol)
        return number, HBaseError(f"TApplicationException: {raised.message}")
    result = getattr(idl.HBase, f"{name}_result")()
    result.read(protocol)
    if result.io is not None:
        return number, HBaseError(result.io.message)
    return number, getattr(result, "success", None)


def get_multiple(table: bytes, gets: Sequence[Get]) -> Any:
    """Arguments for reading cells of rows; answered by cells()."""
    wanted = [
        idl.Get(row=row, columns=[idl.Column(family=family.encode(), qualifier=name) for family, name in columns])
        for row, columns in gets
    ]
    return idl.HBase.getMultiple_args(table=table, gets=wanted)


def cells(results: Sequence[Any]) -> list[Cells]:
    """What getMultiple has found, row by row."""
    return [
        {(cell.family.decode(), cell.qualifier): cell.value for cell in result.columnValues or ()} for result in results
    ]


def written(results: Sequence[Any] | None) -> float:
    """When HBase wrote the only cell that getMultiple was asked for, in seconds since the epoch by its clock. Raises
    UnavailableError where it is not there.
    """
    found = (cell for result in results or () for cell in result.columnValues or ())
    stamps = [cell.timestamp for cell in found if cell.timestamp is not None]
    if not stamps:
        raise UnavailableError("HBase does not say when it wrote a cell")
    return float(stamps[0] / 1000)


def check_and_mutate(table: bytes, row: bytes, puts: Sequence[Put], old: bytes | None, cell: tuple[str, bytes]) -> Any:
    """Arguments for writing a row where a cell has its `old` value, or is not there."""
    mutations = [idl.Mutation(put=_put(row, put)) for put in puts]
    return idl.HBase.checkAndMutate_args(
        table=table,
        row=row,
        family=cell[0].encode(),
        qualifier=cell[1],
        compareOperator=_EQUAL,
        value=old or b"",  # empty: where there is no such cell
        mutations=idl.RowMutations(row=row, mutations=mutations),
    )


def _put(row: bytes, put: Put) -> Any:
    written = [
        idl.ColumnValue(family=family.encode(), qualifier=name, value=value)
        for (family, name), value in put.cells.items()
    ]
    return idl.Put(row=row, columnValues=written, attributes={b"_ttl": _TTL.pack(int(put.seconds * 1000))})


def locations(table: bytes) -> Any:
    """Arguments for asking which regions a table has; answered by region_starts()."""
    return idl.HBase.getAllRegionLocations_args(table=table)


def region_starts(answer: Sequence[Any]) -> list[bytes]:
    """The first rows of all regions, ascending."""
    return sorted(location.regionInfo.startKey or b"" for location in answer)


def exists(table: bytes) -> Any:
    """Arguments for asking whether there is a table."""
    return idl.HBase.tableExists_args(table=_named(table))


def describe(table: bytes) -> Any:
    """Arguments for asking for a table's families; answered by families_of()."""
    return idl.HBase.getTableDescriptor_args(table=_named(table))


def families_of(descriptor: Any) -> set[bytes]:
    """The names of a table's families."""
    return {family.name for family in descriptor.columns or ()}


def create_table(table: bytes, starts: Sequence[bytes]) -> Any:
    """Arguments for making the table, in regions that begin at these rows too."""
    families = [idl.ColumnFamily(name=name, maxVersions=1) for name in FAMILIES]
    descriptor = idl.TableDescriptor(tableName=_named(table), columns=families)
    return idl.HBase.createTable_args(table=descriptor, splitKeys=list(starts) or None)


def _named(table: bytes) -> Any:
    namespace, colon, name = table.rpartition(b":")
    return idl.TableName(ns=namespace if colon else None, qualifier=name)
