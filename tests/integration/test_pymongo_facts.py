"""What the handles of PyMongo rely on: a new version that changes it fails here first."""

import inspect

import pytest

pytest.importorskip("pymongo")

from pymongo import client_session, collection, database, mongo_client, pool, server
from pymongo.bulk import _Bulk
from pymongo.change_stream import ChangeStream
from pymongo.client_session import ClientSession
from pymongo.command_cursor import CommandCursor
from pymongo.cursor import Cursor
from pymongo.message import _BulkWriteContext
from pymongo.mongo_client import MongoClient
from pymongo.pool import Pool, SocketInfo


def source(thing):
    return inspect.getsource(thing)


def callers(owner, name):
    """The methods of a class that call ``self.<name>``."""
    found = {key: value for key, value in vars(owner).items() if inspect.isfunction(value)}
    return {key for key, value in found.items() if f"self.{name}(" in source(value)}


def test_every_operation_selects_its_server_in_one_place():
    doors = {"_socket_for_writes", "_socket_for_reads", "_run_operation", "_retry_internal", "_retryable_read"}
    assert callers(MongoClient, "_select_server") == doors
    connecting = callers(MongoClient, "_get_socket")
    assert connecting - doors == {"_secondaryok_for_server", "_kill_cursors"}
    assert callers(MongoClient, "_secondaryok_for_server") == {"_retryable_read"}
    assert callers(MongoClient, "_kill_cursors") == {"_close_cursor_now", "_process_kill_cursors"}


def test_nothing_else_reaches_a_server():
    for module in (collection, database, client_session):
        text = source(module)
        assert "get_socket(" not in text
        assert "_topology" not in text.replace("client._topology.description", "")
    assert "get_socket(" not in source(ChangeStream) + source(Cursor) + source(CommandCursor) + source(_Bulk)
    for owner in (Cursor, CommandCursor):
        assert "client._run_operation(" in source(getattr(owner, f"_{owner.__name__}__send_message"))
        assert source(owner).count("_run_operation(") == 1
    assert source(server).count("send_message(") == 1


def test_all_that_talks_to_servers_needs_the_topology_and_nothing_keeps_it():
    assert "self._topology.open()" in source(MongoClient._get_topology)
    assert "= self._topology\n" not in source(mongo_client)
    assert "return self._topology.return_server_session(" in source(MongoClient._return_server_session)


def test_a_handler_knows_who_asks_and_the_pool_gives_and_takes_in_one_place():
    assert source(mongo_client).count("server.get_socket(self.__all_credentials, handler=err_handler)") == 1
    assert "self.client = client" in source(mongo_client._MongoClientErrorHandler)
    assert "self.pool.get_socket(all_credentials, handler)" in source(server.Server.get_socket)
    assert callers(Pool, "_get_socket") == {"get_socket"}
    assert "self._get_socket(all_credentials)" in source(Pool.get_socket)
    assert (
        "all_credentials"
        not in source(Pool.get_socket).replace("self._get_socket(all_credentials)", "").split('"""')[2]
    )
    assert {name for name in vars(Pool) if "semaphore.release" in source_of(vars(Pool)[name])} == {
        "_get_socket",
        "return_socket",
        "remove_stale_sockets",
    }


def source_of(thing):
    return source(thing) if inspect.isfunction(thing) else ""


def test_three_methods_of_a_connection_send_what_an_application_asked_for():
    sending = {name for name in vars(SocketInfo) if "self.send_message(" in source_of(vars(SocketInfo)[name])}
    assert sending == {"legacy_write", "write_command"}
    assert "return command(" in source(SocketInfo.command)
    assert source(pool).count("sendall(") == 1
    text = source(_BulkWriteContext)
    assert "self.sock_info.write_command(" in text
    assert "self.sock_info.legacy_write(" in text
    assert "send_message" not in text


def test_cursors_go_on_by_two_methods():
    assert Cursor.__next__ is Cursor.next
    assert "self.__data.popleft()" in source(Cursor.next)
    assert source(Cursor).count("popleft()") == 2  # with a manipulator, and without
    assert "self._try_next(True)" in source(CommandCursor.next)
    assert source(CommandCursor).count("popleft()") == 1
    assert "self._cursor._try_next(True)" in source(ChangeStream.try_next)


def test_a_transaction_ends_through_the_client_of_its_session():
    assert "self._client._retry_internal(" in source(ClientSession._finish_transaction_with_retry)
    assert "if session._client is not client:" in source(SocketInfo.validate_session)
    assert "self._client = client" in source(ClientSession.__init__)


def test_closing_asks_servers_for_sessions_and_cursors_only():
    text = source(MongoClient.close).split('"""')[2]
    assert "self._topology.pop_all_sessions()" in text
    assert "if session_ids:" in text
    assert "self._process_kill_cursors()" in text
    assert "self.__kill_cursors_queue" in source(MongoClient.__init__)


def test_looking_up_names_ends_with_the_time_to_connect():
    assert "connect_timeout=timeout" in source(MongoClient.__init__)
    from pymongo import srv_resolver

    text = source(srv_resolver)
    assert text.count("lifetime=self.__connect_timeout") == 2
    assert text.count("resolver.resolve(") + text.count("_resolve(") >= 2
