"""`tessera signatures`: what is typed becomes a policy or a key, or is refused in a sentence."""

import argparse
import base64
from pathlib import Path

import msgspec
import pytest

from gateway.cli import signatures
from gateway.client import PartnerClient
from gateway.runtime import Runtime
from kernel import sm2
from kernel.database import Connection
from kernel.errors import Absent, Refusal
from partners.oauth.sm2_keys import load_sm2_signer
from partners.registry import service as registry
from partners.registry.jwk import encode


async def type_in(connection: Connection, runtime: Runtime, *words: str) -> str:
    """What the command prints."""
    parser = argparse.ArgumentParser()
    signatures.register(parser.add_subparsers(required=True))
    options = parser.parse_args(["signatures", *words, "--by", "maker"])
    now = runtime.clock.now()
    printed: str = await options.deed(connection, options, runtime.vault, "admin:maker", now)
    return printed


async def test_a_policy_is_set(connection: Connection, runtime: Runtime, partner: PartnerClient) -> None:
    client_id = partner.credentials.client_id

    assert (
        await type_in(connection, runtime, "demand", client_id, "sm2")
        == f"{client_id}  request_signature sm2"
    )

    client = await registry.find_client(connection, client_id)
    assert client is not None and client.request_signature == "sm2"
    with pytest.raises(Absent):
        await type_in(connection, runtime, "demand", "app_nobody", "sm2")


@pytest.mark.parametrize("form", ["pem", "jwk"])
async def test_a_key_is_registered_from_a_file_and_revoked(
    connection: Connection, runtime: Runtime, partner: PartnerClient, tmp_path: Path, form: str
) -> None:
    key = sm2.PrivateKey.generate().public()
    x, y = key.point
    file = tmp_path / "key"
    if form == "pem":
        written = base64.encodebytes(key.spki).decode()
        file.write_text(f"-----BEGIN PUBLIC KEY-----\n{written}-----END PUBLIC KEY-----\n")
    else:
        file.write_bytes(msgspec.json.encode({"kty": "EC", "crv": "SM2", "x": encode(x), "y": encode(y)}))
    client_id = partner.credentials.client_id

    told = await type_in(connection, runtime, "add-sm2-key", client_id, "sn-1", str(file))

    assert told.endswith(f"sn-1 active  sm3 {sm2.sm3(x + y).hex()}")
    client = await registry.find_client(connection, client_id)
    assert client is not None and client.sm2_keys == {"sn-1": (x + y).hex()}
    await type_in(connection, runtime, "revoke-sm2-key", client_id, "sn-1")
    client = await registry.find_client(connection, client_id)
    assert client is not None and client.sm2_keys == {}
    with pytest.raises(Absent):
        await type_in(connection, runtime, "revoke-sm2-key", client_id, "sn-1")


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("sn-1", b"", "sm2_key_invalid"),
        ("sn-1", b"\xff\xfe", "key_file_unreadable"),
        ("sn-1", b'{"kty": "EC"', "key_file_unreadable"),
        ("sn-1", b'{"kty": "EC", "crv": "SM2", "x": "", "y": "", "d": ""}', "private_key_sent"),
        ("s n", None, "serial_no_invalid"),
        ("", None, "serial_no_invalid"),
        ("x" * 65, None, "serial_no_invalid"),
    ],
)
async def test_a_file_without_a_public_key_or_a_bad_number_is_refused(
    connection: Connection,
    runtime: Runtime,
    partner: PartnerClient,
    tmp_path: Path,
    name: str,
    content: bytes | None,
    code: str,
) -> None:
    file = tmp_path / "key"
    spki = base64.encodebytes(sm2.PrivateKey.generate().public().spki)
    good = b"-----BEGIN PUBLIC KEY-----\n" + spki + b"-----END PUBLIC KEY-----\n"
    file.write_bytes(good if content is None else content)

    with pytest.raises(Refusal) as refused:
        await type_in(connection, runtime, "add-sm2-key", partner.credentials.client_id, name, str(file))

    assert refused.value.code == code


async def test_the_banks_key_is_replaced_and_the_old_one_stays_published(
    connection: Connection, runtime: Runtime
) -> None:
    now = runtime.clock.now()
    before = await load_sm2_signer(connection, vault=runtime.vault, now=now)
    told = await type_in(connection, runtime, "replace-bank-key")
    after = await load_sm2_signer(connection, vault=runtime.vault, now=now)

    assert before is not None and after is not None
    assert told == f"{after.serial_no}  active from the next start on"
    assert after.serial_no != before.serial_no
    assert {before.serial_no, after.serial_no} <= {key["serial_no"] for key in after.published}
    assert "d" not in after.published[0]
