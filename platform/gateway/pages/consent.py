"""What the consent page says: everything the member must know before agreeing, as lines and tables."""

from collections.abc import Mapping
from datetime import date
from typing import Any

import msgspec
from msgspec import Struct

from gateway.pages.wording import Locale, say, value
from partners.oauth.interaction import Interaction
from partners.oauth.scopes import DATA_KINDS, PURPOSES, SCOPES, SENSITIVE_SCOPES, USES, Label, Scope

MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)


class Block(Struct, frozen=True, kw_only=True):
    """One authorization detail: a title over rows of label and value."""

    title: str
    rows: list[tuple[str, str]]
    #: PIPL Art. 28: shown again where the separate consent is given
    sensitive: bool = False


class Asked(Struct, frozen=True, kw_only=True):
    """An interaction in the reader's language."""

    partner: str
    contact: str
    purposes: list[str]
    data_kinds: list[str]
    #: those that a scope reaches and that PIPL Art. 28 calls sensitive
    sensitive_kinds: list[str]
    allowed: list[str]
    blocks: list[Block]
    sensitive: bool
    ends_on: str


def partner_name(interaction: Interaction, locale: Locale) -> str:
    return interaction.partner_name_zh if locale == "zh" else interaction.partner_name_en


def asked_of(interaction: Interaction, locale: Locale) -> Asked:
    """The whole of what is asked."""
    return Asked(
        partner=partner_name(interaction, locale),
        contact=interaction.partner_contact,
        purposes=[sentence(PURPOSES, purpose, locale) for purpose in interaction.purposes],
        data_kinds=[sentence(DATA_KINDS, kind, locale) for kind in interaction.data_kinds],
        sensitive_kinds=[
            sentence(DATA_KINDS, kind, locale)
            for kind in interaction.data_kinds
            if any(kind in USES[scope][1] for scope in SENSITIVE_SCOPES.intersection(interaction.scopes))
        ],
        allowed=[sentence(SCOPES, scope, locale) for scope in interaction.scopes],
        blocks=[
            block_of(msgspec.to_builtins(detail), locale) for detail in interaction.authorization_details
        ],
        sensitive=interaction.sensitive,
        ends_on=long_date(interaction.ends_on, locale),
    )


def sentence(labels: Mapping[str, Label] | Mapping[str, Scope], name: str, locale: Locale) -> str:
    """What `name` means; the name itself where nobody wrote it down, for nothing asked is left out."""
    known = labels.get(name)
    if known is None:
        return name
    return known.zh if locale == "zh" else known.en


def block_of(detail: dict[str, Any], locale: Locale) -> Block:
    """One detail of a type we know; a type nobody taught this page is shown as it came, never hidden."""

    def t(key: str, **facts: object) -> str:
        return say(key, locale, **facts)

    def words(codes: list[str]) -> str:
        return ("、" if locale == "zh" else ", ").join(value(code, locale) for code in codes)

    match detail["type"]:
        case "instalment_plan":
            return Block(
                title=t("plan_title"),
                rows=[
                    (t("plan_amount"), yuan(detail["amount_fen"])),
                    (t("plan_periods"), t("plan_periods_value", periods=detail["periods"])),
                    (t("plan_total"), yuan(detail["total_payable_fen"])),
                    (t("plan_simple"), percent(detail["annual_rate_simple_ppm"])),
                    (t("plan_compound"), percent(detail["annual_rate_compound_ppm"])),
                ],
            )
        case "points_spend":
            return Block(
                title=t("points_title"), rows=[("", t("points_value", points=f"{detail['max_points']:,}"))]
            )
        case "tax_data":
            years = ("、" if locale == "zh" else ", ").join(str(year) for year in detail["tax_years"])
            row = t("tax_value", years=years, kinds=words(detail["datatypes"]))
            return Block(title=t("tax_title"), rows=[("", row)], sensitive=True)
        case "health_registration":
            return Block(title=t("health_title"), rows=[("", words(detail["datatypes"]))], sensitive=True)
        case "account_open":
            return Block(
                title=t("account_title"), rows=[("", value(detail["product"], locale))], sensitive=True
            )
        case other:
            return Block(
                title=str(other),
                rows=[(name, str(content)) for name, content in detail.items() if name != "type"],
            )


def long_date(day: date, locale: Locale) -> str:
    """A date nobody reads the wrong way round."""
    if locale == "zh":
        return f"{day.year}年{day.month}月{day.day}日"
    return f"{day.day} {MONTHS[day.month - 1]} {day.year}"


def yuan(fen: int) -> str:
    """Fen as yuan, exactly."""
    return f"¥{fen // 100:,}.{fen % 100:02}"


def percent(ppm: int) -> str:
    """Millionths as per cent, exactly and with two decimals at least: 138418 is 13.8418 %."""
    whole, rest = divmod(ppm, 10_000)
    decimals = f"{rest:04}".rstrip("0").ljust(2, "0")
    return f"{whole}.{decimals}%"
