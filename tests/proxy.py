"""A TCP proxy in front of a real server, and what networks do to connections."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
import weakref
from collections.abc import Iterable
from contextlib import suppress


class Proxy:
    """Passes bytes on between ``port`` and a server's port, unless it is told to behave badly.

    ``delay``: seconds before each piece; ``rate``: bytes per second; ``segment``: bytes of a piece.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self.port = self._hold_port()
        self.delay, self.rate, self.segment = 0.0, 0, 65536
        self.lose_answer_to: bytes | None = None
        self._going = threading.Event()
        self._going.set()
        self._swallowing = False
        self._silent: set[socket.socket] = set()
        self._doomed: set[socket.socket] = set()
        self._sockets: set[socket.socket] = set()
        self.start()

    def _hold_port(self) -> int:
        """A port that stays ours while nobody listens on it: it is bound, so the system gives it to nobody else."""
        with socket.socket() as held:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the listener does, which shares it
            held.bind(("127.0.0.1", 0))
            port: int = held.getsockname()[1]
            self._release_port = weakref.finalize(self, os.close, held.detach())
            return port

    def start(self) -> None:
        """Listen, at the same port as before."""
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=200)
        threading.Thread(target=self._accept, args=[self._listener], daemon=True).start()

    def stop(self) -> None:
        """End all connections and refuse new ones, as if the server were gone."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.go_on()
        self._end(list(self._sockets))

    def close(self) -> None:
        """Stop for good."""
        self.stop()
        self._release_port()

    def pause(self) -> None:
        """Hold back whatever comes, and lose nothing of it."""
        self._going.clear()

    def go_on(self) -> None:
        """Undo :meth:`pause` and :meth:`blackhole`; what was swallowed is lost."""
        self._swallowing = False
        self._going.set()

    def silence(self) -> None:
        """The connections that there are swallow everything, like half-open ones; new ones work."""
        self._silent.update(self._sockets)

    def blackhole(self) -> None:
        """All connections swallow everything, new ones too."""
        self._swallowing = True

    def reset(self) -> None:
        """Send RST to both ends of all connections, whatever they are in the middle of."""
        for sock in list(self._sockets):
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # The kernel keeps a socket that a thread reads from, so the reader is woken, which tells the peer nothing.
        self._end(list(self._sockets), socket.SHUT_RD)

    def _end(self, ended: Iterable[socket.socket], how: int = socket.SHUT_RDWR) -> None:
        self._sockets.difference_update(ended)
        for sock in ended:
            with suppress(OSError):
                sock.shutdown(how)
            sock.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()
                continue
            self._sockets |= {client, server}
            if listener.fileno() < 0:  # stopped meanwhile, and perhaps started again with another listener
                self._end([client, server])
                return
            for sock in (client, server):
                with suppress(OSError):  # ended right now
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._requests, args=[client, server], daemon=True).start()
            threading.Thread(target=self._answers, args=[client, server], daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        def look(data: bytes) -> None:
            if self.lose_answer_to and self.lose_answer_to in data:
                self.lose_answer_to = None
                self._doomed.add(client)

        self._pump(client, server, client, look)

    def _answers(self, client: socket.socket, server: socket.socket) -> None:
        def look(data: bytes) -> None:
            if client in self._doomed:
                client.shutdown(socket.SHUT_RDWR)
                raise OSError("the answer is lost")

        self._pump(server, client, client, look)

    def _pump(self, source: socket.socket, target: socket.socket, client: socket.socket, look) -> None:  # type: ignore[no-untyped-def]
        with suppress(OSError, ValueError):
            while data := source.recv(65536):
                look(data)
                self._going.wait()
                if not self._swallowing and client not in self._silent:
                    self._send(target, data)
            if target in self._sockets:  # else both have been ended from outside
                target.shutdown(socket.SHUT_WR)

    def _send(self, target: socket.socket, data: bytes) -> None:
        if self.delay:
            time.sleep(self.delay)
        piece = min(self.segment, max(1, self.rate // 10)) if self.rate else self.segment
        for start in range(0, len(data), piece):
            target.sendall(data[start : start + piece])
            if self.rate:
                time.sleep(piece / self.rate)
