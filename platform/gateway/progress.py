"""A progress bar of one line, redrawn in place."""

import time
from collections.abc import Callable
from typing import TextIO

WIDTH = 24
REDRAW_SECONDS = 0.1


class Progress:
    """How far something with a known number of steps has come, and how fast."""

    def __init__(
        self,
        title: str,
        total: int,
        out: TextIO | None,
        *,
        unit: str = "lines",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Draws on `out`; None keeps it silent."""
        self._title = title
        self._total = total
        self._out = out
        self._unit = unit
        self._monotonic = monotonic
        self._began_at = monotonic()
        self._drawn_at = float("-inf")
        self.done = 0

    @property
    def seconds(self) -> float:
        return self._monotonic() - self._began_at

    def advance(self, steps: int) -> None:
        self.done += steps
        if self._monotonic() - self._drawn_at >= REDRAW_SECONDS:
            self._draw()

    def finish(self) -> None:
        """Leave the last state standing, and go to the next line."""
        self._draw()
        if self._out is not None:
            self._out.write("\n")
            self._out.flush()

    def _draw(self) -> None:
        if self._out is None:
            return
        self._drawn_at = self._monotonic()
        self._out.write(f"\r\x1b[K{self.line()}")
        self._out.flush()

    def line(self) -> str:
        """`importing ▕█████░░░▏ 45,000/69,659  64 %  3,412 lines/s`"""
        total = max(self._total, self.done)
        filled = WIDTH * self.done // total if total else WIDTH
        percent = 100 * self.done // total if total else 100
        speed = int(self.done / max(self.seconds, 0.001))
        bar = "█" * filled + "░" * (WIDTH - filled)
        return f"{self._title} ▕{bar}▏ {self.done:,}/{total:,}  {percent} %  {speed:,} {self._unit}/s"
