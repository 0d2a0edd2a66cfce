"""Starts the `gopush` command. Interrupted, it ends without a traceback, even during its imports."""

from __future__ import annotations

import sys

INTERRUPTED = 130


def main() -> int:
    """Run the command line; answers the exit status."""
    try:
        from gopush.client import cli

        return cli.main()
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
