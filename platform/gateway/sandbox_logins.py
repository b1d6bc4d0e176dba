"""How the sandbox's members log in: names and passwords of our own making, in a file that only its owner reads."""

import base64
import secrets
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from msgspec import Struct

from kernel.caller import MemberRef
from kernel.database import Connection
from kernel.vault import Vault
from partners.login.passwords import DRAWN_COST, hash_password
from partners.login.service import open_account

PASSWORD_BYTES = 16
TOTP_BYTES = 20


class SandboxLogin(Struct, frozen=True, kw_only=True):
    """A member's way in; the codes that would go to a phone are read by `tessera sandbox messages LOGIN`."""

    login: str
    password: str
    #: base32, as authenticator apps take it (RFC 6238); None for a member without one
    totp_secret: str | None
    bank_level: str
    shop_level: str


def member_file(data_dir: Path) -> Path:
    return data_dir / "sandbox" / "members.json"


async def give_logins(
    connection: Connection,
    members: Sequence[tuple[MemberRef, str, str]],
    *,
    with_app: int,
    vault: Vault,
    now: datetime,
) -> list[SandboxLogin]:
    """A login for each (member, bank level, shop level); the last `with_app` have an authenticator app too.

    The passwords are drawn, so their hashes may be cheap; the first login hashes them anew at the present cost.
    """
    given = []
    for number, (member, bank_level, shop_level) in enumerate(members, start=1):
        login = SandboxLogin(
            login=f"member{number:02}",
            password=secrets.token_urlsafe(PASSWORD_BYTES),
            totp_secret=_totp_secret() if number > len(members) - with_app else None,
            bank_level=bank_level,
            shop_level=shop_level,
        )
        await open_account(
            connection,
            member=member,
            login=login.login,
            password_hash=hash_password(login.password, DRAWN_COST),
            totp_secret=login.totp_secret,
            vault=vault,
            now=now,
        )
        given.append(login)
    return given


def _totp_secret() -> str:
    return base64.b32encode(secrets.token_bytes(TOTP_BYTES)).decode()
