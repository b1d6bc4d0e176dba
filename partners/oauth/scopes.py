"""Every scope of the partner API: what it allows, and whether the member must agree to it."""

from collections.abc import Sequence

from msgspec import Struct


class Scope(Struct, frozen=True, kw_only=True):
    """What one scope allows, as members and partners read it."""

    zh: str
    en: str
    #: it reaches a member's affairs, so it works only with that member's consent
    needs_consent: bool


def _of_member(zh: str, en: str) -> Scope:
    return Scope(zh=zh, en=en, needs_consent=True)


def _of_partner(zh: str, en: str) -> Scope:
    return Scope(zh=zh, en=en, needs_consent=False)


SCOPES: dict[str, Scope] = {
    "members:read": _of_member(
        "查看会员的等级、权益和积分。", "Read a member's tier, entitlements and points."
    ),
    "activity:write": _of_member(
        "上报会员在合作方的活动。", "Report what a member did at the partner, for the shop level."
    ),
    "points:earn": _of_member(
        "为会员的消费发放积分，并在退款时收回。",
        "Grant points for a member's activity and take them back on refund.",
    ),
    "points:spend": _of_member(
        "经会员确认后冻结、扣减或退还其积分。", "Hold, spend and give back a member's points at checkout."
    ),
    "offers:read": _of_member(
        "为会员查询可用的产品方案。", "Search the offers a member is eligible for, with their cost."
    ),
    "offers:write": _of_member(
        "为会员报价并提交其确认的方案。", "Quote an offer and submit the member's acceptance of it."
    ),
    "plans:read": _of_member(
        "查看由本合作方发起的分期计划。", "Read the applications and plans the partner originated."
    ),
    "plans:write": _of_member(
        "对由本合作方发起的分期计划请款、撤销或退款。",
        "Capture, void, refund and prepay plans the partner originated.",
    ),
    "data:write": _of_member(
        "提交会员授权共享的纳税或登记信息。", "Submit tax or registration data the member agreed to share."
    ),
    "entitlements:write": _of_member("核销会员的权益。", "Use up a member's entitlement."),
    "leads:write": _of_member(
        "转交客户线索和邀请关系。", "Pass on referrals and leads of customers who asked for it."
    ),
    "events:read": _of_partner("接收和查询本合作方的事件。", "Receive and read the partner's own events."),
    "settlement:read": _of_partner(
        "查看本合作方的清算批次和明细。", "Read the partner's own settlement batches and lines."
    ),
}


def member_scopes(scopes: Sequence[str]) -> list[str]:
    """Those of `scopes` that a member has to agree to, in alphabetical order."""
    return sorted(scope for scope in set(scopes) if scope in SCOPES and SCOPES[scope].needs_consent)
