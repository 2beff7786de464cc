"""A server that speaks MongoDB's protocol, knows sessions and transactions, agrees to all and notes what it was asked.

For what the protocol server of the tests cannot do. It keeps no documents: a query finds ``DOCUMENTS``, a batch at a
time.
"""

import socketserver
import struct
import threading

from bson import Int64, decode, encode

BATCH = 3
DOCUMENTS = [{"_id": number} for number in range(2 * BATCH)]


class WireServer(socketserver.ThreadingTCPServer):
    """Listens on ``port`` of 127.0.0.1. ``asked``: (database, command), in the order of coming.

    A command whose ``comment`` is ``slow`` is answered when ``go_on`` is set; ``busy`` counts those that wait.
    """

    allow_reuse_address = daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Conversation)
        self.port = self.server_address[1]
        self.asked, self.connections = [], set()
        self.go_on, self.busy, self.lock = threading.Event(), 0, threading.Lock()
        threading.Thread(target=self.serve_forever, args=[0.05], daemon=True).start()

    def stop(self):
        self.go_on.set()
        self.shutdown()
        self.server_close()
        for connection in [*self.connections]:
            connection.close()

    def answer(self, database, body):
        name = next(iter(body))
        if name.lower() in ("hello", "ismaster"):
            return self.hello()
        self.asked.append((database, name))
        if body.get("comment") == "slow":
            with self.lock:
                self.busy += 1
            self.go_on.wait(60)
            with self.lock:
                self.busy -= 1
        if name in ("find", "aggregate"):
            return {"ok": 1, "cursor": {"id": Int64(7), "ns": f"{database}.x", "firstBatch": DOCUMENTS[:BATCH]}}
        if name == "listCollections":
            return {"ok": 1, "cursor": {"id": Int64(0), "ns": f"{database}.$cmd.listCollections", "firstBatch": []}}
        if name == "getMore":
            return {"ok": 1, "cursor": {"id": Int64(0), "ns": f"{database}.x", "nextBatch": DOCUMENTS[BATCH:]}}
        return {"ok": 1, "n": 1, "version": "5.0.0", "versionArray": [5, 0, 0, 0], "databases": []}

    def hello(self):
        me = f"127.0.0.1:{self.port}"
        answer = {"ok": 1, "isWritablePrimary": True, "ismaster": True, "setName": "rs", "hosts": [me], "me": me}
        answer |= {"maxWireVersion": 13, "minWireVersion": 0, "logicalSessionTimeoutMinutes": 30}
        return answer | {"maxBsonObjectSize": 16_777_216, "maxMessageSizeBytes": 48_000_000, "maxWriteBatchSize": 1000}


class Conversation(socketserver.StreamRequestHandler):
    """One connection."""

    def handle(self):
        self.server.connections.add(self.request)
        try:
            while header := self.rfile.read(16):
                size, request, _, code = struct.unpack("<iiii", header)
                self.reply(request, code, self.rfile.read(size - 16))
        except (OSError, ValueError, struct.error):
            pass
        finally:
            self.server.connections.discard(self.request)

    def reply(self, request, code, body):
        if code == 2013:
            wants_none = struct.unpack("<I", body[:4])[0] & 2
            size = struct.unpack("<i", body[5:9])[0]
            asked = decode(body[5 : 5 + size])
            answer = self.server.answer(asked["$db"], asked)
            if not wants_none:
                self.send(request, 2013, b"\0\0\0\0\0" + encode(answer))
        elif code == 2004:
            end = body.index(b"\0", 4)
            answer = self.server.answer(body[4:end].decode().split(".")[0], decode(body[end + 9 :]))
            self.send(request, 1, struct.pack("<iqii", 8, 0, 0, 1) + encode(answer))

    def send(self, request, code, body):
        self.wfile.write(struct.pack("<iiii", 16 + len(body), 0, request, code) + body)
