"""The cost table a borrower is shown (综合融资成本明示表): pure, from the terms and the schedule.

The rule in force since 2026-08-01 asks for the principal, every interest and fee with method, standard and payee, the
annualised cost, what a default may cost, and the statement that nothing else is charged.
"""

from partners.credit.annual_rate import AnnualRates
from partners.credit.model import Allocation, PlanTerms
from partners.credit.schedule import Method, Schedule
from partners.offers.canonical import canonical_hash
from partners.offers.model import Disclosure, DisclosureRow, Text

_BANK = Text(zh="本行", en="The bank")
_MERCHANT = Text(zh="合作方", en="The merchant")
_NOBODY = Text(zh="无", en="Nobody")
_AT_DUE_DATES = Text(zh="每期到期日", en="On each due date")

_METHODS: dict[Method, Text] = {
    "equal_instalment": Text(zh="等额本息", en="Equal instalments of principal and interest"),
    "equal_principal": Text(zh="等额本金", en="Equal principal, interest on the balance"),
    "interest_free": Text(zh="免息等额还本", en="Equal principal without interest"),
    "bullet": Text(zh="按月付息到期还本", en="Monthly interest, principal at the end"),
}
_ALLOCATIONS: dict[Allocation, Text] = {
    "next": Text(zh="退款先冲抵最近各期本金", en="A refund reduces the next instalments first"),
    "last": Text(zh="退款先冲抵最后各期本金", en="A refund reduces the last instalments first"),
    "reamortise": Text(
        zh="退款后剩余本金按剩余期数重新均摊",
        en="After a refund the rest is spread over the instalments left",
    ),
}


def disclose(
    terms: PlanTerms, schedule: Schedule, rates: AnnualRates, *, overdue_rate_ppm: int, min_read_seconds: int
) -> Disclosure:
    """The table for one quote, and the hash under which it is confirmed."""
    rows = (
        *_principal_rows(terms),
        *_cost_rows(terms, schedule),
        *_rate_rows(rates),
        _default_row(overdue_rate_ppm),
        _nothing_else_row(),
        *_refund_rows(terms),
    )
    return Disclosure(rows=rows, hash=canonical_hash(rows), min_read_seconds=min_read_seconds)


def _principal_rows(terms: PlanTerms) -> list[DisclosureRow]:
    rows = [
        _row(
            "principal",
            Text(zh="贷款本金", en="Principal"),
            amount_fen=terms.financed_fen,
            method=_METHODS[terms.method],
            standard=Text(
                zh=f"分{terms.periods}期按月归还", en=f"Repaid in {terms.periods} monthly instalments"
            ),
            payee=_BANK,
        )
    ]
    if terms.down_payment_fen:
        rows.append(
            _row(
                "down_payment",
                Text(zh="首付款", en="Down payment"),
                amount_fen=terms.down_payment_fen,
                method=Text(zh="一次性支付，不计息", en="Paid once, bears no interest"),
                standard=Text(zh="下单时", en="With the order"),
                payee=_MERCHANT,
            )
        )
    return rows


def _cost_rows(terms: PlanTerms, schedule: Schedule) -> list[DisclosureRow]:
    return [
        _row(
            "interest",
            Text(zh="利息", en="Interest"),
            amount_fen=schedule.total_interest_fen,
            rate_ppm=terms.annual_rate_ppm,
            method=Text(
                zh=f"按剩余本金计息，计息基准{terms.day_count}",
                en=f"On the principal outstanding, {terms.day_count}",
            ),
            standard=_AT_DUE_DATES,
            payee=_BANK,
        ),
        _row(
            "fee",
            Text(zh="费用", en="Fees"),
            amount_fen=schedule.total_fee_fen,
            rate_ppm=terms.fee_ppm_per_period,
            method=Text(zh="每期按分期本金乘以费率", en="Per instalment, the rate times the amount financed"),
            standard=_AT_DUE_DATES,
            payee=_BANK,
        ),
        _row(
            "total_payable",
            Text(zh="还款总额", en="Total to repay"),
            amount_fen=schedule.total_payable_fen,
            method=Text(zh="本金、利息与费用之和", en="Principal, interest and fees together"),
            standard=_AT_DUE_DATES,
            payee=_BANK,
        ),
    ]


def _rate_rows(rates: AnnualRates) -> list[DisclosureRow]:
    """Both rates, each labelled: a simple rate may only be shown as one (PBOC announcement 2021 no. 3)."""
    standard = Text(zh="正常履约", en="When every instalment is paid in time")
    return [
        _row(
            "annual_rate_simple",
            Text(zh="年化综合融资成本（单利）", en="Annualised total cost (simple)"),
            rate_ppm=rates.simple_ppm,
            method=Text(zh="期内部收益率乘以12", en="Internal rate per period times 12"),
            standard=standard,
            payee=_NOBODY,
        ),
        _row(
            "annual_rate_compound",
            Text(zh="年化综合融资成本（复利，IRR）", en="Annualised total cost (compound, IRR)"),
            rate_ppm=rates.compound_ppm,
            method=Text(zh="期内部收益率按年复利", en="Internal rate per period compounded over a year"),
            standard=standard,
            payee=_NOBODY,
        ),
    ]


def _default_row(overdue_rate_ppm: int) -> DisclosureRow:
    return _row(
        "default_interest",
        Text(zh="逾期罚息（或有成本）", en="Interest when overdue (contingent)"),
        rate_ppm=overdue_rate_ppm,
        method=Text(
            zh="逾期本金按日计收，年利率除以360", en="On overdue principal by the day, annual rate over 360"
        ),
        standard=Text(zh="仅在逾期时", en="Only while overdue"),
        payee=_BANK,
    )


def _nothing_else_row() -> DisclosureRow:
    return _row(
        "nothing_else",
        Text(zh="除上述各项外，不收取任何其他费用", en="Nothing is charged beyond what is listed here"),
        method=Text(zh="声明", en="Statement"),
        standard=Text(zh="合同全部期间", en="For the whole of the contract"),
        payee=_NOBODY,
    )


def _refund_rows(terms: PlanTerms) -> list[DisclosureRow]:
    policy = terms.refund_policy
    returned = {True: Text(zh="退还", en="returned"), False: Text(zh="不退还", en="not returned")}
    return [
        _row(
            "refund_allocation",
            Text(zh="退款处理", en="Refunds"),
            method=_ALLOCATIONS[policy.allocation],
            standard=Text(
                zh=f"已付利息{returned[policy.interest_refund].zh}，已付费用{returned[policy.fee_refund].zh}",
                en=f"Interest paid is {returned[policy.interest_refund].en}, "
                f"fees paid are {returned[policy.fee_refund].en}",
            ),
            payee=_NOBODY,
        )
    ]


def _row(
    item: str,
    label: Text,
    *,
    method: Text,
    standard: Text,
    payee: Text,
    amount_fen: int | None = None,
    rate_ppm: int | None = None,
) -> DisclosureRow:
    return DisclosureRow(
        item=item,
        label=label,
        amount_fen=amount_fen,
        rate_ppm=rate_ppm,
        method=method,
        standard=standard,
        payee=payee,
    )
