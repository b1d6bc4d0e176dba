"""Every scope of the partner API: what it allows, and whether the member must agree to it."""

from collections.abc import Sequence

from msgspec import Struct


class Scope(Struct, frozen=True, kw_only=True):
    """What one scope allows, as members and partners read it."""

    zh: str
    en: str
    #: it reaches a member's affairs, so it works only with that member's consent
    needs_consent: bool


class Label(Struct, frozen=True, kw_only=True):
    """A word of a consent, as a member reads it."""

    zh: str
    en: str


#: what data is used for
PURPOSES: dict[str, Label] = {
    "membership": Label(zh="提供会员服务", en="Serve you as a member"),
    "points": Label(zh="积分的发放、使用和退回", en="Grant, use and give back points"),
    "credit": Label(zh="办理分期", en="Arrange instalments"),
    "tax_credit": Label(zh="办理税务信用服务", en="Arrange services by tax credit"),
    "medical": Label(zh="办理就医服务", en="Arrange medical services"),
    "savings": Label(zh="开立账户", en="Open an account"),
    "referral": Label(zh="转交您的咨询和邀请", en="Pass on enquiries and invitations"),
}

#: which data is meant
DATA_KINDS: dict[str, Label] = {
    "member_level": Label(zh="会员等级和权益", en="Membership tier and entitlements"),
    "points_balance": Label(zh="积分余额和明细", en="Points balance and entries"),
    "purchases": Label(zh="您在该合作方的消费和活动", en="What you buy and do at this partner"),
    "offers": Label(zh="为您提供的产品方案", en="Offers made to you"),
    "plans": Label(zh="在该合作方办理的分期", en="Instalment plans begun at this partner"),
    "tax": Label(zh="纳税信息", en="Tax data"),
    "health": Label(zh="就诊登记信息", en="Hospital registrations"),
    "account": Label(zh="账户信息", en="Account data"),
    "contact": Label(zh="您留下的联系意向", en="The enquiry you left"),
}


#: scope or type of authorization_details → (purposes, kinds of data)
USES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "members:read": (("membership",), ("member_level", "points_balance")),
    "activity:write": (("membership",), ("purchases",)),
    # how an earning came about and which rewards there are tells the tier
    "points:earn": (("points",), ("purchases", "points_balance", "member_level")),
    "points:spend": (("points",), ("points_balance", "member_level")),
    "offers:read": (("credit",), ("offers", "member_level")),
    "offers:write": (("credit",), ("offers",)),
    "plans:read": (("credit",), ("plans",)),
    "plans:write": (("credit",), ("plans",)),
    "data:write": (("tax_credit", "medical"), ("tax", "health")),
    "entitlements:write": (("membership",), ("member_level",)),
    "leads:write": (("referral",), ("contact",)),
    "points_spend": (("points",), ("points_balance", "member_level")),
    "instalment_plan": (("credit",), ("offers", "plans")),
    "tax_data": (("tax_credit",), ("tax",)),
    "health_registration": (("medical",), ("health",)),
    "account_open": (("savings",), ("account",)),
}
#: reaches what PIPL §28 calls sensitive: a member agrees to it separately (PIPL §29)
SENSITIVE_SCOPES = frozenset(("data:write",))


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


def uses_of(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The purposes and kinds of data behind scopes and types of details, in alphabetical order."""
    found = [USES[name] for name in names if name in USES]
    purposes = {purpose for purposes, _ in found for purpose in purposes}
    data_kinds = {kind for _, kinds in found for kind in kinds}
    return sorted(purposes), sorted(data_kinds)
