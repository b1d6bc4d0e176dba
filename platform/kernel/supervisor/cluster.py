"""The database cluster on disk: made once with its roles and its database, whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import structlog

from kernel.supervisor.places import DataDirectory
from kernel.supervisor.process import LOCALE, Identity, SupervisorError, run_tool
from kernel.supervisor.programs import Installation

SUPERUSER, OWNER, APPLICATION, DATABASE = "postgres", "tessera_owner", "tessera_app", "tessera"

#: given on the command line, so that they are those of this code and not of the day the cluster was made
SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "wal_level": "replica",
    "max_connections": "100",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "password_encryption": "scram-sha-256",
    "unix_socket_permissions": "0700",
    "logging_collector": "off",
    # DETAIL, statements and parameters hold personal data
    "log_error_verbosity": "terse",
    "log_statement": "none",
    "log_min_error_statement": "panic",
    "log_parameter_max_length_on_error": "0",
}

_log = structlog.get_logger("kernel.supervisor")

_SCHEMA_SCRIPT = (
    f"ALTER SCHEMA public OWNER TO {OWNER};\n"
    "REVOKE ALL ON SCHEMA public FROM PUBLIC;\n"
    f"GRANT USAGE ON SCHEMA public TO {APPLICATION};\n"
)


def provision(
    cluster: Path, *, data: DataDirectory, installation: Installation, identity: Identity | None
) -> None:
    """Make the cluster in the empty directory `cluster`, or see that the one in it is of our version."""
    version = cluster / "PG_VERSION"
    if version.exists():
        _refuse_other_version(cluster, made_by=version.read_text().strip(), installation=installation)
        return
    if any(cluster.iterdir()):
        raise SupervisorError(f"{cluster} holds files but no PostgreSQL cluster: move them away")
    for abandoned in cluster.parent.glob("postgres.new-*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    draft = Path(tempfile.mkdtemp(prefix="postgres.new-", dir=cluster.parent))
    if identity is not None:
        os.chown(draft, identity.uid, identity.gid)
    _initialise(draft, data.secret(f"{SUPERUSER}_password", create=True), installation, identity)
    _run_script(draft, "postgres", _roles_script(data), installation, identity)
    _run_script(draft, DATABASE, _SCHEMA_SCRIPT, installation, identity)
    draft.rename(cluster)
    _log.info("database cluster made", place=str(cluster), version=installation.version)


def _refuse_other_version(cluster: Path, *, made_by: str, installation: Installation) -> None:
    if made_by != installation.major:
        raise SupervisorError(
            f"{cluster} was made by PostgreSQL {made_by}, but {installation.version} is installed: "
            f"install {made_by}, or dump and restore"
        )


def _initialise(draft: Path, password: str, installation: Installation, identity: Identity | None) -> None:
    run_tool(
        [
            str(installation.programs / "initdb"),
            f"--pgdata={draft}",
            f"--username={SUPERUSER}",
            "--pwfile=/dev/stdin",
            "--auth-local=scram-sha-256",
            "--auth-host=scram-sha-256",
            "--encoding=UTF8",
            f"--locale={LOCALE}",
            "--data-checksums",
        ],
        identity=identity,
        text=password + "\n",
    )


def _roles_script(data: DataDirectory) -> str:
    owner, application = (data.secret(f"{role}_password", create=True) for role in (OWNER, APPLICATION))
    return (
        f"CREATE ROLE {OWNER} LOGIN PASSWORD '{owner}';\n"
        f"CREATE ROLE {APPLICATION} LOGIN PASSWORD '{application}';\n"
        f"CREATE DATABASE {DATABASE} OWNER {OWNER};\n"
        f"REVOKE ALL ON DATABASE {DATABASE} FROM PUBLIC;\n"
        "REVOKE ALL ON DATABASE postgres FROM PUBLIC;\n"
        f"GRANT CONNECT ON DATABASE {DATABASE} TO {APPLICATION};\n"
    )


def _run_script(
    draft: Path, database: str, script: str, installation: Installation, identity: Identity | None
) -> None:
    """Run one statement a line before the server ever listens; the first error ends it."""
    program = str(installation.programs / "postgres")
    settings = options(SETTINGS | {"exit_on_error": "on"})
    run_tool([program, "--single", "-D", str(draft), *settings, database], identity=identity, text=script)


def options(settings: Mapping[str, str]) -> list[str]:
    """`settings` as arguments of `postgres`."""
    return [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
