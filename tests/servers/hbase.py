"""A real HBase and its Thrift2 servers: killed, frozen and restarted by tests.

Debian's Maven copies the jars once, into $GOPUSH_HBASE_JARS or a folder of the user's cache.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.servers import free_port, maven

START_SECONDS = 300
POM = Path(__file__).parent / "hbase-jars.xml"
IDL = Path(__file__).parents[2] / "gopush/message/hbase/hbase.thrift"
JAVA = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]
LOGGING = """\
log4j.rootLogger=WARN,file
log4j.appender.file=org.apache.log4j.FileAppender
log4j.appender.file.file={log}
log4j.appender.file.layout=org.apache.log4j.PatternLayout
log4j.appender.file.layout.ConversionPattern=%d %p %c: %m%n
"""


def jars() -> Path:
    """The folder with the jars; Maven fetches them where they are not there yet. Raises where they cannot be had."""
    return maven.jars(POM, "hbase-2.6.1", "GOPUSH_HBASE_JARS")


class JavaProcess:
    """A Java process with a configuration folder of its own."""

    heap = "256m"

    def __init__(self, name: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix=f"gopush-{name}-"))
        self.process: subprocess.Popen[bytes] | None = None

    def _run(self, main: str, *arguments: str, site: Mapping[str, object]) -> None:
        (self.directory / "hbase-site.xml").write_text(_site(site))
        (self.directory / "log4j.properties").write_text(LOGGING.format(log=self.directory / "log"))
        command = ["java", f"-Xmx{self.heap}", *JAVA, "-cp", f"{self.directory}:{jars()}/*", main, *arguments]
        with (self.directory / "out").open("ab") as out:
            self.process = subprocess.Popen(command, cwd=self.directory, stdout=out, stderr=out)

    def freeze(self) -> None:
        """SIGSTOP: it holds its connections, and answers nothing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """Kill it and forget its data."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self) -> Self:
        """Start the process."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, at: TracebackType | None
    ) -> None:
        self.stop()

    def _failed(self, since: float) -> None:
        """Raise where it has ended, or takes too long."""
        if time.monotonic() > since + START_SECONDS or self.process is None or self.process.poll() is not None:
            parts = [path for path in (self.directory / "out", self.directory / "log") if path.exists()]
            raise RuntimeError("\n".join(path.read_text()[-5000:] for path in parts))


class HBaseServer(JavaProcess):
    """A standalone HBase on 127.0.0.1, its ZooKeeper included; not started yet.

    Its data stay in `directory` through kill() and start(), until stop().
    """

    heap = "512m"

    def __init__(self, region_servers: int = 1) -> None:
        super().__init__("hbase")
        self._region_servers = region_servers
        self.zookeeper_port = free_port()
        ports = {name: free_port() for name in ("hbase.master.port", "hbase.regionserver.port")}
        self.site: dict[str, object] = {
            "hbase.rootdir": f"file://{self.directory}/data",
            "hbase.tmp.dir": f"{self.directory}/tmp",
            "hbase.unsafe.stream.capability.enforce": "false",
            "hbase.zookeeper.quorum": "127.0.0.1",
            "hbase.zookeeper.property.clientPort": self.zookeeper_port,
            "hbase.zookeeper.property.dataDir": f"{self.directory}/zookeeper",
            "hbase.zookeeper.property.tickTime": 500,
            "hbase.zookeeper.property.clientPortAddress": "127.0.0.1",
            "hbase.zookeeper.property.admin.enableServer": "false",
            "hbase.master.info.port": -1,
            "hbase.regionserver.info.port": -1,
            "hbase.master.hostname": "localhost",
            "hbase.regionserver.hostname": "localhost",
            "hbase.master.ipc.address": "127.0.0.1",
            "hbase.regionserver.ipc.address": "127.0.0.1",
            "hbase.regionserver.msginterval": 200,
            "hbase.master.wait.on.regionservers.timeout": 1000,
            "hbase.master.wait.on.regionservers.interval": 100,
            "hbase.procedure.remote.dispatcher.delay.msec": 10,
            **ports,
        }
        if region_servers > 1:
            self.site |= {"hbase.master.port": 0, "hbase.regionserver.port": 0}  # as it likes

    def start(self) -> Self:
        """Start the process. It is ready when a Thrift server is."""
        self._run(
            "org.apache.hadoop.hbase.master.HMaster",
            f"--localRegionServers={self._region_servers}",
            "start",
            site=self.site,
        )
        return self

    def empty(self, region_server: str) -> None:
        """Move all regions of a region server ("host:port") to the other one."""
        main = "org.apache.hadoop.hbase.util.RegionMover"
        command = ["java", "-Xmx128m", *JAVA, "-cp", f"{self.directory}:{jars()}/*", main]
        out = self.directory / "moved"
        arguments = ["-r", region_server, "-o", "unload", "-f", str(out), "-n", "-t", "60"]
        subprocess.run([*command, *arguments], cwd=self.directory, check=True, capture_output=True, timeout=120)


class ThriftServer(JavaProcess):
    """A Thrift2 server of an HBase, framed, on 127.0.0.1; not started yet. A call ends after `limit` seconds."""

    def __init__(self, hbase: HBaseServer, table: str = "gopush", limit: float = 2.0) -> None:
        super().__init__("thrift")
        import thriftpy2  # here: who does without HBase does without it

        self.idl: Any = thriftpy2.load(str(IDL), module_name="hbase_tests_thrift")
        self._hbase = hbase
        self._limit = int(limit * 1000)
        self.table = table
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Start the process, and wait until the table is there: it listens long before it can do anything."""
        self.launch()
        self.ready()
        return self

    def launch(self) -> None:
        """Start the process."""
        site = self._hbase.site | {
            "hbase.regionserver.thrift.framed": "true",
            "hbase.regionserver.thrift.framed.max_frame_size_in_mb": 64,
            "hbase.client.operation.timeout": self._limit,
            "hbase.client.meta.operation.timeout": self._limit,
            "hbase.rpc.timeout": self._limit * 3 // 4,
            "hbase.rpc.read.timeout": self._limit * 3 // 4,
            "hbase.rpc.write.timeout": self._limit * 3 // 4,
            "hbase.client.pause": 50,
            "hbase.client.retries.number": 6,
        }
        arguments = ["-b", "127.0.0.1", "-p", str(self.port), "--infoport", "-1", "start"]
        self._run("org.apache.hadoop.hbase.thrift2.ThriftServer", *arguments, site=site)

    def ready(self) -> None:
        """Wait until the table is there; it is made where it is missing."""
        since = time.monotonic()
        while not self._has_table():
            self._failed(since)
            time.sleep(0.1)

    def create(self, table: str, *families: str) -> None:
        """Make a table of one region."""
        with self._client() as client:
            named = [self.idl.ColumnFamily(name=family.encode()) for family in families]
            client.createTable(
                self.idl.TableDescriptor(tableName=self.idl.TableName(qualifier=table.encode()), columns=named), None
            )

    def cells(self, row: bytes) -> dict[str, bytes]:
        """A row of the table: "family:qualifier" and value."""
        with self._client() as client:
            (found,) = client.getMultiple(self.table.encode(), [self.idl.Get(row=row)])
        return {f"{cell.family.decode()}:{cell.qualifier.decode()}": cell.value for cell in found.columnValues}

    def region_servers(self) -> set[str]:
        """Where the table's regions are: "host:port"."""
        with self._client() as client:
            servers = [region.serverName for region in client.getAllRegionLocations(self.table.encode())]
        return {f"{server.hostName}:{server.port}" for server in servers}

    def region_starts(self, table: str) -> list[bytes]:
        """The first rows of all regions."""
        with self._client() as client:
            return sorted(region.regionInfo.startKey for region in client.getAllRegionLocations(table.encode()))

    @contextmanager
    def _client(self) -> Iterator[Any]:
        from thriftpy2.rpc import make_client
        from thriftpy2.transport import TFramedTransportFactory

        framed = TFramedTransportFactory()
        client = make_client(self.idl.HBase, "127.0.0.1", self.port, trans_factory=framed, timeout=30000)
        try:
            yield client
        finally:
            client.close()

    def _has_table(self) -> bool:
        from thriftpy2.thrift import TException

        try:
            self.create(self.table, "m", "i", "t")
        except self.idl.IOError as refused:
            return "TableExistsException" in (refused.message or "")
        except (TException, OSError):
            return False
        return True


def _site(properties: Mapping[str, object]) -> str:
    lines = (f"<property><name>{name}</name><value>{value}</value></property>" for name, value in properties.items())
    return "<configuration>\n" + "\n".join(lines) + "\n</configuration>\n"
