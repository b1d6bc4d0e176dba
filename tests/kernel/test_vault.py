"""Secrets at rest: they open where they were sealed and nowhere else."""

import pytest

from kernel.vault import Vault, VaultError, generate_ring, sha256

RING = generate_ring()
PLACE = {"table": "membership_member", "column": "name_sealed", "row": "7"}


def test_a_field_opens_where_it_was_sealed() -> None:
    vault = Vault(RING)

    assert vault.decrypt(vault.encrypt("李", **PLACE), **PLACE) == "李"


@pytest.mark.parametrize("moved", [{"table": "other"}, {"column": "phone_sealed"}, {"row": "8"}])
def test_a_field_moved_elsewhere_does_not_open(moved: dict[str, str]) -> None:
    vault = Vault(RING)
    sealed = vault.encrypt("secret", **PLACE)

    with pytest.raises(VaultError):
        vault.decrypt(sealed, **(PLACE | moved))


def test_every_changed_byte_is_noticed() -> None:
    vault = Vault(RING)
    sealed = vault.encrypt("secret", **PLACE)

    for position in range(len(sealed)):
        changed = sealed[:position] + bytes((sealed[position] ^ 1,)) + sealed[position + 1 :]
        with pytest.raises(VaultError):
            vault.decrypt(changed, **PLACE)


def test_a_new_key_in_front_seals_and_the_old_one_still_opens() -> None:
    old = Vault(RING)
    sealed = old.encrypt("secret", **PLACE)
    rotated = Vault(f"{generate_ring().replace('k1', 'k2')},{RING}")

    assert rotated.decrypt(sealed, **PLACE) == "secret"
    assert rotated.blind_index("phone", "1") == old.blind_index("phone", "1")
    with pytest.raises(VaultError):
        old.decrypt(rotated.encrypt("secret", **PLACE), **PLACE)


def test_the_same_value_is_never_sealed_alike_but_indexed_alike() -> None:
    vault = Vault(RING)

    assert vault.encrypt("x", **PLACE) != vault.encrypt("x", **PLACE)
    assert vault.blind_index("phone", "x") == vault.blind_index("phone", "x")
    assert vault.blind_index("phone", "x") != vault.blind_index("customer", "x")


@pytest.mark.parametrize(
    "ring", ["", "k1", "k1:short", ":AAAA", "k1:" + "!" * 44, "x" * 17 + ":" + "A" * 43 + "="]
)
def test_a_ring_that_is_no_ring_is_refused(ring: str) -> None:
    with pytest.raises(VaultError):
        Vault(ring)


def test_a_vault_does_not_show_its_keys() -> None:
    assert RING.split(":")[1] not in repr(Vault(RING))


def test_no_two_lists_of_parts_share_a_hash() -> None:
    assert sha256("ab", "c") != sha256("a", "bc")
