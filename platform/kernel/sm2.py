"""SM2 signatures with SM3 (GB/T 32918.2), made and verified by the system's OpenSSL 3: no Python library does it in time.

Python's own cryptography has no SM2, and pure Python takes twenty milliseconds a signature and leaks the key through
its timing. Here are only the dozen functions of libcrypto that are needed; every object they give is freed where it was
got. Calls release the interpreter's lock, so they belong into a thread: kernel/aside.py.
"""

import base64
import ctypes
import ctypes.util
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ctypes import POINTER, byref, c_char_p, c_int, c_long, c_size_t, c_ubyte, c_ulong, c_void_p
from functools import cache

from cryptography.hazmat.primitives.hashes import SM3, Hash

from kernel.errors import Unavailable, Unprocessable

#: the user identity everybody uses who has agreed on no other (GM/T 0009)
USER_ID = b"1234567812345678"
#: two integers below 2^256 with their DER headers
SIGNATURE_LENGTH_MAX = 72
# SubjectPublicKeyInfo of an uncompressed point on the SM2 curve, up to the point (GM/T 0010, RFC 5480 §2).
_SPKI_PREFIX = bytes.fromhex("3059301306072a8648ce3d020106082a811ccf5501822d034200")
_POINT_LENGTH = 65
_NAMES = ("libcrypto.so.3", "libcrypto.3.dylib")


class Sm2Off(Unavailable):
    """The SM2 scheme is off on this server: it has no OpenSSL 3 with SM2. RFC 9421 signatures work."""


class Sm2KeyInvalid(Unprocessable):
    """The key must be a public key on the SM2 curve, its point uncompressed and on the curve."""


class _Library:
    """The functions of libcrypto, with their types."""

    def __init__(self, crypto: ctypes.CDLL) -> None:
        def bind(name: str, result: object, *arguments: object) -> Callable[..., int]:
            function = getattr(crypto, name)
            function.restype, function.argtypes = result, arguments
            return function  # type: ignore[no-any-return]  # a foreign function has no type

        pointer, text = POINTER(c_void_p), POINTER(c_ubyte)
        self.sm3 = bind("EVP_sm3", c_void_p)
        self.read_public = bind("d2i_PUBKEY", c_void_p, c_void_p, POINTER(c_char_p), c_long)
        self.write_public = bind("i2d_PUBKEY", c_int, c_void_p, POINTER(text))
        self.read_private = bind("d2i_AutoPrivateKey", c_void_p, c_void_p, POINTER(c_char_p), c_long)
        self.write_private = bind("i2d_PrivateKey", c_int, c_void_p, POINTER(text))
        self.is_a = bind("EVP_PKEY_is_a", c_int, c_void_p, c_char_p)
        self.free_key = bind("EVP_PKEY_free", None, c_void_p)
        self.context_by_name = bind("EVP_PKEY_CTX_new_from_name", c_void_p, c_void_p, c_char_p, c_char_p)
        self.context_of = bind("EVP_PKEY_CTX_new", c_void_p, c_void_p, c_void_p)
        self.free_context = bind("EVP_PKEY_CTX_free", None, c_void_p)
        self.set_id = bind("EVP_PKEY_CTX_set1_id", c_int, c_void_p, c_char_p, c_int)
        self.begin_generate = bind("EVP_PKEY_keygen_init", c_int, c_void_p)
        self.generate = bind("EVP_PKEY_generate", c_int, c_void_p, pointer)
        self.new_digest = bind("EVP_MD_CTX_new", c_void_p)
        self.free_digest = bind("EVP_MD_CTX_free", None, c_void_p)
        self.join = bind("EVP_MD_CTX_set_pkey_ctx", None, c_void_p, c_void_p)
        steps = (c_void_p, pointer, c_void_p, c_void_p, c_void_p)
        self.begin_verify = bind("EVP_DigestVerifyInit", c_int, *steps)
        self.verify = bind("EVP_DigestVerify", c_int, c_void_p, c_char_p, c_size_t, c_char_p, c_size_t)
        self.begin_sign = bind("EVP_DigestSignInit", c_int, *steps)
        self.sign = bind("EVP_DigestSign", c_int, c_void_p, text, POINTER(c_size_t), c_char_p, c_size_t)
        self.forget_errors = bind("ERR_clear_error", None)
        self.free = crypto.CRYPTO_free
        self.free.restype, self.free.argtypes = None, (c_void_p, c_char_p, c_int)

    def knows_sm2(self) -> bool:
        """Whether it was built with SM2 and SM3; some distributions leave them out."""
        context = self.context_by_name(None, b"SM2", None)
        self.free_context(context)
        self.forget_errors()
        return bool(context) and bool(self.sm3())


@cache
def _library() -> _Library | None:
    """The system's libcrypto, if it is of OpenSSL 3 and knows SM2."""
    return open_library((*_NAMES, ctypes.util.find_library("crypto")))


def open_library(names: Sequence[str | None]) -> _Library | None:
    """The first of `names` that is a libcrypto of OpenSSL 3 or newer."""
    for name in names:
        try:
            crypto = ctypes.CDLL(name) if name else None
            if crypto is None:
                continue
            crypto.OpenSSL_version_num.restype = c_ulong
            if crypto.OpenSSL_version_num() >> 28 >= 3 and (library := _Library(crypto)).knows_sm2():
                return library
        except (OSError, AttributeError):
            continue
    return None


def is_available() -> bool:
    """Whether this process can do SM2."""
    return _library() is not None


def _required() -> _Library:
    library = _library()
    if library is None:
        raise Sm2Off
    return library


class PublicKey:
    """A public key on the SM2 curve, ready to verify; freed with the object."""

    def __init__(self, spki: bytes) -> None:
        """`spki` is its DER; Sm2KeyInvalid unless it is exactly that of an uncompressed point on the curve."""
        self._key: int | None = None
        if len(spki) != len(_SPKI_PREFIX) + _POINT_LENGTH or not spki.startswith(_SPKI_PREFIX + b"\x04"):
            raise Sm2KeyInvalid
        self._library = _required()
        self._key = self._library.read_public(None, byref(c_char_p(spki)), len(spki))
        if not self._key:
            self._library.forget_errors()
            raise Sm2KeyInvalid
        self.spki = spki

    @classmethod
    def at(cls, x: bytes, y: bytes) -> "PublicKey":
        """The key at a point given by its coordinates of 32 bytes each."""
        return cls(_SPKI_PREFIX + b"\x04" + x + y)

    @property
    def point(self) -> tuple[bytes, bytes]:
        """Its coordinates."""
        return self.spki[-64:-32], self.spki[-32:]

    def verifies(self, signature: bytes, signed: bytes, *, user_id: bytes = USER_ID) -> bool:
        """Whether `signature`, in DER, over `signed` was made with the private half."""
        if not 0 < len(signature) <= SIGNATURE_LENGTH_MAX:
            return False
        library = self._library
        with _digest(library, self._key, user_id) as digest:
            begun = library.begin_verify(digest, None, library.sm3(), None, self._key)
            good = begun == 1 and library.verify(digest, signature, len(signature), signed, len(signed)) == 1
        if not good:
            library.forget_errors()  # of this thread, or they pile up
        return good

    def __del__(self) -> None:
        if self._key:
            self._library.free_key(self._key)
            self._key = None


class PrivateKey:
    """A private key on the SM2 curve; freed with the object, and never shown."""

    def __init__(self, der: bytes) -> None:
        """`der` is what `to_der` gave."""
        self._key: int | None = None
        self._library = _required()
        self._key = self._library.read_private(None, byref(c_char_p(der)), len(der))
        if not self._key or self._library.is_a(self._key, b"SM2") != 1:
            self._library.forget_errors()
            raise Sm2KeyInvalid
        self._signing = threading.Lock()

    @classmethod
    def generate(cls) -> "PrivateKey":
        """A new key, of the system's random numbers."""
        library = _required()
        context = library.context_by_name(None, b"SM2", None)
        made = c_void_p()
        try:
            if not context or library.begin_generate(context) != 1:
                raise Sm2Off
            if library.generate(context, byref(made)) != 1:
                raise Sm2Off
            return cls(_der(library, library.write_private, made))
        finally:
            library.free_key(made)
            library.free_context(context)

    def to_der(self) -> bytes:
        """Its encoding, for the vault alone."""
        return _der(self._library, self._library.write_private, self._key)

    def public(self) -> PublicKey:
        return PublicKey(_der(self._library, self._library.write_public, self._key))

    def sign(self, signed: bytes, *, user_id: bytes = USER_ID) -> bytes:
        """A signature over `signed`, in DER (GM/T 0009 §7.3)."""
        library = self._library
        room = (c_ubyte * SIGNATURE_LENGTH_MAX)()
        length = c_size_t(SIGNATURE_LENGTH_MAX)
        with self._signing, _digest(library, self._key, user_id) as digest:
            begun = library.begin_sign(digest, None, library.sm3(), None, self._key)
            made = begun == 1 and library.sign(digest, room, byref(length), signed, len(signed)) == 1
        if not made:
            library.forget_errors()
            raise Sm2Off
        return bytes(room[: length.value])

    def __repr__(self) -> str:
        return "PrivateKey(SM2)"

    def __del__(self) -> None:
        if self._key:
            self._library.free_key(self._key)
            self._key = None


def sm3(data: bytes) -> bytes:
    """The SM3 digest of `data` (GB/T 32905)."""
    digest = Hash(SM3())
    digest.update(data)
    return digest.finalize()


@contextmanager
def _digest(library: _Library, key: int | None, user_id: bytes) -> Iterator[int]:
    """A digest context that knows the signer's identity; it and the key's context are gone afterwards."""
    context = library.context_of(key, None)
    digest = library.new_digest()
    try:
        if not context or not digest or library.set_id(context, user_id, len(user_id)) != 1:
            library.forget_errors()
            raise Sm2Off
        library.join(digest, context)
        yield digest
    finally:
        # in this order: a context that was joined is not the digest's to free
        library.free_digest(digest)
        library.free_context(context)


def _der(library: _Library, write: Callable[..., int], key: object) -> bytes:
    """What an i2d function writes, its memory given back."""
    written = POINTER(c_ubyte)()
    length = write(key, byref(written))
    if length <= 0:
        library.forget_errors()
        raise Sm2KeyInvalid
    try:
        return bytes(written[:length])
    finally:
        library.free(written, b"", 0)


_PEM = re.compile(
    r"\s*-----BEGIN PUBLIC KEY-----\s+(?P<text>[A-Za-z0-9+/=\s]+?)\s+-----END PUBLIC KEY-----\s*", re.ASCII
)


def read_pem(text: str) -> PublicKey:
    """The public key in a PEM file (RFC 7468 §13); a private one is refused like everything else."""
    found = _PEM.fullmatch(text)
    if found is None:
        raise Sm2KeyInvalid
    try:
        return PublicKey(base64.b64decode("".join(found["text"].split()), validate=True))
    except ValueError:
        raise Sm2KeyInvalid from None
