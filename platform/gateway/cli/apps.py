"""`tessera app`: switch an app off or on, revoke a key of it, and propose how it may come in."""

import argparse
from collections.abc import Callable
from typing import Any, get_args

from msgspec import structs

from gateway.admins import Role, require_admin
from gateway.cli.acting import Deed, add_by, add_command
from gateway.cli.partners import change_line
from gateway.runtime import Runtime
from kernel.database import Connection
from partners.registry import changes, client_keys
from partners.registry import service as registry
from partners.registry.model import Access, App, AppStatus, Key, TokenBinding

#: on the command line: take the present value away
NONE = "none"


def register(subparsers: Any) -> None:
    """Add the commands to the parser."""
    parser = subparsers.add_parser("app", help="apps of partners: status, keys, access")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    listing = add_command(commands, "list", _list_apps, "a partner's apps and their keys")
    listing.add_argument("slug")
    switches = (
        ("deactivate", _switch("inactive", "duty_officer"), "switch it off at once; takes one duty officer"),
        ("activate", _switch("active", "checker"), "switch it on again; takes a checker"),
    )
    for name, run, told in switches:
        switch = add_command(commands, name, run, told)
        switch.add_argument("client_id")
        add_by(switch)
    revoke = add_command(commands, "revoke-key", _revoke_key, "refuse a key at once; takes one duty officer")
    revoke.add_argument("client_id")
    revoke.add_argument("kid")
    revoke.add_argument("--last", action="store_true", help="even if the app has no other way in")
    add_by(revoke)
    access = add_command(
        commands,
        "access",
        _propose_access,
        "propose how it comes in; takes a maker, `partner approve` does it",
    )
    access.add_argument("client_id")
    access.add_argument("--jwks-uri", help=f"where it publishes its keys, or {NONE}")
    access.add_argument("--token-binding", choices=get_args(TokenBinding))
    access.add_argument("--certificate-subject", help=f"dns:NAME, dn:RFC 4514 name, or {NONE}")
    access.add_argument("--thumbprint", action="append", help=f"a certificate that is taken, or {NONE}: any")
    access.add_argument("--ip-allow", action="append", help=f"a network it calls from, or {NONE}: everywhere")
    add_by(access)


def _list_apps(options: argparse.Namespace) -> Deed:
    async def deed(connection: Connection, _runtime: Runtime) -> list[str]:
        partner = await registry.find_partner_by_slug(connection, options.slug)
        lines = []
        for app in await registry.list_apps(connection, partner.id):
            lines.append(_app_line(app))
            lines += [_key_line(key) for key in await registry.list_keys(connection, app.id)]
        return lines

    return deed


def _switch(status: AppStatus, role: Role) -> Callable[[argparse.Namespace], Deed]:
    def run(options: argparse.Namespace) -> Deed:
        async def deed(connection: Connection, runtime: Runtime) -> list[str]:
            by = await require_admin(connection, options.login, role)
            app = await registry.find_app_by_client(connection, options.client_id)
            switched = await registry.set_app_status(
                connection,
                app_id=app.id,
                status=status,
                reason=options.reason,
                actor=by,
                now=runtime.clock.now(),
            )
            return [_app_line(switched)]

        return deed

    return run


def _revoke_key(options: argparse.Namespace) -> Deed:
    async def deed(connection: Connection, runtime: Runtime) -> list[str]:
        by = await require_admin(connection, options.login, "duty_officer")
        app = await registry.find_app_by_client(connection, options.client_id)
        key = await client_keys.revoke_key(
            connection,
            app_id=app.id,
            kid=options.kid,
            last=options.last,
            reason=options.reason,
            actor=by,
            now=runtime.clock.now(),
        )
        return [_key_line(key)]

    return deed


def _propose_access(options: argparse.Namespace) -> Deed:
    async def deed(connection: Connection, runtime: Runtime) -> list[str]:
        by = await require_admin(connection, options.login, "maker")
        app = await registry.find_app_by_client(connection, options.client_id)
        change = await changes.propose_access(
            connection,
            app=app,
            access=changed_access(app, options),
            loopback=runtime.settings.mode == "sandbox",
            reason=options.reason,
            by=by,
            now=runtime.clock.now(),
        )
        return [change_line(change)]

    return deed


def changed_access(app: App, options: argparse.Namespace) -> Access:
    """The app's access with what the options say; what they do not name stays."""
    present = Access(
        jwks_uri=app.jwks_uri,
        token_binding=app.token_binding,
        certificate_subject=app.certificate_subject,
        certificate_thumbprints=app.certificate_thumbprints,
        ip_allow=app.ip_allow,
    )
    single = {"jwks_uri": options.jwks_uri, "certificate_subject": options.certificate_subject}
    several = {"certificate_thumbprints": options.thumbprint, "ip_allow": options.ip_allow}
    changed: dict[str, Any] = {
        **{name: None if text == NONE else text for name, text in single.items() if text is not None},
        **{name: () if texts == [NONE] else tuple(texts) for name, texts in several.items() if texts},
    }
    if options.token_binding is not None:
        changed["token_binding"] = options.token_binding
    return structs.replace(present, **changed)


def _app_line(app: App) -> str:
    access = [app.token_binding, app.jwks_uri, app.certificate_subject, *app.ip_allow]
    return f"{app.client_id} {app.status:<8} {' '.join(text for text in access if text)}"


def _key_line(key: Key) -> str:
    until = "" if key.not_after is None else f" until {key.not_after:%Y-%m-%dT%H:%M:%SZ}"
    return f"  key {key.kid:<24} {key.status}{until}"
