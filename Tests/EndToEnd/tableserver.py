# SPDX-License-Identifier: Apache-2.0
"""A socketmap server with tables in SQLite."""
import socketserver
import sqlite3
import threading

QUERIES = {
    "domains": "SELECT 1 FROM domains WHERE name = ?",
    "mailboxes": "SELECT id FROM mailboxes WHERE address = ?",
    "aliases": "SELECT target FROM aliases WHERE address = ?",
}


def netstring(file):
    """The next netstring of a stream; None at its end."""
    digits = b""
    while (octet := file.read(1)) not in (b":", b""):
        digits += octet
    if not octet:
        return None
    payload = file.read(int(digits))
    assert file.read(1) == b","
    return payload


class TableServer:
    """Serves the tables `domains`, `mailboxes` and `aliases` of a database of its own, at a socket or a TCP port.

    `replies` has answers for keys that are given in place of the database's: octets that are sent as they are, or a
    function, called in a thread of its own, that gives them.
    """

    def __init__(self, path=None):
        self.database = sqlite3.connect(":memory:", check_same_thread=False)
        self.lock = threading.Lock()
        self.questions, self.connections, self.replies = [], 0, {}
        self.handlers = []
        for table in ("domains (name TEXT PRIMARY KEY)", "mailboxes (id INTEGER PRIMARY KEY, address TEXT UNIQUE)",
                      "aliases (address TEXT PRIMARY KEY, target TEXT)"):
            self.execute("CREATE TABLE " + table)
        server = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                server.connections += 1
                server.handlers.append(self)
                try:
                    while (question := netstring(self.rfile)) is not None:
                        reply = server.reply(*question.decode().split(" ", 1))
                        if reply is None:
                            return
                        self.wfile.write(reply)
                except OSError:
                    pass

        base = socketserver.ThreadingUnixStreamServer if path else socketserver.ThreadingTCPServer
        self.server = type("Server", (base,), {"daemon_threads": True, "allow_reuse_address": True})(
            path or ("127.0.0.1", 0), Handler)
        self.place = f"socketmap:unix:{path}" if path else f"socketmap:inet:127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def execute(self, statement, *values):
        with self.lock:
            found = self.database.execute(statement, values).fetchall()
            self.database.commit()
            return found

    def reply(self, name, key):
        self.questions.append((name, key))
        reply = self.replies.get(key)
        if reply is not None:
            return reply() if callable(reply) else reply
        if name not in QUERIES:
            return self.netstring("PERM no such table")
        rows = self.execute(QUERIES[name], key)
        return self.netstring(f"OK {rows[0][0]}" if rows else "NOTFOUND ")

    @staticmethod
    def netstring(text):
        return b"%d:%s," % (len(text.encode()), text.encode())

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.hang_up()
        self.thread.join()

    def hang_up(self):
        """Closes the connections that there are."""
        for handler in self.handlers:
            try:
                handler.connection.shutdown(2)
            except OSError:
                pass
        self.handlers = []
