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


_SOON_SECONDS, _SOON_SHARE = 7 * 86400, 0.1
"""What a certificate has left when it ends soon: the less of both. One that lives for days is renewed late."""


def note(path: Path, pem: bytes) -> None:
    """The process uses this certificate, the first one in the file, from now on."""
    expiries[_name(path)] = _seconds(Certificate.loadPEM(pem).original.get_notAfter())


def ends_soon(path: Path, now: float) -> float | None:
    """When a certificate that the process uses ends, if it has ended or does so soon; None: later, or it uses none
    such.
    """
    ends = expiries.get(_name(path))
    if ends is None or ends - now > _SOON_SECONDS:
        return None
    begins = _seconds(Certificate.loadPEM(path.read_bytes()).original.get_notBefore())
    return ends if ends - now < _SOON_SHARE * (ends - begins) else None


def _name(path: Path) -> str:
    """As /metrics can show it: a directory's name may be no UTF-8."""
    return str(path).encode(errors="replace").decode()


def _seconds(asn1: bytes) -> float:
    return datetime.strptime(asn1.decode(), "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def names(pem: bytes, host: str) -> bool:
    """Whether the first certificate in PEM is good for this host name or IP address, as a TLS client sees it."""
    certificate = Certificate.loadPEM(pem).original.to_cryptography()
    verify: Any = verify_certificate_hostname if ip(host) is None else verify_certificate_ip_address
    try:
        verify(certificate, host)
    except Exception:  # each release of the library has its own
        return False
    return True
