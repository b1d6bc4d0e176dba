"""How a one-time code reaches the member: the port, and what the sandbox has behind it."""

from datetime import datetime
from typing import Protocol
from uuid import UUID

from msgspec import Struct

from kernel.database import Connection
from kernel.ids import new_id
from kernel.vault import Vault
from partners.login import queries, session_queries
from partners.login.rules import login_name

TABLE = "login_message"
MESSAGES_KEPT = 20


class CodeMessage(Struct, frozen=True, kw_only=True):
    """A code on its way to a member."""

    account_id: UUID
    code: str
    #: for how many minutes it is good
    minutes: int


class CodeSender(Protocol):
    """Takes a message in the transaction that makes the code: both are there, or neither."""

    async def accept(self, connection: Connection, message: CodeMessage, *, now: datetime) -> None:
        """Put the message where the bank's messaging finds it; returns before it is sent."""
        ...


class SandboxSender:
    """Sends nothing: the sealed messages wait for `tessera sandbox messages`."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def accept(self, connection: Connection, message: CodeMessage, *, now: datetime) -> None:
        message_id = new_id(now)
        sealed = self._vault.encrypt(text_of(message), table=TABLE, column="text_sealed", row=str(message_id))
        await session_queries.insert_message(
            connection, message_id, account_id=message.account_id, text_sealed=sealed, now=now
        )
        await session_queries.forget_messages(connection, message.account_id, keep=MESSAGES_KEPT)


def text_of(message: CodeMessage) -> str:
    """What the member reads: the code, how long it is good, and that nobody asks for it."""
    return (
        f"验证码 {message.code}，{message.minutes} 分钟内有效，用于登录并确认授权。银行人员不会向您索取验证码。 "
        f"Code {message.code}, good for {message.minutes} minutes, to sign in and confirm an authorisation. "
        "Nobody from the bank will ask you for it."
    )


async def list_messages(
    connection: Connection, *, login: str, vault: Vault, limit: int = MESSAGES_KEPT
) -> list[tuple[datetime, str]] | None:
    """What the sandbox would have sent, newest first; None for a name nobody has."""
    account = await queries.find_account_by_name(
        connection, vault.blind_index("login-name", login_name(login))
    )
    if account is None:
        return None
    return [
        (sent_at, vault.decrypt(sealed, table=TABLE, column="text_sealed", row=str(message_id)))
        for message_id, sealed, sent_at in await session_queries.list_messages(
            connection, account.id, limit=limit
        )
    ]
