"""One server of each kind per test process; tests keep apart by service names and database names."""

from collections.abc import Iterator

import pytest

from tests.servers import PostgresServer, RedisServer, short_directory


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    with short_directory() as directory:
        server = RedisServer(directory)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with short_directory() as directory:
        server = PostgresServer(directory)
        server.start()
        try:
            yield server
        finally:
            server.stop()
