"""What every figure has in common: rounds against a reference, CPU time from /proc, and the entry that is kept."""

import os
import statistics
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from msgspec import Struct

_TICK = os.sysconf("SC_CLK_TCK")


def quarter_of_memory_mb() -> int:
    """What PostgreSQL's manual gives to shared_buffers on a machine of its own (§19.4.1)."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**22


class Run(Struct, frozen=True, kw_only=True):
    """One run of one figure."""

    #: things done per second
    rate: float
    #: CPU microseconds per thing, of PostgreSQL and of whoever asked it
    postgres_us: float = 0.0
    client_us: float = 0.0
    wal_bytes: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0


class Figure(Struct, kw_only=True):
    """A figure's runs, one per round."""

    name: str
    clients: int
    runs: list[Run]

    @property
    def median(self) -> float:
        return statistics.median(run.rate for run in self.runs)

    def told(self) -> str:
        rates = [run.rate for run in self.runs]
        median = sorted(self.runs, key=lambda run: run.rate)[len(self.runs) // 2]
        latency = f", p50 {median.p50_ms:.1f} ms, p99 {median.p99_ms:.1f} ms" if median.p99_ms else ""
        return (
            f"{min(rates):,.0f}–{max(rates):,.0f}/s in {len(rates)} rounds; CPU µs: PostgreSQL {median.postgres_us:.0f}, "
            f"client {median.client_us:.0f}; WAL {median.wal_bytes:,.0f} B{latency}"
        )


def entry(figure: Figure, reference: Figure, *, unit: str = "1/s", notes: str = "") -> dict[str, Any]:
    """One number against another of the same rounds; the ratio is the median of the rounds' own ratios."""
    ratios = [mine.rate / theirs.rate for mine, theirs in zip(figure.runs, reference.runs, strict=True)]
    spread = f"ratio {min(ratios):.2f}–{max(ratios):.2f}; "
    return {
        "name": figure.name,
        "value": round(figure.median),
        "unit": unit,
        "against": reference.name,
        "reference_value": round(reference.median),
        "ratio": round(statistics.median(ratios), 2),
        "clients": figure.clients,
        "notes": (notes + "; " if notes else "") + spread + figure.told(),
    }


def best(name: str, figures: Sequence[Figure]) -> Figure:
    """Of each round the fastest."""
    rounds = zip(*(figure.runs for figure in figures), strict=True)
    return Figure(name=name, clients=0, runs=[max(runs, key=lambda run: run.rate) for runs in rounds])


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system time of processes, with that of their ended children."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += sum(int(ticks) for ticks in fields[11:15])
    return total / _TICK


def family(parent: int) -> list[int]:
    """A process and its living children."""
    found = [parent]
    for line in Path("/proc").iterdir():
        if line.name.isdecimal():
            with suppress(OSError):
                if int((line / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                    found.append(int(line.name))
    return found


def percentile(sorted_values: Sequence[float], share: float) -> float:
    """The value below which `share` of them lie."""
    return (
        sorted_values[min(len(sorted_values) - 1, int(len(sorted_values) * share))] if sorted_values else 0.0
    )
