# SPDX-License-Identifier: Apache-2.0
"""latency.py: how long a message takes through an MTA that has nothing else to do.

From the client's final dot to the first octet that the next hop gets because of it (EHLO or MAIL, or, if the MTA has said
those before, whatever comes next), and to the first octet of the content.
"""
import socket, statistics, threading, time
from benchlib import HOST

PAUSE = 0.03       # seconds between messages: everything is at rest again


class NextHop:
    """An SMTP server for one message at a time, which notes when octets come."""

    def __init__(self):
        self.server = socket.create_server((HOST, 0), backlog=16)
        self.port = self.server.getsockname()[1]
        self.first = self.content = None
        self.done = threading.Event()
        self.closing = False
        threading.Thread(target=self.run, daemon=True).start()

    def expect(self):
        self.first = self.content = None
        self.done.clear()

    def run(self):
        while not self.closing:
            try:
                peer, _ = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self.talk, args=(peer,), daemon=True).start()

    def talk(self, peer):
        with peer:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer.sendall(b"220 sink.test ESMTP\r\n")
            pending, in_content = b"", False
            while True:
                try:
                    octets = peer.recv(65536)
                except OSError:
                    return
                now = time.perf_counter()
                if not octets:
                    return
                if self.first is None:
                    self.first = now
                if in_content and self.content is None:
                    self.content = now
                pending += octets
                replies = b""
                while True:
                    if in_content:
                        end = pending.find(b"\r\n.\r\n")
                        if end < 0:
                            break
                        pending, in_content = pending[end + 5:], False
                        peer.sendall(replies + b"250 2.0.0 taken\r\n")
                        replies = b""
                        self.done.set()
                        continue
                    line, found, rest = pending.partition(b"\r\n")
                    if not found:
                        break
                    pending = rest
                    word = line[:4].upper()
                    if word == b"EHLO":
                        replies += b"250-sink.test\r\n250-PIPELINING\r\n250 8BITMIME\r\n"
                    elif word == b"DATA":
                        in_content = True
                        replies += b"354 go on\r\n"
                        if pending and self.content is None:
                            self.content = now
                    elif word == b"QUIT":
                        peer.sendall(replies + b"221 2.0.0 bye\r\n")
                        return
                    else:
                        replies += b"250 2.0.0 ok\r\n"
                if replies:
                    peer.sendall(replies)

    def stop(self):
        self.closing = True
        self.server.close()


class Client:
    def __init__(self, port):
        self.socket = socket.create_connection((HOST, port), 20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.lines = self.socket.makefile("rb")
        self.reply()

    def reply(self):
        while True:
            line = self.lines.readline()
            if not line or line[3:4] == b" ":
                return line

    def say(self, line, code):
        self.socket.sendall(line.encode() + b"\r\n")
        answer = self.reply()
        if not answer.startswith(code):
            raise RuntimeError("%s: %r" % (line, answer))

    def close(self):
        self.socket.close()


def latency(port, hop, messages, length, rcpt):
    """Figures in milliseconds: of the first octet, of the content, of the 250."""
    line = b"x" * 70 + b"\r\n"
    content = b"Subject: latency\r\n\r\n" + line * max(1, (length - 20) // len(line))
    client = Client(port)
    client.say("EHLO client.example.org", b"250")
    firsts, contents, answers = [], [], []
    try:
        for number in range(messages + 5):
            hop.expect()
            client.say("MAIL FROM:<sender@example.org>", b"250")
            client.say("RCPT TO:<%s>" % rcpt, b"250")
            client.say("DATA", b"354")
            client.socket.sendall(content)
            time.sleep(0.002)
            begun = time.perf_counter()
            client.socket.sendall(b".\r\n")
            answer = client.reply()
            answered = time.perf_counter()
            if not answer.startswith(b"250") or not hop.done.wait(20):
                raise RuntimeError("message %d did not come through: %r" % (number, answer))
            time.sleep(PAUSE)
            if number >= 5:
                firsts.append(1000 * (hop.first - begun))
                contents.append(1000 * (hop.content - begun))
                answers.append(1000 * (answered - begun))
    finally:
        client.close()

    def high(values):
        return sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]
    return dict(ok=True, messages=messages, first_ms=round(statistics.median(firsts), 2), first_p99_ms=round(high(firsts), 2),
                content_ms=round(statistics.median(contents), 2), content_p99_ms=round(high(contents), 2),
                answer_ms=round(statistics.median(answers), 2), answer_p99_ms=round(high(answers), 2))
