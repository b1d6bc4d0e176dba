"""How an app may come in: what its jwks_uri, certificate and networks may look like, and whether an address is one of them."""

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from cryptography import x509

from kernel import outbound
from kernel.errors import Unprocessable
from partners.registry.model import Access

NETWORKS_MAX = 64
THUMBPRINTS_MAX = 16
_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
_DNS_NAME = re.compile(
    r"(?=.{4,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])", re.ASCII
)


class AccessInvalid(Unprocessable):
    """An app's access is a public https `jwks_uri`, a `dns:` or `dn:` subject, SHA-256 thumbprints and networks."""


def check_access(access: Access, *, loopback: bool) -> Access:
    """The access as it is stored; `loopback` lets a jwks_uri lead to this machine, as sandboxes need it."""
    if access.jwks_uri is not None:
        try:
            outbound.check_url(access.jwks_uri, loopback=loopback)
        except outbound.UrlRefused as refused:
            raise AccessInvalid(member="jwks_uri", reason=refused.reason) from None
    subject = access.certificate_subject
    if any(_THUMBPRINT.fullmatch(one) is None for one in access.certificate_thumbprints):
        raise AccessInvalid(member="certificate_thumbprints")
    if len(access.certificate_thumbprints) > THUMBPRINTS_MAX or len(access.ip_allow) > NETWORKS_MAX:
        raise AccessInvalid(member="number")
    return Access(
        jwks_uri=access.jwks_uri,
        token_binding=access.token_binding,
        certificate_subject=None if subject is None else _subject(subject),
        certificate_thumbprints=tuple(sorted(set(access.certificate_thumbprints))),
        ip_allow=tuple(sorted({str(_network(network)) for network in access.ip_allow})),
    )


def allows(ip_allow: Sequence[str], address: str | None) -> bool:
    """Whether an app with these networks may call from `address`; an address nobody vouches for is in none."""
    if not ip_allow:
        return True
    if address is None:
        return False
    known = _known_address(address)
    return any(known in _known_network(network) for network in ip_allow)


def _subject(subject: str) -> str:
    kind, _, name = subject.partition(":")
    if kind == "dns" and _DNS_NAME.fullmatch(name):
        return subject
    try:
        written = x509.Name.from_rfc4514_string(name).rfc4514_string() if kind == "dn" else ""
    except ValueError:
        written = ""
    if not written:
        raise AccessInvalid(member="certificate_subject")
    return f"dn:{written}"


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError:
        raise AccessInvalid(member="ip_allow", reason=text[:64]) from None


_known_network = lru_cache(maxsize=4096)(ip_network)
_known_address = lru_cache(maxsize=4096)(ip_address)
