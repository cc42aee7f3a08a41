# SPDX-License-Identifier: Apache-2.0
"""What apus-smtpd answers, over a real socket, and what becomes of the message."""
import os
import smtplib
import socket
import time
import unittest

from apus import Apus
from peers import Raw, Sink, slurp, wait_for


class Receiving(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.sink = Sink()
        cls.apus = Apus(
            smarthost=f"127.0.0.1:{cls.sink.port}", domains='# relaying only from 127.0.0.1; the tests come from 127.0.0.2 too\n',
            extra="[smtp]\nrecipients-max = 100\nsize-max = 200000\nerrors-max = 10\n").start()

    @classmethod
    def tearDownClass(cls):
        cls.apus.close()
        cls.sink.close()

    def session(self, **kwargs):
        return Raw(self.apus.port, **kwargs)

    def test_a_whole_conversation_by_hand_ends_in_the_mailbox_byte_for_byte(self):
        before = len(self.apus.delivered())
        with self.session() as s:
            self.assertTrue(s.greeting.startswith("220 mx.apus.test ESMTP"), s.greeting)
            hello = s.command("EHLO client.example")
            for word in ("PIPELINING", "SIZE 200000", "8BITMIME", "ENHANCEDSTATUSCODES", "DSN"):
                self.assertIn(word, hello)
            self.assertTrue(s.command("MAIL FROM:<sender@example.org> SIZE=100 BODY=8BITMIME").startswith("250 2.1.0"))
            self.assertTrue(s.command("RCPT TO:<Alice+tag@APUS.test>").startswith("250 2.1.5"))
            self.assertTrue(s.command("DATA").startswith("354"))
            s.send(b"Subject: hand\r\n\r\n..dot\r\n...\r\n\xe4\xff\x00end\r\n.\r\n")
            accepted = s.reply()
            self.assertTrue(accepted.startswith("250 2.0.0"), accepted)
            self.assertTrue(s.command("QUIT").startswith("221 2.0.0"))
        identity = accepted.split()[-1]
        path = self.apus.wait_delivered(before + 1)[-1]
        with open(path, "rb") as f:
            content = f.read()
        head, _, body = content.partition(b"Subject: hand\n\n")
        self.assertEqual(body, b".dot\n..\n\xe4\xff\x00end\n")
        self.assertIn(b"Return-Path: <sender@example.org>\n", head)
        self.assertIn(b"Delivered-To: ", head)
        self.assertIn(b"from client.example", head)
        self.assertIn(b"with ESMTP", head)
        self.assertIn(identity.encode(), head)
        self.assertTrue(wait_for(lambda: self.apus.logged("status=delivered", identity)), self.apus.log()[-3000:])

    def test_a_client_that_closes_its_direction_behind_its_last_word_still_gets_every_reply(self):
        before = len(self.apus.delivered())
        with self.session() as s:
            for line in ("EHLO client.example", "MAIL FROM:<sender@example.org>", "RCPT TO:<alice@apus.test>", "DATA"):
                s.command(line)
            s.send(b"Subject: half closed\r\n\r\nx\r\n.\r\nQUIT\r\n")
            s.socket.shutdown(socket.SHUT_WR)
            self.assertTrue(s.reply().startswith("250 2.0.0"))
            self.assertTrue(s.reply().startswith("221 2.0.0"))
            self.assertEqual(s.reply(), "")
        self.apus.wait_delivered(before + 1)
        # Without a QUIT, and in the middle of a command or of the content: what was said is answered, then it ends.
        for said, answered in ((b"NOOP\r\nNOOP\r\n", 2), (b"NOOP\r\nNOO", 1), (b"", 0)):
            with self.session() as s:
                s.send(said)
                s.socket.shutdown(socket.SHUT_WR)
                self.assertEqual([s.reply()[:3] for _ in range(answered + 1)], ["250"] * answered + [""], said)
        with self.session() as s:
            for line in ("EHLO client.example", "MAIL FROM:<sender@example.org>", "RCPT TO:<alice@apus.test>", "DATA"):
                s.command(line)
            s.send(b"Subject: cut\r\n\r\nhalf of it")
            s.socket.shutdown(socket.SHUT_WR)
            self.assertEqual(s.reply(), "")
        time.sleep(0.5)
        self.assertEqual(len(self.apus.delivered()), before + 1)

    def test_unknown_users_and_strangers_who_want_to_relay_are_told_why(self):
        with self.session(source="127.0.0.2") as s:
            s.command("EHLO stranger.example")
            s.command("MAIL FROM:<a@example.org>")
            self.assertTrue(s.command("RCPT TO:<nobody-here@apus.test>").startswith("550 5.1.1"))
            self.assertTrue(s.command("RCPT TO:<x@elsewhere.example>").startswith("550 5.7.1"))
            self.assertTrue(s.command("RCPT TO:<postmaster>").startswith("250"))
            self.assertTrue(s.command("RCPT TO:<PostMaster@apus.test>").startswith("250"))
            self.assertTrue(s.command("VRFY alice").startswith("252"))
            self.assertTrue(s.command("VRFY nobody-here@apus.test").startswith("252"))
        with self.session() as s:
            s.command("EHLO friend.example")
            self.assertTrue(s.command("VRFY <nobody-here@apus.test>").startswith("550 5.1.1"))
            self.assertTrue(s.command("EXPN list").startswith("5"))
            self.assertTrue(s.command("HELP").startswith("214"))

    def test_nonsense_is_refused_and_the_session_goes_on_until_the_error_limit(self):
        with self.session() as s:
            s.command("EHLO c.example")
            for line in ("FOO", "MAIL FROM", "MAIL FROM:<a@b", "RCPT", "MAIL FROM:<\xe4@example.org>"):
                reply = s.command(line)
                self.assertTrue(reply.startswith(("500 5.5.", "501 5.", "502 5.5", "503 5.5.1")), (line, reply))
            self.assertTrue(s.command("RCPT TO:<alice@apus.test>").startswith("503 5.5.1"))
            self.assertTrue(s.command("x" * 5000).startswith("500 5.5."))
            self.assertTrue(s.command("NOOP\x00").startswith(("500 5.5.2", "501 5.5.")))
            self.assertTrue(s.command("NOOP").startswith("250"))
            replies = [s.command("FOO") for _ in range(4)]
            self.assertTrue(any(r.startswith("421") for r in replies), replies)
            self.assertEqual(s.reply(), "")

    def test_the_name_of_a_client_is_one_word_of_the_trace(self):
        with self.session() as s:
            s.command("EHLO report to postmaster user=admin session=0")
            s.command("MAIL FROM:<a@b.example>")
            s.command("RCPT TO:<alice@apus.test>")
            s.command("DATA")
            self.assertTrue(s.command("Subject: forged\r\n\r\nx\r\n.").startswith("250"))
        self.assertTrue(
            wait_for(lambda: self.apus.logged("apus-queue queued", "helo=report?to?postmaster?user?admin?session?0 session=1"), 10),
            self.apus.log()[-2000:])

    def test_a_message_over_the_limit_is_552_by_size_and_by_octets_and_the_session_goes_on(self):
        with self.session() as s:
            s.command("EHLO c.example")
            self.assertTrue(s.command("MAIL FROM:<a@b.example> SIZE=200001").startswith("552 5.3.4"))
            s.command("MAIL FROM:<a@b.example>")
            s.command("RCPT TO:<alice@apus.test>")
            s.command("DATA")
            s.send(b"Subject: big\r\n\r\n" + b"x" * 70 + b"\r\n")
            for _ in range(40):
                s.send((b"y" * 98 + b"\r\n") * 100)
            s.send(b".\r\n")
            self.assertTrue(s.reply().startswith("552 5.3.4"))
            self.assertTrue(s.command("NOOP").startswith("250"))
        self.assertFalse(any(b"Subject: big" in slurp(p) for p in self.apus.delivered()))

    def test_recipients_above_the_limit_are_452_and_the_others_are_kept(self):
        with self.session() as s:
            s.command("EHLO c.example")
            s.command("MAIL FROM:<a@b.example>")
            replies = [s.command(f"RCPT TO:<many{i}@elsewhere.example>") for i in range(103)]
            self.assertTrue(all(r.startswith("250") for r in replies[:100]), replies[:3])
            self.assertTrue(all(r.startswith("452 4.5.3") for r in replies[100:]), replies[100:])
            s.command("DATA")
            s.send(b"Subject: hundred\r\n\r\nx\r\n.\r\n")
            self.assertTrue(s.reply().startswith("250"))
        self.assertTrue(wait_for(lambda: sum(len(m[1]) for m in self.sink.messages if b"Subject: hundred" in m[2]) >= 100))

    def test_only_crlf_dot_crlf_ends_a_message_and_nothing_is_smuggled(self):
        for ending in (b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\n\n.\r\r\n"):
            before = len(self.apus.delivered("bob"))
            with self.session() as s:
                s.command("EHLO c.example")
                s.command("MAIL FROM:<a@b.example>")
                s.command("RCPT TO:<bob@apus.test>")
                s.command("DATA")
                s.send(b"Subject: first\r\n\r\nbody" + ending +
                       b"MAIL FROM:<evil@b.example>\r\nRCPT TO:<bob@apus.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\n")
                reply = s.reply()
                self.assertTrue(reply.startswith(("550 5.", "554 5.", "521 5.", "500 5.")), (ending, reply))
                rest = []
                s.socket.settimeout(3)
                try:
                    s.send("QUIT\r\n")
                    while True:
                        r = s.reply()
                        if not r:
                            break
                        rest.append(r)
                except OSError:
                    pass
                self.assertFalse(any(r.startswith(("250 2.0.0", "354", "250 2.1")) for r in rest), (ending, rest))
            time.sleep(0.1)
            self.assertEqual(len(self.apus.delivered("bob")), before, ending)

    def test_a_message_that_has_gone_round_fifty_times_is_a_loop(self):
        received = b"".join(b"Received: from a by b; x\r\n" for _ in range(51))
        with self.session() as s:
            s.command("EHLO c.example")
            s.command("MAIL FROM:<a@b.example>")
            s.command("RCPT TO:<alice@apus.test>")
            s.command("DATA")
            s.send(received + b"\r\nx\r\n.\r\n")
            self.assertTrue(s.reply().startswith("554 5.4.6"))

    def test_a_client_that_leaves_in_data_leaves_nothing_behind(self):
        before = self.apus.count()
        for size in (10, 150000):
            s = self.session()
            s.command("EHLO c.example")
            s.command("MAIL FROM:<gone@b.example>")
            s.command("RCPT TO:<alice@apus.test>")
            s.command("DATA")
            s.send(b"Subject: gone\r\n\r\n" + (b"z" * 98 + b"\r\n") * (size // 100))
            s.close()
        time.sleep(0.5)
        self.assertEqual(self.apus.count(), before)
        self.assertFalse(any(b"Subject: gone" in slurp(p) for p in self.apus.delivered()))

    def test_pipelined_commands_are_answered_in_order(self):
        before = len(self.apus.delivered("bob"))
        with self.session() as s:
            s.send("EHLO c.example\r\n")
            s.reply()
            s.send("MAIL FROM:<a@b.example>\r\nRCPT TO:<bob@apus.test>\r\nRCPT TO:<nobody-here@apus.test>\r\nDATA\r\n")
            codes = [s.reply()[:9] for _ in range(4)]
            self.assertEqual([c[:3] for c in codes], ["250", "250", "550", "354"])
            s.send(b"Subject: p\r\n\r\nx\r\n.\r\nMAIL FROM:<a@b.example>\r\nRSET\r\nQUIT\r\n")
            self.assertEqual([s.reply()[:3] for _ in range(4)], ["250", "250", "250", "221"])
        self.apus.wait_delivered(before + 1, "bob")

    def test_smtplib_sends_to_several_recipients_here_and_elsewhere(self):
        before = len(self.apus.delivered("bob"))
        with smtplib.SMTP("127.0.0.1", self.apus.port, timeout=20) as client:
            refused = client.sendmail(
                "a@b.example", ["bob@apus.test", "x@elsewhere.example", "nobody-here@apus.test"],
                "Subject: lib\r\n\r\nlib\r\n")
        self.assertEqual(list(refused), ["nobody-here@apus.test"])
        self.apus.wait_delivered(before + 1, "bob")
        self.assertTrue(wait_for(lambda: any(b"Subject: lib" in b for b in self.sink.bodies())))


if __name__ == "__main__":
    unittest.main()
