"""Releases that share a store: what a later one writes is read by this one, and the other way round."""

import uuid
from contextlib import closing

import pytest

from tenant_router.config_store import codec
from tenant_router.config_store.backends import redis as redis_backend
from tenant_router.config_store.backends.redis import RedisStore
from tenant_router.config_store.base import READS, Op, stamp
from tenant_router.config_store.serializers.json import JSONSerializer
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import BootError, SerializerError, TenantDeleted
from tenant_router.managers import tenant_context_manager
from tests.processes import Project
from tests.tenants import eventually


@pytest.fixture
def project(redis_server, tmp_path):
    return Project(redis_server, tmp_path)


def name_of(tenant_id):
    with tenant_context_bind(tenant_id) as context:
        return context.parts["django_orm"]["default"].settings["NAME"].rpartition("/")[2]


def replaced(script, old, new):
    assert old in script
    return script.replace(old, new)


@pytest.fixture
def next_store(project):
    """A store of a release to come: it says more in each place that has room."""
    script = redis_backend._COMMIT
    script = replaced(
        script, "milliseconds, incarnations[i]}, ':')", "milliseconds, incarnations[i], 'later=1', 'x'}, ':')"
    )
    script = replaced(script, "'e', entry, 'c', chain)", "'e', entry, 'c', chain, 'actor', 'somebody')")
    script = replaced(script, "'chain', chain, 'format', format)", "'chain', chain, 'format', 2, 'later', 'x')")

    class NextStore(RedisStore):
        def _run(self, known, keys, args, client=None):
            return super()._run(script if known is redis_backend._COMMIT else known, keys, args, client)

    with closing(NextStore(project.service, {"URL": project.url})) as store:
        yield store


def next_record(tenant_id, record):
    """The envelope and the record with fields that are not known here."""
    kind, serializer, nonce, payload = codec.encode(
        tenant_id, {**record, "probe": {"every": 5}}, JSONSerializer()
    ).split(b"|", 3)
    return b"|".join((kind, serializer, nonce + b";alg=x;Later", payload))


def put_next(store, project, tenant_id, name):
    return store.commit([Op(tenant_id, "A", next_record(tenant_id, project.record(name)))], request_id=uuid.uuid4().hex)


@pytest.mark.parametrize("eager_max", [0, 5000], ids=["lazy", "eager"])
def test_a_reader_of_this_release_follows_a_writer_of_the_next(project, next_store, runtime_on, eager_max):
    put_next(next_store, project, "a.test", "a.db")
    put_next(next_store, project, "gone.test", "gone.db")
    made = runtime_on(project, EAGER_MAX=eager_max)
    made.serve("web")
    assert [name_of("a.test"), name_of("gone.test")] == ["a.db", "gone.db"]
    put_next(next_store, project, "a.test", "second.db")
    next_store.commit([Op("gone.test", "X")], request_id="gone")
    eventually(lambda: name_of("a.test") == "second.db")
    eventually(lambda: made.reflector.head == project.store.head())
    with pytest.raises(TenantDeleted):
        tenant_context_manager.get_by_id("gone.test")
    assert tenant_context_manager.index["a.test"].endswith(":later=1:x"), "what is not understood is not forgotten"
    assert made.registry.refusals == {}
    asked, get_many = [], made.store.get_many
    made.store.get_many = lambda ids: asked.append(ids) or get_many(ids)
    made.reflector.synchronise()
    assert asked == [], "log and index say the same, so nothing differs"


def test_writers_of_both_releases_take_turns(project, next_store, runtime_on):
    """Each expects what the other has written."""
    made = runtime_on(project)
    first = put_next(next_store, project, "a.test", "a.db")
    made.serve("web")
    for _ in range(2):
        body = codec.encode("a.test", project.record("ours.db"), JSONSerializer())
        second = project.store.commit([Op("a.test", "A", body, expect=first)], request_id=uuid.uuid4().hex)
        eventually(lambda: name_of("a.test") == "ours.db")
        body = next_record("a.test", project.record("theirs.db"))
        first = next_store.commit([Op("a.test", "A", body, expect=second)], request_id=uuid.uuid4().hex)
        eventually(lambda: name_of("a.test") == "theirs.db")
    assert stamp(next_store.index()["a.test"]).incarnation == 1, "the life of the tenant went on"


def test_a_reader_of_the_next_release_understands_what_this_one_writes(project, next_store):
    """It looks for its fields, and finds none."""
    project.put("a.test", project.record("a.db"))
    entry = next_store.index()["a.test"]
    fields = dict(field.split("=") for field in entry.split(":")[5:])
    assert (fields.get("later"), stamp(entry).incarnation) == (None, 1)
    assert codec.decode("a.test", next_store.get_many(["a.test"])["a.test"].body, JSONSerializer())


def test_a_field_beside_the_sections_is_refused_of_a_writer_and_ignored_of_a_store(project, runtime_on):
    from tenant_router.config_file import check_record

    made = runtime_on(project)
    record = {**project.record("a.db"), "probe": {"every": 5}}
    assert made.check_record(record) == []
    names = {"templates": made.templates(), "reserved": made.reserved()}
    caches = {"cache_templates": made.caches.template_aliases, "cache_reserved": made.caches.reserved_aliases}
    assert [path for path, _ in check_record(record, **names, **caches)] == ["probe"]


@pytest.mark.parametrize("body", [b"T2|json|" + b"0" * 32 + b"|{}", b"T1|json|" + b"0" * 32 + b'|{"v": 2, "id": "a"}'])
def test_what_cannot_be_understood_is_refused(body):
    with pytest.raises(SerializerError, match=r"version|release"):
        codec.decode("a", body, JSONSerializer())


def test_a_process_that_is_too_old_for_its_store_does_not_start_and_does_not_follow(project, runtime_on):
    project.put("a.test", project.record("a.db"))
    made = runtime_on(project)
    made.serve("web")
    assert name_of("a.test") == "a.db"
    project.store.insist(READS + 1)
    eventually(lambda: made.reflector.failures)
    assert name_of("a.test") == "a.db"
    with pytest.raises(BootError, match="upgrade tenant_router"):
        runtime_on(project, BOOT_TIMEOUT=60).serve("web")
    project.store.insist(READS)
    runtime_on(project).serve("web")
