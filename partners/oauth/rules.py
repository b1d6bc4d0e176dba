"""What makes an assertion, a proof and a token request acceptable: pure decisions on parsed input."""

import hashlib
import hmac
import re
from collections.abc import Sequence
from typing import TypeVar
from urllib.parse import parse_qsl, urlsplit

from partners.oauth.jws import Jws, JwsInvalid, convert, parse
from partners.oauth.model import (
    AssertionClaims,
    ClientForm,
    Proof,
    ProofClaims,
    Seconds,
    TokenForm,
    TokenRefused,
)
from partners.registry.jwk import encode

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_SECONDS = 300
# FAPI 2.0 §5.3.2.1 clause 13: up to 10 s ahead must pass, more than 60 s must not; half a minute is in between.
FUTURE_SECONDS = 30
PROOF_SECONDS = 60

CLIENT_ID = re.compile(r"app_[0-9A-HJKMNP-TV-Z]{26}", re.ASCII)
_ASSERTION_TYPES = frozenset((None, "jwt", "client-authentication+jwt"))
_DEFAULT_PORTS = {"https": 443, "http": 80}
_FIELDS_MAX = 32
# RFC 7636 §4.1
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}", re.ASCII)


F = TypeVar("F", bound=ClientForm)


class RequestRefused(Exception):
    """A request to an OAuth endpoint is refused with an error of RFC 6749 §5.2, RFC 8707 or RFC 9449."""

    def __init__(
        self, error: str, description: str, *, status: int = 400, retry_after_seconds: int | None = None
    ) -> None:
        super().__init__(description)
        self.error = error
        self.description = description
        self.status = status
        self.retry_after_seconds = retry_after_seconds

    def outcome(self) -> TokenRefused:
        """What the endpoint answers."""
        return TokenRefused(
            status=self.status,
            error=self.error,
            description=self.description,
            retry_after_seconds=self.retry_after_seconds,
        )


def read_form(body: bytes, content_type: str) -> TokenForm:
    """The parameters of a token request, or invalid_request."""
    return read_parameters(body, content_type, TokenForm)


def read_parameters(body: bytes, content_type: str, kind: type[F]) -> F:
    """The parameters of a form that an endpoint knows, or invalid_request."""
    if content_type.partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise RequestRefused("invalid_request", "send the parameters as application/x-www-form-urlencoded")
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_FIELDS_MAX
        )
    except ValueError:
        raise RequestRefused("invalid_request", "the form cannot be read") from None
    # RFC 6749 §3.2: unknown parameters are ignored, empty ones count as omitted, none may appear twice;
    # RFC 8707 §2 lets `resource` be repeated.
    values: dict[str, str] = {}
    for name, value in pairs:
        if name in values and name != "resource":
            raise RequestRefused("invalid_request", "a parameter is given twice")
        values[name] = value
    known: dict[str, str | None] = {
        name: values.get(name) or None for name in kind.__struct_fields__ if name != "resource"
    }
    return kind(**known, resource=tuple(value for name, value in pairs if name == "resource" and value))


def read_assertion(form: ClientForm) -> tuple[Jws, AssertionClaims]:
    """The client's assertion, well-formed but not yet verified; raises RequestRefused or JwsInvalid."""
    if form.client_assertion is None or form.client_secret is not None:
        raise RequestRefused(
            "invalid_client",
            "authenticate with private_key_jwt (client_assertion), and nothing else",
            status=401,
        )
    if form.client_assertion_type != ASSERTION_TYPE:
        raise RequestRefused("invalid_client", f"client_assertion_type must be {ASSERTION_TYPE}", status=401)
    jws = parse(form.client_assertion)
    # A token, a proof or a request object is not an assertion (RFC 8725 §3.11).
    if (jws.header.typ.lower() if jws.header.typ else None) not in _ASSERTION_TYPES:
        raise JwsInvalid("its typ is that of another kind of token")
    if jws.header.key is not None:
        raise JwsInvalid("its header must not contain jwk")
    if jws.header.kid is None:
        raise JwsInvalid("its header must name the registered key by kid")
    claims = convert(jws.claims, AssertionClaims)
    # RFC 7523 §3: for client authentication both are the client_id.
    if claims.sub != claims.iss or form.client_id not in (None, claims.iss):
        raise JwsInvalid("its iss and sub must both be the client_id")
    return jws, claims


def check_assertion(claims: AssertionClaims, *, issuer: str, now: float) -> None:
    """The time and audience of an assertion whose signature is good."""
    # FAPI 2.0 §5.3.2.1 clause 8: the issuer as a string; a list or the endpoint's address would let an assertion
    # made for one server be used at another.
    if claims.aud != issuer:
        raise JwsInvalid(f'its aud must be the issuer as a plain string: "{issuer}"')
    # RFC 7519 §4.1.4: no leeway; the assertion's life is the client's own choice.
    if claims.exp <= now:
        raise JwsInvalid("it has expired")
    if claims.exp > (now if claims.iat is None else claims.iat) + ASSERTION_SECONDS:
        raise JwsInvalid(f"its exp must be at most {ASSERTION_SECONDS} seconds after its iat")
    check_not_ahead(claims.iat, now=now)
    check_not_ahead(claims.nbf, now=now)


def check_proof(token: str, *, method: str, url: str, now: float, ath: str | None = None) -> Proof:
    """A proof of possession for `method` and `url` (RFC 9449 §4.3), bound to a token if `ath` is given.

    `url` is what the deployment calls itself, as `normal_url` writes it; never what the request's Host says.
    """
    jws = parse(token)
    if jws.header.typ != "dpop+jwt":
        raise JwsInvalid("its typ must be dpop+jwt")
    if jws.header.key is None:
        raise JwsInvalid("its header must contain the public key as jwk")
    claims = convert(jws.claims, ProofClaims)
    if claims.htm != method:
        raise JwsInvalid("its htm is not the method of this request")
    if claims.htu != url and normal_url(claims.htu) != url:
        raise JwsInvalid(f"its htu is not the address of this request: {url}")
    if claims.iat < now - PROOF_SECONDS or (claims.exp is not None and claims.exp <= now):
        raise JwsInvalid("it is too old; make a new proof for each request")
    check_not_ahead(claims.iat, now=now)
    check_not_ahead(claims.nbf, now=now)
    if ath is not None and claims.ath != ath:
        raise JwsInvalid("its ath is not the SHA-256 of the access token")
    if not jws.header.key.verifies(jws.signature, jws.signed):
        raise JwsInvalid("its signature was not made by the key in its jwk")
    return Proof(jkt=jws.header.key.thumbprint, jti=claims.jti, nonce=claims.nonce)


def check_not_ahead(moment: Seconds | None, *, now: float) -> None:
    if moment is not None and moment > now + FUTURE_SECONDS:
        raise JwsInvalid("it is dated in the future; check your clock")


def check_verifier(verifier: str | None, challenge: str) -> None:
    # RFC 7636 §4.6
    if verifier is None or _VERIFIER.fullmatch(verifier) is None:
        raise RequestRefused("invalid_grant", "code_verifier is missing or malformed")
    if not hmac.compare_digest(encode(hashlib.sha256(verifier.encode()).digest()), challenge):
        raise RequestRefused("invalid_grant", "code_verifier does not fit the code_challenge")


def choose_scope(requested: str | None, allowed: Sequence[str]) -> list[str]:
    """What the token will allow: everything the app may do, or the part it asks for."""
    if requested is None:
        return sorted(allowed)
    wanted = set(requested.split(" "))
    if not wanted <= set(allowed):
        raise RequestRefused("invalid_scope", "the app has not been granted every scope it asks for")
    return sorted(wanted)


def check_resource(requested: Sequence[str], *, resource: str) -> None:
    # RFC 8707 §2
    if any(one != resource for one in requested):
        raise RequestRefused("invalid_target", f"this server issues tokens for {resource} only")


def normal_url(url: str) -> str | None:
    """`url` without query and fragment, scheme and host in lower case, default port left out; None if it is no such URL.

    RFC 9449 §4.3 step 9 with RFC 3986 §6.2.2.1 and §6.2.3; paths are compared as they are.
    """
    if not url.isascii() or not url.isprintable() or " " in url:
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or "@" in parts.netloc:
        return None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    authority = host if port in (None, _DEFAULT_PORTS[parts.scheme]) else f"{host}:{port}"
    return f"{parts.scheme}://{authority}{parts.path or '/'}"
