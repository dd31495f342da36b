"""How often a password may be tried: a law of counts over time, without a clock."""

from __future__ import annotations

from qcnode.web.throttle import ADDRESS, EACH, NAME, WINDOW_SECONDS, Throttle


def test_so_many_attempts_and_no_more_until_the_first_is_over() -> None:
    throttle = Throttle()
    assert [throttle.wait("mira", "10.0.0.1", float(at)) for at in range(EACH)] == [0.0] * EACH
    assert throttle.wait("mira", "10.0.0.1", 10.0) == WINDOW_SECONDS - 10.0
    assert throttle.wait("jo", "10.0.0.1", 10.0) == 0.0, "a colleague at the same tablet is not held up"
    assert throttle.wait("mira", "10.0.0.2", 10.0) == 0.0, "nor is she herself at another one"
    assert throttle.wait("mira", "10.0.0.1", WINDOW_SECONDS) == 0.0, "the first attempt is over"
    assert throttle.wait("mira", "10.0.0.1", WINDOW_SECONDS) == 1.0, "the second is not"


def test_a_refused_attempt_does_not_make_the_wait_longer() -> None:
    throttle = Throttle()
    for _ in range(EACH):
        throttle.wait("mira", "10.0.0.1", 0.0)
    assert [throttle.wait("mira", "10.0.0.1", at) for at in (100.0, 200.0)] == [200.0, 100.0]


def test_one_address_cannot_try_name_after_name() -> None:
    throttle = Throttle()
    assert all(throttle.wait(f"name{n}", "10.0.0.1", 0.0) == 0.0 for n in range(ADDRESS))
    assert throttle.wait("one more", "10.0.0.1", 0.0) == WINDOW_SECONDS


def test_many_addresses_cannot_try_one_name() -> None:
    throttle = Throttle()
    assert all(throttle.wait("mira", f"10.0.0.{n}", 0.0) == 0.0 for n in range(NAME))
    assert throttle.wait("mira", "10.0.1.1", 0.0) == WINDOW_SECONDS


def test_what_was_mistyped_before_a_right_password_counts_no_more() -> None:
    throttle = Throttle()
    for _ in range(EACH):
        throttle.wait("mira", "10.0.0.1", 0.0)
    throttle.forgive("mira", "10.0.0.1")
    assert throttle.wait("mira", "10.0.0.1", 0.0) == 0.0


def test_it_forgets_what_is_over() -> None:
    throttle = Throttle()
    throttle.wait("mira", "10.0.0.1", 0.0)
    throttle.wait("jo", "10.0.0.2", WINDOW_SECONDS)
    assert {key[0] for key in throttle._attempts} == {"jo", None}
    assert len(throttle._attempts) == 3
