"""A tenant's client leads to the tenant's own database alone, whatever is asked of it; and what ends is let end."""

import gc

import pytest

pytest.importorskip("pymongo")

from bson import SON, DBRef
from gridfs import GridFS
from pymongo import DeleteOne, InsertOne, MongoClient, ReadPreference, UpdateOne, WriteConcern, message
from pymongo.compression_support import ZlibContext
from pymongo.database import Database

from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import ConfigurationError, TenantContextMissing, TenantDeleted, TenantMismatch
from tenant_router.orm_backends.mongo import confinement
from tests.fixtures_mongo import QUIET
from tests.mongo_wire import BATCH, DOCUMENTS, WireServer
from tests.tenants import eventually

pytestmark = [
    *(pytest.mark.filterwarnings(rule) for rule in QUIET),
    pytest.mark.filterwarnings("ignore:.* is deprecated:DeprecationWarning"),
]
PLAIN = message._UNICODE_REPLACE_CODEC_OPTIONS
UNHEARD = WriteConcern(w=0)


@pytest.fixture
def server():
    server = WireServer()
    yield server
    server.stop()


@pytest.fixture(params=["pymodm_orm", "mongoengine_orm"])
def project(request, mongo_project, server):
    made = mongo_project(request.param, central=True)
    for tenant_id in ("a.test", "b.test"):
        made.put(tenant_id, tenant_id[0], HOST="127.0.0.1", PORT=server.port)
    return made


@pytest.fixture
def database(project, server):
    """The database of ``a.test``, which is bound."""
    with tenant_context_bind("a.test"):
        yield project.manager.database_of("default").database


def out_to(db):
    return [{"$out": {"db": db, "coll": "x"}}]


def within(pipeline):
    return [{"$facet": {"x": [{"$unionWith": {"coll": "x", "pipeline": pipeline}}]}}]


def move(db, source, target):
    db.client.admin.command(SON([("RenameCollection", f"{source}.x"), ("to", f"{target}.x")]))


def union(other):
    return [{"$unionWith": {"db": other, "coll": "x"}}]


def command(pipeline):
    return SON([("AGGREGATE", "x"), ("pipeline", pipeline), ("cursor", {})])


REACHING_OUT = {
    "by index": lambda db, other: db.client[other].x.find_one(),
    "by attribute": lambda db, other: getattr(db.client, other).x.find_one(),
    "by get_database": lambda db, other: db.client.get_database(other).x.count_documents({}),
    "by hand": lambda db, other: Database(db.client, other).x.insert_one({}),
    "unheard": lambda db, other: Database(db.client, other, write_concern=UNHEARD).x.insert_one({}),
    "unheard bulk": lambda db, other: Database(db.client, other, write_concern=UNHEARD).x.bulk_write([InsertOne({})]),
    "bulk": lambda db, other: db.client[other].x.bulk_write([UpdateOne({}, {"$set": {"x": 1}}), DeleteOne({})]),
    "many": lambda db, other: db.client[other].x.insert_many([{}, {}]),
    "raw": lambda db, other: list(db.client[other].x.find_raw_batches()),
    "aggregate": lambda db, other: db.client[other].x.aggregate([]),
    "aggregate of a database": lambda db, other: db.client[other].aggregate([]),
    "files": lambda db, other: GridFS(db.client[other]).put(b""),
    "indexes": lambda db, other: db.client[other].x.create_index("x"),
    "change stream": lambda db, other: db.client[other].watch(),
    "change stream of all": lambda db, other: db.client.watch(),
    "collections": lambda db, other: db.client[other].list_collection_names(),
    "drop": lambda db, other: db.client.drop_database(other),
    "drop by object": lambda db, other: db.client.drop_database(db.client[other]),
    "list": lambda db, other: db.client.list_database_names(),
    "users": lambda db, other: db.client.admin["system.users"].find_one(),
    "users by bulk": lambda db, other: db.client.admin.x.with_options(write_concern=UNHEARD).insert_many([{}]),
    "admin": lambda db, other: db.client.admin.command("currentOp"),
    "admin's aggregate": lambda db, other: db.client.admin.aggregate([{"$currentOp": {"allUsers": True}}]),
    "move": lambda db, other: db.client.admin.command(
        SON([("renameCollection", f"{db.name}.x"), ("to", f"{other}.x")])
    ),
    "take": lambda db, other: db.client.admin.command(
        SON([("RENAMECOLLECTION", f"{other}.x"), ("to", f"{db.name}.x")])
    ),
    "lock": lambda db, other: db.client.fsync(),
    "out": lambda db, other: db.x.aggregate(out_to(other)),
    "out by command": lambda db, other: db.command(
        SON([("AGGREGATE", "x"), ("pipeline", out_to(other)), ("cursor", {})])
    ),
    "merge": lambda db, other: db.x.aggregate([{"$merge": {"into": {"db": other, "coll": "x"}}}]),
    "lookup": lambda db, other: db.x.aggregate([{"$lookup": {"from": {"db": other, "coll": "x"}, "as": "x"}}]),
    "union": lambda db, other: db.x.aggregate(union(other)),
    "union within": lambda db, other: db.aggregate(within([{"$graphLookup": {"from": {"db": other, "coll": "x"}}}])),
    "view": lambda db, other: db.create_collection(
        "v", viewOn="x", pipeline=[{"$unionWith": {"db": other, "coll": "x"}}]
    ),
    "explain": lambda db, other: db.command("explain", SON([("aggregate", "x"), ("pipeline", out_to(other))])),
    "map and reduce": lambda db, other: db.x.map_reduce("", "", SON([("replace", "x"), ("db", other)])),
    "code": lambda db, other: db.command("eval", "db.getSiblingDB('x')"),
    "operations": lambda db, other: db.command("applyOps", [{"op": "i", "ns": f"{other}.x", "o": {}}]),
}


@pytest.mark.parametrize("reach", REACHING_OUT.values(), ids=REACHING_OUT)
def test_no_other_database_is_reached(database, server, reach):
    other = database.name[:-1] + "b"
    database.command("ping")
    before = len(server.asked)
    with pytest.raises(TenantMismatch, match=r"'a\.test'"):
        reach(database, other)
    assert {*server.asked[before:]} <= {(database.name, "listCollections")}  # by create_collection(), of its own


STAYING = {
    "find": lambda db: list(db.x.find()),
    "options": lambda db: db.with_options(read_preference=ReadPreference.SECONDARY_PREFERRED).x.find_one(),
    "get": lambda db: db.client.get_database(db.name).x.find_one(),
    "rename": lambda db: db.x.rename("y"),
    "out": lambda db: db.x.aggregate([{"$out": "y"}]),
    "out by name": lambda db: db.x.aggregate(out_to(db.name)),
    "merge": lambda db: db.x.aggregate([{"$merge": "y"}]),
    "lookup": lambda db: db.x.aggregate([{"$lookup": {"from": "y", "pipeline": [{"$match": {"db": "z"}}], "as": "z"}}]),
    "value": lambda db: db.x.aggregate([{"$match": {"db": "z"}}]),
    "map and reduce": lambda db: db.x.map_reduce("", "", "y"),
    "bulk": lambda db: db.x.bulk_write([InsertOne({"db": "other"})]),
    "unheard": lambda db: db.x.with_options(write_concern=UNHEARD).insert_many([{"x": 1}]),
    "unheard bulk": lambda db: db.x.with_options(write_concern=UNHEARD).bulk_write([DeleteOne({})]),
    "version": lambda db: db.client.server_info(),
    "statistics": lambda db: db.command("dbStats"),
    "view": lambda db: db.create_collection("v", viewOn="x", pipeline=[]),
    "explain": lambda db: db.x.find().explain(),
    "dereference": lambda db: db.dereference(DBRef("x", 1, database=db.name)),
    "change stream": lambda db: db.watch().try_next(),
    "drop": lambda db: db.client.drop_database(db.name),
}


@pytest.mark.parametrize("work", STAYING.values(), ids=STAYING)
def test_the_own_database_is_reached_as_ever(database, server, work):
    work(database)
    eventually(lambda: any(name != "ping" for _, name in server.asked))
    assert {name for name, _ in server.asked} <= {database.name, "admin"}


def test_messages_are_read_compressed_too(project, server):
    with tenant_context_bind("a.test"):
        home = project.manager.database_of("default")
    insert = {"insert": "x"}
    for context in (None, ZlibContext(6)):
        for name, refused in ((home.target.name, False), ("other", True)):
            _, sent, *_ = message._op_msg(
                0, dict(insert), name, None, False, False, message._UNICODE_REPLACE_CODEC_OPTIONS, ctx=context
            )
            if refused:
                with pytest.raises(TenantMismatch, match="'other'"):
                    confinement.check_message(home, sent)
            else:
                confinement.check_message(home, sent)


def test_a_session_serves_its_tenant_and_its_transactions(database, server):
    with database.client.start_session() as session:
        with session.start_transaction():
            database.x.insert_one({}, session=session)
        session.with_transaction(lambda session: database.x.delete_one({}, session=session))
    assert [name for _, name in server.asked] == ["insert", "commitTransaction", "delete", "commitTransaction"]
    assert {name for name, _ in server.asked} == {database.name, "admin"}


def test_a_transaction_is_not_run_elsewhere_and_its_end_is_allowed_anywhere(project, server):
    with tenant_context_bind("a.test"):
        database = project.manager.database_of("default").database
        session, another = database.client.start_session(), database.client.start_session()
        session.start_transaction()
        database.x.insert_one({}, session=session)
    with tenant_context_bind("b.test"):
        with pytest.raises(TenantMismatch):
            database.x.insert_one({}, session=session)
        with pytest.raises(TenantMismatch):
            another.with_transaction(lambda session: database.x.insert_one({}, session=session))
    another.end_session()
    session.end_session()
    assert [name for _, name in server.asked] == ["insert", "abortTransaction"]


def test_a_step_that_was_refused_takes_nothing_from_a_cursor(project, server):
    with tenant_context_bind("a.test"):
        database = project.manager.database_of("default").database
        cursors = [database.x.find(), database.x.aggregate([])]
        found = [next(cursor) for cursor in cursors]
    assert found == DOCUMENTS[:1] * 2
    for cursor in cursors:
        with tenant_context_bind("b.test"):
            for _ in range(2 * BATCH):
                with pytest.raises(TenantMismatch):
                    next(cursor)
        with pytest.raises(TenantContextMissing):
            next(cursor)
    with tenant_context_bind("a.test"):
        assert [list(cursor) for cursor in cursors] == [DOCUMENTS[1:]] * 2


def test_a_cursor_may_be_closed_by_anybody(project, server):
    with tenant_context_bind("a.test"):
        database = project.manager.database_of("default").database
        cursors = [database.x.find() for _ in range(2)]
        for cursor in cursors:
            next(cursor)
    with tenant_context_bind("b.test"):
        cursors[0].close()
    cursors[1].close()
    eventually(lambda: [name for _, name in server.asked].count("killCursors") == 2)
    del cursors
    gc.collect()


def test_a_handle_of_a_deleted_tenant_is_refused(project, server):
    with tenant_context_bind("a.test"):
        kept = project.manager.database_of("default").database.x
    project.tenants.delete("a.test")
    eventually(lambda: project.runtime.registry.state_of("a.test") == "X")
    with pytest.raises(TenantDeleted), tenant_context_bind("a.test"):
        kept.find_one()
    with pytest.raises(TenantContextMissing):
        kept.find_one()
    with pytest.raises(TenantMismatch), tenant_context_bind("b.test"):
        kept.find_one()


def test_a_handle_of_an_earlier_record_is_refused(project, server):
    with tenant_context_bind("a.test"):
        kept = project.manager.database_of("default").database.x
    project.put("a.test", "another", HOST="127.0.0.1", PORT=server.port)
    with pytest.raises(TenantMismatch, match="record has changed"), tenant_context_bind("a.test"):
        kept.find_one()


def test_nobody_changes_the_client_of_all(database, server):
    database.command("ping")
    for change in (
        lambda: database.authenticate("x", "y"),
        database.logout,
        lambda: database.client.set_cursor_manager(object),
    ):
        with pytest.raises(ConfigurationError, match="all tenants"):
            change()
    database.client.close()
    with database.client:
        pass
    opened = database.client._tr_home.cluster.opened
    assert opened.client._topology._opened


def test_a_handle_is_equal_to_itself_and_to_no_other(project, server):
    handles = []
    for tenant_id in ("a.test", "b.test"):
        with tenant_context_bind(tenant_id):
            handles.append(project.manager.database_of("default").database.client)
    assert isinstance(handles[0], MongoClient)
    assert handles[0] == handles[0]
    assert len({*handles}) == 2
    assert handles[0] != handles[1]
    assert server.asked == []


def test_what_is_central_is_everybodys(project):
    central = project.manager.central_database("central").database
    names = central.client.list_database_names()
    with tenant_context_bind("a.test"):
        assert central.client.list_database_names() == names
        assert list(central.client[central.name].x.find()) == []
