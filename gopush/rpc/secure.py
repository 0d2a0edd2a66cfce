"""TLS between the processes of a cluster: each shows a certificate of the cluster's own CA and wants to see one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gopush.errors import StartError
from gopush.net.exposure import refuse_open_doors
from gopush.net.tls import ClientTls, ServerTls, server_factory
from gopush.rpc.settings import RpcSettings


def secured(calls: Any, endpoints: Iterable[str], settings: RpcSettings) -> Any:
    """The factory to listen with for calls: within TLS where the settings have it.

    Raises StartError where strangers could call, SettingsError for files that are no good.
    """
    endpoints = tuple(endpoints)
    refuse_open_doors(endpoints, settings.secret or settings.tls_authorities)
    for endpoint in endpoints:
        if endpoint.startswith("ssl:"):
            raise StartError(f"[base] rpc.bind: {endpoint}: write tcp:, and set [rpc] tls.ca, tls.cert and tls.key")
    if caller_tls(settings) is None:
        return calls
    return server_factory(ServerTls(settings.tls_certificate, settings.tls_key, settings.tls_authorities), calls)


def caller_tls(settings: RpcSettings) -> ClientTls | None:
    """How to call others; None: without TLS. Raises SettingsError for files that are no good."""
    if not settings.tls_authorities:
        return None
    return ClientTls(settings.tls_authorities, settings.tls_certificate, settings.tls_key)
