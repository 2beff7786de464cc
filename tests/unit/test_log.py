"""What a log line says of its tenant, and what it never shows."""

import io
import logging
import os
import signal
import threading

import pytest

from tenant_router import context, log
from tenant_router.log import MASK, TenantFilter, redact
from tenant_router.tenant_context import TenantContext

CANARY = "s3cr3t-canary"


@pytest.fixture
def line():
    """A function that passes a record through the filter and returns its tenant."""

    def make(**extra):
        record = logging.makeLogRecord(extra)
        assert TenantFilter().filter(record) is True
        return record.tenant_id

    return make


def test_a_line_carries_the_bound_tenant(line):
    before = context.enter(TenantContext("a.test", 1, {}))
    try:
        assert line() == "a.test"
    finally:
        context.leave(before)
    assert line() == "-"


def test_a_line_about_a_tenant_keeps_it(line):
    assert line(tenant_id="b.test") == "b.test"


@pytest.mark.parametrize(
    "key",
    [
        *(
            "PASSWORD",
            "PASS",
            "password",
            "secret_key",
            "API_TOKEN",
            "aws_secret_access_key",
            "http_auth",
            "credentials",
        ),
        *("pw", "DB_PW", "pw-of-shop", "bearer"),
    ],
)
def test_what_is_named_like_a_secret_is_masked(key):
    assert redact({key: CANARY, "NAME": "db"}) == {key: MASK, "NAME": "db"}
    assert redact({key: [CANARY]}) == {key: MASK}
    assert redact({key: {"inner": CANARY}}) == {key: MASK}


def test_an_empty_secret_is_shown_as_empty():
    assert redact({"PASSWORD": ""}) == {"PASSWORD": ""}


def test_secrets_are_found_at_any_depth():
    value = {"a": [{"b": ({"PASSWORD": CANARY}, f"redis://user:{CANARY}@host/0")}]}
    assert CANARY not in str(redact(value))
    assert CANARY in str(value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"redis://:{CANARY}@host:6379/0", f"redis://:{MASK}@host:6379/0"),
        (f"postgres://user:{CANARY}@host/db", f"postgres://user:{MASK}@host/db"),
        (f"postgres://user:{CANARY}%40x@host/db", f"postgres://user:{MASK}@host/db"),
        (f"postgresql+psycopg://u:{CANARY}@h/db", f"postgresql+psycopg://u:{MASK}@h/db"),
        (f"postgres://user:with@{CANARY}@host/db", f"postgres://user:{MASK}@host/db"),
        (f"cannot reach REDIS://:{CANARY}@host now", f"cannot reach REDIS://:{MASK}@host now"),
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("someone@test.example", "someone@test.example"),
        ("plain text: a b", "plain text: a b"),
    ],
)
def test_a_password_in_a_url_is_masked(url, shown):
    assert redact(url) == shown
    assert redact([url]) == [shown]


@pytest.mark.parametrize("value", [None, 5, 1.5, True, b"bytes"])
def test_what_is_no_text_stays_as_it_is(value):
    assert redact(value) == value
    assert redact({"NAME": value}) == {"NAME": value}


def test_nothing_is_changed_in_place():
    value = {"PASSWORD": CANARY, "OPTIONS": {"token": CANARY}}
    redact(value)
    assert value == {"PASSWORD": CANARY, "OPTIONS": {"token": CANARY}}


class SlowFile(io.RawIOBase):
    """Takes its time for what a thread writes, and none for a child."""

    def __init__(self):
        self.writing, self.go_on, self.owner = threading.Event(), threading.Event(), os.getpid()

    def writable(self):
        return True

    def write(self, data):
        self.writing.set()
        if os.getpid() == self.owner:
            assert self.go_on.wait(60)
        return len(data)


def test_nobody_forks_while_a_line_is_being_written(monkeypatch):
    """The child would find the stream locked for ever: by a thread that it does not have."""
    log.keep_running()
    monkeypatch.setattr(log._turns, "PATIENCE", 60.0)
    file = SlowFile()
    handler = logging.StreamHandler(io.TextIOWrapper(io.BufferedWriter(file), write_through=True))
    logger = logging.getLogger("tenant_router.log.test")
    log.keep_running()
    monkeypatch.setattr(logger, "handlers", [handler])
    monkeypatch.setattr(logger, "propagate", False)
    thread = threading.Thread(target=logger.error, args=("of the parent",))
    thread.start()
    assert file.writing.wait(60)
    threading.Timer(0.3, file.go_on.set).start()
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        logger.error("of the child")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    thread.join(60)
