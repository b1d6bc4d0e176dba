"""The sandbox's own app: what a program needs to play the bank's app on a phone, in a file that only its owner reads."""

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct, structs

from gateway.sandbox_logins import SandboxLogin
from kernel.database import Connection
from partners.mobile import service
from partners.mobile.rules import ISSUER_PATH

log = structlog.get_logger("sandbox")

#: a program on this machine listens there, a phone has a scheme of its own
REDIRECT_URIS = ("http://127.0.0.1:8766/callback", "com.example.tessera:/callback")


class MobileApp(Struct, frozen=True, kw_only=True):
    """How to log in as the app, and whom to log in."""

    base_url: str
    issuer: str
    client_id: str
    redirect_uri: str
    scopes: list[str]
    members: list[SandboxLogin]


def mobile_file(data_dir: Path) -> Path:
    return data_dir / "sandbox" / "mobile.json"


async def add_app(
    connection: Connection, members: Sequence[SandboxLogin], *, base_url: str, now: datetime
) -> MobileApp:
    """Register the app; the members' logins are those of the members' own file."""
    app = await service.register_app(
        connection,
        name_zh="示例手机银行",
        name_en="Sample mobile bank",
        redirect_uris=REDIRECT_URIS,
        actor="job:sandbox",
        now=now,
    )
    return MobileApp(
        base_url=base_url,
        issuer=base_url + ISSUER_PATH,
        client_id=app.client_id,
        redirect_uri=REDIRECT_URIS[0],
        scopes=app.scopes,
        members=list(members),
    )


def readdress_mobile(data_dir: Path, *, base_url: str, write: Callable[[Path, MobileApp], None]) -> None:
    """Tell the file where the platform is now."""
    path = mobile_file(data_dir)
    if not path.exists():
        log.warning("mobile_file_missing", path=str(path), remedy="tessera sandbox reset")
        return
    present = msgspec.json.decode(path.read_bytes(), type=MobileApp)
    wanted = structs.replace(present, base_url=base_url, issuer=base_url + ISSUER_PATH)
    if wanted != present:
        write(path, wanted)
