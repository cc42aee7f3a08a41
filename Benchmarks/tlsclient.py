#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tlsclient.py PORT WORKERS MESSAGES LENGTH tls|plain

Deliver MESSAGES messages to 127.0.0.1:PORT, one new connection each: EHLO,
STARTTLS with a full handshake (no resumption) when "tls", EHLO, one message,
QUIT.  Prints the seconds taken.  It shares the CPU with the MTA, so what counts
is the MTA's CPU time, and the difference to the same load in plain text.
"""
import os, socket, ssl, sys, time

PORT, WORKERS, MESSAGES, LENGTH = map(int, sys.argv[1:5])
TLS = sys.argv[5] == "tls"
BODY = b"Subject: test\r\n\r\n" + (b"X" * 70 + b"\r\n") * max(1, LENGTH // 72) + b".\r\n"


def reply(s):
    buf = b""
    while True:
        d = s.recv(4096)
        if not d:
            raise OSError("closed")
        buf += d
        last = buf.rsplit(b"\r\n", 2)
        if buf.endswith(b"\r\n") and last[-2][3:4] == b" ":
            if buf[:1] not in b"23":
                raise OSError(buf.decode("latin-1"))
            return


def one(ctx):
    s = socket.create_connection(("127.0.0.1", PORT), 20)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    reply(s)

    def say(line):
        s.sendall(line)
        reply(s)
    say(b"EHLO client.example.org\r\n")
    if TLS:
        say(b"STARTTLS\r\n")
        s = ctx.wrap_socket(s)
        say(b"EHLO client.example.org\r\n")
    say(b"MAIL FROM:<sender@example.org>\r\n")
    say(b"RCPT TO:<rcpt@sink.test>\r\n")
    say(b"DATA\r\n")
    say(BODY)
    say(b"QUIT\r\n")
    s.close()


def worker(n):
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ctx.check_hostname = False
    ctx.verify_mode = ssl.CERT_NONE
    for _ in range(n):
        one(ctx)


start = time.monotonic()
pids = []
for i in range(WORKERS):
    pid = os.fork()
    if not pid:
        try:
            worker(MESSAGES // WORKERS + (i < MESSAGES % WORKERS))
        except Exception as e:
            print(e, file=sys.stderr)
            os._exit(1)
        os._exit(0)
    pids.append(pid)
if any(os.waitpid(p, 0)[1] for p in pids):
    sys.exit("a worker failed")
print(time.monotonic() - start)
