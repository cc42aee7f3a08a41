# SPDX-License-Identifier: Apache-2.0
"""The other ends of the end-to-end tests: an SMTP sink that can be told to refuse, and a raw SMTP client."""
import random
import socket
import socketserver
import ssl
import sys
import threading
import time


class Sink:
    """An SMTP server that keeps what it is sent.

    `rules` maps a command word (MAIL, RCPT, DATA, DOT, EHLO, CONNECT) to a function of the command's line that
    returns a reply line, or None for the usual one. `extensions` are announced after EHLO. With `tls`, a context of the
    ssl module, STARTTLS is one of them; with `implicit` TLS comes first. `secured` has a row for each handshake that was
    done: the version, and whether a session was resumed.
    """

    def __init__(self, rules=None, extensions=("PIPELINING", "8BITMIME", "SIZE 104857600", "ENHANCEDSTATUSCODES"), port=0,
                 tls=None, implicit=False, address="127.0.0.1"):
        self.rules = rules or {}
        self.extensions = extensions
        self.tls = tls
        self.implicit = implicit
        self.secured = []
        self.messages = []
        self.connections = 0
        self.commands = []
        self.lock = threading.Lock()
        sink = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                sink.serve(self)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True
            request_queue_size = 128

        self.server = Server((address, port), Handler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, handler, word, line, usual):
        rule = self.rules.get(word)
        reply = (rule(line) if rule else None) or usual
        if reply == "DROP":
            raise ConnectionResetError
        handler.wfile.write(reply.encode() + b"\r\n")
        return reply

    def serve(self, handler):
        with self.lock:
            self.connections += 1
        try:
            self.talk(handler)
        except (ConnectionError, BrokenPipeError, TimeoutError, ssl.SSLError):
            pass

    def secure(self, handler):
        """TLS from here on; whatever was read before is forgotten."""
        handler.request = self.tls.wrap_socket(handler.request, server_side=True)
        handler.rfile = handler.request.makefile("rb")
        handler.wfile = handler.request.makefile("wb", buffering=0)
        with self.lock:
            self.secured.append((handler.request.version(), handler.request.session_reused))

    def talk(self, handler):
        handler.request.settimeout(60)
        if self.implicit:
            self.secure(handler)
        self.answer(handler, "CONNECT", "", "220 sink.test ESMTP")
        sender, recipients = None, []
        while True:
            raw = handler.rfile.readline(70000)
            if not raw:
                return
            line = raw.decode("latin-1").rstrip("\r\n")
            word = line.split(" ")[0].upper()
            with self.lock:
                self.commands.append(line)
            if word == "EHLO":
                rule = self.rules.get("EHLO")
                reply = rule(line) if rule else None
                if reply:
                    handler.wfile.write(reply.encode() + b"\r\n")
                    continue
                lines = ["sink.test"] + list(self.extensions)
                if self.tls and not self.implicit and not isinstance(handler.request, ssl.SSLSocket):
                    lines.append("STARTTLS")
                text = "".join("250%s%s\r\n" % (" " if i == len(lines) - 1 else "-", l) for i, l in enumerate(lines))
                handler.wfile.write(text.encode())
            elif word == "STARTTLS" and self.tls:
                if self.answer(handler, "STARTTLS", line, "220 2.0.0 go ahead").startswith("220"):
                    self.secure(handler)
            elif word == "HELO":
                self.answer(handler, "HELO", line, "250 sink.test")
            elif word == "MAIL":
                sender, recipients = line, []
                self.answer(handler, "MAIL", line, "250 2.1.0 ok")
            elif word == "RCPT":
                if self.answer(handler, "RCPT", line, "250 2.1.5 ok").startswith("2"):
                    recipients.append(line.split("<", 1)[1].rsplit(">", 1)[0])
            elif word == "DATA":
                usual = "354 go" if recipients else "554 5.5.1 no valid recipients"
                if not self.answer(handler, "DATA", line, usual).startswith("354"):
                    continue
                content = []
                while True:
                    data = handler.rfile.readline(1 << 20)
                    if not data:
                        return
                    if data == b".\r\n":
                        break
                    content.append(data[1:] if data.startswith(b".") else data)
                reply = self.answer(handler, "DOT", "", "250 2.0.0 taken")
                if reply.startswith("2"):
                    with self.lock:
                        self.messages.append((sender.split("<", 1)[1].split(">", 1)[0], list(recipients), b"".join(content)))
            elif word == "RSET":
                sender, recipients = None, []
                self.answer(handler, "RSET", line, "250 2.0.0 ok")
            elif word == "QUIT":
                self.answer(handler, "QUIT", line, "221 2.0.0 bye")
                return
            else:
                self.answer(handler, word, line, "502 5.5.1 what?")

    def bodies(self):
        with self.lock:
            return [m[2] for m in self.messages]


class Raw:
    """A client that sends exactly the octets it is told to."""

    def __init__(self, port, source="127.0.0.1", greeting=True, timeout=20):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout, source_address=(source, 0))
        self.file = self.socket.makefile("rb")
        self.greeting = self.reply() if greeting else None

    def send(self, octets):
        self.socket.sendall(octets if isinstance(octets, bytes) else octets.encode("latin-1"))

    def reply(self):
        """One reply, all its lines; "" when the server has closed."""
        lines = []
        while True:
            try:
                line = self.file.readline()
            except ConnectionResetError:
                line = b""
            if not line:
                return "\n".join(lines)
            lines.append(line.decode("latin-1").rstrip("\r\n"))
            if line[3:4] != b"-":
                return "\n".join(lines)

    def command(self, line):
        self.send(line + "\r\n")
        return self.reply()

    def close(self):
        self.file.close()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def wait_for(check, seconds=20.0, step=0.02):
    """Waits until check() is true; returns its last value."""
    end = time.monotonic() + seconds
    while True:
        value = check()
        if value or time.monotonic() > end:
            return value
        time.sleep(step)


_handed_out = set()
_chance = random.SystemRandom()


def free_port():
    """A port that nobody listens on, that was not answered before, and that the kernel gives to nobody else meanwhile: below
    those from which it takes the ports of connections, and of listeners that do not care."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as f:
        lowest = int(f.read().split()[0])
    # Where the kernel takes them from everywhere, there is only chance.
    above = lowest if lowest > 12_000 else 32_768
    while True:
        port = _chance.randrange(10_240, above)
        if port in _handed_out:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _handed_out.add(port)
        return port


def figure(name, value):
    """Shows a figure that was measured, beside the test's verdict."""
    print(f"\n[{name}: {value}]", file=sys.stderr, flush=True)


def slurp(path):
    """The octets of a file."""
    with open(path, "rb") as f:
        return f.read()
