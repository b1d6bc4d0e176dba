"""What must not stand in anything the platform says: detectors with checksums, and secrets that are known by heart."""

import re
from collections.abc import Iterable

WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
CHECKS = "10X98765432"
_DIGITS = re.compile(r"(?<![0-9A-Za-z.\-_])\d[\d ]{11,22}[\dXx](?![0-9A-Za-z\-_])")
_MOBILE = re.compile(r"(?<![0-9A-Za-z.\-_+])(?:\+?86[ -]?)?1[3-9]\d{9}(?![0-9A-Za-z\-_])")
_PRIVATE = re.compile(r'"(?:d|p|q|dp|dq|qi|k)"\s*:\s*"[A-Za-z0-9_\-]{20,}"')
_PEM = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")
_JWT = re.compile(r"eyJ[A-Za-z0-9_\-]{10,}\.[A-Za-z0-9_\-]{10,}\.[A-Za-z0-9_\-]{20,}")


def is_resident_id(text: str) -> bool:
    """GB 11643: seventeen digits and a check character, modulo 11-2."""
    text = text.upper()
    if len(text) != 18 or not text[:17].isdecimal() or not ("01" <= text[10:12] <= "12"):
        return False
    total = sum(weight * int(digit) for weight, digit in zip(WEIGHTS, text, strict=False))
    return CHECKS[total % 11] == text[17]


def is_card_number(text: str) -> bool:
    """ISO/IEC 7812: 13 to 19 digits with the check digit of Luhn."""
    if not (13 <= len(text) <= 19 and text.isdecimal()) or len(set(text)) == 1:
        return False
    doubled = [int(digit) * (2 if place % 2 else 1) for place, digit in enumerate(reversed(text))]
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


def find_personal(text: str) -> list[str]:
    """ID numbers, card numbers and mobile numbers in `text`."""
    found = []
    for match in _DIGITS.findall(text):
        digits = match.replace(" ", "")
        found += [f"ID number {digits}"] if is_resident_id(digits) else []
        found += [f"card number {digits}"] if is_card_number(digits) else []
    return found + [f"mobile number {number}" for number in _MOBILE.findall(text)]


def find_keys(text: str) -> list[str]:
    """Private halves of keys."""
    return [f"private key {match[:12]}…" for match in _PRIVATE.findall(text) + _PEM.findall(text)]


def find_tokens(text: str) -> list[str]:
    """Anything signed that authenticates somebody; where nothing of the kind may be."""
    return [f"token {match[:24]}…" for match in _JWT.findall(text)]


def find_known(text: str, secrets: Iterable[str]) -> list[str]:
    """Secrets we know, however much of them is quoted."""
    return [f"secret {secret[:6]}…" for secret in secrets if secret in text]
