"""Passkeys (WebAuthn): made on a bound device after a complete login, shown there in place of a code afterwards."""

import secrets
from datetime import datetime

import msgspec
from webauthn import (
    base64url_to_bytes,
    generate_authentication_options,
    generate_registration_options,
    options_to_json,
    verify_authentication_response,
    verify_registration_response,
)
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    CredentialDeviceType,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from kernel import audit
from kernel.audit import AuditRecord
from kernel.database import Connection
from kernel.ids import to_wire
from kernel.vault import sha256
from partners.login import attempts, queries, service, session_queries
from partners.login.codes import account_of
from partners.login.model import Device, Passkey, Session, Step
from partners.login.rules import PASSKEYS_MAX

CHALLENGE_BYTES = 32
RESPONSE_LENGTH_MAX = 16_384


class RelyingParty(msgspec.Struct, frozen=True, kw_only=True):
    """Who the passkey is for."""

    #: the host alone; passkeys exist for names, never for addresses
    host: str
    #: scheme, host and port, as the browser signs them
    origin: str
    name: str


async def list_passkeys(
    connection: Connection, session: Session, device: Device | None, *, now: datetime
) -> list[Passkey]:
    """Those of this device, if it is the member's who logs in."""
    if device is None or device.account_id != session.account_id:
        return []
    return await queries.list_passkeys(connection, device, now=now)


async def ask_for_passkey(
    connection: Connection, session: Session, passkeys: list[Passkey], *, party: RelyingParty
) -> str:
    """What the browser is to sign (PublicKeyCredentialRequestOptions in JSON); each is good once."""
    challenge = secrets.token_bytes(CHALLENGE_BYTES)
    await session_queries.set_challenge(connection, session.id, challenge)
    options = generate_authentication_options(
        rp_id=party.host,
        challenge=challenge,
        allow_credentials=[PublicKeyCredentialDescriptor(id=passkey.credential_id) for passkey in passkeys],
        user_verification=UserVerificationRequirement.REQUIRED,
    )
    return options_to_json(options)


async def try_passkey(
    connection: Connection,
    session: Session,
    *,
    response: str,
    device: Device | None,
    party: RelyingParty,
    browser: str,
    now: datetime,
) -> Session | Step:
    """Whether one of the device's passkeys signed this session's challenge, its holder verified (WebAuthn §7.2)."""
    account = await account_of(connection, session)
    if not await attempts.count(connection, attempts.of_account("passkey", account.id), now=now):
        return Step.LOCKED
    challenge = await session_queries.take_challenge(connection, session.id)
    passkey = next(
        (
            known
            for known in await list_passkeys(connection, session, device, now=now)
            if known.credential_id == _credential_id(response)
        ),
        None,
    )
    if challenge is None or passkey is None:
        return Step.WRONG
    try:
        verified = verify_authentication_response(
            credential=response,
            expected_challenge=challenge,
            expected_rp_id=party.host,
            expected_origin=party.origin,
            credential_public_key=passkey.public_key,
            credential_current_sign_count=passkey.sign_count,
            require_user_verification=True,
        )
    except (WebAuthnException, ValueError):
        return Step.WRONG
    if not await queries.use_passkey(
        connection, passkey.credential_id, sign_count=verified.new_sign_count, now=now
    ):
        return Step.WRONG
    await attempts.clear(connection, attempts.of_account("passkey", account.id))
    methods = ["hwk" if passkey.hardware else "swk", "user"]
    return await service.pass_second_factor(connection, session, methods=methods, browser=browser, now=now)


async def offer_passkey(
    connection: Connection, session: Session, device: Device, *, party: RelyingParty, now: datetime
) -> str:
    """What the browser is to make (PublicKeyCredentialCreationOptions in JSON). Its name for the member says nothing."""
    challenge = secrets.token_bytes(CHALLENGE_BYTES)
    await session_queries.set_challenge(connection, session.id, challenge)
    present = await list_passkeys(connection, session, device, now=now)
    options = generate_registration_options(
        rp_id=party.host,
        rp_name=party.name,
        user_name=party.name,
        user_id=sha256("passkey-user", device.account_id.bytes),
        challenge=challenge,
        authenticator_selection=AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.DISCOURAGED,
            user_verification=UserVerificationRequirement.REQUIRED,
        ),
        exclude_credentials=[PublicKeyCredentialDescriptor(id=passkey.credential_id) for passkey in present],
    )
    return options_to_json(options)


async def add_passkey(
    connection: Connection,
    session: Session,
    *,
    response: str,
    device: Device,
    party: RelyingParty,
    now: datetime,
) -> Step:
    """Keep the public key the browser answered with (WebAuthn §7.1), in a session that is done."""
    if session.stage != "done" or device.account_id != session.account_id:
        raise service.LoginOver
    challenge = await session_queries.take_challenge(connection, session.id)
    if challenge is None or len(response) > RESPONSE_LENGTH_MAX:
        return Step.WRONG
    try:
        verified = verify_registration_response(
            credential=response,
            expected_challenge=challenge,
            expected_rp_id=party.host,
            expected_origin=party.origin,
            require_user_verification=True,
        )
    except (WebAuthnException, ValueError):
        return Step.WRONG
    passkey = Passkey(
        credential_id=verified.credential_id,
        public_key=verified.credential_public_key,
        sign_count=verified.sign_count,
        hardware=verified.credential_device_type is CredentialDeviceType.SINGLE_DEVICE,
    )
    if not await queries.insert_passkey(connection, passkey, device=device, limit=PASSKEYS_MAX, now=now):
        return Step.UNAVAILABLE
    record = AuditRecord(
        actor=f"account:{to_wire('lgn', device.account_id)}",
        action="login.passkey_added",
        subject=to_wire("dev", device.id),
        detail={"hardware": passkey.hardware},
    )
    await audit.append(connection, record, partner_id=None, now=now)
    return Step.PASSED


class _Named(msgspec.Struct):
    """The one member of a response that is read before it is verified."""

    rawId: str


def _credential_id(response: str) -> bytes | None:
    if len(response) > RESPONSE_LENGTH_MAX:
        return None
    try:
        named = msgspec.json.decode(response, type=_Named)
        return base64url_to_bytes(named.rawId)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
