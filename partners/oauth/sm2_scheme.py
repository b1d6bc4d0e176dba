"""TESSERA-SM2-WITH-SM3: the second scheme of signed messages, for partners that must use the national algorithms.

RFC 9421 has no algorithm of SM2, so this is a header of its own beside `Authorization: DPoP`. Pure: read, judge, spell out
what is signed; the signatures themselves are kernel/sm2.py.
"""

import base64
import binascii
import re

from msgspec import Struct

from kernel.sm2 import sm3
from partners.oauth.http_signature import AGE_SECONDS, AHEAD_SECONDS, Request, SignatureUnfit

HEADER = "tessera-signature"
NAME = "TESSERA-SM2-WITH-SM3"
LENGTH_MAX = 1_024

_MEMBER = re.compile(r'([a-z_]+)="([!#-\[\]-~]*)"', re.ASCII)
_MEMBERS = frozenset(("app_id", "serial_no", "timestamp", "nonce", "signature"))
_NONCE = re.compile(r"[A-Za-z0-9_-]{16,64}", re.ASCII)
_TIMESTAMP = re.compile(r"[0-9]{1,12}", re.ASCII)


class Sm2Signature(Struct, frozen=True, kw_only=True):
    """The header of a request, taken apart; nothing is verified yet."""

    app_id: str
    serial_no: str
    timestamp: int
    nonce: str
    value: bytes


def read_header(field: str) -> Sm2Signature:
    """`TESSERA-SM2-WITH-SM3 app_id="…",serial_no="…",timestamp="…",nonce="…",signature="…"`, in any order."""
    name, _, rest = field.partition(" ")
    texts = rest.split(",")
    members = [found for text in texts if (found := _MEMBER.fullmatch(text.strip()))]
    values = {found[1]: found[2] for found in members}
    if len(field) > LENGTH_MAX or name != NAME or len(members) != len(texts) or len(values) != len(members):
        raise SignatureUnfit(f'the header must be {NAME} and name="value" pairs')
    if values.keys() != _MEMBERS:
        raise SignatureUnfit(f"the header must have {', '.join(sorted(_MEMBERS))}")
    if not _NONCE.fullmatch(values["nonce"]):
        raise SignatureUnfit("its nonce must be 16 to 64 letters, digits, hyphens or underscores")
    if not _TIMESTAMP.fullmatch(values["timestamp"]):
        raise SignatureUnfit("its timestamp must be whole seconds since 1970")
    try:
        value = binascii.a2b_base64(values["signature"].encode(), strict_mode=True)
    except binascii.Error:
        raise SignatureUnfit("its signature must be base64") from None
    return Sm2Signature(
        app_id=values["app_id"],
        serial_no=values["serial_no"],
        timestamp=int(values["timestamp"]),
        nonce=values["nonce"],
        value=value,
    )


def check_header(signature: Sm2Signature, *, client_id: str, now: float) -> None:
    """Whether it is of this app and of this minute."""
    if signature.app_id != client_id:
        raise SignatureUnfit("its app_id is not the client of the access token")
    if signature.timestamp < now - AGE_SECONDS:
        raise SignatureUnfit("it is too old; sign each request anew")
    if signature.timestamp > now + AHEAD_SECONDS:
        raise SignatureUnfit("it is dated in the future; check your clock")


def request_text(request: Request, *, timestamp: int, nonce: str, body: bytes, token: str) -> bytes:
    """What a request's signature is over; each line ends, the last one too, so that no two lists of lines collide."""
    return _lines(
        request.method,
        request.target,
        str(timestamp),
        nonce,
        sm3(body).hex(),
        # binds it to the token, and so to the key the token is bound to
        sm3(token.encode("latin-1")).hex(),
        request.fields.get("idempotency-key", ""),
    )


def response_text(
    request: Request, *, status: int, timestamp: int, nonce: str, asked: str, body: bytes
) -> bytes:
    """What an answer's signature is over; `asked` is the nonce of the request it answers."""
    return _lines(str(status), request.method, request.target, str(timestamp), nonce, asked, sm3(body).hex())


def response_header(*, serial_no: str, timestamp: int, nonce: str, value: bytes) -> str:
    """The header of a signed answer."""
    signature = base64.b64encode(value).decode()
    return f'{NAME} serial_no="{serial_no}",timestamp="{timestamp}",nonce="{nonce}",signature="{signature}"'


def _lines(*lines: str) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode("latin-1")
