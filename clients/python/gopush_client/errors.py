"""What may go wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class GopushError(Exception):
    """Any of the errors of this package.

    Of a push: it may be stored all the same. Who repeats it gives its `id`, so that it is stored once; `failed` are the
    keys of a multiple push that it did not reach for sure, `mids` those that it did.
    """

    def __init__(self, reason: str, id: str = "", failed: Sequence[str] = (), mids: Mapping[str, int] | None = None):
        super().__init__(reason)
        self.id = id
        self.failed = list(failed)
        self.mids = dict(mids or {})


class RefusedError(GopushError):
    """gopush has refused it, and would refuse it again: a wrong parameter, token or API key."""


class UnavailableError(GopushError):
    """It did not work within its time, and may work later."""
