"""Whose word is taken for where a request comes from: the configured proxies', on their addresses or on the private port.

From anybody else `Client-Cert`, `X-Forwarded-For` and `Forwarded` are as if they had not been sent. Only the one forwarding
header that the proxies maintain is read: the other would be the client's own invention.
"""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from kernel.errors import Malformed
from kernel.sender import Certificate, Sender
from kernel.settings import Settings, SettingsError
from partners.registry.jwk import encode

Address = IPv4Address | IPv6Address

CERTIFICATE_BYTES = 8_192
HOPS_MAX = 16
# An address as forwarding headers write it, with or without a port (RFC 7239 §6).
_NODE = re.compile(r"\s*(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)|([0-9A-Fa-f:.]+))(?::[0-9]{1,5})?\s*", re.ASCII)
_FOR = re.compile(r'(?:^|;)\s*for\s*=\s*"?([^";]*)"?\s*(?:;|$)', re.IGNORECASE | re.ASCII)


class CertificateMalformed(Malformed):
    """The trusted proxy sent a Client-Cert that is not one certificate, in RFC 9440's form and within its validity."""


class Proxies:
    """One per process: turns a connection and its headers into the Sender they vouch for."""

    def __init__(self, settings: Settings) -> None:
        self._networks = read_networks(settings.trusted_proxies)
        self._private_port = settings.private_port
        self._header = settings.forwarded_header.encode()

    def sender_of(self, scope: Mapping[str, Any], now: datetime) -> Sender:
        """Who is at the far end, as far as somebody trusted says."""
        peer = scope.get("client")
        address = _address(peer[0]) if peer else None
        if not self._trusts(scope, address):
            return _unvouched(address)
        headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
        forwarded = [value.decode("latin-1") for name, value in headers if name == self._header]
        certificates = [value for name, value in headers if name == b"client-cert"]
        return Sender(
            address=_written(self._client(forwarded, address)),
            certificate=read_certificate(certificates, now) if certificates else None,
        )

    def _trusts(self, scope: Mapping[str, Any], address: Address | None) -> bool:
        server = scope.get("server")
        if self._private_port is not None and server and server[1] == self._private_port:
            return True
        return address is not None and self._is_proxy(address)

    def _is_proxy(self, address: Address) -> bool:
        return any(address in network for network in self._networks)

    def _client(self, forwarded: Sequence[str], peer: Address | None) -> Address | None:
        """From the right, where our proxies write, the first address that is not a proxy's; None if it is unreadable."""
        if not forwarded:
            return peer
        hops = ",".join(forwarded).split(",")[-HOPS_MAX:]
        address = peer
        for hop in reversed(hops):
            address = _hop(hop, in_forwarded=self._header == b"forwarded")
            if address is None or not self._is_proxy(address):
                return address
        return address


def read_networks(text: str | None) -> tuple[IPv4Network | IPv6Network, ...]:
    """The networks of a comma-separated list."""
    try:
        return tuple(ip_network(part.strip()) for part in (text or "").split(",") if part.strip())
    except ValueError as mistake:
        raise SettingsError(f"TESSERA_TRUSTED_PROXIES: {mistake}") from None


def read_certificate(values: Sequence[bytes], now: datetime) -> Certificate:
    """The certificate of a Client-Cert header (RFC 9440 §2.2: one Byte Sequence, the DER between colons)."""
    if len(values) != 1 or len(values[0]) > CERTIFICATE_BYTES:
        raise CertificateMalformed
    certificate = _parse(values[0].strip())
    if not certificate.not_before <= now <= certificate.not_after:
        raise CertificateMalformed(reason="outside its validity")
    return certificate


@lru_cache(maxsize=1024)
def _parse(value: bytes) -> Certificate:
    if len(value) < 3 or value[:1] != b":" or value[-1:] != b":":
        raise CertificateMalformed
    try:
        parsed = x509.load_der_x509_certificate(base64.b64decode(value[1:-1], validate=True))
        subject = parsed.subject.rfc4514_string()
        names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        dns_names = [name.lower() for name in names.get_values_for_type(x509.DNSName)]
    except x509.ExtensionNotFound:
        dns_names = []
    except (binascii.Error, ValueError, x509.DuplicateExtension):
        raise CertificateMalformed from None
    return Certificate(
        thumbprint=encode(parsed.fingerprint(SHA256())),
        subject=subject,
        dns_names=frozenset(dns_names),
        not_before=parsed.not_valid_before_utc,
        not_after=parsed.not_valid_after_utc,
    )


@lru_cache(maxsize=4096)
def _address(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return None
        return address.ipv4_mapped or address
    return address


@lru_cache(maxsize=4096)
def _unvouched(address: Address | None) -> Sender:
    return Sender(address=_written(address))


def _written(address: Address | None) -> str | None:
    return None if address is None else str(address)


def _hop(text: str, *, in_forwarded: bool) -> Address | None:
    if in_forwarded:
        found = _FOR.search(text)
        text = found[1] if found else ""
    node = _NODE.fullmatch(text)
    return _address(node[1] or node[2] or node[3]) if node else None
