"""The background worker: no round takes the others down with it."""

import asyncio

from gateway.worker import _repeat


async def test_a_round_that_meets_a_bug_is_tried_again() -> None:
    ending, rounds = asyncio.Event(), 0

    async def round_() -> int:
        nonlocal rounds
        rounds += 1
        if rounds == 1:
            raise OverflowError("date value out of range")
        ending.set()
        return 0

    await asyncio.wait_for(_repeat("deliver", round_, 0.01, ending), 10)

    assert rounds == 2
