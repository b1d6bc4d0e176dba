"""Which of the two languages a reader gets."""

import re

from gateway.pages.wording import LOCALES, Locale

LANGUAGES_MAX = 16


def preferred_locale(accepted: str) -> Locale:
    """RFC 9110 §12.5.4, best quality first; Chinese for whoever wants neither."""
    wishes: list[tuple[float, int, Locale]] = []
    for place, item in enumerate(accepted.split(",")[:LANGUAGES_MAX]):
        tag, _, parameter = item.partition(";")
        wanted = locale_of(tag.strip())
        if wanted is not None:
            wishes.append((-_quality(parameter), place, wanted))
    wishes = [wish for wish in wishes if wish[0] < 0]
    return min(wishes)[2] if wishes else "zh"


def _quality(parameter: str) -> float:
    name, _, number = parameter.strip().partition("=")
    if name != "q":
        return 1.0
    return float(number) if re.fullmatch(r"[01](\.\d{0,3})?", number) else 0.0


def locale_of(tag: str) -> Locale | None:
    """The language of a tag (RFC 5646), if the pages speak it."""
    primary = tag.partition("-")[0].lower()
    return next((locale for locale in LOCALES if locale == primary), None)
