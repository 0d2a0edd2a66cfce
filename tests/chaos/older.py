"""The release that a rolling upgrade begins with: from the history of this repository."""

from __future__ import annotations

import compileall
import io
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.chaos.cluster import ROOT, SECRET, Cluster

COMMIT = "44b05c5"


@contextmanager
def older_cluster() -> Iterator[Cluster]:
    """A cluster whose processes run COMMIT and share a secret, not started yet. Needs the whole history."""
    with TemporaryDirectory(prefix="gopush-older-") as directory:
        root = Path(directory)
        unpack(root)
        cluster = Cluster()
        for node in cluster.nodes.values():
            node.root = root
            node.set({"rpc": {"secret": SECRET}})
        yield cluster


def unpack(root: Path) -> None:
    """The gopush and twisted of COMMIT, in a directory."""
    archive = subprocess.run(
        ["git", "-C", str(ROOT), "archive", COMMIT, "gopush", "twisted"], capture_output=True, check=False
    )
    if archive.returncode:
        raise RuntimeError(
            f"commit {COMMIT}, from which a cluster must be upgradable, is not in the history of {ROOT} "
            f"(git fetch --unshallow): {archive.stderr.decode().strip()}"
        )
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.2 of Debian 12 has none
        files.extractall(root)
    compileall.compile_dir(root, quiet=1)  # once, and not by each of the processes that start together
