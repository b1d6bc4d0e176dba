"""A client's own token the short way: all checks on what is in memory, and nothing left but two identifiers to use up.

Only for plain good requests: a registered key, private_key_jwt, client_credentials. Whatever is wrong or unusual is left to
partners/oauth/token.py, which finds the same and says so; nothing has happened by then.
"""

from datetime import UTC, datetime

from msgspec import Struct

from kernel.one_time import id_hash
from kernel.sender import Sender
from partners.oauth import rules
from partners.oauth.client_authentication import MEMORY, check_may_ask
from partners.oauth.jws import JwsInvalid
from partners.oauth.model import Confirmation, TokenForm
from partners.oauth.rules import RequestRefused
from partners.oauth.token import (
    PROOF_MEMORY,
    RESOURCE_PATH,
    TOKEN_PATH,
    Allowance,
    TokenRequest,
    proof_scope,
)
from partners.registry.access import allows
from partners.registry.directory import AppDirectory
from partners.registry.jwk import read_jwk
from partners.registry.model import Client

GRANT_TYPE = "client_credentials"


class OneTime(Struct, frozen=True, kw_only=True):
    """An identifier that is good once, as it is remembered."""

    id_hash: bytes
    expires_at: datetime


class Examined(Struct, frozen=True, kw_only=True):
    """A good request, what it is allowed, and what of it must be fresh."""

    request: TokenRequest
    allowance: Allowance
    assertion: OneTime
    proof: OneTime


async def examine_request(
    *,
    body: bytes,
    content_type: str,
    proofs: list[str],
    directory: AppDirectory,
    sender: Sender,
    issuer: str,
    base_url: str,
    now: datetime,
) -> Examined | None:
    """The request if it is plain and good, as far as can be known without using anything up."""
    try:
        form = rules.read_form(body, content_type)
        if form.grant_type != GRANT_TYPE or len(proofs) != 1:
            return None
        found = await _examine_client(form, directory, issuer=issuer, now=now)
        if found is None:
            return None
        client, assertion = found
        url = rules.normal_url(base_url + TOKEN_PATH)
        assert url is not None, "the base URL is not a URL"
        proof = rules.check_proof(proofs[0], method="POST", url=url, now=now.timestamp())
        check_may_ask(client)
        if client.token_binding != "dpop" or not allows(client.ip_allow, sender.address):
            return None
        rules.check_resource(form.resource, resource=base_url + RESOURCE_PATH)
        scopes = rules.choose_scope(form.scope, client.scopes)
    except (RequestRefused, JwsInvalid):
        return None
    return Examined(
        request=TokenRequest(
            form=form, client=client, proof=proof, bound_to=Confirmation(jkt=proof.jkt), now=now
        ),
        allowance=Allowance(scopes=scopes),
        assertion=assertion,
        proof=OneTime(id_hash=id_hash(proof_scope(proof), proof.jti), expires_at=now + PROOF_MEMORY),
    )


async def _examine_client(
    form: TokenForm, directory: AppDirectory, *, issuer: str, now: datetime
) -> tuple[Client, OneTime] | None:
    jws, claims = rules.read_assertion(form)
    if rules.CLIENT_ID.fullmatch(claims.iss) is None:
        return None
    client = await directory.find(claims.iss)
    if client is None or GRANT_TYPE not in client.grant_types:
        return None
    # A key that waits for its first use is made active by the long way.
    jwk = client.keys.get(jws.header.kid or "")
    key = None if jwk is None else read_jwk(jwk)
    if key is None or key.alg != jws.header.alg or not key.verifies(jws.signature, jws.signed):
        return None
    rules.check_assertion(claims, issuer=issuer, now=now.timestamp())
    return client, OneTime(
        id_hash=id_hash(f"assertion:{client.client_id}", claims.jti),
        expires_at=datetime.fromtimestamp(claims.exp, UTC) + MEMORY,
    )
