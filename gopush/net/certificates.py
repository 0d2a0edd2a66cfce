"""What a certificate says of itself: until when it is valid, and for which names."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address
from twisted.internet.ssl import Certificate

from gopush.config.endpoints import ip

expiries: dict[str, float] = {}
"""When the certificates that this process has in use end, in seconds since the epoch, by their files."""


def note(path: Path, pem: bytes) -> None:
    """The process uses this certificate, the first one in the file, from now on."""
    ends: bytes = Certificate.loadPEM(pem).original.get_notAfter()
    name = str(path).encode(errors="replace").decode()  # as /metrics can show it: a directory's name may be no UTF-8
    expiries[name] = datetime.strptime(ends.decode(), "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def names(pem: bytes, host: str) -> bool:
    """Whether the first certificate in PEM is good for this host name or IP address, as a TLS client sees it."""
    certificate = Certificate.loadPEM(pem).original.to_cryptography()
    verify: Any = verify_certificate_hostname if ip(host) is None else verify_certificate_ip_address
    try:
        verify(certificate, host)
    except Exception:  # each release of the library has its own
        return False
    return True
