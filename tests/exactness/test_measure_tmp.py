import time
from datetime import timedelta, date
from uuid import uuid4
from exactness.house import NOW, House
from gateway import books, books_recent
from kernel.database import transaction
from kernel.ids import new_id
from points.ledger import service as ledger
from points.ledger.model import EarnPosting, Grant
from points.membership.service import enrol_members

async def test_measure(house: House):
    partner = await house.register()
    async with transaction(house.desk) as c:
        members = []
        for _ in range(20):
            members += await enrol_members(c, count=1000, now=NOW)
    async def earn(ms, now):
        async with transaction(house.desk) as c:
            ps = [EarnPosting(operation_id=new_id(now), member=m, partner_id=partner.id, source_kind="purchase", source_ref=uuid4().hex, amount_fen=10000, occurred_at=now, rule_version=1, tier="start", multiplier_pct=100, own_card=True, category=None, grants=(Grant(rule="base", multiplier_pct=100, points=100, lot_id=new_id(now), expires_at=now+timedelta(days=400)),)) for m in ms]
            await ledger.post_earnings(c, ps, now=now)
    t=time.time()
    for day in range(3):
        for k in range(0, 20000, 500):
            await earn(members[k:k+500], NOW + timedelta(days=day))
    for k in range(0, 500, 500):
        await earn(members[k:k+500], NOW + timedelta(days=10))
    print("filled", time.time()-t)
    await house.superuser.execute("ANALYZE")
    async with house.desk.acquire() as c:
        for r in range(1):
            t=time.time(); f = await books.check(c); full=time.time()-t
            t=time.time(); rec = await books_recent.check_since(c, date(2026,11,30)); inc=time.time()-t
            assert all(not x.rows for x in f), [x for x in f if x.rows]
            assert all(not x.rows for x in rec.findings)
            # only the same views in full
            t=time.time()
            async with c.transaction():
                await c.execute(books.PREPARE, "120s")
                for v in sorted(books_recent.OF_MEMBERS|books_recent.OF_DAYS|books_recent.OF_EVENTS):
                    await c.fetch(f"WITH found AS MATERIALIZED (SELECT * FROM {v}) SELECT * FROM found LIMIT 20")
            same=time.time()-t
            print("entries", await c.fetchval("select count(*) from ledger_entry"), "full", full, "same views full", same, "incremental", inc, rec.members)
        t=time.time(); rec = await books_recent.check_since(c, date(2026,11,25)); print("since day 5 (all members)", time.time()-t, rec.members)
