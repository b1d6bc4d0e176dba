"""What may be wrong with a signed token, by name: the cases of the JWT part of the bypass list.

A forgery is made from what is good: header, claims, the key that signs, and the public half as anybody has it.
Nothing of it is written with the library that the server checks it with.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from msgspec import Struct
from partner_client import DROP, b64, forge, merge, public_jwk

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
EVIL = "https://evil.example/keys"


class Good(Struct, frozen=True, kw_only=True):
    """A token that would be accepted, taken apart."""

    header: dict[str, Any]
    claims: dict[str, Any]
    #: signs the bytes of `header.claims` as ES256 wants it
    sign: Callable[[bytes], bytes]
    public: ec.EllipticCurvePublicKey
    #: the same time in the header's and the claims' world
    moment: int

    def make(self, claims: Any = None, **header: Any) -> str:
        """The token with other members and a signature that is good for them."""
        content = self.claims if claims is None else claims
        return self.seal(merge(self.header, header), content)

    def claiming(self, **changes: Any) -> str:
        return self.make(merge(self.claims, changes))

    def seal(self, header: Any, claims: Any) -> str:
        text = forge(header, claims).rpartition(".")[0]
        return f"{text}.{b64(self.sign(text.encode()))}"

    def unsigned(self, signature: bytes = b"", **header: Any) -> str:
        return forge(merge(self.header, header), self.claims, signature)

    def resigned(self, change: Callable[[int, int], bytes]) -> str:
        """The good token with another signature, made of the numbers of the good one."""
        head, _, tail = self.make().rpartition(".")
        raw = base64.urlsafe_b64decode(tail + "==")
        numbers = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
        return f"{head}.{b64(change(*numbers))}"

    def by_secret(self, secret: bytes, alg: str = "HS256") -> str:
        """The public key taken for a shared secret."""
        text = forge(merge(self.header, {"alg": alg}), self.claims).rpartition(".")[0]
        digest = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}[alg]
        return f"{text}.{b64(hmac.digest(secret, text.encode(), digest))}"

    def public_bytes(self, encoding: Encoding) -> bytes:
        return self.public.public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)

    @property
    def public_jwk(self) -> dict[str, Any]:
        numbers = self.public.public_numbers()
        x, y = (b64(number.to_bytes(32, "big")) for number in (numbers.x, numbers.y))
        return {"kty": "EC", "crv": "P-256", "x": x, "y": y}


def pair(r: int, s: int) -> bytes:
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def by_rsa(good: Good, alg: str, *, pss: bool) -> str:
    key = rsa.generate_private_key(65537, 2048)
    text = forge(merge(good.header, {"alg": alg}), good.claims).rpartition(".")[0]
    scheme = padding.PSS(padding.MGF1(SHA256()), 32) if pss else padding.PKCS1v15()
    return f"{text}.{b64(key.sign(text.encode(), scheme, SHA256()))}"


def by_edwards(good: Good) -> str:
    text = forge(merge(good.header, {"alg": "EdDSA"}), good.claims).rpartition(".")[0]
    return f"{text}.{b64(ed25519.Ed25519PrivateKey.generate().sign(text.encode()))}"


def by_curve(good: Good, alg: str, curve: ec.EllipticCurve, hash: Any, size: int) -> str:
    text = forge(merge(good.header, {"alg": alg}), good.claims).rpartition(".")[0]
    r, s = decode_dss_signature(ec.generate_private_key(curve).sign(text.encode(), ec.ECDSA(hash)))
    return f"{text}.{b64(r.to_bytes(size, 'big') + s.to_bytes(size, 'big'))}"


def by_own_key(good: Good, **header: Any) -> str:
    """Signed by a key of the attacker's, which the header may praise."""
    key = ec.generate_private_key(ec.SECP256R1())
    jwk = public_jwk("ES256", key)
    named = {name: jwk if value == "JWK" else value for name, value in header.items()}
    text = forge(merge(good.header, named), good.claims).rpartition(".")[0]
    r, s = decode_dss_signature(key.sign(text.encode(), ec.ECDSA(SHA256())))
    return f"{text}.{b64(pair(r, s))}"


def as_der(r: int, s: int) -> bytes:
    return encode_dss_signature(r, s)


def twice(good: Good, name: str, first: Any) -> str:
    """A member named twice, the good value last."""
    members = f"{{{json.dumps(name)}:{json.dumps(first)}," + json.dumps(good.claims)[1:]
    return good.seal(good.header, members)


def other_last_letter(token: str) -> str:
    """Another last letter that stands for the same bytes, for readers who do not look at the bits that are left."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + letters[letters.index(token[-1]) ^ 1]


def nested(good: Good) -> str:
    return good.seal({**good.header, "cty": "JWT"}, json.dumps(good.make()))


Forgery = Callable[[Good], str]

#: nobody signed it, or not with the key it claims
UNPROVED: dict[str, Forgery] = {
    "alg none": lambda good: good.unsigned(alg="none"),
    "alg None": lambda good: good.unsigned(alg="None"),
    "alg nOnE": lambda good: good.unsigned(alg="nOnE"),
    "alg NONE with the good signature": lambda good: good.make(alg="NONE"),
    "alg is empty": lambda good: good.make(alg=""),
    "alg is missing": lambda good: good.make(alg=DROP),
    "alg is null": lambda good: good.make(alg=None),
    "alg is a list": lambda good: good.make(alg=["ES256"]),
    "alg with a space": lambda good: good.make(alg="ES256 "),
    "the signature is stripped": lambda good: good.unsigned(),
    "the signature and its dot are stripped": lambda good: good.make().rpartition(".")[0],
    "HS256 with the public PEM": lambda good: good.by_secret(good.public_bytes(Encoding.PEM)),
    "HS256 with the public PEM without its last line end": lambda good: good.by_secret(
        good.public_bytes(Encoding.PEM).strip()
    ),
    "HS256 with the public DER": lambda good: good.by_secret(good.public_bytes(Encoding.DER)),
    "HS256 with the public JWK as JSON": lambda good: good.by_secret(json.dumps(good.public_jwk).encode()),
    "HS256 with the public JWK without white space": lambda good: good.by_secret(
        json.dumps(good.public_jwk, separators=(",", ":"), sort_keys=True).encode()
    ),
    "HS256 with the point": lambda good: good.by_secret(
        good.public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    ),
    "HS256 with nothing": lambda good: good.by_secret(b""),
    "HS256 with the kid": lambda good: good.by_secret(good.header["kid"].encode()),
    "HS384 with the public PEM": lambda good: good.by_secret(good.public_bytes(Encoding.PEM), "HS384"),
    "HS512 with the public PEM": lambda good: good.by_secret(good.public_bytes(Encoding.PEM), "HS512"),
    "RS256 by another key": lambda good: by_rsa(good, "RS256", pss=False),
    "PS256 by another key": lambda good: by_rsa(good, "PS256", pss=True),
    "EdDSA by another key": by_edwards,
    "ES384 by another key": lambda good: by_curve(good, "ES384", ec.SECP384R1(), SHA384(), 48),
    "ES512 by another key": lambda good: by_curve(good, "ES512", ec.SECP521R1(), SHA512(), 66),
    "ES256K by another key": lambda good: by_curve(good, "ES256K", ec.SECP256K1(), SHA256(), 32),
    "PS256 over the good signature": lambda good: good.make(alg="PS256"),
    "EdDSA over the good signature": lambda good: good.make(alg="EdDSA"),
    "ES256 by another key": by_own_key,
    "another key in jwk": lambda good: by_own_key(good, jwk="JWK"),
    "another key behind jku": lambda good: by_own_key(good, jku=EVIL),
    "another key behind x5u": lambda good: by_own_key(good, x5u=EVIL),
    "another key in x5c": lambda good: by_own_key(good, x5c=["MIIB"]),
    "ECDSA r and s are zero": lambda good: good.resigned(lambda r, s: bytes(64)),
    "ECDSA r is zero": lambda good: good.resigned(lambda r, s: pair(0, s)),
    "ECDSA s is zero": lambda good: good.resigned(lambda r, s: pair(r, 0)),
    "ECDSA r is the order": lambda good: good.resigned(lambda r, s: pair(ORDER, s)),
    "ECDSA s is the order": lambda good: good.resigned(lambda r, s: pair(r, ORDER)),
    "ECDSA both are the order": lambda good: good.resigned(lambda r, s: pair(ORDER, ORDER)),
    "ECDSA both are as large as can be": lambda good: good.resigned(lambda r, s: b"\xff" * 64),
    "ECDSA swapped": lambda good: good.resigned(lambda r, s: pair(s, r)),
    "ECDSA in DER": lambda good: good.resigned(as_der),
    "ECDSA one byte short": lambda good: good.resigned(lambda r, s: pair(r, s)[:-1]),
    "ECDSA one byte long": lambda good: good.resigned(lambda r, s: pair(r, s) + b"\0"),
    "a hash for a signature": lambda good: good.resigned(lambda r, s: hashlib.sha512(b"").digest()),
}
#: the signature is good, and still it must not be read
MISWRITTEN: dict[str, Forgery] = {
    "kid with a path": lambda good: good.make(kid="../../../../dev/null"),
    "kid with SQL": lambda good: good.make(kid=f"{good.header['kid']}' OR '1'='1"),
    "kid with NUL": lambda good: good.make(kid=good.header["kid"] + "\0"),
    "kid in capitals": lambda good: good.make(kid=good.header["kid"].upper()),
    "kid is a list": lambda good: good.make(kid=[good.header["kid"]]),
    "kid is empty": lambda good: good.make(kid=""),
    "kid is missing": lambda good: good.make(kid=DROP),
    "kid of 100,000 letters": lambda good: good.make(kid="k" * 100_000),
    "jku": lambda good: good.make(jku=EVIL),
    "x5u": lambda good: good.make(x5u=EVIL),
    "x5c": lambda good: good.make(x5c=["MIIB"]),
    "jwk": lambda good: good.make(jwk=good.public_jwk),
    "crit that nobody knows": lambda good: good.make(crit=["exp2"], exp2=1),
    "crit of b64": lambda good: good.make(crit=["b64"], b64=True),
    "crit is empty": lambda good: good.make(crit=[]),
    "b64 is false": lambda good: good.make(b64=False),
    "typ of a proof": lambda good: good.make(typ="dpop+jwt"),
    "typ of a quote": lambda good: good.make(typ="quote+jwt"),
    "typ of a logout": lambda good: good.make(typ="logout+jwt"),
    "typ is a list": lambda good: good.make(typ=["at+jwt", "JWT"]),
    "nested": nested,
    "four parts": lambda good: good.make() + ".x",
    "five parts, as if encrypted": lambda good: good.make() + ".x.x",
    "the first part is missing": lambda good: good.make().partition(".")[2],
    "padding": lambda good: good.make() + "==",
    "white space": lambda good: good.make().replace(".", ". "),
    "a line end": lambda good: good.make() + "\n",
    "the letters of plain base64": lambda good: (
        good.make(note="<<???>>~~~").replace("_", "/").replace("-", "+")
    ),
    "another letter for the same bytes": lambda good: other_last_letter(good.make()),
    "not ASCII": lambda good: good.make() + "é",
    "longer than 64 kB": lambda good: good.claiming(note="x" * 65_536),
    "claims are a list": lambda good: good.seal(good.header, [good.claims]),
    "claims are null": lambda good: good.seal(good.header, "null"),
    "claims nested without end": lambda good: good.seal(good.header, "[" * 10_000),
    "claims with a byte order mark": lambda good: good.seal(good.header, "\ufeff" + json.dumps(good.claims)),
    "exp named twice": lambda good: twice(good, "exp", 1),
    "iss named twice": lambda good: twice(good, "iss", "x"),
    "aud named twice": lambda good: twice(good, "aud", "x"),
    "alg named twice": lambda good: good.seal(
        '{"alg":"none",' + json.dumps(good.header)[1:], json.dumps(good.claims)
    ),
}
#: the signature is good, the writing too, but what it claims does not hold
UNTRUE: dict[str, Forgery] = {
    "exp is missing": lambda good: good.claiming(exp=DROP),
    "exp is null": lambda good: good.claiming(exp=None),
    "exp is true": lambda good: good.claiming(exp=True),
    "exp is a text": lambda good: good.claiming(exp=str(good.moment + 60)),
    "exp is a list": lambda good: good.claiming(exp=[good.moment + 60]),
    "exp is negative": lambda good: good.claiming(exp=-1),
    "exp is zero": lambda good: good.claiming(exp=0),
    "exp is NaN": lambda good: good.claiming(exp=float("nan")),
    "exp is infinite": lambda good: good.claiming(exp=float("inf")),
    "exp is now": lambda good: good.claiming(exp=good.moment),
    "exp was a second ago": lambda good: good.claiming(exp=good.moment - 1),
    "exp was 61 seconds ago": lambda good: good.claiming(exp=good.moment - 61),
    "nbf is in 61 seconds": lambda good: good.claiming(nbf=good.moment + 61),
    "nbf is a text": lambda good: good.claiming(nbf="now"),
    "iat is in 61 seconds": lambda good: good.claiming(iat=good.moment + 61),
    "iat is a text": lambda good: good.claiming(iat="now"),
    "aud is missing": lambda good: good.claiming(aud=DROP),
    "aud is empty": lambda good: good.claiming(aud=""),
    "aud is a list of the good one": lambda good: good.claiming(aud=[good.claims["aud"]]),
    "aud is a list of two": lambda good: good.claiming(aud=[good.claims["aud"], "https://evil.example"]),
    "aud is a longer text": lambda good: good.claiming(aud=good.claims["aud"] + ".evil.example"),
    "aud with a slash": lambda good: good.claiming(aud=good.claims["aud"] + "/"),
    "aud is a shorter text": lambda good: good.claiming(aud=good.claims["aud"][:-1]),
    "aud in capitals": lambda good: good.claiming(aud=good.claims["aud"].upper()),
    "aud with a space": lambda good: good.claiming(aud=" " + good.claims["aud"]),
    "aud of somebody else": lambda good: good.claiming(aud="https://evil.example"),
    "iss is missing": lambda good: good.claiming(iss=DROP),
    "iss is empty": lambda good: good.claiming(iss=""),
    "iss is longer": lambda good: good.claiming(iss=good.claims["iss"] + "x"),
    "iss is shorter": lambda good: good.claiming(iss=good.claims["iss"][:-1]),
    "iss in capitals": lambda good: good.claiming(iss=good.claims["iss"].upper()),
    "iss is a list": lambda good: good.claiming(iss=[good.claims["iss"]]),
    "iss is an object": lambda good: good.claiming(iss={"iss": good.claims["iss"]}),
    "iss of somebody else": lambda good: good.claiming(iss="https://evil.example"),
    "sub is missing": lambda good: good.claiming(sub=DROP),
    "sub is a list": lambda good: good.claiming(sub=[good.claims["sub"]]),
    "jti is missing": lambda good: good.claiming(jti=DROP),
    "jti is a number": lambda good: good.claiming(jti=1),
}
FORGERIES: dict[str, Forgery] = UNPROVED | MISWRITTEN | UNTRUE
