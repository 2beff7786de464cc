"""The tenant's part of a cache key."""

from contextlib import nullcontext

import pytest

from tenant_router import context
from tenant_router.cache.keys import GenerationKey, TenantKey, token
from tenant_router.identity import is_tenant_id
from tenant_router.tenant_context import TenantContext
from tenant_router.unit_of_work import Current


def plain(key, key_prefix, version):
    return f"{key_prefix}:{version}:{key}"


class Shelf:
    """What a generation needs of a cache, and nothing else."""

    def __init__(self):
        self.kept, self.reads = {}, 0

    def add(self, key, value, timeout=300):
        assert timeout is None, "a generation must not run out"
        return self.kept.setdefault(key, value) == value

    def get(self, key, default=None):
        self.reads += 1
        return self.kept.get(key, default)

    def set(self, key, value, timeout=300):
        assert timeout is None, "a generation must not run out"
        self.kept[key] = value


class Known:
    newest = ""


class Nodes(Shelf):
    """Several nodes, each with what it was given while it was there."""

    _servers = ("one", "two")

    def __init__(self):
        super().__init__()
        self.nodes, self.away = ({}, {}), None

    def _at(self, key):
        number = sum(key.encode()) % 2
        return self.nodes[1 - number if number == self.away else number]  # the others take what an absent one had

    def add(self, key, value, timeout=300):
        return self._at(key).setdefault(key, value) == value

    def set(self, key, value, timeout=300):
        self._at(key)[key] = value

    def get_many(self, keys):
        return {key: self._at(key)[key] for key in keys if key in self._at(key)}


@pytest.mark.parametrize("away", [0, 1])
@pytest.mark.parametrize("another", [False, True])
def test_what_was_cleared_while_a_node_was_away_stays_cleared(unit, away, another):
    """Also for a process that has not cleared it."""
    nodes = Nodes()
    clearing = GenerationKey("a.test", plain, nodes, Known())
    asking = GenerationKey("a.test", plain, nodes, Known()) if another else clearing
    unit()
    before = {clearing("k", "", 1), asking("k", "", 1)}
    assert len(before) == 1
    nodes.away = away
    clearing.advance()
    nodes.away = None
    unit()
    assert clearing("k", "", 1) == asking("k", "", 1) not in before
    unit()
    assert GenerationKey("a.test", plain, nodes, Known())("k", "", 1) == clearing("k", "", 1)


@pytest.mark.parametrize("raises", [False, True])
def test_what_the_only_node_was_not_told_is_told_when_it_is_back(unit, raises):
    """With ``ignore_exc`` a client says nothing of a node that is away."""

    class Away(Shelf):
        away = False

        def set(self, key, value, timeout=300):
            if self.away and raises:
                raise ConnectionRefusedError
            if not self.away:
                super().set(key, value, timeout)

        def get(self, key, default=None):
            return default if self.away else super().get(key, default)

    shelf, known = Away(), Known()
    key = GenerationKey("a.test", plain, shelf, known)
    unit()
    before = key("k", "", 1)
    shelf.away = True
    with pytest.raises(ConnectionRefusedError) if raises else nullcontext():
        key.advance()
    shelf.away = False
    unit()
    after = GenerationKey("a.test", plain, shelf, known)("k", "", 1)  # in another thread of this process
    assert after != before
    unit()
    assert GenerationKey("a.test", plain, shelf, Known())("k", "", 1) == after  # and then in others


def test_a_clock_that_is_behind_clears_too(unit, monkeypatch):
    shelf = Shelf()
    key = GenerationKey("a.test", plain, shelf, Known())
    unit()
    before = key("k", "", 1)
    monkeypatch.setattr("tenant_router.cache.keys.time.time_ns", lambda: 1)
    behind = GenerationKey("a.test", plain, shelf, Known())
    behind.advance()
    unit()
    assert key("k", "", 1) == behind("k", "", 1) > before


@pytest.fixture
def unit():
    """A function that begins a new unit of work."""
    before = context.stack.get()

    def begin():
        context.stack.set((Current(), TenantContext("a.test", 1, {})))

    yield begin
    context.stack.set(before)


@pytest.mark.parametrize("tenant_id", ["a", "a.test", "x" * 40, "a_b-c.test"])
def test_an_id_of_up_to_forty_characters_is_its_own_token(tenant_id):
    assert token(tenant_id) == tenant_id


@pytest.mark.parametrize("length", [41, 100, 253])
def test_a_longer_id_becomes_a_hash_that_is_no_id(length):
    found = token("x" * length)
    assert len(found) == 17
    assert not is_tenant_id(found)
    assert found == token("x" * length)
    assert found != token("x" * (length - 1) + "y")


def test_a_token_is_the_same_in_every_process_and_version():
    assert token("x" * 41) == "~f1b65807f041e628"


def test_no_token_with_its_separator_begins_another():
    tokens = [token(tenant_id) for tenant_id in ("t", "t1", "t.test", "t_1", "t-1", "x" * 41, "x" * 42)]
    prefixes = [TenantKey(each, plain).prefix for each in tokens]
    for one in prefixes:
        assert [other for other in prefixes if other.startswith(one)] == [one]


def test_the_tenant_stands_before_what_the_project_makes():
    assert TenantKey("a.test", plain)("k", "prefix", 2) == "a.test:prefix:2:k"


def test_a_session_key_of_the_longest_id_fits_into_memcached():
    key = GenerationKey(token("x" * 253), plain, Shelf(), Known())
    assert len(key("django.contrib.sessions.cache" + "s" * 32, "p" * 40, 1)) < 250


def test_a_key_that_a_backend_made_by_itself_gets_the_tenant_once():
    key = TenantKey("a.test", plain)
    assert key.enforce("k", "own/k") == "a.test:own/k"
    assert key.enforce("k", "a.test:own/k") == "a.test:own/k"
    assert key.enforce("k", "b.test:own/k") == "a.test:b.test:own/k"


def test_a_generation_is_part_of_the_key_and_read_once_per_unit_of_work(unit):
    shelf = Shelf()
    key = GenerationKey("a.test", plain, shelf, Known())
    unit()
    first = {key(name, "", 1) for name in "abc"}
    assert shelf.reads == 1
    unit()
    assert {key(name, "", 1) for name in "abc"} == first
    assert shelf.reads == 2


def test_a_new_generation_reaches_nothing_older(unit):
    key = GenerationKey("a.test", plain, Shelf(), Known())
    unit()
    seen = {key("k", "", 1)}
    for _ in range(20):
        key.advance()
        seen.add(key("k", "", 1))
    assert len(seen) == 21


def test_a_generation_that_was_lost_does_not_bring_older_entries_back(unit):
    shelf = Shelf()
    key = GenerationKey("a.test", plain, shelf, Known())
    unit()
    before = key("k", "", 1)
    shelf.kept.clear()
    unit()
    assert key("k", "", 1) != before


def test_the_generation_itself_is_kept_under_one_key_for_all_prefixes_and_versions():
    key = GenerationKey("a.test", plain, Shelf(), Known())
    name = "tenant_router.generation"
    assert key(name, "p", 1) == key(name, "q", 2) == key.enforce(name, "own/1") == f"a.test:{name}"
    assert key.enforce("k", "own/k").startswith("a.test:")
    assert key.enforce("k", "own/k").endswith(":own/k")
