"""The PyPI package `requests-oauth2client` as a partner would use it; its calls block, so they run in a thread."""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Self
from urllib.parse import urlsplit
from uuid import uuid4

import requests
from clients.third_party import PublicApp, Refused, Reply
from requests.auth import AuthBase
from requests_oauth2client import (
    AuthorizationRequest,
    AuthorizationResponseError,
    DPoPKey,
    DPoPToken,
    InvalidAuthResponse,
    InvalidUseDPoPNonceResponse,
    OAuth2Client,
    OAuth2Error,
    PrivateKeyJwt,
)
from requests_oauth2client import PublicApp as NoSecret

from gateway.credentials import Credentials

TIMEOUT_SECONDS = 30.0


class RequestsClient:
    """`requests-oauth2client` behind the words of `ThirdParty`."""

    def __init__(self, client: OAuth2Client, metadata: dict[str, Any]) -> None:
        self.metadata = metadata
        self._client = client
        self._tokens: dict[str, DPoPToken] = {}
        self._waiting: dict[str, AuthorizationRequest] = {}

    @classmethod
    @asynccontextmanager
    async def configured(cls, app: Credentials | PublicApp) -> AsyncGenerator[Self, None]:
        """The app's client, for as long as the block runs."""
        with requests.Session() as session:
            yield await asyncio.to_thread(cls._configure, app, session)

    @classmethod
    def _configure(cls, app: Credentials | PublicApp, session: requests.Session) -> Self:
        # RFC 8414 §3.1: the path of the issuer comes after the well-known one
        parts = urlsplit(app.issuer)
        url = parts._replace(path=f"/.well-known/oauth-authorization-server{parts.path}").geturl()
        metadata = session.get(url, timeout=TIMEOUT_SECONDS).json()
        client = OAuth2Client.from_discovery_document(
            metadata,
            issuer=app.issuer,
            auth=_authentication(app),
            # the one endpoint that the library does not take from the metadata by itself
            backchannel_authentication_endpoint=metadata.get("backchannel_authentication_endpoint"),
            dpop_bound_access_tokens=True,
            session=session,
            testing=True,
        )
        return cls(client, metadata)

    async def token(self, **parameters: str) -> dict[str, Any]:
        return self._keep(await self._ask(self._client.client_credentials, **parameters))

    async def call(self, token: dict[str, Any], method: str, url: str, body: Any = None) -> Reply:
        headers = {} if body is None else {"idempotency-key": str(uuid4())}
        answer = await self._ask(
            requests.request,
            method,
            url,
            json=body,
            headers=headers,
            auth=self._bound(token["access_token"]),
            timeout=TIMEOUT_SECONDS,
        )
        plain = {name.lower(): value for name, value in answer.headers.items()}
        return Reply(status=answer.status_code, headers=plain, body=answer.text)

    async def push(self, **parameters: str) -> str:
        request = self._client.authorization_request(dpop=True, **dict[str, Any](parameters))
        pushed = await self._ask(self._client.pushed_authorization_request, request)
        self._waiting[pushed.uri] = request
        return str(pushed.uri)

    async def begin(self, **parameters: str) -> str:
        request = self._client.authorization_request(dpop=True, **dict[str, Any](parameters))
        self._waiting[request.uri] = request
        return str(request.uri)

    async def redeem(self, address: str, answer: str) -> dict[str, Any]:
        checked = await self._ask(self._waiting[address].validate_callback, answer)
        return self._keep(await self._ask(self._client.authorization_code, checked))

    async def refresh(self, token: dict[str, Any], **parameters: str) -> dict[str, Any]:
        known = self._tokens[token["access_token"]]
        return self._keep(await self._ask(self._client.refresh_token, known, **parameters))

    async def ask(self, **parameters: str) -> dict[str, Any]:
        given = dict[str, Any](parameters)
        asked = await self._ask(self._client.backchannel_authentication_request, **given)
        return {"auth_req_id": asked.auth_req_id}

    async def collect(self, asked: dict[str, Any]) -> dict[str, Any]:
        return self._keep(await self._ask(self._client.ciba, asked["auth_req_id"]))

    async def introspect(self, token: str) -> dict[str, Any]:
        return dict(await self._ask(self._client.introspect_token, token))

    async def revoke(self, token: str) -> None:
        assert await self._ask(self._client.revoke_token, token)

    def _bound(self, access_token: str) -> DPoPToken:
        """The token with its key; with a new one if it is somebody else's."""
        known = self._tokens.get(access_token)
        return known or DPoPToken(access_token=access_token, _dpop_key=DPoPKey.generate("ES256"))

    def _keep(self, token: DPoPToken) -> dict[str, Any]:
        assert isinstance(token, DPoPToken)
        self._tokens[token.access_token] = token
        return {
            "access_token": token.access_token,
            "token_type": token.token_type,
            "scope": token.scope,
            "refresh_token": token.refresh_token,
            **token.kwargs,
        }

    async def _ask(self, call: Any, *arguments: Any, **named: Any) -> Any:
        try:
            return await asyncio.to_thread(call, *arguments, **named)
        except InvalidUseDPoPNonceResponse as refusal:
            # It takes every challenge for a request for a nonce; what the server said is in the header.
            with refusal.response as response:
                challenge = response.headers["WWW-Authenticate"]
            error = re.search('error="([^"]+)"', challenge)
            assert error is not None
            raise Refused(type(refusal).__name__, challenge, error=error[1], description=None) from refusal
        except (OAuth2Error, AuthorizationResponseError, InvalidAuthResponse) as refusal:
            raise Refused(
                type(refusal).__name__,
                str(refusal),
                error=getattr(refusal, "error", None),
                description=getattr(refusal, "description", None),
            ) from refusal


def _authentication(app: Credentials | PublicApp) -> AuthBase:
    if not isinstance(app, Credentials):
        return NoSecret(app.client_id)
    key = {**app.private_jwk, "kid": app.kid, "alg": "ES256"}
    # FAPI 2.0: the audience is the issuer and not, as older clients have it, the token endpoint
    return PrivateKeyJwt(app.client_id, key, aud=app.issuer)
