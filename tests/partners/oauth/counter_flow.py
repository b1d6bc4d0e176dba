"""A partner's counter and a member's phone between which a request goes (CIBA), with every step open to mischief."""

from datetime import datetime, timedelta
from typing import Any

from kernel.caller import MemberRef
from kernel.ids import from_wire
from partners.oauth import authorizations
from partners.oauth.authorizations import Approval, Authorization
from partners.oauth.backchannel import RequestAccepted, request_backchannel
from partners.oauth.backchannel_rules import GRANT_TYPE
from partners.oauth.grants import Authentication
from partners.oauth.model import TokenIssued, TokenRefused
from partners.oauth.service import subject_for
from partners.registry import service as registry

from .member_flow import BASE_URL, FORM, Flow


class Counter:
    """One partner that asks one member."""

    def __init__(self, flow: Flow, *, partner_id: Any, sub: str) -> None:
        self.flow, self.partner_id, self.sub = flow, partner_id, sub

    @property
    def now(self) -> datetime:
        return self.flow.now

    def later(self, seconds: float) -> "Counter":
        return Counter(self.flow.later(seconds), partner_id=self.partner_id, sub=self.sub)

    async def send(self, body: bytes) -> RequestAccepted | TokenRefused:
        async with self.flow.connect() as connection:
            return await request_backchannel(
                connection,
                body=body,
                content_type=FORM,
                issuer=BASE_URL,
                base_url=BASE_URL,
                quotes=self.flow.quotes,
                now=self.now,
            )

    def asked(self, **changes: Any) -> bytes:
        return self.flow.form({"login_hint": self.sub, "scope": "members:read points:earn"}, changes)

    async def try_ask(self, **changes: Any) -> RequestAccepted | TokenRefused:
        return await self.send(self.asked(**changes))

    async def ask(self, **changes: Any) -> RequestAccepted:
        accepted = await self.try_ask(**changes)
        assert isinstance(accepted, RequestAccepted), accepted
        return accepted

    async def poll(self, request: RequestAccepted, /, **changes: Any) -> TokenIssued | TokenRefused:
        good = {"grant_type": GRANT_TYPE, "auth_req_id": request.auth_req_id}
        return await self.flow.token(**{**good, **changes})

    async def shown(self, member: MemberRef | None = None) -> list[Authorization]:
        async with self.flow.connect() as connection:
            return await authorizations.list_authorizations(
                connection, member or self.flow.member, now=self.now
            )

    async def find(self, request: RequestAccepted) -> Authorization:
        [found] = [
            one for one in await self.shown() if one.request.id == from_wire("aut", request.authorization)
        ]
        return found

    async def approve(
        self,
        request: RequestAccepted,
        *,
        member: MemberRef | None = None,
        details_hash: str | None = None,
        binding_message: str | None = "",
        sensitive_given: bool = True,
        login_age: timedelta = timedelta(0),
        shown: Authorization | None = None,
    ) -> None:
        shown = shown or await self.find(request)
        if binding_message == "":
            binding_message = shown.request.document.binding_message
        async with self.flow.connect() as connection:
            await authorizations.approve_authorization(
                connection,
                member or self.flow.member,
                from_wire("aut", request.authorization),
                approval=Approval(
                    binding_message=binding_message,
                    details_hash=details_hash or shown.details_hash,
                    sensitive_given=sensitive_given,
                ),
                authentication=Authentication(at=self.now - login_age, methods=["pwd", "otp"]),
                now=self.now,
            )

    async def deny(self, request: RequestAccepted, *, member: MemberRef | None = None) -> None:
        async with self.flow.connect() as connection:
            await authorizations.deny_authorization(
                connection,
                member or self.flow.member,
                from_wire("aut", request.authorization),
                now=self.now,
            )


async def open_counter(flow: Flow, partner_id: Any) -> Counter:
    """The client may ask on the phone, and the member is known to its partner."""
    async with flow.connect() as connection:
        await registry.allow_backchannel(
            connection, client_id=flow.client.client_id, allowed=True, actor="test", now=flow.now
        )
        sub = await subject_for(
            connection, partner_id=partner_id, member=flow.member, vault=flow.vault, now=flow.now
        )
    return Counter(flow, partner_id=partner_id, sub=sub)
