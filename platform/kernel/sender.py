"""Where a request comes from: the address and the certificate that somebody we trust vouches for."""

from datetime import datetime
from functools import lru_cache
from ipaddress import IPv6Address, ip_network

from msgspec import Struct


class Certificate(Struct, frozen=True, kw_only=True):
    """A client certificate whose key the sender proved to hold, and whose chain the trusted proxy verified."""

    #: SHA-256 of the whole certificate, base64url (RFC 8705 §3.1)
    thumbprint: str
    #: RFC 4514
    subject: str
    #: of the subject alternative name, in lower case
    dns_names: frozenset[str]
    not_before: datetime
    not_after: datetime

    def answers_to(self, subject: str) -> bool:
        """Whether `dns:…` or `dn:…` names this certificate, character for character."""
        kind, _, name = subject.partition(":")
        return name in self.dns_names if kind == "dns" else name == self.subject


class Sender(Struct, frozen=True, kw_only=True):
    """The far end of a request."""

    #: as `ipaddress` writes it; None where nobody vouches for one
    address: str | None = None
    #: None without mutual TLS
    certificate: Certificate | None = None

    def network(self) -> str:
        """Whom attempts are counted for: the address, of IPv6 the /64 that one customer has."""
        if self.address is None:
            return "unknown"
        return _network_of(self.address) if ":" in self.address else self.address


@lru_cache(maxsize=4096)
def _network_of(address: str) -> str:
    return str(ip_network((int(IPv6Address(address)) >> 64 << 64, 64)))


#: nothing is known, so nothing that depends on it is allowed
NOBODY = Sender()
