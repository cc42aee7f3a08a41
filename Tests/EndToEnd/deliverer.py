#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A local deliverer in thirty lines: takes the place of apus-local, by Documentation/pipes.md alone.

Usage: deliverer.py FOLDER [UNASKED]. Writes each recipient's message to FOLDER/ID-NUMBER. Content of at most UNASKED
octets is waited for, not asked for.
"""
import os
import sys


def netstring(octets):
    return b"%d:%s," % (len(octets), octets)


def read_netstring(stream):
    length = b""
    while (c := stream.read(1)) != b":":
        if not c:
            sys.exit(0)
        length += c
    octets = stream.read(int(length))
    assert stream.read(1) == b","
    return octets


def fields(content):
    found = []
    while content:
        length, _, rest = content.partition(b":")
        found.append(rest[:int(length)])
        content = rest[int(length) + 1:]
    return found


def send(*words):
    sys.stdout.buffer.write(netstring(b"".join(netstring(w) for w in words)))
    sys.stdout.buffer.flush()


unasked = sys.argv[2:3]
send(b"hello", b"0", b"deliver", b"1", b"deliverer.py", b"10", *(word.encode() for word in unasked))
open_deliveries = {}
while True:
    verb, channel, *rest = fields(read_netstring(sys.stdin.buffer))
    if verb == b"deliver":
        open_deliveries[channel] = {"id": rest[0].decode(), "size": int(rest[2]), "to": [], "content": b""}
    elif verb == b"rcpt":
        open_deliveries[channel]["to"].append(rest[0])
    elif verb == b"go" or verb == b"data":
        delivery = open_deliveries[channel]
        delivery["content"] += rest[0] if verb == b"data" else b""
        asked = delivery.setdefault("asked", 0)
        if unasked and delivery["size"] <= int(unasked[0]):
            delivery["asked"] = delivery["size"]
        elif len(delivery["content"]) == asked and asked < delivery["size"]:
            delivery["asked"] = min(delivery["size"], asked + 1048576)
            send(b"want", channel, b"%d" % asked, b"%d" % (delivery["asked"] - asked))
        if len(delivery["content"]) == delivery["size"]:
            for number in delivery["to"]:
                with open(os.path.join(sys.argv[1], f"{delivery['id']}-{number.decode()}"), "wb") as f:
                    f.write(delivery["content"])
                    os.fsync(f.fileno())
                send(b"outcome", channel, number, b"delivered", b"250", b"2.0.0", b"deliverer.py", b"written")
            send(b"done", channel)
    elif verb == b"noted":
        del open_deliveries[channel]
