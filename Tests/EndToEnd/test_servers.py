# SPDX-License-Identifier: Apache-2.0
"""Servers that do not do as they should, as apus-remote meets them: each delivery has an outcome, and soon."""
import os
import pwd
import shutil
import signal
import socket
import ssl
import tempfile
import threading
import time
import unittest

from apus import Apus
from certificates import Authority
from peers import Sink, wait_for
from pipes import Deliveries, Part
from test_agents import CONTENT, message_id, program
from test_delivering import send


class Scripted:
    """Listens, and has a function talk to each client."""

    def __init__(self, talk):
        self.talk = talk
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.clients = []
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.clients.append(client)
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        try:
            self.talk(client)
        except OSError:
            pass

    def close(self):
        self.listener.close()
        for client in self.clients:
            client.close()


def remote(test, **settings):
    """An apus-remote alone, which asks no resolver."""
    identity = Apus.identity_of(pwd.getpwnam("nobody").pw_uid) if os.geteuid() == 0 else {}
    part = Part(program("apus-remote"), {
        "hostname": "mx.example.org", "resolver": "127.0.0.1:9", **{k.replace("_", "-"): v for k, v in settings.items()}},
        "deliver", **identity)
    test.addCleanup(part.kill)
    return part


class Servers(unittest.TestCase):
    def outcome(self, talk, content=CONTENT, seconds=10, **settings):
        server = Scripted(talk)
        self.addCleanup(server.close)
        deliveries = Deliveries(remote(self, **settings))
        channel = deliveries.begin(message_id(1), f"remote:[127.0.0.1]:{server.port}", content, ["x@example.net"])
        return deliveries.run(seconds=seconds)[channel]["outcomes"][0][:3]

    def test_what_a_server_says_behind_its_answer_to_ehlo_is_heard(self):
        for word, outcome in ((b"421 4.3.2 too busy", ["deferred", "421", "4.3.2"]), (b"what?", ["deferred", "0", "4.5.0"])):
            def talk(client):
                client.sendall(b"220 hi\r\n")
                client.recv(999)
                client.sendall(b"250 hi\r\n" + word + b"\r\n")
                client.recv(999)
                client.close()
            self.assertEqual(self.outcome(talk), outcome)

    def test_a_server_that_stops_reading_and_says_an_octet_is_not_waited_for(self):
        def talk(client):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.sendall(b"220 hi\r\n")
            for reply in (b"250 hi\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"):
                client.recv(999)
                client.sendall(reply)
            time.sleep(1)
            client.sendall(b"2")
            time.sleep(60)
        begun = time.monotonic()
        self.assertEqual(self.outcome(talk, b"x" * 70 * 300_000, seconds=20, content_timeout=5), ["deferred", "0", "4.4.1"])
        self.assertLess(time.monotonic() - begun, 15)

    def test_octets_that_drip_do_not_buy_time(self):
        def talk(client):
            for octet in b"220-" + b"hello" * 1000:
                client.sendall(bytes([octet]))
                time.sleep(0.5)
        begun = time.monotonic()
        self.assertEqual(self.outcome(talk, seconds=20, greeting_timeout=3), ["deferred", "0", "4.4.1"])
        self.assertLess(time.monotonic() - begun, 10)


class Reloading(unittest.TestCase):
    def test_connections_that_were_kept_do_not_outlive_the_settings_that_they_were_opened_under(self):
        sink = Sink()
        self.addCleanup(sink.close)
        idle = 'idle-connection-timeout = "60s"\n'
        with Apus(smarthost=f"127.0.0.1:{sink.port}", remote=idle) as apus:
            send(apus.port, "a@b.example", ["x@elsewhere.example"], "Subject: 1\r\n\r\nx\r\n")
            self.assertTrue(wait_for(lambda: apus.logged("status=delivered"), 10), apus.log())
            apus.write_settings(remote=idle + 'tls = "require"\n')
            apus.own()
            os.kill(apus.process.pid, signal.SIGHUP)
            self.assertTrue(wait_for(lambda: apus.logged("apus-remote", "reloaded") or apus.logged("apusd reloaded"), 10), apus.log())
            time.sleep(0.5)
            send(apus.port, "a@b.example", ["y@elsewhere.example"], "Subject: 2\r\n\r\nx\r\n")
            self.assertTrue(wait_for(lambda: apus.logged("to=<y@elsewhere.example>", "status=deferred", "4.7.4"), 10), apus.log()[-3000:])
            self.assertEqual(len(sink.messages), 1)

    def test_a_session_is_not_resumed_when_the_authorities_have_changed(self):
        folder = tempfile.mkdtemp(prefix="apus-authorities-")
        self.addCleanup(shutil.rmtree, folder)
        os.chmod(folder, 0o755)
        authority, other = Authority(folder + "/one"), Authority(folder + "/other")
        authority.issue("host", "127.0.0.1")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority.path("host.pem"), authority.path("host.key"))

        def talk(client):
            with context.wrap_socket(client, server_side=True) as tls:
                file, is_content = tls.makefile("rb"), False
                tls.sendall(b"220 hi\r\n")
                for line in file:
                    if is_content:
                        is_content = line != b".\r\n"
                        if is_content:
                            continue
                    verb = line[:4].upper()
                    is_content = verb == b"DATA"
                    tls.sendall(b"354 go\r\n" if is_content else b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n")
        server = Scripted(talk)
        self.addCleanup(server.close)
        file = authority.path("believed.pem")
        shutil.copy(authority.path("ca.pem"), file)
        os.chmod(file, 0o644)
        part = remote(self, tls="implicit", ca_file=file, idle_connection_timeout=1)
        deliveries = Deliveries(part)

        def deliver(number):
            channel = deliveries.begin(message_id(number), f"remote:[127.0.0.1]:{server.port}", CONTENT, ["x@example.net"])
            # Short content comes unasked (pipes.md §3).
            part.send("data", channel, CONTENT)
            return deliveries.run()[channel]["outcomes"][0][:3:2]
        self.assertEqual(deliver(1)[0], "delivered")
        time.sleep(2.5)
        self.assertEqual(deliver(2)[0], "delivered")
        self.assertIn("resumed=true", part.logged())
        time.sleep(2.5)
        shutil.copy(other.path("ca.pem"), file)
        self.assertEqual(deliver(3), ["deferred", "4.7.5"])


if __name__ == "__main__":
    unittest.main()
