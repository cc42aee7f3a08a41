# SPDX-License-Identifier: Apache-2.0
"""Out to other servers: smarthost, MX, retries, bounces."""
import email
import smtplib
import time
import unittest

from apus import Apus
from dnsserver import DNSServer
from peers import free_port, Raw, Sink, slurp, wait_for


def send(port, sender, recipients, text):
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        return client.sendmail(sender, recipients, text)


class Smarthost(unittest.TestCase):
    def test_a_message_arrives_at_the_smarthost_as_it_was_with_our_received_field_in_front(self):
        sink = Sink()
        self.addCleanup(sink.close)
        with Apus(smarthost=f"127.0.0.1:{sink.port}") as apus:
            body = "".join("line %d\r\n" % i for i in range(3000)) + ".dot\r\n..\r\n"
            send(apus.port, "a@b.example", ["x@elsewhere.example"], "Subject: s\r\n\r\n" + body)
            self.assertTrue(wait_for(lambda: sink.messages), apus.log())
            sender, recipients, content = sink.messages[0]
            self.assertEqual((sender, recipients), ("a@b.example", ["x@elsewhere.example"]))
            head, _, rest = content.partition(b"Subject: s\r\n\r\n")
            self.assertEqual(rest.decode(), body)
            self.assertTrue(head.startswith(b"Received: from "), head)
            apus.wait_empty()

    def test_a_temporary_refusal_is_tried_again_and_a_permanent_one_comes_back_as_a_report(self):
        attempts = []

        def rcpt(line):
            attempts.append(line)
            if "slow@" in line and sum("slow@" in a for a in attempts) < 3:
                return "451 4.3.2 later please"
            if "gone@" in line:
                return "550 5.1.1 <gone@elsewhere.example> no such user here"

        sink = Sink({"RCPT": rcpt})
        self.addCleanup(sink.close)
        with Apus(smarthost=f"127.0.0.1:{sink.port}", queue="retry-min = 1\nretry-max = 2\n") as apus:
            send(apus.port, "alice@apus.test", ["slow@elsewhere.example", "gone@elsewhere.example"], "Subject: two\r\n\r\nx\r\n")
            report = slurp(apus.wait_delivered(1)[0])
            message = email.message_from_bytes(report)
            self.assertEqual(message.get_content_type(), "multipart/report")
            self.assertEqual(message.get_param("report-type"), "delivery-status")
            self.assertIn(b"Return-Path: <>\n", report)
            parts = message.get_payload()
            self.assertEqual([p.get_content_type() for p in parts], ["text/plain", "message/delivery-status", "text/rfc822-headers"])
            fields = parts[1].get_payload()
            self.assertEqual(fields[1]["Final-Recipient"].replace(" ", ""), "rfc822;gone@elsewhere.example")
            self.assertEqual((fields[1]["Action"], fields[1]["Status"]), ("failed", "5.1.1"))
            self.assertIn("no such user here", fields[1]["Diagnostic-Code"])
            self.assertIn("Subject: two", parts[2].get_payload())
            self.assertTrue(wait_for(lambda: sink.messages, 30), apus.log())
            self.assertEqual(sink.messages[0][1], ["slow@elsewhere.example"])
            apus.wait_empty()
            self.assertEqual(len(apus.delivered()), 1)
            try:
                from flufl.bounce import all_failures
            except ImportError:
                self.skipTest("flufl.bounce is not installed")
            temporary, permanent = all_failures(message)
            self.assertEqual(permanent, {b"gone@elsewhere.example"})

    def test_a_server_without_extensions_and_without_ehlo_gets_the_message_too(self):
        sink = Sink({"EHLO": lambda line: "502 5.5.1 no"}, extensions=())
        self.addCleanup(sink.close)
        with Apus(smarthost=f"127.0.0.1:{sink.port}") as apus:
            send(apus.port, "a@b.example", ["x@elsewhere.example", "y@elsewhere.example"], "Subject: old\r\n\r\nx\r\n")
            self.assertTrue(wait_for(lambda: sink.messages), apus.log())
            self.assertEqual(sorted(sink.messages[0][1]), ["x@elsewhere.example", "y@elsewhere.example"])

    def test_messages_to_one_host_share_connections(self):
        sink = Sink()
        self.addCleanup(sink.close)
        with Apus(smarthost=f"127.0.0.1:{sink.port}") as apus:
            with smtplib.SMTP("127.0.0.1", apus.port, timeout=20) as client:
                for i in range(50):
                    client.sendmail("a@b.example", ["x@elsewhere.example"], f"Subject: {i}\r\n\r\nx\r\n")
            self.assertTrue(wait_for(lambda: len(sink.messages) == 50), len(sink.messages))
            self.assertLess(sink.connections, 25)


class MailExchangers(unittest.TestCase):
    def test_mx_preference_fallback_null_mx_and_nonexistent_domains(self):
        sink = Sink()
        self.addCleanup(sink.close)
        zone = {
            "two.example": {"MX": [(10, "dead.two.example"), (20, "mx.two.example")]},
            "dead.two.example": {"A": ["127.0.0.9"]},
            "mx.two.example": {"A": ["127.0.0.1"]},
            "implicit.example": {"A": ["127.0.0.1"]},
            "null.example": {"MX": [(0, "")]},
            "servfail.example": {"RCODE": "SERVFAIL"},
        }
        dns = DNSServer(zone)
        self.addCleanup(dns.close)
        with Apus(
            remote=f"port = {sink.port}\n", queue="retry-min = 1\nretry-max = 2\n",
            extra=f'[dns]\nresolvers = ["127.0.0.1:{dns.port}"]\n') as apus:
            send(apus.port, "alice@apus.test",
                 ["a@two.example", "b@implicit.example", "c@null.example", "d@nonexistent.example", "e@servfail.example"],
                 "Subject: mx\r\n\r\nx\r\n")
            self.assertTrue(wait_for(lambda: sum(len(m[1]) for m in sink.messages) >= 2, 30), apus.log())
            self.assertEqual(sorted(r for m in sink.messages for r in m[1]), ["a@two.example", "b@implicit.example"])
            self.assertTrue(wait_for(lambda: sum(
                slurp(p).decode().count("Final-Recipient") for p in apus.delivered()) >= 2, 30), apus.log())
            text = "".join(slurp(p).decode() for p in apus.delivered())
            self.assertIn("5.1.10", text)
            self.assertIn("5.1.2", text)
            self.assertTrue(wait_for(lambda: apus.logged("status=deferred", "servfail.example"), 20))
            self.assertTrue(wait_for(lambda: apus.count() == 1), apus.log())

    def test_expiry_returns_what_could_not_be_delivered(self):
        with Apus(smarthost=f"127.0.0.1:{free_port()}", queue="retry-min = 1\nretry-max = 1\nlifetime = 3\n") as apus:
            send(apus.port, "alice@apus.test", ["x@elsewhere.example"], "Subject: old\r\n\r\nx\r\n")
            report = slurp(apus.wait_delivered(1, seconds=40)[0]).decode()
            self.assertIn("Action: failed", report)
            apus.wait_empty()


if __name__ == "__main__":
    unittest.main()
