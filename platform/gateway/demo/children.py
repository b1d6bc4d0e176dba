"""The demo's processes: each started with the order to die with us, and ended within bounds whatever happens."""

import os
import select
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM, signal
from types import FrameType, TracebackType
from typing import IO, Any, Self

from kernel.supervisor.process import Child, spawn

#: `serve` drains for ten seconds before it ends its servers
_PARTING = ((SIGTERM, 40.0), (SIGKILL, 5.0))


class Failed(Exception):
    """A process of the demo did not do its part; the text says which."""


class Interrupted(BaseException):
    """The operator asked for the end."""


class Children:
    """All processes of one demo. Leaving the block ends them, the last started first."""

    def __init__(self) -> None:
        self._children: list[Child] = []

    def __enter__(self) -> Self:
        for number in (SIGTERM, SIGINT):
            signal(number, _interrupt)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in (SIGTERM, SIGINT):
            # Whoever is impatient must not stop us half-way: what follows is bounded.
            signal(number, lambda *_: None)
        for child in reversed(self._children):
            child.stop()

    def start(self, module: str, *arguments: str, errors: IO[bytes] | int | None = None) -> "Process":
        """`python -m module arguments`, its standard output ours to read."""
        process = self._spawn(module, arguments, output=subprocess.PIPE, errors=errors)
        return Process(process, f"{module} {arguments[0] if arguments else ''}".strip())

    def run(self, module: str, *arguments: str, seconds: float = 120.0) -> None:
        """Run it to its end, its output going where ours goes; raises Failed unless it succeeds."""
        sys.stdout.flush()
        process = self._spawn(module, arguments, output=sys.stdout.fileno())
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failed(f"{module} {' '.join(arguments)} took longer than {seconds:.0f} s") from None
        if code != 0:
            raise Failed(f"{module} {' '.join(arguments)} ended with {code}")

    def _spawn(
        self,
        module: str,
        arguments: tuple[str, ...],
        *,
        output: int,
        errors: IO[bytes] | int | None = None,
    ) -> subprocess.Popen[bytes]:
        process = spawn(
            [sys.executable, "-m", module, *arguments],
            identity=None,
            death_signal=SIGTERM,
            output=output,
            errors=sys.stderr.fileno() if errors is None else errors,
            environment=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        self._children.append(Child(module, process, _PARTING))
        return process


class Process:
    """A running process whose lines are read."""

    def __init__(self, process: subprocess.Popen[bytes], name: str) -> None:
        assert process.stdout is not None
        self._process = process
        self._out = process.stdout
        self._name = name
        self._pending = b""

    def read_line(self, seconds: float) -> str:
        """Its next line; raises Failed when there is none in time."""
        while b"\n" not in self._pending:
            readable, _, _ = select.select([self._out], [], [], seconds)
            part = os.read(self._out.fileno(), 65_536) if readable else b""
            if not part:
                why = (
                    f"ended with {self._process.wait(5)}" if readable else f"said nothing for {seconds:.0f} s"
                )
                raise Failed(f"{self._name} {why}")
            self._pending += part
        line, _, self._pending = self._pending.partition(b"\n")
        return line.decode()

    def pass_on(self) -> None:
        """Repeat its further lines on our output, as they come."""
        threading.Thread(target=self._pass_on, daemon=True).start()

    def _pass_on(self) -> None:
        for line in self._out:
            sys.stdout.write(line.decode())
            sys.stdout.flush()

    def read_rest(self, seconds: float) -> tuple[list[str], int]:
        """All its other lines, and its exit code."""
        try:
            rest, _ = self._process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self._name} took longer than {seconds:.0f} s") from None
        return (self._pending + rest).decode().splitlines(), self._process.returncode


def last_words(log: Path, lines: int = 12) -> str:
    """The end of a log, for somebody who has to find out what happened."""
    with suppress(OSError):
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    return ""


def _interrupt(_number: int, _frame: FrameType | None) -> Any:
    raise Interrupted
