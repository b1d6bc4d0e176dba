"""How the demo's partners speak: one line for each step, amounts as people read them."""

from typing import Any

from gateway.client import ApiProblem, PartnerClient


class Teller:
    """One partner in one run of the demo."""

    def __init__(self, slug: str, client: PartnerClient, *, run: str, receiver: str) -> None:
        self.slug = slug
        self.client = client
        #: part of every order number, so that each run has its own
        self.run = run
        #: where the webhook receiver listens
        self.receiver = receiver

    def say(self, text: str) -> None:
        print(f"{self.slug:<10} {text}", flush=True)

    async def expect_refusal(self, what: str, path: str, body: Any, *, code: str) -> None:
        """Do what must be refused, and show with which word."""
        try:
            await self.client.post(path, body)
        except ApiProblem as problem:
            self.say(f"refused: {what} → {problem.status} {problem.code}")
            assert problem.code == code, f"the refusal should have been {code}"
        else:
            raise AssertionError(f"{what} was not refused")


def yuan(fen: int) -> str:
    """`¥1,299.00`"""
    sign = "-" if fen < 0 else ""
    return f"{sign}¥{abs(fen) // 100:,}.{abs(fen) % 100:02d}"


def percent(ppm: int) -> str:
    """`13.8418 %`"""
    return f"{ppm // 10_000}.{ppm % 10_000:04d} %"


def short(sub: str) -> str:
    """The end of a member's name, enough to tell two apart."""
    return f"member …{sub[-4:]}"
