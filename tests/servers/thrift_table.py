"""A Thrift2 server of a table in memory: what HBase does only now and then, a test has it do."""

from __future__ import annotations

import socketserver
import struct
import threading
import time
from time import time as now
from types import TracebackType
from typing import Any

from thriftpy2.protocol import TBinaryProtocol
from thriftpy2.thrift import TProcessor
from thriftpy2.transport import TMemoryBuffer

from gopush.message.hbase.codec import idl

LARGE = 10_000
PARTS = 10

_SIZE = struct.Struct(">I")

Cells = dict[tuple[bytes, bytes], bytes]


class ThriftTable:
    """Listens at `address`. `cells`: of each row, by family and qualifier. `says`: reads and writes fail so;
    `asked`: those that came. `lacks`: reads are answered without the last row. `seconds`: how long LARGE answers are on
    their way. `ahead`: by how much its clock is. `starts`: the first rows of its regions; `away`: a row that nobody
    serves.
    """

    def __init__(self) -> None:
        self.cells: dict[bytes, Cells] = {}
        self.says: str | None = None
        self.asked: list[str] = []
        self.lacks = False
        self.starts = [b""]
        self.away: bytes | None = None
        self.seconds = 0.0
        self.ahead = 0.0
        self._stamps: dict[tuple[bytes, bytes, bytes], int] = {}
        self._lock = threading.Lock()
        handler: Any = self._serve
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_address[1]}"

    def getMultiple(self, table: bytes, gets: list[Any]) -> list[Any]:
        """See hbase.thrift."""
        self._called("getMultiple")
        if any(get.row == self.away for get in gets):
            raise idl.IOError(message="org.apache.hadoop.hbase.NotServingRegionException: it is away")
        return [idl.Result(columnValues=self._found(get)) for get in gets[: -1 if self.lacks else None]]

    def checkAndMutate(self, table: bytes, row: bytes, family: bytes, qualifier: bytes, *how: Any) -> bool:
        """See hbase.thrift."""
        self._called("checkAndMutate")
        _, value, mutations = how
        cells = self.cells.setdefault(row, {})
        if cells.get((family, qualifier), b"") != value:
            return False
        stamp = max(int((now() + self.ahead) * 1000), self._stamps.get((row, family, qualifier), 0))
        for mutation in mutations.mutations:
            for cell in mutation.put.columnValues:
                cells[cell.family, cell.qualifier] = cell.value
                self._stamps[row, cell.family, cell.qualifier] = stamp
        return True

    def getAllRegionLocations(self, table: bytes) -> list[Any]:
        """See hbase.thrift."""
        server = idl.ServerName(hostName="localhost")
        return [
            idl.RegionLocation(server, idl.RegionInfo(regionId=1, tableName=table, startKey=start))
            for start in self.starts
        ]

    def tableExists(self, table: Any) -> bool:
        """See hbase.thrift."""
        return False

    def createTable(self, table: Any, starts: list[bytes] | None) -> None:
        """See hbase.thrift."""
        self._called("createTable")

    def _called(self, name: str) -> None:
        self.asked.append(name)
        if self.says is not None:
            raise idl.IOError(message=self.says)

    def _found(self, get: Any) -> list[Any]:
        cells = self.cells.get(get.row, {})
        return [
            idl.ColumnValue(family, qualifier, value, self._stamps.get((get.row, family, qualifier)))
            for (family, qualifier), value in cells.items()
            if any(family == one.family and one.qualifier in (None, qualifier) for one in get.columns)
        ]

    def _serve(self, client: Any, *_: Any) -> None:
        stream = client.makefile("rb")
        while size := stream.read(_SIZE.size):
            asked, answer = TMemoryBuffer(stream.read(*_SIZE.unpack(size))), TMemoryBuffer()
            with self._lock:
                TProcessor(idl.HBase, self).process(TBinaryProtocol(asked), TBinaryProtocol(answer))
            frame = _SIZE.pack(len(answer.getvalue())) + answer.getvalue()
            if len(frame) < LARGE:
                client.sendall(frame)
            else:
                part = len(frame) // PARTS + 1
                for at in range(0, len(frame), part):
                    client.sendall(frame[at : at + part])
                    time.sleep(self.seconds / PARTS)

    def __enter__(self) -> ThriftTable:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, at: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
