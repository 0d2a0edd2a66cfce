"""The commands of docs/migration.md, as they stand there: files of gopush-cluster become a cluster of gopush."""

from __future__ import annotations

import re
from pathlib import Path

from tests.pages import Shell, blocks

CONVERT, CHECK = blocks("docs/migration.md", "sh", "Your configuration")
FILES = {
    "comet.conf": "[base]\nuser\npidfile /run/comet.pid\ntcp.bind localhost:6969\n[zookeeper]\ncomet.node node7\n",
    "message.conf": "[base]\nuser\n[storage]\ntype redis\n[redis.source]\nnode1:1 tcp@localhost:6379#secret\n",
    "web.conf": "[base]\nuser\nhttp.bind localhost:8090\nadmin.bind localhost:8091\n[rpc]\nretry 3s\n",
}


def test_files_of_the_original_become_files_that_gopush_can_use(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    shell = Shell(tmp_path)
    shell.run(CONVERT)
    assert "source = node1:1 tcp@localhost:6379#secret" in (tmp_path / "message.ini").read_text()
    said = shell.run(CHECK)
    assert re.findall(r"good for (\w+)", said) == ["comet", "message", "web"]
