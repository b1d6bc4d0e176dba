"""HTTP message signatures (RFC 9421) and content digests (RFC 9530) as FAPI 2.0 HTTP Signatures uses them: read, judged, made.

Pure: what was received comes in as text, what is wrong goes out as SignatureUnfit with a text for the sender. Only what
the profile needs is understood, and whatever is not understood is refused.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Any

import http_sf
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.hashes import SHA512
from msgspec import Struct

from partners.registry.jwk import VerificationKey

REQUEST_TAG = "fapi-2-request"
RESPONSE_TAG = "fapi-2-response"
# FAPI 2.0 HTTP Signatures, requirements for resource servers, item 6: about a minute.
AGE_SECONDS = 60
AHEAD_SECONDS = 10

FIELD_LENGTH_MAX = 8_192
SIGNATURES_MAX = 8
COMPONENTS_MAX = 32

#: besides these a request must cover what it has of `dpop`, `content-digest` and `idempotency-key`
ALWAYS_COVERED = ("@method", "@target-uri", "authorization")
#: algorithm of a registered key to its names in RFC 9421 §6.2.2; none sent means the key's own (§3.3.7)
_ALGORITHMS: dict[str, tuple[str, ...]] = {
    "ES256": ("ecdsa-p256-sha256",),
    "EdDSA": ("ed25519",),
    "PS256": ("rsa-pss-sha512",),
}
_HASHES = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}
_PARAMETERS = {"created": int, "expires": int, "keyid": str, "alg": str, "nonce": str, "tag": str}
_PSS = padding.PSS(padding.MGF1(SHA512()), salt_length=64)


class SignatureUnfit(ValueError):
    """The text says what is wrong, for the one who made the signature; it never repeats what was sent."""


class Signature(Struct, frozen=True, kw_only=True):
    """One signature of a message, taken apart; nothing is verified yet."""

    components: tuple[str, ...]
    #: in the order they were sent, for they are signed in it
    parameters: dict[str, str | int]
    value: bytes

    @property
    def keyid(self) -> str:
        return str(self.parameters.get("keyid", ""))


class Request(Struct, frozen=True, kw_only=True):
    """What of a request can be signed."""

    method: str
    #: scheme and authority, as the deployment calls itself; never what Host says
    origin: str
    path: str
    query: str
    #: by name in lower case; lines of one name joined by a comma (RFC 9421 §2.1)
    fields: Mapping[str, str]

    @property
    def target(self) -> str:
        return f"{self.origin}{self.path}{f'?{self.query}' if self.query else ''}"


def read_signatures(signature_input: str, signature: str) -> list[Signature]:
    """The signatures tagged as of this profile (RFC 9421 §4); others are none of ours. At least one."""
    inputs, values = _dictionary(signature_input), _dictionary(signature)
    if inputs.keys() != values.keys() or not 0 < len(inputs) <= SIGNATURES_MAX:
        raise SignatureUnfit("Signature-Input and Signature must have the same labels, eight at most")
    found = []
    for label, (components, parameters) in inputs.items():
        value = values[label][0]
        if not isinstance(components, list) or type(value) is not bytes:
            raise SignatureUnfit("Signature-Input must hold inner lists, Signature byte sequences")
        if parameters.get("tag") == REQUEST_TAG:
            found.append(
                Signature(components=_components(components), parameters=_checked(parameters), value=value)
            )
    if not found:
        raise SignatureUnfit(f'no signature has the tag "{REQUEST_TAG}"')
    return found


def check_request(signature: Signature, request: Request, *, body: bytes, now: float) -> None:
    """Whether a signature covers what it must and is of this minute."""
    needed = {*ALWAYS_COVERED, *(("content-digest",) if body else ())}
    needed |= {name for name in ("dpop", "idempotency-key") if name in request.fields}
    if missing := sorted(needed.difference(signature.components)):
        raise SignatureUnfit(f"it must cover {', '.join(missing)}")
    created, expires = signature.parameters.get("created"), signature.parameters.get("expires")
    if not isinstance(created, int):
        raise SignatureUnfit("it must have the parameter created")
    if created < now - AGE_SECONDS or (isinstance(expires, int) and expires <= now):
        raise SignatureUnfit("it is too old; sign each request anew")
    if created > now + AHEAD_SECONDS:
        raise SignatureUnfit("it is dated in the future; check your clock")


def check_digest(field: str, body: bytes) -> None:
    """Whether Content-Digest is that of `body` (RFC 9530 §2), by algorithms that are safe (§5) and by no other."""
    digests = _dictionary(field)
    if not digests or not digests.keys() <= _HASHES.keys():
        raise SignatureUnfit("Content-Digest must be of sha-256 or sha-512, and of nothing else")
    for name, (value, _) in digests.items():
        if type(value) is not bytes or not hmac.compare_digest(value, _HASHES[name](body).digest()):
            raise SignatureUnfit("Content-Digest is not that of the body")


def check_signed_by(signature: Signature, key: VerificationKey, request: Request) -> None:
    """Whether the private half of `key` made the signature over this request (RFC 9421 §3.2)."""
    alg = signature.parameters.get("alg")
    # RFC 9421 §3.2 step 6: an algorithm that does not fit the key is an error, not a choice of the sender's.
    if alg is not None and alg not in _ALGORITHMS[key.alg]:
        raise SignatureUnfit("its alg is not that of the registered key")
    signed = signature_base(
        [(f'"{name}"', _value(name, request)) for name in signature.components], signature.parameters
    )
    if not (
        _verifies_sha512(key, signature.value, signed)
        if alg == "rsa-pss-sha512"
        else key.verifies(signature.value, signed)
    ):
        raise SignatureUnfit("it was not made over this request by the registered key")


def signature_base(lines: Sequence[tuple[str, str]], parameters: Mapping[str, str | int]) -> bytes:
    """RFC 9421 §2.5: a line for each component, the parameters last; in ASCII."""
    base = [f"{name}: {value}" for name, value in lines]
    base.append(f'"@signature-params": {signature_parameters([name for name, _ in lines], parameters)}')
    try:
        return "\n".join(base).encode("ascii")
    except UnicodeEncodeError:
        raise SignatureUnfit("what it covers must be ASCII") from None


def signature_parameters(names: Sequence[str], parameters: Mapping[str, str | int]) -> str:
    """The inner list of names with its parameters, as RFC 9651 §4.1 writes it."""
    written = [
        f";{name}={value if isinstance(value, int) else _quoted(value)}" for name, value in parameters.items()
    ]
    return f"({' '.join(names)}){''.join(written)}"


def response_lines(request: Request, *, status: int, digest: str | None) -> list[tuple[str, str]]:
    """What an answer's signature covers: itself, and the request it answers (RFC 9421 §2.4)."""
    lines = [('"@status"', str(status))]
    if digest is not None:
        lines.append(('"content-digest"', digest))
    lines += [('"@method";req', request.method), ('"@target-uri";req', request.target)]
    lines += [
        (f'"{name}";req', request.fields[name])
        for name in ("content-digest", "signature", "signature-input")
        if name in request.fields
    ]
    return lines


def content_digest(body: bytes) -> str:
    """The field's value for `body`."""
    return f"sha-256={byte_sequence(hashlib.sha256(body).digest())}"


def byte_sequence(data: bytes) -> str:
    return f":{base64.b64encode(data).decode()}:"


def _value(name: str, request: Request) -> str:
    match name:
        case "@method":
            return request.method
        case "@target-uri":
            return request.target
        case "@scheme":
            return request.origin.partition("://")[0]
        case "@authority":
            return request.origin.partition("://")[2].partition("/")[0].lower()
        case "@path":
            return request.path
        case "@query":
            return f"?{request.query}"
        case "@request-target":
            return request.path + (f"?{request.query}" if request.query else "")
    value = request.fields.get(name)
    if value is None:
        raise SignatureUnfit("it covers a field that the request does not have")
    return value


def _components(components: list[Any]) -> tuple[str, ...]:
    """The names; a component with parameters of its own is not understood here."""
    names = [name for name, parameters in components if type(name) is str and not parameters]
    if len(names) != len(components) or len(names) > COMPONENTS_MAX:
        raise SignatureUnfit("it covers a component in a form that is not supported")
    # RFC 9421 §2: each component once.
    if len(set(names)) != len(names):
        raise SignatureUnfit("it covers a component twice")
    derived = ("@method", "@target-uri", "@scheme", "@authority", "@path", "@query", "@request-target")
    if any(name != name.lower() or (name.startswith("@") and name not in derived) for name in names):
        raise SignatureUnfit("it covers a component in a form that is not supported")
    return tuple(names)


def _checked(parameters: Mapping[str, Any]) -> dict[str, str | int]:
    for name, value in parameters.items():
        if type(value) is not _PARAMETERS.get(name):
            raise SignatureUnfit("it has a parameter that is not supported, or one of the wrong type")
    return dict(parameters)


def _dictionary(field: str) -> dict[str, Any]:
    """A dictionary of RFC 9651 §3.2; a name that comes twice is refused, for two readers may take different ones."""

    def refuse(_name: str, _where: str) -> None:
        raise SignatureUnfit("a signature field names something twice")

    if len(field) > FIELD_LENGTH_MAX:
        raise SignatureUnfit(f"a signature field is longer than {FIELD_LENGTH_MAX} characters")
    try:
        parsed = http_sf.parse(field.encode("ascii"), tltype="dictionary", on_duplicate_key=refuse)
    except SignatureUnfit:
        raise
    except (ValueError, TypeError):
        raise SignatureUnfit("a signature field is not a structured field") from None
    assert isinstance(parsed, dict)
    return parsed


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _verifies_sha512(key: VerificationKey, value: bytes, signed: bytes) -> bool:
    """RFC 9421 §3.3.1, for RSA keys; JWS has only the SHA-256 form."""
    try:
        key.public.verify(value, signed, _PSS, SHA512())
    except InvalidSignature:
        return False
    return True
