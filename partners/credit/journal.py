"""The money journal as pure lines: which accounts a capture, a refund or a repayment moves, and who bears it."""

from collections.abc import Sequence

from partners.credit.model import Account, FunderAmount, Line, Plan, PlanTerms, RefundParts
from partners.credit.refund_rules import subsidies_on
from partners.credit.rules import difference, share_out


def capture_lines(plan: Plan, amount_fen: int) -> list[Line]:
    """The bank owes the partner the principal and, with the first capture, its discount; subsidies are netted off."""
    terms = plan.terms
    lines = [_line("capture", "customer_receivable", "merchant_payable", amount_fen, "bank")]
    if not plan.captures:
        lines += _discount(share_out(terms.discount_fen, "discount", terms.funding), undone=False)
    growth = difference(
        subsidies_on(terms, plan.carried_fen + amount_fen), subsidies_on(terms, plan.carried_fen)
    )
    return _with_amounts(lines + _subsidy(growth, undone=False))


def refund_lines(plan: Plan, parts: RefundParts, *, discount_refunded_fen: int) -> list[Line]:
    """Undo what was captured; a part that was never captured moves no money."""
    lines = [
        _line("refund", "merchant_payable", "customer_receivable", parts.principal_reduced_fen, "bank"),
        _line("refund", "merchant_payable", "customer_cash", parts.cash_to_customer_fen, "bank"),
        _line("interest_refund", "interest_income", "customer_cash", parts.interest_refund_fen, "bank"),
        _line("fee_refund", "fee_income", "customer_cash", parts.fee_refund_fen, "bank"),
    ]
    discount = _discount_shrinkage(plan.terms, discount_refunded_fen, parts.discount_reversed_fen)
    return _with_amounts(
        lines + _discount(discount, undone=True) + _subsidy(parts.subsidy_reversed, undone=True)
    )


def repayment_lines(*, principal_fen: int, interest_fen: int, fee_fen: int) -> list[Line]:
    """The customer pays an instalment."""
    return _with_amounts(
        [
            _line("repayment", "customer_cash", "customer_receivable", principal_fen, "customer"),
            _line("interest", "customer_cash", "interest_income", interest_fen, "customer"),
            _line("fee", "customer_cash", "fee_income", fee_fen, "customer"),
        ]
    )


def _discount_shrinkage(terms: PlanTerms, refunded_fen: int, reversed_fen: int) -> tuple[FunderAmount, ...]:
    left_fen = terms.discount_fen - refunded_fen
    return difference(
        share_out(left_fen, "discount", terms.funding),
        share_out(left_fen - reversed_fen, "discount", terms.funding),
    )


def _discount(parts: Sequence[FunderAmount], *, undone: bool) -> list[Line]:
    """Only the bank's part is money of the bank; a merchant or partner simply sells cheaper."""
    return [
        _either_way("discount", "bank_discount_expense", "merchant_payable", part, undone)
        for part in parts
        if part.funder == "bank"
    ]


def _subsidy(parts: Sequence[FunderAmount], *, undone: bool) -> list[Line]:
    """Income of the bank: taken from what it owes the partner, or from its own expense."""
    return [
        _either_way("bank_subsidy", "bank_subsidy_expense", "subsidy_income", part, undone)
        if part.funder == "bank"
        else _either_way("merchant_subsidy", "merchant_payable", "subsidy_income", part, undone)
        for part in parts
    ]


def _either_way(kind: str, debit: Account, credit: Account, part: FunderAmount, undone: bool) -> Line:
    if not undone:
        return _line(kind, debit, credit, part.amount_fen, part.funder)
    reversal = "subsidy_reversal" if kind == "merchant_subsidy" else f"{kind}_reversal"
    return _line(reversal, credit, debit, part.amount_fen, part.funder)


def _line(kind: str, debit: Account, credit: Account, amount_fen: int, funder: str) -> Line:
    return Line(kind=kind, debit=debit, credit=credit, amount_fen=amount_fen, funder=funder)


def _with_amounts(lines: Sequence[Line]) -> list[Line]:
    return [line for line in lines if line.amount_fen]
