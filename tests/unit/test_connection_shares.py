"""Who gets a connection of a pool that several tenants share."""

import threading
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from tenant_router.orm_backends.connection_shares import ConnectionShares
from tests.tenants import eventually


def taken_by(shares, tenant_id, most=1_000):
    """Take as many as there are for one tenant."""
    return sum(1 for _ in range(most) if shares.take(tenant_id, 0))


def test_one_tenant_gets_half_and_everybody_who_comes_finds_one():
    shares = ConnectionShares(100)
    assert [taken_by(shares, tenant) for tenant in "abcd"] == [50, 25, 13, 6]
    assert all(shares.take(f"t{number}", 0) for number in range(6))


def test_a_pool_of_one_is_everybodys_in_turn():
    shares = ConnectionShares(1)
    assert shares.take("a", 0)
    assert not shares.take("b", 0)
    shares.give_back("a")
    assert shares.take("b", 0)


def test_a_pool_without_a_limit_has_no_shares():
    assert taken_by(ConnectionShares(float("inf")), "a") == 1_000


def waiter(shares, tenant_id, served):
    before = waiting(shares)
    thread = threading.Thread(target=lambda: served.append((tenant_id, shares.take(tenant_id, 60))))
    thread.start()
    eventually(lambda: waiting(shares) == before + 1)
    return thread


def waiting(shares):
    return sum(len(queue) for queue in [*shares._waiting.values()])


def test_tenants_that_wait_are_served_in_turn():
    shares, served = ConnectionShares(2), []
    assert shares.take("a", 0)
    assert shares.take("b", 0)
    threads = [waiter(shares, tenant, served) for tenant in "aaab"]
    shares.give_back("b")
    eventually(lambda: len(served) == 1)
    assert served == [("b", True)]  # one is free, and a holds one already
    shares.give_back("a")
    for number in range(3):
        eventually(lambda number=number: len(served) == number + 2)
        shares.give_back("a")
    for thread in threads:
        thread.join(60)
    assert Counter(served) == {("a", True): 3, ("b", True): 1}
    shares.give_back("b")
    assert (shares.free, shares.used, shares._waiting) == (2, {}, {})


def test_who_gives_up_takes_nothing():
    shares = ConnectionShares(1)
    assert shares.take("a", 0)
    assert not shares.take("a", 0.01)
    assert not shares.take("b", 0.01)
    shares.give_back("a")
    assert (shares.free, shares.used, shares._waiting) == (1, {}, {})
    assert shares.take("b", 0)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 12), st.lists(st.tuples(st.booleans(), st.integers(0, 4)), max_size=60))
def test_never_more_than_there_are_and_never_more_than_were_free(size, steps):
    shares, held = ConnectionShares(size), Counter()
    for takes, number in steps:
        tenant_id, free = f"t{number}", size - held.total()
        if takes:
            got = shares.take(tenant_id, 0)
            assert got == (held[tenant_id] < free)
            held[tenant_id] += got
        elif held[tenant_id]:
            shares.give_back(tenant_id)
            held[tenant_id] -= 1
        assert held.total() <= size
