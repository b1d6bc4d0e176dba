"""Client certificates of a test's own, in the form in which a proxy hands them on (RFC 9440)."""

import base64
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID


def make_certificate(dns_name: str, *, common_name: str = "api", organisation: str = "Shop") -> bytes:
    """DER of a certificate valid for long, whose chain nobody here looks at: that is the proxy's work."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2099, 1, 1, tzinfo=UTC))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(dns_name)]), critical=False)
        .sign(key, SHA256())
        .public_bytes(Encoding.DER)
    )


def client_cert(der: bytes) -> str:
    """The value of the Client-Cert header."""
    return f":{base64.b64encode(der).decode()}:"
