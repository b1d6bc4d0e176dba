"""Refusals: everything a caller can do wrong, as classes whose docstring is the sentence the caller reads.

Refusal
├── Malformed        400  the request cannot be understood
├── Unauthenticated  401  nobody knows who is asking
├── Forbidden        403  known, but not allowed
├── Absent           404  not there, or not the caller's
├── WrongMethod      405  the route exists, but not for this method
├── Conflict         409  the state of the thing does not allow it
├── TooLarge         413
├── Unprocessable    422  understood, but breaks a rule of the contract
├── Exhausted        429  over a limit that is the caller's own
├── Failed           500  a bug of ours; the transaction was rolled back
└── Unavailable      503  ours to solve; nothing happened, or the outcome is unknown

A refusal rolls the transaction back. Where it must leave a mark, the service returns an outcome instead.
The status of each kind is decided in one place: gateway/problems.py.
"""

import re
from typing import ClassVar

_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def _code_of(name: str) -> str:
    return _WORD.sub("_", name).lower()


class Refusal(Exception):
    """The request was refused and nothing was changed."""

    code: ClassVar[str] = "refusal"

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if "code" not in cls.__dict__:
            cls.code = _code_of(cls.__name__)
        if not (cls.__doc__ or "").strip():
            raise TypeError(f"{cls.__name__} needs a docstring: it is the sentence the caller reads")

    def __init__(self, **facts: str | int | bool | None) -> None:
        """`facts` are shown to the caller as members of the problem document: never put a secret in them."""
        super().__init__(self.sentence())
        self.facts = facts

    @classmethod
    def sentence(cls) -> str:
        """The first paragraph of the docstring, on one line."""
        return " ".join((cls.__doc__ or "").strip().split("\n\n")[0].split())


class Malformed(Refusal):
    """The request cannot be understood."""


class Unauthenticated(Refusal):
    """The request does not prove who is asking."""


class Forbidden(Refusal):
    """The caller is known but not allowed to do this."""


class Absent(Refusal):
    """No such object, or it belongs to somebody else."""

    code = "not_found"


class WrongMethod(Refusal):
    """The route exists, but not for this method."""


class Conflict(Refusal):
    """The present state does not allow this."""


class TooLarge(Refusal):
    """The request is larger than this route accepts."""


class Unprocessable(Refusal):
    """The request is well formed but breaks a rule."""


class Exhausted(Refusal):
    """The caller's own limit is used up."""


class Failed(Refusal):
    """Something failed on our side."""


class Unavailable(Refusal):
    """The service cannot answer now; nothing happened, try again."""
