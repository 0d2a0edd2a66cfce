"""What a web node counts, for the statistics."""

from __future__ import annotations

from dataclasses import dataclass, field

from gopush.errors import RET_INTERNAL, RET_NO_NODE, RET_OK, RET_PARAMETER


def _by_ret() -> dict[int, int]:
    return dict.fromkeys((RET_OK, RET_NO_NODE, RET_PARAMETER, RET_INTERNAL), 0)


@dataclass
class WebCounters:
    """Since the start. `pushes`: single messages, each key of a multiple push and each line of a bulk one, by `ret`."""

    lookups: int = 0
    reads: int = 0
    foreign_origins: int = 0
    foreign_hosts: int = 0
    proxied_calls: int = 0
    wrong_keys: int = 0
    refused_tokens: int = 0
    limited_pushes: int = 0
    refused_address: int = 0
    refused_proxy: int = 0
    accept_waits: int = 0
    limited_keys: int = 0
    pushes: dict[int, int] = field(default_factory=_by_ret, metadata={"label": "ret"})
