"""Another implementation of SM2, in pure Python, for tests to compare with."""

from gmssl.sm2 import CryptSM2


def peer(x: bytes, y: bytes, *, private: str = "") -> CryptSM2:
    """The key pair at a point; `private` is its scalar in hex."""
    made = CryptSM2(private_key=private, public_key="", asn1=True)
    # set afterwards: the constructor strips leading zeros and fours of the point along with the prefix 04
    made.public_key = (x + y).hex()
    return made
