"""Accounts, sessions and what a step of a login may come to."""

from datetime import datetime
from enum import Enum
from typing import Literal
from uuid import UUID

from msgspec import Struct

from kernel.caller import MemberRef

Stage = Literal["new", "password", "done", "ended"]
#: what is limited: guesses for a name, from a bound device, from an address; at codes; passkeys shown; messages sent
AttemptKind = Literal["name", "device", "address", "code", "app", "passkey", "send"]


class Account(Struct, frozen=True, kw_only=True):
    """A member's way in."""

    id: UUID
    member_id: int
    bucket: int
    #: sealed; None for a member without an authenticator app
    totp_sealed: bytes | None

    @property
    def member(self) -> MemberRef:
        return MemberRef(member_id=self.member_id, bucket=self.bucket)


class Session(Struct, frozen=True, kw_only=True):
    """One login for one matter in one browser."""

    id: UUID
    stage: Stage
    #: who it is, or will be when the second factor is shown; None until the password was right
    account_id: UUID | None
    #: RFC 8176 names of what was shown
    methods: list[str]
    expires_at: datetime
    authenticated_at: datetime | None


class Device(Struct, frozen=True, kw_only=True):
    """A browser that the member once logged in with completely."""

    id: UUID
    account_id: UUID


class Passkey(Struct, frozen=True, kw_only=True):
    """A public key whose private half a device of the member keeps (WebAuthn)."""

    credential_id: bytes
    public_key: bytes
    #: what the authenticator last said; one that goes back was copied
    sign_count: int
    hardware: bool


class Authentication(Struct, frozen=True, kw_only=True):
    """Who logged in, when, and by what (amr of RFC 8176)."""

    member: MemberRef
    at: datetime
    methods: list[str]


class Step(Enum):
    """What a step came to; a step that failed leaves its mark, so it is told and not raised."""

    PASSED = "passed"
    WRONG = "wrong"
    #: too many attempts
    LOCKED = "locked"
    #: the code has expired, was used or was guessed at too often: only a new one helps
    SPENT = "spent"
    #: no code can be sent here
    UNAVAILABLE = "unavailable"


class Trial(Struct, frozen=True, kw_only=True):
    """A password to be looked at: whose it would be, and its stored hash; both None for a name nobody has."""

    account_id: UUID | None
    stored: str | None
    #: the counters to clear when the password is right
    counted: tuple[tuple[AttemptKind, bytes], ...]


class Factors(Struct, frozen=True, kw_only=True):
    """What the member may show after the password."""

    passkey: bool
    #: whether a code can be sent
    code: bool
    app: bool
    #: whether one was sent in this session and may still be good
    code_sent: bool
