"""Certificates: what is done when, and that nobody is shut out meanwhile."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from wallaroo_operator import certs
from wallaroo_operator.certs import Held, Step, carry_out, decide, fingerprint, issued

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def founded() -> Held:
    return carry_out(Step.FOUND, Held(), "count", NOW)


def settled(held: Held, now: datetime) -> Held:
    """After all that there is to do, workers having followed."""
    for _ in range(10):
        step = decide(held, [fingerprint(held.bundle)], now)
        if step is Step.NOTHING:
            return held
        held = carry_out(step, held, "count", now)
    raise AssertionError("it does not come to an end")


def test_there_is_an_authority_for_each_application() -> None:
    """Ruling K8s 24."""
    assert decide(Held(), [], NOW) is Step.FOUND
    held = founded()
    assert held.current
    assert held.leaf
    assert issued(held.leaf, held.current)
    assert held.bundle == held.current.certificate
    assert decide(held, ["anything"], NOW) is Step.NOTHING


def test_what_secrets_hold_is_read_as_it_was_written() -> None:
    held = carry_out(Step.PREPARE, founded(), "count", NOW)
    assert Held.read(held.ca_data(), held.tls_data()) == held
    assert set(founded().ca_data()) == {"ca.crt", "ca.key"}
    assert set(held.tls_data()) == {"tls.crt", "tls.key", "ca.crt"}
    assert Held.read({"ca.crt": "bm9uc2Vuc2U="}, {}) == Held()


def test_a_leaf_says_who_it_is_for_both_ends() -> None:
    """Ruling K8s 24: valid for a year, backdated an hour."""
    held = founded()
    assert held.leaf
    found = x509.load_pem_x509_certificate(held.leaf.certificate.encode())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["worker.wallaroo", "count.worker.wallaroo"]
    usage = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usage) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert found.not_valid_before_utc == NOW - timedelta(hours=1)
    assert found.not_valid_after_utc == NOW + timedelta(days=365)


def test_the_operators_leaf_is_good_for_a_day() -> None:
    """Ruling K8s 24."""
    held = founded()
    assert held.current
    leaf = certs.operators_leaf(held.current, NOW)
    found = x509.load_pem_x509_certificate(leaf.certificate.encode())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["operator.wallaroo"]
    assert found.not_valid_after_utc == NOW + DAY


@pytest.mark.parametrize(("days", "step"), [(240, Step.NOTHING), (250, Step.RENEW)])
def test_a_leaf_is_renewed_at_a_third_left(days: int, step: Step) -> None:
    """Ruling K8s 24."""
    held = founded()
    assert decide(held, [], NOW + days * DAY) is step
    after = carry_out(Step.RENEW, held, "count", NOW + days * DAY)
    assert after.leaf != held.leaf
    assert (after.current, after.bundle) == (held.current, held.bundle)


def test_an_authority_is_replaced_in_steps() -> None:
    """Ruling K8s 24: trust both, wait until all report it, switch, drop the old."""
    now = NOW + 2500 * DAY
    held = carry_out(Step.RENEW, founded(), "count", now)
    old = held.current
    assert old
    assert decide(held, [], now) is Step.PREPARE
    both = carry_out(Step.PREPARE, held, "count", now)
    assert both.next
    assert both.bundle == old.certificate + both.next.certificate
    assert both.leaf == held.leaf

    assert decide(both, [fingerprint(both.bundle), fingerprint(held.bundle)], now) is Step.NOTHING
    assert decide(both, [fingerprint(both.bundle), ""], now) is Step.NOTHING
    assert decide(both, [fingerprint(both.bundle)] * 2, now) is Step.SWITCH
    switched = carry_out(Step.SWITCH, both, "count", now)
    assert switched.current == both.next
    assert switched.leaf
    assert issued(switched.leaf, both.next)
    assert switched.bundle == both.next.certificate + old.certificate

    # A worker of before has the other bundle: it may not have the new leaf yet either.
    assert decide(switched, [fingerprint(both.bundle)], now) is Step.NOTHING
    assert decide(switched, [fingerprint(switched.bundle)], now) is Step.DROP
    dropped = carry_out(Step.DROP, switched, "count", now)
    assert dropped.bundle == both.next.certificate
    assert decide(dropped, [], now) is Step.NOTHING


def test_at_every_step_each_trusts_the_leaf_of_the_one_before_and_behind() -> None:
    """Ruling K8s 24."""
    now = NOW + 2500 * DAY
    held = carry_out(Step.RENEW, founded(), "count", now)
    states = [held]
    while (step := decide(held, [fingerprint(held.bundle)], now)) is not Step.NOTHING:
        held = carry_out(step, held, "count", now)
        states.append(held)
    assert len(states) == 4
    for one, other in pairwise(states):
        for leaf, trusted in ((one.leaf, other.bundle), (other.leaf, one.bundle)):
            assert leaf
            found = x509.load_pem_x509_certificates(trusted.encode())
            signers = [certs.Pair(each.public_bytes(Encoding.PEM).decode(), "") for each in found]
            assert any(issued(leaf, signer) for signer in signers)


@pytest.mark.parametrize("crash", [1, 2, 3])
def test_a_crash_between_the_two_secrets_is_mended(crash: int) -> None:
    """The signer's Secret is written first."""
    now = NOW + 2500 * DAY
    held = carry_out(Step.RENEW, founded(), "count", now)
    for _ in range(crash):
        before = held
        held = carry_out(decide(held, [fingerprint(held.bundle)], now), held, "count", now)
    half = replace(held, leaf=before.leaf, bundle=before.bundle)
    found = settled(half, now)
    assert found.current
    assert found.leaf
    assert issued(found.leaf, found.current)


def test_an_authority_that_was_deleted_is_replaced_while_the_old_one_is_trusted() -> None:
    held = replace(founded(), current=None)
    found = carry_out(decide(held, [], NOW), held, "count", NOW)
    assert found.current
    assert found.bundle == found.current.certificate + held.bundle
