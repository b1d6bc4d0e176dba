import time
from datetime import date, timedelta
from uuid import uuid4

from gateway import books
from kernel.database import acquire, transaction
from kernel.ids import new_id
from partners.settlement import service as settlement
from partners.webhooks import service as webhooks
from points.ledger import service as ledger
from points.ledger.model import EarnPosting, Grant
from points.membership import service as membership


async def test_perf(pool, now):
    pid = uuid4()
    async with transaction(pool) as c:
        members = await membership.enrol_members(c, count=7000, now=now)
    t = time.time()
    for batch in range(70):
        postings = []
        for k in range(1000):
            m = members[(batch * 1000 + k) % 7000]
            postings.append(
                EarnPosting(
                    operation_id=new_id(now),
                    member=m,
                    partner_id=pid,
                    source_kind="purchase",
                    source_ref=f"{batch}-{k}",
                    amount_fen=10000,
                    occurred_at=now,
                    rule_version=1,
                    tier="start",
                    multiplier_pct=100,
                    own_card=True,
                    category=None,
                    grants=(
                        Grant(
                            rule="base",
                            multiplier_pct=100,
                            points=100,
                            lot_id=new_id(now),
                            funder_id=1,
                            unit_cost_e6=1_000_000,
                            expires_at=now + timedelta(days=300),
                        ),
                    ),
                )
            )
        async with transaction(pool) as c:
            await ledger.post_earnings(c, postings, now=now)
    print("posted", time.time() - t)
    t = time.time()
    n = 0
    while True:
        async with transaction(pool) as c:
            d = await webhooks.relay(c, limit=5000, now=now)
        n += d
        if not d:
            break
    print("relayed", n, time.time() - t)
    t = time.time()
    async with transaction(pool) as c:
        b = await settlement.close_batch(c, partner_id=pid, business_on=date(2026, 11, 20), now=now)
    print("settled", b.lines, time.time() - t)
    t = time.time()
    async with transaction(pool) as c:
        b = await settlement.close_batch(c, partner_id=pid, business_on=date(2026, 11, 20), now=now)
    print("settled again", b.lines, time.time() - t)
    t = time.time()
    async with acquire(pool) as c:
        f = await books.check(c)
    print("check", time.time() - t, [x.view for x in f if x.rows])
    async with acquire(pool) as c:
        await c.execute("SET statement_timeout='100s'")
        for v in f:
            t = time.time()
            await c.fetch(f"SELECT * FROM {v.view} LIMIT 20")
            print(v.view, round(time.time() - t, 2))
