"""What a test run lets MongoDB's clients send, and what it takes for a write."""

import pytest

from tenant_router.exceptions import RealDatabase

pytest.importorskip("pymongo")
from tenant_router.orm_backends.mongo.creation import check_command

READ, WRITTEN = set(), {"test_a"}
OTHER = {"db": "real", "coll": "c"}


class Gate:
    def __init__(self):
        self.written = set()

    def admit(self, name):
        if name not in ("test_a", "test_b"):
            raise RealDatabase(name)

    def wrote(self, name):
        self.written.add(name)


@pytest.mark.parametrize(
    ("database", "command", "written"),
    [
        ("test_a", {"find": "c"}, READ),
        ("test_a", {"aggregate": "c", "pipeline": [{"$match": {}}]}, READ),
        ("test_a", {"getMore": 1, "collection": "c"}, READ),
        ("test_a", {"insert": "c"}, WRITTEN),
        ("test_a", {"findAndModify": "c"}, WRITTEN),
        ("test_a", {"dropDatabase": 1}, WRITTEN),
        ("test_a", {"a command of tomorrow": 1}, WRITTEN),
        ("test_a", {"aggregate": "c", "pipeline": [{"$out": "d"}]}, WRITTEN),
        ("test_a", {"aggregate": "c", "pipeline": [{"$out": {"db": "test_b", "coll": "d"}}]}, {"test_b"}),
        ("test_a", {"aggregate": "c", "pipeline": [{"$merge": {"into": "d"}}]}, WRITTEN),
        ("test_a", {"aggregate": "c", "pipeline": [{"$merge": "d"}]}, WRITTEN),
        ("test_a", {"mapReduce": "c", "out": {"inline": 1}}, WRITTEN),
        ("admin", {"ping": 1}, READ),
        ("admin", {"isMaster": 1}, READ),
        ("admin", {"renameCollection": "test_a.c", "to": "test_b.c"}, {"test_a", "test_b"}),
        ("OP_KILL_CURSORS", {"killCursors": "OP_KILL_CURSORS", "cursors": [1]}, READ),
    ],
)
def test_admitted(database, command, written):
    gate = Gate()
    check_command(gate, command, database)
    assert gate.written == written


@pytest.mark.parametrize(
    ("database", "command"),
    [
        ("real", {"find": "c"}),
        ("real", {"ping": 1}),
        ("real", {"insert": "c"}),
        ("test_c", {"insert": "c"}),  # another run's
        ("admin", {"insert": "c"}),
        ("admin", {"find": "system.users"}),
        ("admin", {"fsync": 1}),
        ("config", {"find": "c"}),
        ("local", {"find": "c"}),
        ("admin", {"renameCollection": "real.c", "to": "test_a.c"}),
        ("admin", {"renameCollection": "test_a.c", "to": "real.c"}),
        ("test_a", {"aggregate": "c", "pipeline": [{"$match": {}}, {"$out": OTHER}]}),
        ("test_a", {"aggregate": "c", "pipeline": [{"$merge": {"into": OTHER}}]}),
        ("test_a", {"aggregate": "c", "pipeline": [{"$merge": OTHER}]}),
        ("test_a", {"mapReduce": "c", "out": {"replace": "d", "db": "real"}}),
    ],
)
def test_refused(database, command):
    gate = Gate()
    with pytest.raises(RealDatabase):
        check_command(gate, command, database)
    assert not gate.written
