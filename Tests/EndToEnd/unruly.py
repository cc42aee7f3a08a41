#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A deliverer that breaks the rules of Documentation/pipes.md at its first starts, and then becomes another program.

Usage: unruly.py NOTES FAULT,FAULT… PROGRAM ARGUMENT…. Start number N commits fault number N; NOTES gets a line with
the time of each start.
"""
import os
import sys
import time


def netstring(octets):
    return b"%d:%s," % (len(octets), octets)


def frame(*words):
    return netstring(b"".join(netstring(w.encode() if isinstance(w, str) else w) for w in words))


def say(*octets):
    os.write(1, b"".join(octets))


def read_frame():
    length = b""
    while (c := os.read(0, 1)) != b":":
        if not c:
            sys.exit(0)
        length += c
    content, rest = b"", int(length) + 1
    while len(content) < rest:
        content += os.read(0, rest - len(content)) or sys.exit(0)
    fields, content = [], content[:-1]
    while content:
        size, _, after = content.partition(b":")
        fields.append(after[:int(size)])
        content = after[int(size) + 1:]
    return fields


def delivery():
    """Waits for a delivery; its channel and the number of its first recipient."""
    say(HELLO)
    number = None
    while True:
        verb, channel, *rest = read_frame()
        if verb == b"rcpt":
            number = number or rest[0]
        if verb == b"go":
            return channel, number


HELLO = frame("hello", "0", "deliver", "1", "unruly.py", "10")
LATER = ["deferred", "450", "4.0.0", "unruly.py", "not now"]


def without_delivery(fault):
    return {
        "garbage": b"GET / HTTP/1.0\r\n\r\n",
        "too-long": HELLO + b"70001:",
        "endless-length": HELLO + b"1" * 100,
        "leading-zero": HELLO + b"012:4:done,1:1,,",
        "no-comma": HELLO + b"11:4:done,1:1,;",
        "no-hello": frame("done", "1"),
        "two-hellos": HELLO + HELLO,
        "wrong-dialect": frame("hello", "0", "submit", "1", "unruly.py", "10"),
        "wrong-version": frame("hello", "0", "deliver", "99", "unruly.py", "10"),
        "unknown-verb": HELLO + frame("deliverance", "1"),
        "unknown-channel": HELLO + frame("done", "77"),
        "others-verb": HELLO + frame("noted", "1"),
        "too-many-fields": HELLO + frame("done", "1", *["x"] * 13),
    }.get(fault)


def with_delivery(fault):
    channel, number = delivery()
    outcome = frame("outcome", channel, number, *LATER)
    return {
        "stranger": frame("outcome", channel, "99", *LATER),
        "two-outcomes": outcome + outcome,
        "after-done": outcome + frame("done", channel) + frame("done", channel),
        "huge-want": frame("want", channel, "0", "1048577"),
        "uninvited-report": frame("mail", channel, "", "7bit", "0", ""),
        "unknown-kind": frame("outcome", channel, number, "eaten", "250", "2.0.0", "unruly.py", ""),
        "wrong-status": frame("outcome", channel, number, "deferred", "450", "4", "unruly.py", ""),
        "few-fields": frame("outcome", channel, number, "deferred"),
        "long-text": frame("outcome", channel, number, "deferred", "450", "4.0.0", "unruly.py", "x" * 2049),
    }[fault]


notes, faults = sys.argv[1], sys.argv[2].split(",")
with open(notes, "a+") as f:
    f.seek(0)
    count = len(f.readlines())
    f.write("%f\n" % time.monotonic())
if count >= len(faults):
    os.execv(sys.argv[3], sys.argv[3:])
fault = faults[count]
if fault == "cut":
    say(HELLO, frame("done", "1")[:-3])
    sys.exit(0)
deaf = fault.endswith("!")
fault = fault.rstrip("!")
say(without_delivery(fault) or with_delivery(fault))
if deaf:
    # Does not care that nobody listens any more.
    time.sleep(600)
while os.read(0, 65536):
    pass
