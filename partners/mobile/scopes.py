"""Every scope of the mobile API."""

from partners.oauth.scopes import Label

#: what each allows, as an operator reads it; the member's own app may have all of them
MOBILE_SCOPES: dict[str, Label] = {
    "member:read": Label(zh="查看本人的积分和等级。", en="Read one's own points and tier."),
    "authorizations:answer": Label(
        zh="查看并答复合作方的授权请求。", en="See what partners ask on the phone, and answer it."
    ),
    "consents:manage": Label(
        zh="查看和撤回本人给合作方的授权。", en="See and withdraw what one has allowed partners."
    ),
}
