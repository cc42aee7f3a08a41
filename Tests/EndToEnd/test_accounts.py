# SPDX-License-Identifier: Apache-2.0
"""Apus as the client of a smarthost that wants to know who it is."""
import base64
import os
import re
import shutil
import smtplib
import ssl
import subprocess
import tempfile
import unittest

import dovecot
import postfix
from apus import Apus, binaries
from certificates import Authority
from peers import Sink, free_port, slurp, wait_for
from test_auth import MESSAGE


class Accounts(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.mkdtemp(prefix="apus-accounts-")
        cls.addClassCleanup(shutil.rmtree, folder, True)
        cls.authority = Authority(folder)
        cls.certificate, cls.key = cls.authority.issue("mx", "smarthost.test", "127.0.0.1")

    def here(self, port, tls="verify", password="{} shop@apus.test horse battery\n", address="127.0.0.1"):
        """An Apus that hands everything to that port, as shop@apus.test."""
        apus = Apus(smarthost=f"{address}:{port}", remote=f'ca-file = "{self.authority.path("ca.pem")}"\n')
        self.addCleanup(apus.close)
        path = os.path.join(apus.root, "accounts")
        with open(path, "w") as file:
            file.write(password.format(address))
        os.chmod(path, 0o600)
        apus.sections["remote"] += f'passwords = "{path}"\n'
        apus.sections["queue"] = "retry-min = 1\n"
        apus.write_settings(extra=f'[[destination]]\nmatch = "{address}"\ntls = "{tls}"\nuser = "shop@apus.test"\n')
        apus.own()
        return apus.start()

    def submit(self, apus):
        with smtplib.SMTP("127.0.0.1", apus.port, timeout=20) as smtp:
            smtp.sendmail("shop@apus.test", ["bob@elsewhere.test"], MESSAGE)

    def smarthost(self, mechanism, implicit=False):
        """Another Apus, which takes mail of its users alone, and by one mechanism."""
        port = free_port()
        there = Apus()
        self.addCleanup(there.close)
        passwords = os.path.join(there.root, "passwords")
        there.write_settings(queue="paused = true\n", extra=f"""
[[listen]]
address = "127.0.0.1:{port}"
role = "submission"
{'tls = "implicit"' if implicit else ''}
[tls]
certificate = "{self.certificate}"
private-key = "{self.key}"
[auth]
passwords = "{passwords}"
mechanisms = ["{mechanism}"]
failure-delay = 0
""")
        open(passwords, "w").close()
        os.chmod(passwords, 0o600)
        there.own()
        with open(there.config) as file:
            text = file.read().replace('relay-from = ["127.0.0.1/32"]', "")
        with open(there.config, "w") as file:
            file.write(text)
        subprocess.run([os.path.join(binaries(), "apus"), "passwd", "shop@apus.test", "--stdin", "--file", passwords,
                        "--scheme", "scram-sha-256"],
                       input="horse battery\n", text=True, check=True, timeout=30, cwd="/", **there.identity())
        there.own()
        there.start()
        return there, port

    def test_each_mechanism_is_spoken_with_another_apus_by_starttls_and_by_implicit_tls(self):
        for mechanism, tls in (("SCRAM-SHA-256", "verify"), ("PLAIN", "implicit"), ("LOGIN", "verify")):
            there, port = self.smarthost(mechanism, tls == "implicit")
            here = self.here(port, tls)
            self.submit(here)
            self.assertTrue(wait_for(lambda: there.logged("apus-smtpd queued"), 20), here.log()[-3000:] + there.log()[-3000:])
            self.assertTrue(there.logged("authenticated", f"mechanism={mechanism}", "user=shop@apus.test"), there.log()[-3000:])
            self.assertTrue(here.logged("apus-remote connected", "user=shop@apus.test"))
            self.assertNotIn("horse battery", here.log() + there.log())
            here.close()
            there.close()

    def test_a_wrong_password_lets_the_mail_wait_and_a_right_one_in_the_file_lets_it_go(self):
        there, port = self.smarthost("SCRAM-SHA-256")
        here = self.here(port, password="127.0.0.1 shop@apus.test wrong\n")
        self.submit(here)
        self.assertTrue(wait_for(lambda: here.logged("status=deferred", "dsn=4.7.8", "(in reply to AUTH)"), 20), here.log()[-3000:])
        self.assertFalse(there.logged("apus-smtpd queued"))
        with open(os.path.join(here.root, "accounts"), "w") as file:
            file.write("127.0.0.1 shop@apus.test horse battery\n")
        self.assertTrue(wait_for(lambda: there.logged("apus-smtpd queued"), 30), here.log()[-3000:])

    def sink(self, login, **words):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        sink = Sink(rules={"AUTH": login}, extensions=("PIPELINING", "AUTH PLAIN"), tls=context, **words)
        self.addCleanup(sink.close)
        return sink

    def test_on_this_machine_a_password_may_go_without_tls(self):
        sink = self.sink(lambda line: "235 2.7.0 in")
        plain = "AUTH PLAIN " + base64.b64encode(b"\0shop@apus.test\0horse battery").decode()
        here = self.here(sink.port, tls="off")
        self.submit(here)
        self.assertTrue(wait_for(lambda: sink.messages, 20), here.log()[-3000:])
        self.assertIn(plain, sink.commands)

    @unittest.skipIf(os.geteuid() != 0 or not shutil.which("ip"), "needs root, to have an address that is not 127.0.0.1")
    def test_a_password_is_shown_neither_in_plain_text_nor_to_a_server_that_is_not_verified(self):
        address = "192.0.2.77"
        subprocess.run(["ip", "address", "add", address + "/32", "dev", "lo"], check=True)
        self.addCleanup(subprocess.run, ["ip", "address", "del", address + "/32", "dev", "lo"], check=True)
        certificate, key = self.authority.issue("public", "smarthost.test", address)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        for tls, is_shown in (("off", False), ("may", False), ("require", False), ("verify", True)):
            sink = Sink(rules={"AUTH": lambda line: "235 2.7.0 in"}, extensions=("AUTH PLAIN",), tls=context, address=address)
            self.addCleanup(sink.close)
            here = self.here(sink.port, tls=tls, address=address)
            self.submit(here)
            if is_shown:
                self.assertTrue(wait_for(lambda: sink.messages, 20), here.log()[-3000:])
            else:
                self.assertTrue(wait_for(lambda: here.logged("status=deferred", "verified certificate only"), 20), here.log()[-3000:])
            self.assertEqual(any(c.startswith("AUTH") for c in sink.commands), is_shown, tls)
            here.close()

    def test_an_account_without_a_password_says_where_one_is_missing(self):
        sink = self.sink(lambda line: "235 2.7.0 in")
        here = self.here(sink.port, password="# nobody\n")
        self.submit(here)
        self.assertTrue(wait_for(lambda: here.logged("status=deferred", "has no password for shop@apus.test at 127.0.0.1"), 20),
                        here.log()[-3000:])
        self.assertFalse([c for c in sink.commands if c.startswith("AUTH")])
        self.assertEqual(sink.messages, [])

    def test_a_file_that_everybody_can_read_is_a_mistake_and_is_not_used(self):
        sink = self.sink(lambda line: "235 2.7.0 in")
        here = self.here(sink.port)
        os.chmod(os.path.join(here.root, "accounts"), 0o644)
        status, out, _ = here.tool("check", check=False)
        self.assertEqual(status, 1)
        self.assertIn("accounts can be read or changed by every user", out)
        self.submit(here)
        self.assertTrue(wait_for(lambda: here.logged("status=deferred", "accounts cannot be used"), 20), here.log()[-3000:])
        self.assertTrue(here.logged("apus-vault accounts-unusable", "others than its owner"))
        self.assertEqual(sink.messages, [])

    def test_a_server_that_does_not_offer_auth_gets_nothing(self):
        sink = Sink()
        self.addCleanup(sink.close)
        here = self.here(sink.port, tls="off")
        self.submit(here)
        self.assertTrue(wait_for(lambda: here.logged("status=deferred", "the server does not offer it"), 20), here.log()[-3000:])
        self.assertEqual(sink.messages, [])

    def test_only_the_vault_has_the_file_open_and_other_hosts_are_not_told(self):
        sink = self.sink(lambda line: "235 2.7.0 in")
        here = self.here(sink.port)
        self.submit(here)
        self.assertTrue(wait_for(lambda: sink.messages, 20), here.log()[-3000:])
        self.assertTrue(here.logged("apus-vault accounts-read", "accounts=1"))
        self.assertEqual(re.findall(r"(\S+) accounts-read", here.log()), ["apus-vault"])

    def demanding(self, mechanism, **settings):
        """A Postfix that takes mail of its users alone, under TLS alone, and by one mechanism."""
        server = postfix.Postfix(
            mynetworks="192.0.2.0/24", smtpd_relay_restrictions="permit_sasl_authenticated, reject",
            smtpd_tls_cert_file=self.certificate, smtpd_tls_key_file=self.key, smtpd_tls_security_level="may",
            smtpd_tls_auth_only="yes", smtpd_sasl_auth_enable="yes", smtpd_sasl_authenticated_header="yes",
            smtpd_sasl_mechanism_filter=mechanism.lower(), **settings)
        self.addCleanup(server.close)
        return server

    def send(self, apus, subject):
        with smtplib.SMTP("127.0.0.1", apus.port, timeout=20) as smtp:
            smtp.sendmail("shop@apus.test", ["x@elsewhere.example"], f"Subject: {subject}\r\n\r\nx\r\n")

    def taken(self, server, here, mechanism):
        """A message goes through; while the password is wrong it waits."""
        with open(os.path.join(here.root, "accounts"), "w") as file:
            file.write("127.0.0.1 shop@apus.test wrong\n")
        self.send(here, "first")
        self.assertTrue(wait_for(lambda: here.logged("status=deferred", "dsn=4.7.8", "code=535", "(in reply to AUTH)"), 30),
                        here.log()[-3000:] + server.log()[-3000:])
        self.assertEqual(server.received(), [])
        with open(os.path.join(here.root, "accounts"), "w") as file:
            file.write("127.0.0.1 shop@apus.test horse battery\n")
        self.assertTrue(wait_for(server.received, 40), here.log()[-3000:] + server.log()[-3000:])
        self.assertIn(b"(Authenticated sender: shop@apus.test)", slurp(server.received()[0]))
        self.assertIn(f"sasl_method={mechanism}, sasl_username=shop@apus.test", server.log())
        here.wait_empty()
        self.assertTrue(here.logged("apus-remote connected", "user=shop@apus.test"))
        self.assertNotIn("horse battery", here.log())

    @unittest.skipIf(postfix.missing() or dovecot.missing(), postfix.missing() or dovecot.missing())
    def test_a_postfix_that_asks_dovecot_takes_us_by_each_mechanism(self):
        folder = tempfile.mkdtemp(prefix="apus-dovecot-")
        self.addCleanup(shutil.rmtree, folder, True)
        server = dovecot.Dovecot(folder, {"shop@apus.test": "horse battery"}, "postfix")
        self.addCleanup(server.stop)
        server.start()
        for mechanism in ("SCRAM-SHA-256", "PLAIN", "LOGIN"):
            there = self.demanding(mechanism, smtpd_sasl_type="dovecot", smtpd_sasl_path=server.socket)
            here = self.here(there.port)
            self.taken(there, here, mechanism)
            here.close()

    @unittest.skipIf(postfix.missing() or not shutil.which("saslpasswd2"), postfix.missing() or "sasl2-bin is not installed")
    def test_a_postfix_that_asks_cyrus_sasl_takes_us_by_each_mechanism(self):
        folder = tempfile.mkdtemp(prefix="apus-sasl-")
        self.addCleanup(shutil.rmtree, folder, True)
        os.chmod(folder, 0o755)
        database = os.path.join(folder, "sasldb2")
        subprocess.run(["saslpasswd2", "-p", "-c", "-f", database, "-u", "apus.test", "shop"], input=b"horse battery", check=True,
                       capture_output=True, timeout=30)
        shutil.chown(database, "postfix")
        text = f"pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: {database}\nmech_list: SCRAM-SHA-256 PLAIN LOGIN\n"
        for mechanism in ("SCRAM-SHA-256", "PLAIN", "LOGIN"):
            # Debian's Postfix looks for it there.
            there = self.demanding(mechanism, smtpd_sasl_type="cyrus", files={"sasl/smtpd.conf": text})
            here = self.here(there.port)
            self.taken(there, here, mechanism)
            here.close()


if __name__ == "__main__":
    unittest.main()
