# SPDX-License-Identifier: Apache-2.0
"""Internationalised mail (RFC 6531, 6532, 6533): from EHLO to the mailbox, to the next server, and to the report."""
import email
import json
import os
import smtplib
import subprocess
import unittest

import postfix
from apus import Apus, binaries
from peers import Raw, Sink, slurp, wait_for
from test_auth import Users as AuthenticatedUsers, plain
from test_virtual import Virtual

PLAIN = ("PIPELINING", "8BITMIME", "SIZE 104857600", "ENHANCEDSTATUSCODES", "DSN")
UNICODE = PLAIN + ("SMTPUTF8",)
DOMAIN = "xn--bcher-kva.example"
HEADER = "From: Jörg <jörg@bücher.example>\r\nSubject: Grüße\r\n\r\nx\r\n"
ASCII = "Subject: s\r\n\r\nx\r\n"


def send(port, sender, *recipients, text=ASCII, options=("SMTPUTF8",), parameters=()):
    """Sends a message, and answers what was said to each recipient."""
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        client.command_encoding = "utf-8"
        client.ehlo("client.example")
        code, reply = client.mail(sender, list(options))
        assert code == 250, reply
        replies = [client.rcpt(r, list(parameters)) for r in recipients]
        if any(code == 250 for code, _ in replies):
            code, reply = client.data(text.encode())
            assert code == 250, reply
        return [f"{code} {reply.decode()}" for code, reply in replies]


def commands(sink, word):
    """What the sink was told, as UTF-8."""
    return [c.encode("latin-1").decode() for c in sink.commands if c.startswith(word)]


class Case(unittest.TestCase):
    def apus(self, **sections):
        apus = Apus(**sections)
        self.addCleanup(apus.close)
        return apus

    def change_settings(self, apus, *changes):
        """Each change: what stands in the settings, and what is to stand there."""
        with open(apus.config) as f:
            text = f.read()
        for old, new in changes:
            text = text.replace(old, new)
        with open(apus.config, "w") as f:
            f.write(text)

    def write_aliases(self, apus, text):
        self.change_settings(apus, ("[local]\n", f'[local]\naliases = "{apus.aliases}"\n'))
        with open(apus.aliases, "w") as f:
            f.write(text)
        os.chmod(apus.aliases, 0o644)

    def sink(self, extensions=UNICODE, rules=None):
        sink = Sink(rules, extensions=extensions)
        self.addCleanup(sink.close)
        return sink


class Server(Case):
    def test_addresses_beyond_ascii_are_taken_with_the_parameter_alone_and_nothing_else_is(self):
        apus = self.apus().start()
        raw = Raw(apus.port)
        self.addCleanup(raw.close)

        def say(line, code):
            raw.send((line if isinstance(line, bytes) else line.encode()) + b"\r\n")
            reply = raw.reply()
            self.assertTrue(reply.startswith(code), (line, reply))

        raw.send(b"EHLO c\r\n")
        self.assertIn("SMTPUTF8", raw.reply())
        say("MAIL FROM:<jörg@a.example>", "553 5.6.7")
        say("MAIL FROM:<jörg@a.example> SMTPUTF8=1", "501 5.5.4")
        say("MAIL FROM:<jörg@a.example> SMTPUTF8 SMTPUTF8", "501 5.5.4")
        say(b"MAIL FROM:<j\xf6rg@a.example> SMTPUTF8", "500 5.5.2")
        say("MAIL FROM:<jörg@ü..example> SMTPUTF8", "501 5.1.7")
        say("EHLO ü", "500 5.5.2")
        say("MAIL FROM:<a@b.example> RET=ü SMTPUTF8", "501 5.5.4")
        say("MAIL FROM:<a@b.example>", "250")
        say("RCPT TO:<älice@apus.test>", "553 5.6.7")
        say("RCPT TO:<alice@apus.test> ORCPT=utf-8;jörg@a.example", "553 5.6.7")
        say("RSET", "250")
        say("MAIL FROM:<jörg@a.example> smtputf8", "250")
        say("RCPT TO:<alice@apus.test> ORCPT=utf-8;jörg@a.example", "250")
        say("RCPT TO:<älice@apus.test>", "550 5.1.1")
        say("VRFY älice@apus.test", "553 5.6.7")
        say("VRFY älice@apus.test SMTPUTF8", "550 5.1.1")
        say("VRFY alice@apus.test SMTPUTF8", "250")
        say("HELO c", "250")
        say("MAIL FROM:<a@b.example> SMTPUTF8", "555 5.5.4")
        say("MAIL FROM:<jörg@b.example> SMTPUTF8", "500 5.5.2")

    def test_where_it_is_not_offered_it_is_not_known(self):
        apus = self.apus(extra="[smtp]\nsmtputf8 = false\n").start()
        raw = Raw(apus.port)
        self.addCleanup(raw.close)
        raw.send(b"EHLO c\r\n")
        self.assertNotIn("SMTPUTF8", raw.reply())
        for line, code in (("MAIL FROM:<a@b.example> SMTPUTF8", "555 5.5.4"), ("MAIL FROM:<jörg@b.example>", "500 5.5.2")):
            raw.send(line.encode() + b"\r\n")
            self.assertTrue(raw.reply().startswith(code))

    def test_a_message_says_how_it_came_and_keeps_its_addresses(self):
        apus = self.apus().start()
        send(apus.port, "jörg@bücher.example", "alice+тег@apus.test", text=HEADER)
        octets = slurp(apus.wait_delivered(1)[0])
        self.assertIn(b" with UTF8SMTP id ", octets)
        self.assertIn(f"Return-Path: <jörg@{DOMAIN}>".encode(), octets)
        self.assertIn("Delivered-To: alice+тег@apus.test".encode(), octets)
        self.assertIn("for <alice+тег@apus.test>".encode(), octets)
        self.assertIn("Subject: Grüße".encode(), octets)
        # A header that is ASCII stays so.
        send(apus.port, "jörg@bücher.example", "bob+тег@apus.test")
        octets = slurp(apus.wait_delivered(1, "bob")[0])
        self.assertIn(b" with UTF8SMTP id ", octets)
        self.assertNotIn("for <bob+тег@apus.test>".encode(), octets)
        # And without the parameter nothing is different.
        send(apus.port, "x@a.example", "alice@apus.test", options=())
        self.assertIn(b" with ESMTP id ", slurp(apus.wait_delivered(2)[1]))


class Submission(AuthenticatedUsers):
    submission = 'from = "own"\n'
    users = {"jörg@bücher.example": ("secret", None)}

    @classmethod
    def prepare(cls):
        super().prepare()
        cls.sink.extensions += ("SMTPUTF8",)

    def hand_in(self, sender, header):
        with self.secured() as smtp:
            smtp.command_encoding = "utf-8"
            self.assertEqual(smtp.docmd("AUTH", "PLAIN " + plain("jörg@bücher.example", "secret"))[0], 235)
            code, reply = smtp.mail(sender, ["SMTPUTF8"])
            if code == 250:
                smtp.rcpt("x@elsewhere.test")
                code, reply = smtp.data((header + "\r\n\r\nx\r\n").encode())
            return f"{code} {reply.decode()}"[:9]

    def test_a_user_whose_name_is_an_address_writes_as_himself_alone(self):
        own = "jörg@bücher.example"
        self.assertEqual(self.hand_in(own, f"From: Jörg <{own}>"), "250 2.0.0")
        self.assertEqual(self.hand_in(f"jörg@{DOMAIN}", f"From: jörg+x@{DOMAIN}"), "250 2.0.0")
        self.assertEqual(self.hand_in(own, "From: jörg@elsewhere.example"), "550 5.7.1")
        self.assertEqual(self.hand_in("jorg@bücher.example", ""), "553 5.7.1")
        self.assertTrue(wait_for(lambda: len(self.sink.messages) == 2, 20), self.apus.log())
        for sender, _, octets in self.sink.messages:
            self.assertEqual(sender.encode("latin-1").decode(), f"jörg@{DOMAIN}")
            self.assertIn(b" with UTF8SMTPSA ", octets)
        # What is added for a message without From: counts as a header beyond ASCII, too.
        self.assertEqual(self.hand_in(own, "Subject: x"), "250 2.0.0")
        self.assertTrue(wait_for(lambda: len(self.sink.messages) == 3, 20), self.apus.log())
        self.assertIn(f"From: <jörg@{DOMAIN}>".encode(), self.sink.messages[-1][2])


class Domains(Case):
    def test_a_domain_of_ours_may_be_written_in_either_way_in_settings_and_addresses(self):
        apus = self.apus()
        apus.write_settings(domains="")
        self.change_settings(
            apus, ('local = ["apus.test"]', 'local = ["apus.test", "Bücher.example", "xn--strae-oqa.example"]'))
        apus.start()
        self.assertEqual(
            [r[:3] for r in send(apus.port, "a@b.example", "alice@bücher.example", "alice@BÜCHER.example",
                                 f"alice@{DOMAIN}", "alice@straße.example", "ghost@bücher.example")],
            ["250", "250", "250", "250", "550"])
        apus.wait_empty()
        # The first three are one address.
        self.assertEqual(len(apus.delivered()), 2, apus.log()[-3000:])
        self.assertIn("alice", apus.tool("explain", "alice@bücher.example")[1])
        # An ASCII local part needs nobody's SMTPUTF8: another server may write the domain in ASCII.
        self.assertEqual(send(apus.port, "a@b.example", f"bob@{DOMAIN}", options=())[0][:3], "250")

    def test_tables_and_aliases_may_have_unicode_keys_and_values(self):
        virtual = Virtual(
            self, settings='', mailboxes="jörg@bücher.example\nmary@v.example\n",
            aliases="größe@bücher.example jörg@BÜCHER.example, alice\n@straße.example @bücher.example\n")
        apus = virtual.apus
        self.change_settings(
            apus, ('domains = ["v.example", "w.example"]', 'domains = ["bücher.example", "v.example", "straße.example"]'))
        self.write_aliases(apus, "Bärbel: jörg@bücher.example, bob\n")
        status, out, err = apus.tool("check")
        self.assertNotIn("is no address", out + err)
        apus.start()
        replies = send(apus.port, "a@b.example", "jörg@bücher.example", f"größe@{DOMAIN}", "jörg@straße.example",
                       "Bärbel@apus.test", "JÖRG@bücher.example", "nobody@bücher.example")
        # Only ASCII letters have two cases.
        self.assertEqual([r[:3] for r in replies], ["250", "250", "250", "250", "550", "550"])
        apus.wait_empty()
        paths = virtual.wait(1, DOMAIN, "j%C3%B6rg")
        self.assertIn(f"Delivered-To: jörg@{DOMAIN}".encode(), slurp(paths[0]))
        self.assertEqual(len(apus.delivered()), 1)
        self.assertEqual(len(apus.delivered("bob")), 1)

    def test_a_list_beyond_ascii_is_delivered_by_its_name(self):
        apus = self.apus(local="")
        self.write_aliases(apus, "Größe: bob\nowner-größe: alice\n")
        apus.own()
        apus.start()
        self.assertEqual(send(apus.port, "x@a.example", "Größe@apus.test")[0][:3], "250")
        octets = slurp(apus.wait_delivered(1, "bob")[0])
        self.assertIn("Return-Path: <owner-größe@apus.test>".encode(), octets)
        apus.wait_empty()
        self.assertTrue(apus.logged("status=delivered", "alias:gr"), apus.log())


class Client(Case):
    def test_a_server_with_smtputf8_is_told_everything_and_one_without_what_it_can_take(self):
        new, old = self.sink(), self.sink(PLAIN)
        for sink, text, taken in ((new, HEADER, True), (new, ASCII, True), (old, HEADER, False), (old, ASCII, True)):
            with self.subTest(extensions=sink.extensions, text=text):
                before = len(sink.messages)
                with Apus(smarthost=f"127.0.0.1:{sink.port}") as apus:
                    # The domain goes in ASCII, so that only the header can need more.
                    send(apus.port, "alice@apus.test", "joe@bücher.example", text=text)
                    apus.wait_empty()
                    self.assertEqual(len(sink.messages) - before, int(taken), apus.log()[-3000:])
                    if taken:
                        self.assertEqual(sink.messages[-1][1], [f"joe@{DOMAIN}"])
                        self.assertEqual(commands(sink, "MAIL")[-1].endswith(" SMTPUTF8"), sink is new)
                    else:
                        self.assertTrue(apus.logged("status=failed", "dsn=5.6.9"), apus.log())

    def test_only_the_recipients_whose_address_needs_it_fail_and_a_sender_who_needs_it_fails_all(self):
        for extensions in (PLAIN, PLAIN[1:]):
            old = self.sink(extensions)
            with Apus(smarthost=f"127.0.0.1:{old.port}") as apus:
                send(apus.port, "alice@apus.test", "δοκιμή@a.example", "joe@a.example", "jörg@a.example", "mary@a.example")
                apus.wait_empty()
                self.assertEqual([m[1] for m in old.messages], [["joe@a.example", "mary@a.example"]])
                self.assertEqual(len(apus.logged("apus-queue recipient", "status=failed", "dsn=5.6.7", "SMTPUTF8")), 2, apus.log())
                self.assertFalse(any(not c.isascii() for c in old.commands))
                send(apus.port, "älice@apus.test", "joe@a.example")
                self.assertTrue(wait_for(lambda: len(apus.logged("dsn=5.6.7")) >= 3, 20), apus.log())
                self.assertEqual(len(old.messages), 1)

    def test_mail_that_nobody_marked_goes_to_any_server_as_it_is(self):
        old = self.sink(PLAIN)
        with Apus(smarthost=f"127.0.0.1:{old.port}") as apus:
            send(apus.port, "alice@apus.test", "joe@a.example", text=HEADER, options=["BODY=8BITMIME"])
            apus.wait_empty()
            self.assertIn("Subject: Grüße".encode(), old.bodies()[0])

    def test_the_queue_keeps_it_over_a_restart_and_an_export(self):
        new = self.sink()
        with Apus(smarthost=f"127.0.0.1:{new.port}", queue="paused = true\n") as apus:
            send(apus.port, "jörg@a.example", "δοκιμή@a.example", text=HEADER)
            self.assertEqual(apus.count(), 1)
            apus.kill_all()
            apus.start()
            (entry,) = apus.listed()
            self.assertIn("jörg@a.example", str(entry))
            shown = apus.tool("queue", "show", entry["id"], "--json")[1]
            self.assertIn('"utf8":"smtputf8-header"', shown)
            self.assertEqual(len(apus.tool("queue", "list", "--to", "δοκιμή@a.example", "--json")[1].split('"id"')) - 1, 1)
            exported = os.path.join(apus.root, "export")
            apus.tool("queue", "export", exported)
            apus.tool("queue", "remove", "--all")
            self.assertEqual(apus.count(), 0)
            apus.tool("queue", "import", exported)
            self.assertEqual(apus.count(), 1)
            apus.write_settings(queue="")
            apus.stop()
            apus.start()
            apus.wait_empty()
        self.assertEqual(commands(new, "MAIL")[0].split(" SIZE")[0], "MAIL FROM:<jörg@a.example>")
        self.assertTrue(commands(new, "MAIL")[0].endswith(" SMTPUTF8"))
        self.assertEqual(commands(new, "RCPT"), ["RCPT TO:<δοκιμή@a.example>"])

    def test_an_original_recipient_in_utf8_is_passed_on_in_ascii(self):
        new = self.sink()
        with Apus(smarthost=f"127.0.0.1:{new.port}") as apus:
            send(apus.port, "a@b.example", "joe@a.example", parameters=["ORCPT=utf-8;jörg@a.example"])
            apus.wait_empty()
        self.assertEqual(commands(new, "RCPT"), ["RCPT TO:<joe@a.example> ORCPT=utf-8;j\\x{F6}rg@a.example"])

    def test_a_forward_of_ascii_mail_to_an_address_beyond_ascii_needs_it(self):
        new, old = self.sink(), self.sink(PLAIN)
        for sink in (new, old):
            apus = self.apus(smarthost=f"127.0.0.1:{sink.port}", local="")
            self.write_aliases(apus, "away: jörg@bücher.example\n")
            apus.start()
            send(apus.port, "alice@apus.test", "away@apus.test", options=())
            apus.wait_empty()
            if sink is new:
                self.assertTrue(commands(new, "MAIL")[0].endswith(" SMTPUTF8"))
                self.assertEqual(new.messages[0][1], [f"jörg@{DOMAIN}".encode().decode("latin-1")])
            else:
                self.assertEqual(len(old.messages), 0)
                self.assertTrue(apus.logged("dsn=5.6.7"))


class Reports(Case):
    def report(self, octets):
        message = email.message_from_bytes(octets)
        self.assertEqual(message.get_content_type(), "multipart/report")
        return message

    def test_a_sender_in_ascii_gets_a_report_in_ascii_that_names_the_address_in_its_coding(self):
        old = self.sink(PLAIN)
        with Apus(smarthost=f"127.0.0.1:{old.port}") as apus:
            send(apus.port, "alice@apus.test", "δοκιμή@bücher.example", text=HEADER)
            octets = slurp(apus.wait_delivered(1)[0])
        self.assertTrue(octets.isascii(), octets)
        text, status, returned = self.report(octets).get_payload()
        self.assertIn(f"<δοκιμή@{DOMAIN}>", text.get_payload(decode=True).decode())
        self.assertEqual(status.get_content_type(), "message/delivery-status")
        coded = "".join("\\x{%X}" % ord(c) for c in "δοκιμή")
        self.assertEqual(status.get_payload()[1]["Final-Recipient"], f"utf-8; {coded}@{DOMAIN}")
        self.assertEqual(status.get_payload()[1]["Status"], "5.6.9")
        self.assertEqual(returned.get_content_type(), "message/global-headers")
        # Python takes it for a message, and so does not decode it.
        self.assertEqual(returned["Content-Transfer-Encoding"], "quoted-printable")
        self.assertIn(b"Subject: Gr=C3=BC=C3=9Fe\n", octets)

    def test_a_sender_beyond_ascii_gets_one_in_utf8_with_smtputf8(self):
        new = self.sink(rules={"RCPT": lambda line: "550 5.1.1 no such user" if "b.example" in line else None})
        with Apus(smarthost=f"127.0.0.1:{new.port}") as apus:
            send(apus.port, "jörg@bücher.example", "δοκιμή@b.example", text=HEADER,
                 options=["SMTPUTF8", "RET=FULL", "BODY=8BITMIME"], parameters=["ORCPT=utf-8;δοκ@b.example"])
            self.assertTrue(wait_for(lambda: new.messages, 30), apus.log())
            apus.wait_empty()
        (sender, recipients, octets), = new.messages
        self.assertEqual((sender, recipients), ("", [f"jörg@{DOMAIN}".encode().decode("latin-1")]))
        self.assertTrue(commands(new, "MAIL")[-1].startswith("MAIL FROM:<> "))
        self.assertIn(" SMTPUTF8", commands(new, "MAIL")[-1])
        self.assertIn(f"To: <jörg@{DOMAIN}>".encode(), octets)
        self.assertIn(b"Content-Type: message/global-delivery-status\r\n", octets)
        self.assertIn("Final-Recipient: utf-8; δοκιμή@b.example\r\n".encode(), octets)
        self.assertIn("Original-Recipient: utf-8; δοκ@b.example\r\n".encode(), octets)
        self.assertIn(f"X-Apus-Sender: utf-8; jörg@{DOMAIN}\r\n".encode(), octets)
        self.assertIn(b"Content-Type: message/global\r\n", octets)
        self.assertIn("Subject: Grüße".encode(), octets)

    def test_the_report_of_a_header_that_could_not_be_passed_on_is_known_to_programs_that_read_reports(self):
        old = self.sink(PLAIN)
        with Apus(smarthost=f"127.0.0.1:{old.port}") as apus:
            send(apus.port, "alice@apus.test", "joe@bücher.example", text=HEADER)
            octets = slurp(apus.wait_delivered(1)[0])
        _, status, returned = self.report(octets).get_payload()
        self.assertEqual(status.get_payload()[1]["Final-Recipient"], f"rfc822; joe@{DOMAIN}")
        self.assertEqual(returned.get_content_type(), "message/global-headers")
        try:
            from flufl.bounce import all_failures
        except ImportError:
            self.skipTest("flufl.bounce is not installed")
        self.assertEqual(all_failures(email.message_from_bytes(octets)), (frozenset(), frozenset([f"joe@{DOMAIN}".encode()])))
        rows = self.sisimai(octets)
        if rows is None:
            self.skipTest("Sisimai is not installed (libsisimai-perl)")
        self.assertEqual([(r["recipient"], r["action"], r["deliverystatus"]) for r in rows], [(f"joe@{DOMAIN}", "failed", "5.6.9")])

    def test_mail_that_nobody_marked_is_reported_as_ever(self):
        old = self.sink(PLAIN, rules={"RCPT": lambda line: "550 5.1.1 no"})
        with Apus(smarthost=f"127.0.0.1:{old.port}") as apus:
            send(apus.port, "alice@apus.test", "joe@a.example", text=HEADER, options=["BODY=8BITMIME"])
            octets = slurp(apus.wait_delivered(1)[0])
        _, status, returned = self.report(octets).get_payload()
        self.assertEqual(status.get_payload()[1]["Final-Recipient"], "rfc822; joe@a.example")
        self.assertEqual(returned.get_content_type(), "text/rfc822-headers")

    def sisimai(self, octets):
        """What Sisimai makes of a report; None if it is not there."""
        if subprocess.run(["perl", "-MSisimai", "-e1"], stderr=subprocess.DEVNULL).returncode:
            return None
        mailbox = b"From MAILER-DAEMON Thu Jan  1 00:00:00 1970\n" + octets.replace(b"\r\n", b"\n") + b"\n"
        script = "my $v = Sisimai->dump(\\do { local $/; <STDIN> }, delivered => 1); print $v"
        done = subprocess.run(["perl", "-MSisimai", "-e", script], input=mailbox, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=True)
        return json.loads(done.stdout)


class Sendmail(Case):
    def call(self, apus, *words, text, check=0):
        done = subprocess.run(
            [os.path.join(binaries(), "sendmail"), *words], input=text.encode(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60,
            env={"APUS_SUBMIT_SOCKET": f"{apus.root}/state/submit", "PATH": os.environ["PATH"], "LC_ALL": "C"}, cwd="/", **apus.identity())
        self.assertEqual(done.returncode, check, done.stderr.decode() + apus.log()[-1500:])
        return done

    def test_an_address_asks_by_itself_and_a_header_alone_does_not(self):
        new, old = self.sink(), self.sink(PLAIN)
        with Apus(smarthost=f"127.0.0.1:{new.port}") as apus:
            self.call(apus, "-t", text="To: Jörg <jörg@bücher.example>\nSubject: Grüße\n\nx\n")
            self.call(apus, "-f", "ä@apus.test", "joe@a.example", text=ASCII)
            self.call(apus, "-O", "smtputf8=yes", "joe@a.example", text="Subject: ü\n\nx\n")
            self.call(apus, "joe@a.example", text="Subject: ü\n\nx\n")
            apus.wait_empty()
        asked = sorted(c.endswith(" SMTPUTF8") or " SMTPUTF8 " in c for c in commands(new, "MAIL"))
        self.assertEqual(asked, [False, True, True, True], commands(new, "MAIL"))
        with Apus(smarthost=f"127.0.0.1:{old.port}") as apus:
            self.call(apus, "joe@a.example", text="Subject: ü\n\nx\n")
            apus.wait_empty()
            self.assertEqual(len(old.messages), 1)
        with Apus(extra="[smtp]\nsmtputf8 = false\n") as apus:
            done = self.call(apus, "jörg@apus.test", text=ASCII, check=69)
            self.assertIn("SMTPUTF8", done.stderr.decode())


@unittest.skipIf(postfix.missing(), postfix.missing())
class WithPostfix(Case):
    def test_postfix_as_the_next_server(self):
        other = postfix.Postfix(smtputf8_enable="yes", virtual_mailbox_maps="static:x/")
        self.addCleanup(other.close)
        with Apus(smarthost=f"127.0.0.1:{other.port}") as apus:
            send(apus.port, "älice@apus.test", "jörg@elsewhere.example", text=HEADER)
            apus.wait_empty()
            self.assertTrue(wait_for(lambda: other.received("x"), 20), other.log() + apus.log()[-3000:])
        octets = slurp(other.received("x")[0])
        self.assertIn("Return-Path: <älice@apus.test>".encode(), octets)
        self.assertIn(b"with UTF8SMTP", octets)

    def test_postfix_as_the_previous_server(self):
        apus = self.apus().start()
        other = postfix.Postfix(smtputf8_enable="yes", relayhost=f"[127.0.0.1]:{apus.port}")
        self.addCleanup(other.close)
        other.sendmail(HEADER.replace("\r\n", "\n").encode(), "alice+тег@apus.test", sender="jörg@bücher.example")
        octets = slurp(apus.wait_delivered(1)[0])
        self.assertIn(b"with UTF8SMTP", octets)
        self.assertIn("Return-Path: <jörg@".encode(), octets)
        self.assertIn("Delivered-To: alice+тег@apus.test".encode(), octets)


if __name__ == "__main__":
    unittest.main()
