"""What is printed for one tenant stays apart from what is printed for others."""

import io
import sys
import threading

import pytest

from tenant_router.fleet.output import LineStream, kept_apart, printing_to


def test_whole_lines():
    lines = []
    stream = LineStream(lines.append)
    for text in ("a", "b\nc", "", "\n\nd\r\n", "e"):
        stream.write(text)
    assert lines == ["abc"[:2], "c", "", "d\r"]
    stream.buffer.write("\u00fc\n".encode())
    stream.finish()
    stream.finish()
    assert lines[4:] == ["e\u00fc"]
    assert (stream.isatty(), stream.writable()) == (False, True)
    with pytest.raises(OSError):
        stream.fileno()


def test_threads_print_each_to_its_own(capsys):
    outs = {name: io.StringIO() for name in "abcd"}
    barrier = threading.Barrier(4)

    def work(name):
        with printing_to(outs[name], io.StringIO()):
            for _ in range(50):
                barrier.wait(60)
                print(name)

    with kept_apart():
        threads = [threading.Thread(target=work, args=(name,)) for name in outs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print("own")
    assert {name: set(out.getvalue()) - {"\n"} for name, out in outs.items()} == {name: {name} for name in outs}
    assert capsys.readouterr().out == "own\n"


def test_nothing_can_be_read(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("typed\n" * 3))
    with printing_to(io.StringIO(), io.StringIO()):
        with pytest.raises(EOFError):
            input("name? ")
        assert list(sys.stdin) == []


def test_the_streams_come_back_unless_somebody_else_has_replaced_them(monkeypatch):
    before, other = (sys.stdin, sys.stdout, sys.stderr), io.StringIO()
    with kept_apart(), kept_apart():
        assert sys.stdout is not before[1]
    assert (sys.stdin, sys.stdout, sys.stderr) == before
    with monkeypatch.context() as patched:
        with kept_apart():
            patched.setattr(sys, "stdout", other)
        assert sys.stdout is other


def test_errors_go_their_own_way():
    out, err = io.StringIO(), io.StringIO()
    with printing_to(out, err):
        print("o")
        print("e", file=sys.stderr)
    assert (out.getvalue(), err.getvalue()) == ("o\n", "e\n")
