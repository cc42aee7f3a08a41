# SPDX-License-Identifier: Apache-2.0
"""TLS, received and sent, with other people's programs at the other end."""
import ctypes
import ctypes.util
import os
import re
import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import unittest
import warnings

import postfix
from apus import Apus, binaries
from certificates import Authority
from peers import Raw, Sink, figure, free_port, slurp, wait_for
from test_servers import Scripted

MESSAGE = "From: <a@example.net>\r\nTo: <alice@apus.test>\r\nSubject: under TLS\r\n\r\nHello.\r\n"


def authority(case):
    """An authority that lasts as long as the class."""
    folder = tempfile.mkdtemp(prefix="apus-tls-")
    case.addClassCleanup(shutil.rmtree, folder, True)
    return Authority(folder)


def send(smtp, sender="a@example.net", recipient="alice@apus.test"):
    smtp.sendmail(sender, [recipient], MESSAGE)


class Receiving(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.authority = authority(cls)
        certificate, key = cls.authority.issue("mx", "mx.apus.test", "127.0.0.1")
        rsa, rsa_key = cls.authority.issue("mx-rsa", "mx.apus.test", key="rsa:2048")
        other, other_key = cls.authority.issue("other", "other.test")
        own, own_key = cls.authority.issue("own", "own.test")
        cls.authority.issue("friend", "friend.test")
        cls.implicit, cls.required, cls.plain, cls.own = (free_port() for _ in range(4))
        cls.apus = Apus(
            smarthost="127.0.0.1:9",
            domains=f'relay-certificates = ["{cls.authority.fingerprint("friend")}"]',
            extra=f"""
[[listen]]
address = "127.0.0.1:{cls.implicit}"
role = "mx"
tls = "implicit"
[[listen]]
address = "127.0.0.1:{cls.required}"
role = "submission"
tls = "require"
[[listen]]
address = "127.0.0.1:{cls.plain}"
role = "mx"
tls = "off"
[[listen]]
address = "127.0.0.1:{cls.own}"
role = "mx"
certificate = "{own}"
private-key = "{own_key}"
[tls]
certificate = "{certificate}"
private-key = "{key}"
handshake-timeout = 2
[[certificate]]
certificate = "{rsa}"
private-key = "{rsa_key}"
[[certificate]]
certificate = "{other}"
private-key = "{other_key}"
[smtp]
workers = 2
""")
        cls.apus.start()

    @classmethod
    def tearDownClass(cls):
        cls.apus.close()

    def context(self):
        return ssl.create_default_context(cafile=self.authority.path("ca.pem"))

    def s_client(self, *words, port=None, starttls=True, talk=b"QUIT\r\n"):
        """What `openssl s_client` says."""
        done = subprocess.run(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{port or self.apus.port}", "-CAfile",
             self.authority.path("ca.pem"), *(["-starttls", "smtp"] if starttls else []), *words],
            input=talk, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30)
        return done.stdout.decode(errors="replace")

    def test_smtplib_verifies_the_certificate_and_the_field_and_the_log_say_how_it_came(self):
        before = len(self.apus.delivered())
        with smtplib.SMTP("127.0.0.1", self.apus.port, timeout=20) as smtp:
            smtp._host = "mx.apus.test"
            smtp.ehlo("client.example")
            self.assertTrue(smtp.has_extn("starttls"))
            smtp.starttls(context=self.context())
            smtp.ehlo("client.example")
            self.assertFalse(smtp.has_extn("starttls"))
            send(smtp)
        content = slurp(self.apus.wait_delivered(before + 1)[-1])
        self.assertIn(b"with ESMTPS (TLSv1.3)", content)
        self.assertRegex(content, rb"\n\ttls TLS_[A-Z0-9_]+;")
        self.assertTrue(self.apus.logged("apus-smtpd tls ", "tls=TLSv1.3", "cipher=TLS_"), self.apus.log()[-2000:])
        self.assertTrue(self.apus.logged("apus-smtpd queued", "tls=TLSv1.3"))

    def test_implicit_tls_comes_before_the_greeting(self):
        before = len(self.apus.delivered())
        with smtplib.SMTP_SSL("127.0.0.1", self.implicit, timeout=20, context=self.context()) as smtp:
            smtp.ehlo("client.example")
            self.assertFalse(smtp.has_extn("starttls"))
            send(smtp)
        self.assertIn(b"with ESMTPS (TLSv1.3)", slurp(self.apus.wait_delivered(before + 1)[-1]))

    def test_swaks_delivers_with_starttls_and_on_connect(self):
        if not shutil.which("swaks"):
            self.skipTest("swaks is not installed")
        for words in (["--tls", "--port", str(self.apus.port)], ["--tls-on-connect", "--port", str(self.implicit)]):
            before = len(self.apus.delivered())
            done = subprocess.run(
                ["swaks", "--server", "127.0.0.1", "--to", "alice@apus.test", "--from", "a@example.net", "--body", "x", *words],
                capture_output=True, text=True, timeout=60)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            self.apus.wait_delivered(before + 1)

    def test_curl_delivers_over_smtps_with_the_certificate_verified(self):
        if not shutil.which("curl"):
            self.skipTest("curl is not installed")
        before = len(self.apus.delivered())
        done = subprocess.run(
            ["curl", "-sS", "--cacert", self.authority.path("ca.pem"), "--resolve", f"mx.apus.test:{self.implicit}:127.0.0.1",
             "--mail-from", "a@example.net", "--mail-rcpt", "alice@apus.test", "-T", "-", f"smtps://mx.apus.test:{self.implicit}/c"],
            input=MESSAGE.encode(), capture_output=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.apus.wait_delivered(before + 1)

    def test_versions_1_2_and_1_3_are_spoken_and_no_older_one(self):
        for version, name in (("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")):
            said = self.s_client(version, "-verify_return_error", "-verify_hostname", "mx.apus.test")
            self.assertIn(f"New, {name}", said)
            self.assertIn("Verify return code: 0 (ok)", said)
        self.assertNotIn("New, TLSv1.1", self.s_client("-tls1_1", "-cipher", "ALL:@SECLEVEL=0"))

    def test_aes_128_is_chosen_where_a_client_can_do_it_and_chacha20_where_the_client_wants_it_most(self):
        aes_128, aes_256, chacha = "TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"
        for offered, chosen in (([aes_256, chacha, aes_128], aes_128), ([aes_256], aes_256), ([chacha, aes_128], chacha)):
            said = self.s_client("-tls1_3", "-ciphersuites", ":".join(offered))
            self.assertIn(f"Cipher is {chosen}", said)
        said = self.s_client("-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256")
        self.assertIn("Cipher is ECDHE-ECDSA-AES128-GCM-SHA256", said)

    def test_names_and_kinds_of_keys_choose_the_certificate(self):
        for words, subject in (
                (["-servername", "other.test"], "other"), (["-servername", "nobody.test"], "mx"), (["-noservername"], "mx"),
                (["-servername", "mx.apus.test", "-sigalgs", "rsa_pss_rsae_sha256"], "mx-rsa"),
                (["-servername", "mx.apus.test", "-sigalgs", "ecdsa_secp256r1_sha256"], "mx")):
            said = self.s_client(*words)
            self.assertRegex(said, rf"subject=CN ?= ?{subject}\n", words)
        self.assertRegex(self.s_client(port=self.own), r"subject=CN ?= ?own\n")

    def test_a_client_that_says_farewell_behind_the_final_dot_still_gets_its_reply(self):
        before = len(self.apus.delivered())
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self.context().wrap_bio(incoming, outgoing, server_hostname="mx.apus.test")
        with socket.create_connection(("127.0.0.1", self.implicit), 20) as s:
            def carry(step):
                while True:
                    try:
                        return step()
                    except ssl.SSLWantReadError:
                        s.sendall(outgoing.read())
                        octets = s.recv(65536)
                        incoming.write(octets) if octets else incoming.write_eof()

            def reply():
                said = b""
                while not said.endswith(b"\r\n"):
                    part = carry(lambda: tls.read(4096))
                    if not part:
                        break
                    said += part
                return said.decode()
            carry(tls.do_handshake)
            reply()
            for line in (b"EHLO c.example", b"MAIL FROM:<a@example.org>", b"RCPT TO:<alice@apus.test>", b"DATA"):
                tls.write(line + b"\r\n")
                s.sendall(outgoing.read())
                reply()
            tls.write(b"Subject: farewell\r\n\r\nx\r\n.\r\n")
            try:
                tls.unwrap()
            except ssl.SSLWantReadError:
                pass
            s.sendall(outgoing.read())
            s.shutdown(socket.SHUT_WR)
            octets = b""
            while part := s.recv(65536):
                octets += part
        # Its reply and the server's own farewell, each a record.
        self.assertGreater(len(octets), 60)
        self.apus.wait_delivered(before + 1)
        self.assertTrue(wait_for(lambda: not self.apus.logged("disconnect", "code=4"), 1))

    def test_octets_behind_starttls_end_the_session(self):
        with Raw(self.apus.port) as s:
            s.command("EHLO c.example")
            s.send("STARTTLS\r\nMAIL FROM:<evil@example.net>\r\n")
            self.assertTrue(s.reply().startswith("554 5.5.0"))
            self.assertEqual(s.reply(), "")
        self.assertTrue(wait_for(lambda: self.apus.logged("disconnect", "code=554"), 10))

    def test_what_was_said_before_the_handshake_is_forgotten(self):
        with Raw(self.apus.port) as s:
            s.command("EHLO before.example")
            self.assertTrue(s.command("STARTTLS").startswith("220 "))
            context = self.context()
            with context.wrap_socket(s.socket, server_hostname="mx.apus.test") as tls:
                tls.sendall(b"MAIL FROM:<a@example.net>\r\n")
                self.assertTrue(tls.recv(100).startswith(b"503 5.5.1"))
                tls.sendall(b"STARTTLS\r\n")
                self.assertTrue(tls.recv(100).startswith(b"503 5.5.1"))

    def test_where_tls_is_required_there_is_no_mail_without_and_where_it_is_off_it_is_not_offered(self):
        with Raw(self.required) as s:
            self.assertIn("STARTTLS", s.command("EHLO c.example"))
            self.assertTrue(s.command("MAIL FROM:<a@example.net>").startswith("530 5.7.0"))
        with Raw(self.plain) as s:
            self.assertNotIn("STARTTLS", s.command("EHLO c.example"))
            self.assertTrue(s.command("STARTTLS").startswith("502 "))

    def failed(self, reason):
        return self.apus.logged("apus-smtpd tls-failed", reason)

    def test_a_handshake_that_fails_leaves_one_line(self):
        for port, starttls in ((self.apus.port, True), (self.implicit, False)):
            before = len(self.failed("wrong version number"))
            with Raw(port, greeting=starttls) as s:
                if starttls:
                    s.command("EHLO c.example")
                    s.command("STARTTLS")
                s.send("EHLO plain text again\r\n")
                s.socket.settimeout(10)
                wait_for(lambda: len(self.failed("wrong version number")) > before, 10)
            time.sleep(0.3)
            self.assertEqual(len(self.failed("wrong version number")), before + 1)

    def test_a_client_that_stops_in_the_middle_of_a_handshake_is_timed_out(self):
        begin = time.monotonic()
        with Raw(self.implicit, greeting=False) as silent, Raw(self.apus.port) as half:
            half.command("EHLO c.example")
            half.command("STARTTLS")
            half.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 30)
            for s in (silent, half):
                s.socket.settimeout(15)
                try:
                    self.assertEqual(s.socket.recv(100), b"")
                except ConnectionResetError:
                    pass
        self.assertLess(time.monotonic() - begin, 8)
        self.assertTrue(wait_for(lambda: len(self.failed("in time")) >= 2, 5), self.apus.log()[-3000:])

    def test_a_client_that_hangs_up_in_the_middle_leaves_one_line(self):
        before = len(self.failed("closed the connection"))
        with Raw(self.apus.port) as s:
            s.command("EHLO c.example")
            s.command("STARTTLS")
            s.send(b"\x16\x03\x01")
        self.assertTrue(wait_for(lambda: len(self.failed("closed the connection")) == before + 1, 10), self.apus.log()[-2000:])

    def test_a_session_is_resumed_by_either_process(self):
        path = self.authority.path("session")
        for version in ("-tls1_2", "-tls1_3"):
            # The session comes behind the handshake, with TLS 1.3 together with the next reply. (A line that begins with Q would end s_client.)
            subprocess.run(
                f"(sleep 0.5; echo NOOP; sleep 0.5; echo QUIT) | openssl s_client -connect 127.0.0.1:{self.apus.port} -starttls smtp {version} -crlf -sess_out {path}",
                shell=True, capture_output=True, timeout=30, check=True)
            reused = [("Reused, " in self.s_client(version, "-sess_in", path)) for _ in range(8)]
            self.assertEqual(reused, [True] * 8, version)
        self.assertTrue(self.apus.logged("apus-smtpd tls ", "resumed=true"))

    def test_a_client_with_a_known_certificate_may_relay_and_another_may_not(self):
        before = self.apus.count()
        for name, code in (("friend", 250), ("other", 550), (None, 550)):
            context = self.context()
            if name:
                context.load_cert_chain(self.authority.path(name + ".pem"), self.authority.path(name + ".key"))
            with smtplib.SMTP("127.0.0.1", self.apus.port, timeout=20, source_address=("127.0.0.2", 0)) as smtp:
                smtp._host = "mx.apus.test"
                smtp.starttls(context=context)
                smtp.ehlo("client.example")
                smtp.mail("a@example.net")
                self.assertEqual(smtp.rcpt("x@elsewhere.example")[0], code, name)
        self.assertTrue(self.apus.logged("apus-smtpd tls ", "peer=friend"))
        self.assertEqual(self.apus.count(), before)

    def test_sslscan_finds_nothing_serious(self):
        if not shutil.which("sslscan"):
            self.skipTest("sslscan is not installed")
        for words in (["--starttls-smtp", f"127.0.0.1:{self.apus.port}"], [f"127.0.0.1:{self.implicit}"]):
            said = subprocess.run(["sslscan", "--no-colour", *words], capture_output=True, text=True, timeout=120).stdout
            for version in ("SSLv2", "SSLv3", "TLSv1.0", "TLSv1.1"):
                self.assertRegex(said, rf"{version} +disabled")
            for version in ("TLSv1.2", "TLSv1.3"):
                self.assertRegex(said, rf"{version} +enabled")
            self.assertIn("Session renegotiation not supported", said)
            self.assertNotIn("Compression enabled", said)
            self.assertNotRegex(said, "(?<!not )vulnerable to heartbleed")
            accepted = re.findall(r"^(?:Preferred|Accepted) +TLSv\S+ +\d+ bits +(\S+)", said, re.M)
            self.assertGreater(len(accepted), 5, said)
            for cipher in accepted:
                self.assertRegex(cipher, "^(TLS_|ECDHE-).*(GCM|CHACHA20)")

    def test_idle_connections_hold_at_most_64_kib_each(self):
        count = 200

        def resident():
            total = 0
            for pid in self.apus.pids("apus-smtpd"):
                with open(f"/proc/{pid}/smaps_rollup") as f:
                    total += int(re.search(r"Pss: +(\d+)", f.read()).group(1))
            return total

        context = self.context()
        context.check_hostname = False

        def connect():
            raw = Raw(self.apus.port, greeting=True)
            raw.command("EHLO c.example")
            raw.command("STARTTLS")
            tls = context.wrap_socket(raw.socket)
            tls.sendall(b"EHLO c.example\r\n")
            tls.recv(1000)
            return tls

        warm = [connect() for _ in range(20)]
        before = resident()
        open_ones = []
        try:
            open_ones = [connect() for _ in range(count)]
            time.sleep(0.5)
            each = (resident() - before) / count
        finally:
            for s in open_ones + warm:
                s.close()
        figure("KiB for each idle TLS connection", round(each, 1))
        self.assertLess(each, 64)


class Certificates(unittest.TestCase):
    """Certificates that change, and those that will not do."""

    @classmethod
    def setUpClass(cls):
        cls.authority = authority(cls)
        for name in ("first", "second", "third"):
            cls.authority.issue(name, "mx.apus.test")
        cls.authority.issue("old", "mx.apus.test", days=-1)
        cls.authority.issue("weak", "mx.apus.test", key="rsa:1024")

    def setUp(self):
        # The way that certbot keeps them: links to the newest.
        self.folder = tempfile.mkdtemp(prefix="apus-live-")
        os.chmod(self.folder, 0o755)
        self.addCleanup(shutil.rmtree, self.folder, True)
        self.install("first")

    def path(self, name):
        return os.path.join(self.folder, name)

    def link(self, target, name):
        os.symlink(self.authority.path(target), self.path(name + ".new"))
        os.rename(self.path(name + ".new"), self.path(name))

    def install(self, name):
        self.link(name + ".pem", "fullchain.pem")
        self.link(name + ".key", "privkey.pem")

    def settings(self):
        return f'[tls]\ncertificate = "{self.path("fullchain.pem")}"\nprivate-key = "{self.path("privkey.pem")}"\n'

    def apus(self, **words):
        apus = Apus(extra=self.settings() + words.pop("extra", ""), **words)
        self.addCleanup(apus.close)
        return apus

    def shown(self, apus):
        with Raw(apus.port) as s:
            s.command("EHLO c.example")
            s.command("STARTTLS")
            context = ssl.create_default_context(cafile=self.authority.path("ca.pem"))
            context.check_hostname = False
            with context.wrap_socket(s.socket, server_hostname="mx.apus.test") as tls:
                return dict(pair for row in tls.getpeercert()["subject"] for pair in row)["commonName"]

    def test_new_files_are_taken_by_themselves_and_half_a_change_is_waited_for(self):
        apus = self.apus().start()
        self.assertEqual(self.shown(apus), "first")
        self.link("second.pem", "fullchain.pem")
        self.assertTrue(wait_for(lambda: apus.logged("certificates-refused", "does not belong to"), 15), apus.log()[-2000:])
        self.assertEqual(self.shown(apus), "first")
        self.link("second.key", "privkey.pem")
        self.assertTrue(wait_for(lambda: self.shown(apus) == "second", 15), apus.log()[-2000:])
        self.assertEqual(len(apus.logged("certificates-refused")), 1)
        self.assertTrue(apus.logged("certificates-replaced"))

    def test_sighup_takes_them_at_once_and_refuses_what_will_not_do(self):
        apus = self.apus().start()
        self.install("third")
        os.kill(apus.process.pid, signal.SIGHUP)
        self.assertTrue(wait_for(lambda: apus.logged("apusd reloaded"), 10))
        self.assertTrue(wait_for(lambda: self.shown(apus) == "third", 3))
        self.link("first.key", "privkey.pem")
        os.kill(apus.process.pid, signal.SIGHUP)
        self.assertTrue(wait_for(lambda: apus.logged("reload-refused"), 10))
        self.assertTrue(apus.logged("settings-mistake", "the private key does not belong to the certificate"), apus.log()[-2000:])
        self.assertEqual(self.shown(apus), "third")

    def test_a_reload_under_load_fails_no_session(self):
        apus = self.apus().start()
        faults, sent, stop = [], [], threading.Event()

        def load():
            context = ssl.create_default_context(cafile=self.authority.path("ca.pem"))
            while not stop.is_set():
                try:
                    with smtplib.SMTP("127.0.0.1", apus.port, timeout=20) as smtp:
                        smtp._host = "mx.apus.test"
                        smtp.starttls(context=context)
                        send(smtp)
                    sent.append(1)
                except Exception as error:
                    faults.append(repr(error))

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for turn in range(12):
                self.install(("second", "third", "first")[turn % 3])
                os.kill(apus.process.pid, signal.SIGHUP)
                time.sleep(0.3)
        finally:
            stop.set()
            for thread in threads:
                thread.join(30)
        self.assertEqual(faults, [])
        self.assertGreater(len(sent), 20)
        self.assertEqual(len(apus.logged("apusd reloaded")), 12, apus.log()[-2000:])
        apus.wait_delivered(len(sent))

    def test_the_check_tells_what_is_wrong_and_an_expired_certificate_serves_all_the_same(self):
        for name, key, expected in (
                ("old", "old", "the certificate has expired"), ("first", "second", "the private key does not belong to"),
                ("weak", "weak", "too weak"), ("gone", "first", "cannot be read"), ("first", "gone", "cannot be read")):
            self.link(name + ".pem", "fullchain.pem")
            self.link(key + ".key", "privkey.pem")
            status, out, _ = self.apus().tool("check", check=False)
            self.assertEqual(status, 1, out)
            self.assertIn(expected, out)
            self.assertRegex(out, r"apus\.toml:\d+: ")
        self.install("old")
        apus = self.apus().start()
        self.assertTrue(apus.logged("settings-advice", "has expired"))
        with Raw(apus.port) as s:
            self.assertIn("STARTTLS", s.command("EHLO c.example"))


class Moody(Scripted):
    """A server with STARTTLS that has to come first, and that answers one STARTTLS after the other as it is told: "454",
    "close" (in the handshake), "close-resumed" (if the client comes with an earlier session) or "tls"; the last for ever."""

    def __init__(self, context, *moods):
        self.context, self.moods, self.seen = context, list(moods), []
        super().__init__(self.converse)

    @staticmethod
    def is_resumed(hello):
        """Whether a ClientHello has the extension pre_shared_key (RFC 8446 §4.2.11)."""
        at = 5 + 4 + 2 + 32
        at += 1 + hello[at]
        at += 2 + int.from_bytes(hello[at:at + 2], "big")
        at += 1 + hello[at] + 2
        while at + 4 <= len(hello):
            if hello[at:at + 2] == b"\x00\x29":
                return True
            at += 4 + int.from_bytes(hello[at + 2:at + 4], "big")
        return False

    def converse(self, client):
        client.sendall(b"220 moody\r\n")
        lines, secure = client.makefile("rb"), False
        for line in lines:
            verb = line[:4].upper()
            if verb == b"STAR":
                mood = self.moods.pop(0) if len(self.moods) > 1 else self.moods[0]
                if mood == "454":
                    self.seen.append(mood)
                    client.sendall(b"454 4.7.0 not now\r\n")
                    continue
                client.sendall(b"220 go\r\n")
                while len(hello := client.recv(16384, socket.MSG_PEEK)) < 200:
                    time.sleep(0.01)
                resumed = self.is_resumed(hello)
                if mood == "close" or mood == "close-resumed" and resumed:
                    self.seen.append(mood)
                    return client.close()
                client = self.context.wrap_socket(client, server_side=True)
                lines, secure = client.makefile("rb"), True
                return self.rest(client, lines)
            self.answer(client, lines, verb, secure)

    def rest(self, client, lines):
        for line in lines:
            self.answer(client, lines, line[:4].upper(), True)

    def answer(self, client, lines, verb, secure):
        if verb == b"EHLO":
            client.sendall(b"250 moody\r\n" if secure else b"250-moody\r\n250 STARTTLS\r\n")
        elif verb == b"MAIL" and not secure:
            self.seen.append("530")
            client.sendall(b"530 5.7.0 Must issue a STARTTLS command first\r\n")
        elif verb == b"DATA":
            client.sendall(b"354 go\r\n")
            while lines.readline() != b".\r\n":
                pass
            self.seen.append("message")
            client.sendall(b"250 ok\r\n")
        elif verb == b"QUIT":
            client.sendall(b"221 bye\r\n")
            client.close()
        else:
            client.sendall(b"250 ok\r\n")


class KeyFlood(Scripted):
    """A server that asks for new keys without end and reads none of the answers; `ended` is the number of its questions."""

    def __init__(self, certificate, key):
        self.ssl = ctypes.CDLL(ctypes.util.find_library("ssl"))
        for name in ("TLS_server_method", "SSL_CTX_new", "SSL_new"):
            getattr(self.ssl, name).restype = ctypes.c_void_p
        self.context = ctypes.c_void_p(self.ssl.SSL_CTX_new(ctypes.c_void_p(self.ssl.TLS_server_method())))
        self.ssl.SSL_CTX_use_certificate_file(self.context, certificate.encode(), 1)
        self.ssl.SSL_CTX_use_PrivateKey_file(self.context, key.encode(), 1)
        self.ended = None
        super().__init__(self.flood)

    def flood(self, client):
        client.sendall(b"220 flood\r\n")
        client.recv(1000)
        client.sendall(b"250-flood\r\n250 STARTTLS\r\n")
        client.recv(1000)
        client.sendall(b"220 go\r\n")
        connection = ctypes.c_void_p(self.ssl.SSL_new(self.context))
        self.ssl.SSL_set_fd(connection, client.fileno())
        self.ssl.SSL_accept(connection)
        count = 0
        while self.ssl.SSL_key_update(connection, 1) == 1 and self.ssl.SSL_do_handshake(connection) == 1 and count < 3_000_000:
            count += 1
        self.ended = count


class Sending(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.authority = authority(cls)
        cls.authority.issue("good", "sink.test", "127.0.0.1")
        cls.authority.issue("wrong", "elsewhere.test")
        cls.authority.issue("old", "sink.test", "127.0.0.1", days=-1)
        cls.stranger = Authority(os.path.join(cls.authority.folder, "stranger"))
        cls.stranger.issue("good", "sink.test", "127.0.0.1")

    def sink(self, name="good", authority=None, implicit=False, version=None, **words):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority = authority or self.authority
        context.load_cert_chain(authority.path(name + ".pem"), authority.path(name + ".key"))
        if version:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                context.set_ciphers("ALL:@SECLEVEL=0")
                context.minimum_version = context.maximum_version = version
        sink = Sink(tls=context, implicit=implicit, **words)
        self.addCleanup(sink.close)
        return sink

    def apus(self, sink, demand, **words):
        extra = f'tls = "{demand}"\nca-file = "{self.authority.path("ca.pem")}"\nidle-connection-timeout = 0\n'
        apus = Apus(smarthost=f"127.0.0.1:{sink.port}", remote=extra, **words)
        self.addCleanup(apus.close)
        return apus.start()

    def submit(self, apus, count=1):
        for _ in range(count):
            with smtplib.SMTP("127.0.0.1", apus.port, timeout=20) as smtp:
                send(smtp, recipient="x@elsewhere.example")

    def test_every_demand_is_met_by_a_good_server_and_sessions_are_resumed(self):
        for demand in ("may", "require", "verify", "implicit"):
            sink = self.sink(implicit=demand == "implicit")
            apus = self.apus(sink, demand)
            for number in range(1, 4):
                self.submit(apus)
                self.assertTrue(wait_for(lambda: len(sink.messages) == number, 20), demand + apus.log()[-2000:])
            apus.wait_empty()
            self.assertEqual([row[1] for row in sink.secured], [False, True, True], demand)
            trust = "trust=verified" if demand in ("verify", "implicit") else "trust=none"
            self.assertEqual(len(apus.logged("apus-remote connected", "tls=TLSv1.3", "cipher=TLS_", trust)), 3, apus.log()[-2000:])
            # EHLO again behind the handshake.
            if demand != "implicit":
                self.assertEqual([c for c in sink.commands[:3]], ["EHLO mx.apus.test", "STARTTLS", "EHLO mx.apus.test"])
            apus.stop()

    def test_a_handshake_that_fails_falls_back_to_plain_text_where_that_is_allowed_and_is_put_off_where_not(self):
        for demand in ("may", "require"):
            sink = self.sink(version=ssl.TLSVersion.TLSv1_1)
            apus = self.apus(sink, demand)
            self.submit(apus)
            if demand == "may":
                self.assertTrue(wait_for(lambda: sink.messages, 20), apus.log()[-2000:])
                self.assertEqual(len(apus.logged("apus-remote tls-failed", "plain text")), 1)
                self.assertTrue(apus.logged("apus-remote connected", "tls=none"))
                self.assertEqual(sink.connections, 2)
            else:
                self.assertTrue(wait_for(lambda: apus.logged("status=deferred", "4.7.5"), 20), apus.log()[-2000:])
                self.assertEqual(sink.messages, [])
            apus.stop()

    def moody(self, *moods):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.authority.path("good.pem"), self.authority.path("good.key"))
        server = Moody(context, *moods)
        self.addCleanup(server.close)
        return server

    def test_a_server_that_wants_tls_after_all_puts_off_and_returns_nothing(self):
        for mood in ("454", "close"):
            server = self.moody(mood, "tls")
            apus = self.apus(server, "may")
            self.submit(apus)
            self.assertTrue(wait_for(lambda: apus.logged("status=deferred", "dsn=4.7.0"), 20), mood + apus.log()[-2000:])
            apus.tool("queue", "flush", "--all")
            self.assertTrue(wait_for(lambda: "message" in server.seen, 20), mood + apus.log()[-2000:])
            self.assertEqual(server.seen, [mood, "530", "message"])
            apus.wait_empty()
            self.assertFalse(apus.logged("status=bounced"), apus.log()[-2000:])
            apus.stop()

    def test_a_session_that_a_server_cannot_bear_is_forgotten_and_the_same_host_tried_without(self):
        for demand in ("may", "require", "verify"):
            server = self.moody("close-resumed")
            apus = self.apus(server, demand)
            for number in range(1, 4):
                self.submit(apus)
                self.assertTrue(wait_for(lambda: server.seen.count("message") == number, 20), demand + apus.log()[-2000:])
            apus.wait_empty()
            self.assertEqual(server.seen, ["message"] + 2 * ["close-resumed", "message"], demand)
            self.assertEqual(len(apus.logged("apus-remote tls-failed", "full handshake")), 2)
            apus.stop()

    def test_a_server_that_asks_for_new_keys_without_end_is_left(self):
        server = KeyFlood(self.authority.path("good.pem"), self.authority.path("good.key"))
        self.addCleanup(server.close)
        apus = self.apus(server, "require")
        self.submit(apus)
        self.assertTrue(wait_for(lambda: server.ended is not None, 120), apus.log()[-2000:])
        self.assertLess(server.ended, 3_000_000)
        self.assertTrue(wait_for(lambda: apus.logged("status=deferred"), 20), apus.log()[-2000:])

    def test_a_server_without_starttls_gets_plain_text_or_nothing(self):
        for demand, status in (("may", None), ("off", None), ("require", "4.7.4"), ("verify", "4.7.4")):
            sink = Sink()
            self.addCleanup(sink.close)
            apus = self.apus(sink, demand)
            self.submit(apus)
            if status:
                self.assertTrue(wait_for(lambda: apus.logged("status=deferred", status, "does not offer"), 20), apus.log()[-2000:])
                self.assertEqual(sink.messages, [])
            else:
                self.assertTrue(wait_for(lambda: sink.messages, 20), apus.log()[-2000:])
            apus.stop()

    def test_tls_off_does_not_use_what_is_offered(self):
        sink = self.sink()
        apus = self.apus(sink, "off")
        self.submit(apus)
        self.assertTrue(wait_for(lambda: sink.messages, 20))
        self.assertEqual(sink.secured, [])

    def test_verify_refuses_a_wrong_name_an_old_certificate_and_a_strange_authority_and_may_takes_them(self):
        for name, authority, reason in (
                ("wrong", None, "IP address mismatch"), ("old", None, "certificate has expired"), ("good", self.stranger, "self-signed")):
            sink = self.sink(name, authority)
            apus = self.apus(sink, "verify")
            self.submit(apus)
            self.assertTrue(wait_for(lambda: apus.logged("status=deferred", "4.7.5", reason), 20), name + apus.log()[-2000:])
            self.assertEqual(sink.messages, [])
            apus.write_settings(remote='tls = "may"\n')
            os.kill(apus.process.pid, signal.SIGHUP)
            self.assertTrue(wait_for(lambda: apus.logged("apusd reloaded"), 10))
            apus.tool("queue", "flush", "--all")
            self.assertTrue(wait_for(lambda: sink.messages, 20), apus.log()[-2000:])
            apus.stop()

    def test_a_destination_has_its_own_demand(self):
        sink = self.sink()
        apus = self.apus(sink, "off", extra='[[destination]]\nmatch = "127.0.0.1"\ntls = "require"\n')
        self.submit(apus)
        self.assertTrue(wait_for(lambda: sink.messages, 20), apus.log()[-2000:])
        self.assertEqual(len(sink.secured), 1)

    def test_replies_in_clear_text_behind_the_answer_to_starttls_are_not_believed(self):
        sink = self.sink(rules={"STARTTLS": lambda line: "220 go\r\n250-sink.test\r\n250 PIPELINING"})
        apus = self.apus(sink, "require")
        self.submit(apus)
        self.assertTrue(wait_for(lambda: apus.logged("status=deferred", "4.7.5"), 20), apus.log()[-2000:])
        self.assertEqual(sink.messages, [])

    def test_a_file_of_authorities_that_will_not_do_puts_mail_off_with_its_reason(self):
        sink = self.sink()
        apus = Apus(smarthost=f"127.0.0.1:{sink.port}", remote=f'tls = "verify"\nca-file = "{self.authority.path("mx-none.pem")}"\n')
        self.addCleanup(apus.close)
        status, out, _ = apus.tool("check", check=False)
        self.assertEqual(status, 1)
        self.assertIn("mx-none.pem", out)

    def test_two_of_ours_speak_tls_with_each_other(self):
        certificate, key = self.authority.path("good.pem"), self.authority.path("good.key")
        there = Apus(extra=f'[tls]\ncertificate = "{certificate}"\nprivate-key = "{key}"\n')
        self.addCleanup(there.close)
        there.start()
        here = Apus(smarthost=f"127.0.0.1:{there.port}", remote=f'tls = "verify"\nca-file = "{self.authority.path("ca.pem")}"\n',
                    domains="").start()
        self.addCleanup(here.close)
        here.write_settings(domains="")
        with smtplib.SMTP("127.0.0.1", here.port, timeout=20) as smtp:
            big = MESSAGE + "0123456789" * 7 + "\r\n"
            smtp.sendmail("a@example.net", ["alice@elsewhere.example"], big + ("x" * 70 + "\r\n") * 20000)
        self.assertTrue(wait_for(lambda: here.logged("status=failed") or here.logged("status=delivered"), 30))
        # There it is a stranger's domain, but the client may relay; what counts is that all of it came.
        self.assertTrue(there.logged("apus-smtpd queued", "tls=TLSv1.3"), there.log()[-2000:])
        size = int(re.search(r"size=(\d+)", there.logged("apus-smtpd queued", "tls=TLSv1.3")[0]).group(1))
        self.assertGreater(size, 1_400_000)


@unittest.skipIf(os.geteuid() != 0, "needs root")
class AsRoot(unittest.TestCase):
    def test_a_key_that_root_alone_can_read_serves_in_a_program_that_can_read_nothing(self):
        made = authority(type(self))
        certificate, key = made.issue("mx", "mx.apus.test")
        os.chmod(key, 0o600)
        os.chmod(certificate, 0o600)
        apus = Apus(root=True, extra=f'[tls]\ncertificate = "{certificate}"\nprivate-key = "{key}"\n')
        self.addCleanup(apus.close)
        apus.start()
        pid = apus.pids("apus-smtpd")[0]
        self.assertNotEqual(os.stat(f"/proc/{pid}").st_uid, 0)
        self.assertEqual(os.listdir(f"/proc/{pid}/root"), [])
        for _ in range(2):
            with smtplib.SMTP("127.0.0.1", apus.port, timeout=20) as smtp:
                smtp._host = "mx.apus.test"
                smtp.starttls(context=ssl.create_default_context(cafile=made.path("ca.pem")))
                self.assertEqual(smtp.noop()[0], 250)
            # A successor has them too.
            os.kill(apus.pids("apus-smtpd")[0], signal.SIGKILL)
            self.assertTrue(wait_for(lambda: apus.pids("apus-smtpd") not in ([], [pid]) and apus.answers(), 20))


class ByHand(unittest.TestCase):
    def test_a_server_that_is_run_by_hand_reads_its_certificate_itself_and_turns_nobody_away_in_plain_text(self):
        made = authority(type(self))
        certificate, key = made.issue("mx", "mx.apus.test")
        both = made.path("both.pem")
        with open(both, "wb") as f:
            f.write(slurp(certificate) + slurp(key))
        os.chmod(both, 0o644)
        port = free_port()
        words = [os.path.join(binaries(), "apus-smtpd"), "--setting", "hostname=mx.apus.test", "--setting",
                 f"listen=127.0.0.1:{port} mx implicit", "--setting", f"certificate={both}", "--setting", "sessions-max=1"]
        if os.geteuid() == 0:
            words += ["--user", "nobody"]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            context = ssl.create_default_context(cafile=made.path("ca.pem"))

            def greeting():
                try:
                    with socket.create_connection(("127.0.0.1", port), 5) as s:
                        with context.wrap_socket(s, server_hostname="mx.apus.test") as tls:
                            return tls.recv(100)
                except ConnectionRefusedError:
                    return b""
            self.assertTrue(wait_for(greeting, 10).startswith(b"220 mx.apus.test"))
            with socket.create_connection(("127.0.0.1", port), 5) as first:
                with context.wrap_socket(first, server_hostname="mx.apus.test") as tls:
                    self.assertTrue(tls.recv(100).startswith(b"220 "))
                    with socket.create_connection(("127.0.0.1", port), 5) as second:
                        try:
                            self.assertEqual(second.recv(100), b"")
                        except ConnectionResetError:
                            pass
        finally:
            process.kill()
            process.communicate()


@unittest.skipIf(postfix.missing(), postfix.missing())
class WithPostfix(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.authority = authority(cls)
        cls.authority.issue("apus", "mx.apus.test", "127.0.0.1")
        cls.authority.issue("postfix", "postfix.test", "127.0.0.1")

    def test_mail_goes_both_ways_under_tls_with_certificates_verified(self):
        path = self.authority.path
        port = free_port()
        peer = postfix.Postfix(
            smtpd_tls_security_level="encrypt", smtpd_tls_chain_files=f"{path('postfix.key')}, {path('postfix.pem')}",
            smtp_tls_security_level="secure", smtp_tls_secure_cert_match="mx.apus.test", smtp_tls_CAfile=path("ca.pem"),
            smtpd_tls_received_header="yes", smtp_tls_loglevel="1", smtpd_tls_loglevel="1",
            relayhost=f"[127.0.0.1]:{port}")
        self.addCleanup(peer.close)
        apus = Apus(
            port=port, smarthost=f"127.0.0.1:{peer.port}", remote=f'tls = "verify"\nca-file = "{path("ca.pem")}"\n',
            extra=f'[tls]\ncertificate = "{path("apus.pem")}"\nprivate-key = "{path("apus.key")}"\n')
        self.addCleanup(apus.close)
        apus.start()
        peer.sendmail(MESSAGE.replace("\r\n", "\n").encode(), "alice@apus.test")
        content = slurp(apus.wait_delivered(1)[0])
        self.assertIn(b"with ESMTPS (TLSv1.3)", content)
        self.assertIn("Verified TLS connection established", peer.log())
        with smtplib.SMTP("127.0.0.1", port, timeout=20) as smtp:
            send(smtp, recipient="x@elsewhere.example")
        self.assertTrue(wait_for(lambda: peer.received("x"), 20), apus.log()[-2000:] + peer.log()[-2000:])
        self.assertIn(b"using TLSv1.3", slurp(peer.received("x")[0]))
        self.assertTrue(apus.logged("apus-remote connected", "trust=verified"))


if __name__ == "__main__":
    unittest.main()
