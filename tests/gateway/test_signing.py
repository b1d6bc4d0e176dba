"""x"""
from uuid import uuid4
from gateway.client import PartnerClient
from .test_edge import new_member, earning
async def test_a(strict_partner: PartnerClient) -> None:
    member = await new_member(strict_partner)
    a = await strict_partner.post("/v1/points/earnings", earning(member))
    print(a)
    strict_partner._sign_requests=False
    import msgspec
    b= await strict_partner.send("POST","/v1/points/earnings", msgspec.json.encode(earning(member)), idempotency_key=str(uuid4()))
    print(b)
    strict_partner._sign_requests=True
    b= await strict_partner.send("POST","/v1/points/earnings", msgspec.json.encode(earning(member)), idempotency_key=str(uuid4()))
    print(b)
    assert 0
