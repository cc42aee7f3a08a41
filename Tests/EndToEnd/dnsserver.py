#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A small DNS server for tests: UDP and TCP on one port, one zone from a dict or a JSON file.

    dnsserver.py --port 5353 zone.json          prints "ready 127.0.0.1:PORT" when it serves

From another test:

    with DNSServer({"example.org": {"MX": [[10, "mx.example.org"]]}, ...}) as server:
        ... server.port, server.queries ...

The zone maps names (lower case, no final dot) to what is known of them:

    {"example.org":       {"MX": [[10, "mx1.example.org"], [20, "mx2.example.org"]], "TTL": 300},
     "mx1.example.org":   {"A": ["127.0.0.1"], "AAAA": ["::1"]},
     "www.example.org":   {"CNAME": "mx1.example.org"},
     "nomail.example.org": {"MX": [[0, ""]]},                  null MX (RFC 7505)
     "broken.example.org": {"RCODE": "SERVFAIL"},              or REFUSED, FORMERR, NOTIMP
     "big.example.org":   {"MX": [...], "TRUNCATE": true},     TC on UDP, whole over TCP
     "silent.example.org": {"DROP": true},                     no answer at all
     "text.example.org":  {"TXT": ["v=spf1 -all"]}}

A name that is not there is NXDOMAIN, a type that is not there an empty answer; both with an SOA record whose
minimum is the zone's "" entry's "NEGATIVE-TTL" (60 if there is none). Aliases are followed within the zone unless
the alias says "FOLLOW": false. Answers above 1,232 octets (512 without EDNS0) are truncated by themselves.
"""
import argparse
import json
import socket
import socketserver
import struct
import sys
import threading

TYPES = {"A": 1, "CNAME": 5, "SOA": 6, "MX": 15, "TXT": 16, "AAAA": 28}
RCODES = {"NOERROR": 0, "FORMERR": 1, "SERVFAIL": 2, "NXDOMAIN": 3, "NOTIMP": 4, "REFUSED": 5}


def wire_name(name):
    octets = b""
    for label in name.rstrip(".").split(".") if name.rstrip(".") else []:
        octets += bytes([len(label)]) + label.encode("ascii")
    return octets + b"\0"


def read_name(message, index):
    """The name at index of a query (never compressed there), and where it ends."""
    labels = []
    while True:
        length = message[index]
        if length == 0:
            return ".".join(labels).lower(), index + 1
        if length > 63:
            raise ValueError("a compressed name in a query")
        labels.append(message[index + 1:index + 1 + length].decode("ascii"))
        index += 1 + length


def data(kind, value):
    if kind == "A":
        return socket.inet_pton(socket.AF_INET, value)
    if kind == "AAAA":
        return socket.inet_pton(socket.AF_INET6, value)
    if kind == "MX":
        return struct.pack("!H", value[0]) + wire_name(value[1])
    if kind == "CNAME":
        return wire_name(value)
    if kind == "TXT":
        text = value.encode("utf-8")
        parts = [text[i:i + 255] for i in range(0, len(text), 255)] or [b""]
        return b"".join(bytes([len(part)]) + part for part in parts)
    raise ValueError(kind)


def record(name, kind, ttl, octets):
    return wire_name(name) + struct.pack("!HHIH", TYPES[kind], 1, ttl, len(octets)) + octets


class DNSServer:
    """Serves a zone until it is closed; `zone` may be changed while it runs."""

    def __init__(self, zone, host="127.0.0.1", port=0):
        self.zone = zone
        #: What was asked, as (name, type, "udp" or "tcp").
        self.queries = []
        owner = self

        class Datagram(socketserver.BaseRequestHandler):
            def handle(self):
                answer = owner.answer(self.request[0], "udp")
                if answer:
                    self.request[1].sendto(answer, self.client_address)

        class Stream(socketserver.StreamRequestHandler):
            def handle(self):
                while True:
                    head = self.rfile.read(2)
                    if len(head) < 2:
                        return
                    answer = owner.answer(self.rfile.read(struct.unpack("!H", head)[0]), "tcp")
                    if answer:
                        self.wfile.write(struct.pack("!H", len(answer)) + answer)

        class UDP(socketserver.ThreadingUDPServer):
            allow_reuse_address = True
            daemon_threads = True

        class TCP(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

        # A port that is free for one may be taken for the other: try a few when any will do.
        for attempt in range(20):
            self.udp = UDP((host, port), Datagram)
            self.port = self.udp.server_address[1]
            try:
                self.tcp = TCP((host, self.port), Stream)
                break
            except OSError:
                self.udp.server_close()
                if port or attempt == 19:
                    raise
        for server in (self.udp, self.tcp):
            threading.Thread(target=server.serve_forever, daemon=True).start()

    def close(self):
        for server in (self.udp, self.tcp):
            server.shutdown()
            server.server_close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def answer(self, query, transport):
        """The octets of the answer to a query; nothing if there is to be none."""
        try:
            number, flags, questions, _, _, additional = struct.unpack("!HHHHHH", query[:12])
            name, end = read_name(query, 12)
            kind_number, _ = struct.unpack("!HH", query[end:end + 4])
        except (struct.error, IndexError, ValueError, UnicodeDecodeError):
            return b""
        if questions != 1 or flags & 0x8000:
            return b""
        kind = next((k for k, n in TYPES.items() if n == kind_number), str(kind_number))
        self.queries.append((name, kind, transport))
        entry = self.zone.get(name)
        if entry and entry.get("DROP"):
            return b""
        rcode, answers, authority = self.look_up(name, kind)
        truncated = transport == "udp" and bool(entry and entry.get("TRUNCATE"))

        def message(answers, authority, truncated):
            # QR, RD as asked, RA.
            bits = 0x8080 | (flags & 0x0100) | (0x0200 if truncated else 0) | rcode
            head = struct.pack("!HHHHHH", number, bits, 1, len(answers), len(authority), 0)
            return head + query[12:end + 4] + b"".join(answers) + b"".join(authority)

        whole = message(answers, authority, False)
        limit = 1232 if additional else 512
        if truncated or (transport == "udp" and len(whole) > limit):
            return message([], [], True)
        return whole

    def look_up(self, name, kind):
        negative_ttl = self.zone.get("", {}).get("NEGATIVE-TTL", 60)
        soa = record("", "SOA", negative_ttl,
                     wire_name("ns.test") + wire_name("hostmaster.test") + struct.pack("!IIIII", 1, 1, 1, 1, negative_ttl))
        answers = []
        for _ in range(20):
            entry = self.zone.get(name)
            if entry is None:
                return RCODES["NXDOMAIN"], answers, [soa]
            if "RCODE" in entry:
                return RCODES[entry["RCODE"]], [], []
            ttl = entry.get("TTL", 300)
            if "CNAME" in entry and kind != "CNAME":
                answers.append(record(name, "CNAME", ttl, data("CNAME", entry["CNAME"])))
                if entry.get("FOLLOW", True) is False:
                    return 0, answers, []
                name = entry["CNAME"]
                continue
            values = entry.get(kind, [])
            if kind == "CNAME" and values:
                values = [values]
            answers += [record(name, kind, ttl, data(kind, value)) for value in values]
            return 0, answers, [] if values else [soa]
        # A circle of aliases: what was gathered is all there is.
        return 0, answers, []


def main():
    parser = argparse.ArgumentParser(description="A small DNS server for tests.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    parser.add_argument("zone", help="a JSON file, see the head of this program")
    arguments = parser.parse_args()
    with open(arguments.zone, encoding="utf-8") as file:
        zone = json.load(file)
    server = DNSServer(zone, arguments.host, arguments.port)
    print(f"ready {arguments.host}:{server.port}", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        server.close()


if __name__ == "__main__":
    sys.exit(main())
