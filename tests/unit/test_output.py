"""A command's output that nobody can take."""

import errno
import io
import os
import subprocess
import sys

import pytest

from tenant_router.management.output import Output


class Full(io.StringIO):
    """A stream on a disk that is full."""

    def flush(self):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_what_is_lost_is_known_and_nothing_follows_it():
    stream = Full()
    out = Output(stream)
    out.write("one")
    out.write("two")
    assert out.lost.errno == errno.ENOSPC
    assert stream.getvalue() == "one\n"


def test_a_stream_that_was_closed_is_no_error():
    Output(None).write("one")
    stream = io.StringIO()
    stream.close()
    out = Output(stream)
    out.write("one")
    assert isinstance(out.lost, ValueError)


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", b"\\xfc \\u2603"), ("latin-1", b"\xfc \\u2603"), ("utf-8", "ü ☃".encode())]
)
def test_letters_that_the_stream_has_not_are_escaped(encoding, shown):
    raw = io.BytesIO()
    out = Output(io.TextIOWrapper(raw, encoding))
    out.write("ü ☃")
    assert raw.getvalue() == shown + b"\n"


_COMMAND = """
import os, sys
import django
from django.conf import settings
settings.configure()
django.setup()
from tenant_router.management.operator import OperatorCommand
class Command(OperatorCommand):
    requires_system_checks = []
    def handle(self, **options):
        for number in range(3):
            self.stdout.write("line %d" % number)
        open(os.environ["DONE"], "w").close()
Command().run_from_argv(["manage.py", "it"])
"""


@pytest.mark.parametrize(
    ("how", "code", "said"),
    [
        (">&-", 0, ""),
        (">&- 2>&-", 0, ""),
        ("| exec true", 0, ""),
        ("> /dev/full", 1, "it is done, and not all that it says could be written"),
    ],
)
def test_a_command_does_its_work_whoever_listens(tmp_path, how, code, said):
    done = tmp_path / "done"
    ended = subprocess.run(
        ["bash", "-c", f'"$0" -c "$1" {how}; exit ${{PIPESTATUS[0]}}', sys.executable, _COMMAND],
        env={**os.environ, "DONE": str(done)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.exists(), ended
    assert (ended.returncode, "Traceback" in ended.stderr, said in ended.stderr) == (code, False, True), ended
