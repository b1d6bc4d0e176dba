"""Work in threads is bounded in number and in time, and never holds up the event loop."""

import asyncio
import threading
from collections.abc import Generator

import pytest

from kernel.aside import Aside, TooMuchAside


@pytest.fixture
def gate() -> Generator[threading.Event, None, None]:
    """What the work waits for."""
    event = threading.Event()
    yield event
    event.set()


async def test_work_gives_its_result_and_its_exception() -> None:
    aside = Aside()

    def fail() -> None:
        raise ZeroDivisionError

    assert await aside.run(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await aside.run(fail)
    aside.close()


async def test_more_than_may_wait_is_refused_at_once(gate: threading.Event) -> None:
    aside = Aside(threads=1, waiting_max=2)
    waiting = [asyncio.create_task(aside.run(gate.wait)) for _ in range(2)]
    await asyncio.sleep(0)

    with pytest.raises(TooMuchAside):
        await aside.run(lambda: 1)

    gate.set()
    assert await asyncio.gather(*waiting) == [True, True]
    assert await aside.run(lambda: 1) == 1
    aside.close()


async def test_whoever_does_not_get_a_turn_in_time_is_told(gate: threading.Event) -> None:
    aside = Aside(threads=1, wait_seconds=0.05)
    ran: list[int] = []
    first = asyncio.create_task(aside.run(gate.wait))
    await asyncio.sleep(0)

    with pytest.raises(TooMuchAside):
        await aside.run(lambda: ran.append(1))
    with pytest.raises(TooMuchAside):
        await first

    gate.set()
    assert await aside.run(lambda: 2) == 2
    assert ran == [], "what nobody waits for any more is not begun"
    aside.close()
