"""How fast tokens are issued: ours against Authlib and django-oauth-toolkit, in the same run on the same cores.

Ours: private_key_jwt and a DPoP proof, both ES256, both identifiers stored before a signed token leaves. Theirs, as their
documentation sets them up: client_secret_basic, an opaque token stored, gunicorn with as many processes. All three keep what
they store in the same PostgreSQL. The reference libraries live in an environment of their own, `.venv-bench`, which is made
when it is missing.
"""

import asyncio
import os
import shutil
import subprocess
import tempfile
import venv
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import asyncpg

from bench import http
from bench.http import Server
from bench.load import Spec
from bench.measure import entry
from gateway.attach import HOST
from kernel import migrate
from kernel.supervisor import EmbeddedServers
from partners.oauth.token import TOKEN_PATH

ROOT = Path(__file__).parent.parent
ENVIRONMENT = ROOT / ".venv-bench"
REFERENCES = {"authlib": "authlib_server", "toolkit": "toolkit_server"}
CONNECTIONS = 64
THREADS = 4
#: more tokens are not prepared for a second than any run has ever needed
PER_SECOND = 5_000


def measure(_orders: Path | None) -> list[dict[str, Any]]:
    """Both ratios, on servers of their own."""
    _install()
    root = Path(tempfile.mkdtemp(prefix="tessera-bench-", dir="/var/tmp"))
    root.chmod(0o711)
    try:
        with EmbeddedServers(root / "servers") as servers:
            return asyncio.run(Bench(root, servers.endpoints, servers.pids()["postgres"]).measure())
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _install() -> None:
    if (ENVIRONMENT / "installed").exists():
        return
    venv.create(ENVIRONMENT, with_pip=True)
    command = [str(ENVIRONMENT / "bin/pip"), "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*command, "--require-hashes", "--no-deps", "-r", str(ROOT / "requirements-bench.lock")], check=True
    )
    (ENVIRONMENT / "installed").touch()


class Bench(http.Bench):
    """The token endpoints under load, in turn."""

    async def measure(self) -> list[dict[str, Any]]:
        await migrate.apply(self._endpoints.migration_url, migrate.find_directory())
        superuser = await asyncpg.connect(self._endpoints.superuser_url, timeout=10)
        for name in REFERENCES:
            await superuser.execute(f"CREATE DATABASE {name}")
        await superuser.close()
        with (
            self._started("serve", "--port", "0") as serve,
            self._listening("tokens", serve.url) as ours,
            self._referred("authlib") as authlib,
            self._referred("toolkit") as toolkit,
        ):
            for _ in range(http.ROUNDS):
                for name, server in (("authlib", authlib), ("toolkit", toolkit)):
                    await self._load(name, server, _spec(server, None, "/token"))
                await self._load("tokens", ours, _spec(ours, str(self._credentials()), TOKEN_PATH))
        return self._entries()

    def _entries(self) -> list[dict[str, Any]]:
        ours = self._figures["tokens"]
        entries = []
        for name in REFERENCES:
            theirs = self._figures[name]
            notes = (
                f"private_key_jwt and DPoP, {http.WORKERS} processes each; theirs client_secret_basic, "
                f"{theirs.told()}"
            )
            entries.append(entry(ours, theirs, notes=notes))
        entries[1]["name"] = "tokens_toolkit"
        return entries

    @contextmanager
    def _referred(self, name: str) -> Generator[Server, None, None]:
        """A reference under gunicorn, on its own database."""
        module, port = REFERENCES[name], http.free_port()
        environment = {
            **_place(self._endpoints.superuser_url, name),
            "AUTHLIB_INSECURE_TRANSPORT": "1",
            "PYTHONPATH": str(ROOT / "bench" / "references"),
            "PATH": os.environ["PATH"],
        }
        subprocess.run([ENVIRONMENT / "bin/python", "-m", module], env=environment, check=True, timeout=120)
        command = [
            *(str(ENVIRONMENT / "bin/gunicorn"), f"{module}:app", "--bind", f"{HOST}:{port}"),
            *("--workers", str(http.WORKERS), "--worker-class", "gthread", "--threads", str(THREADS)),
            *("--keep-alive", "60", "--log-level", "error", "--worker-tmp-dir", str(self._root)),
        ]
        with http.quiet_process(command, self._root / f"{name}.log", environment) as process:
            http.await_answer(f"http://{HOST}:{port}/token")
            yield Server(pid=process.pid, url=f"http://{HOST}:{port}")


def _place(url: str, database: str) -> dict[str, str]:
    """Where a reference finds its database: as SQLAlchemy has it, and as PostgreSQL's own programs do."""
    parts = urlsplit(url)
    place = dict(parse_qsl(parts.query))
    host, port = place.get("host") or parts.hostname or "", place.get("port") or str(parts.port or 5432)
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    return {
        "REFERENCE_DATABASE": f"postgresql+psycopg://{quote(user)}:{quote(password)}@/{database}?host={quote(host)}&port={port}",
        "PGHOST": host,
        "PGPORT": port,
        "PGUSER": user,
        "PGPASSWORD": password,
        "PGDATABASE": database,
    }


def _spec(server: Server, credentials: str | None, path: str) -> Spec:
    return Spec(
        url=server.url,
        credentials=credentials,
        asks="token",
        path=path,
        connections=CONNECTIONS if credentials else http.WORKERS * THREADS,
        seconds=http.SECONDS,
        prepared=round(PER_SECOND * http.SECONDS),
    )
