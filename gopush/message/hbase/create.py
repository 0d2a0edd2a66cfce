"""`gopush hbase create`: the table that the store needs."""

from __future__ import annotations

import socket
import struct
from typing import Any, BinaryIO

from gopush.config.values import host_port
from gopush.errors import ParameterError, UnavailableError
from gopush.message.hbase.codec import (
    FAMILIES,
    FRAME_BYTES,
    HBaseError,
    create_table,
    describe,
    exists,
    families_of,
    locations,
    region_starts,
    reply,
    request,
)

SECONDS = 60
_START = struct.Struct(">I")
_SIZE = struct.Struct(">I")


class _ClosedError(ConnectionError):
    """The connection was closed before the answer."""


class _NoThriftError(Exception):
    """What came is no answer to a call."""


def create(address: str, table: str, regions: int) -> str:
    """Have the Thrift server at "host:port" make the table in so many regions; gives the line to print.

    Raises ParameterError where it never will, UnavailableError where it does not now.
    """
    try:
        with _connected(address) as connection:
            try:
                return _create(connection, table, regions)
            except _ClosedError:
                if regions == 1:
                    raise
        with _connected(address) as connection:
            return _after_close(connection, table, regions)
    except _NoThriftError:
        raise ParameterError(f"what answers at {address} is no Thrift2 server (framed)") from None
    except HBaseError as refused:
        raise UnavailableError(f"HBase at {address}: {refused}") from None
    except OSError as failed:
        raise UnavailableError(f"the Thrift server at {address} does not answer: {failed}") from None


def _connected(address: str) -> socket.socket:
    return socket.create_connection(host_port(address), timeout=SECONDS)


def _after_close(connection: socket.socket, table: str, regions: int) -> str:
    """What to print where the table is there all the same. A Thrift server that goes on closes for the regions' starts
    alone: only the default type takes them as split_frames() sends them.
    """
    name = table.encode()
    if _ask(connection, [request("tableExists", 1, exists(name))]):
        return _made(connection, table)
    raise ParameterError(
        f"this Thrift server cannot make a table of several regions; HBase's shell can:\n{shell(table, regions)}"
    )


def _made(connection: socket.socket, table: str) -> str:
    made = region_starts(_ask(connection, [request("getAllRegionLocations", 4, locations(table.encode()))]))
    return f"the table {table} is made, regions: {len(made)}"


def _create(connection: socket.socket, table: str, regions: int) -> str:
    name = table.encode()
    if _ask(connection, [request("tableExists", 1, exists(name))]):
        found = families_of(_ask(connection, [request("getTableDescriptor", 2, describe(name))]))
        if missing := b", ".join(sorted(set(FAMILIES) - found)):
            raise ParameterError(
                f"the table {table} is there, but lacks families that the store needs: {missing.decode()}"
            )
        return f"the table {table} is there already"
    starts = splits(regions)
    _ask(connection, split_frames(request("createTable", 3, create_table(name, starts)), starts))
    return _made(connection, table)


def split_frames(message: bytes, starts: list[bytes]) -> list[bytes]:
    """The frames of a createTable whose last words are the regions' `starts`.

    A Thrift server takes the whole frame for a start that lies within one, so each begins a frame of its own.
    """
    frames = []
    end = len(message) - sum(_SIZE.size + len(start) for start in starts) - 1  # the byte that ends the arguments
    begin = 0
    for start in starts:
        end += _SIZE.size
        frames.append(message[begin:end])
        begin, end = end, end + len(start)
    return [*frames, message[begin:]]


def _ask(connection: socket.socket, frames: list[bytes]) -> Any:
    connection.sendall(b"".join(_SIZE.pack(len(frame)) + frame for frame in frames))
    stream = connection.makefile("rb")
    (size,) = _SIZE.unpack(_read(stream, _SIZE.size))
    if size > FRAME_BYTES:
        raise _NoThriftError
    frame = _read(stream, size)
    try:
        _, answer = reply(frame)
    except Exception:
        raise _NoThriftError from None
    if isinstance(answer, HBaseError):
        raise answer
    return answer


def _read(stream: BinaryIO, size: int) -> bytes:
    found = stream.read(size)
    if len(found) < size:
        raise _ClosedError("it closed the connection")
    return found


def splits(regions: int) -> list[bytes]:
    """Where all regions but the first begin: rows begin with a hash."""
    return [_START.pack((number << 32) // regions) for number in range(1, regions)]


def shell(table: str, regions: int) -> str:
    """What makes such a table in HBase's shell."""
    families = ", ".join(f"{{NAME => '{family.decode()}'}}" for family in FAMILIES)
    return f"create '{table}', {families}, {{NUMREGIONS => {regions}, SPLITALGO => 'UniformSplit'}}"
