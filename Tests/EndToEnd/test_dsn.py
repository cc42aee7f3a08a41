# SPDX-License-Identifier: Apache-2.0
"""Reports (RFC 3461, 3464): which are sent, what they say, and who understands them."""
import email
import email.policy
import json
import os
import pwd
import shutil
import smtplib
import subprocess
import unittest

import postfix
from apus import Apus, HERE, binaries
from peers import Sink, free_port, slurp, wait_for
from pipes import Deliveries, Part

DSN = ("PIPELINING", "8BITMIME", "SIZE 104857600", "ENHANCEDSTATUSCODES", "DSN")
PLAIN = DSN[:-1]
FAST = "retry-min = 1\nretry-max = 1\n"


def send(port, recipients, sender="alice@apus.test", mail=(), text="Subject: s\r\n\r\nx\r\n"):
    """`recipients` are addresses, or pairs of an address and the parameters of its RCPT."""
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        client.ehlo("client.example")
        code, reply = client.mail(sender, list(mail))
        assert code == 250, reply
        for recipient in recipients:
            address, parameters = (recipient, []) if isinstance(recipient, str) else recipient
            code, reply = client.rcpt(address, parameters)
            assert code == 250, reply
        code, reply = client.data(text.encode("latin-1"))
        assert code == 250, reply


class Report:
    """A report as a mail program sees it."""

    def __init__(self, octets):
        self.octets = octets
        self.message = email.message_from_bytes(octets)
        assert self.message.get_content_type() == "multipart/report", octets
        self.text, self.status, self.returned = self.message.get_payload()
        self.words = self.text.get_payload(decode=True).decode(self.text.get_content_charset())
        self.whole, *self.recipients = self.status.get_payload()

    @property
    def actions(self):
        """For each recipient its address, action and status."""
        return sorted((r["Final-Recipient"].split("; ")[1], r["Action"], r["Status"]) for r in self.recipients)


def reports(apus, user="alice"):
    return [Report(slurp(path)) for path in apus.delivered(user)]


def told(apus, address):
    """The actions that the sender has heard of a recipient."""
    return sorted(a for r in reports(apus) for to, a, _ in r.actions if to == address)


class Matrix(unittest.TestCase):
    """NOTIFY × what becomes of the recipient × whether the next server sends reports itself."""

    NOTIFY = (None, "NEVER", "SUCCESS", "FAILURE", "DELAY", "SUCCESS,FAILURE", "SUCCESS,DELAY", "FAILURE,DELAY",
              "SUCCESS,FAILURE,DELAY")

    @staticmethod
    def expected(notify, outcome, passed_on):
        wishes = {"FAILURE", "DELAY"} if notify is None else set(notify.split(","))
        found = []
        if outcome == "fails" and "FAILURE" in wishes:
            found.append("failed")
        if outcome in ("slow", "expires") and "DELAY" in wishes:
            found.append("delayed")
        if outcome == "expires" and "FAILURE" in wishes:
            found.append("failed")
        if outcome in ("arrives", "slow") and "SUCCESS" in wishes and not passed_on:
            found.append("relayed")
        return sorted(found)

    def check(self, extensions):
        tried = {}

        def rcpt(line):
            address = line.split("<")[1].split(">")[0]
            tried[address] = tried.get(address, 0) + 1
            if address.startswith("fails"):
                return "550 5.1.1 no such user"
            if address.startswith("expires") or address.startswith("slow") and tried[address] < 4:
                return "450 4.2.1 not now"

        sink = Sink({"RCPT": rcpt}, extensions=extensions)
        self.addCleanup(sink.close)
        with Apus(smarthost=f"127.0.0.1:{sink.port}", queue=FAST + "lifetime = 6\n",
                  extra="[bounce]\ndelay-report-after = 1\n") as apus:
            cases = {}
            for number, notify in enumerate(self.NOTIFY):
                parameters = ["NOTIFY=" + notify] if notify else []
                for outcome in ("arrives", "fails", "slow", "expires"):
                    address = f"{outcome}{number}@elsewhere.example"
                    cases[address] = self.expected(notify, outcome, "DSN" in extensions)
                    send(apus.port, [(address, parameters)])
            apus.wait_empty(60)
            self.assertEqual({a: told(apus, a) for a in cases}, cases)
            # What was not reported has its line in the log all the same.
            self.assertTrue(apus.logged("to=<fails1@elsewhere.example>", "status=unreported"), apus.log())
        if "DSN" in extensions:
            for number, notify in enumerate(self.NOTIFY[1:], 1):
                line = next(c for c in sink.commands if f"<arrives{number}@" in c)
                self.assertEqual(set(line.split(" NOTIFY=")[1].split(",")), set(notify.split(",")))
        self.assertTrue(all("NOTIFY" not in c for c in sink.commands) or "DSN" in extensions)

    def test_in_front_of_a_server_that_sends_reports(self):
        self.check(DSN)

    def test_in_front_of_a_server_that_sends_none(self):
        self.check(PLAIN)

    def test_into_a_mailbox_here(self):
        with Apus(users=("alice", "bob", "carol")) as apus:
            send(apus.port, [("bob@apus.test", ["NOTIFY=SUCCESS"]), ("carol@apus.test", ["NOTIFY=FAILURE"])])
            (report,) = [Report(slurp(p)) for p in apus.wait_delivered(1)]
            self.assertEqual(report.actions, [("bob@apus.test", "delivered", "2.0.0")])
            self.assertIn("was put into the mailboxes", report.words)
            self.assertEqual(report.message["Subject"], "Your mail was delivered")
            apus.wait_empty()
            self.assertEqual(len(apus.delivered()), 1)


class Fields(unittest.TestCase):
    def test_what_a_sender_says_is_kept_and_comes_back(self):
        sink = Sink({"RCPT": lambda line: "550 5.7.1 go away"}, extensions=DSN)
        self.addCleanup(sink.close)
        with Apus(smarthost=f"127.0.0.1:{sink.port}") as apus:
            send(apus.port, [("x@elsewhere.example", ["NOTIFY=FAILURE", "ORCPT=rfc822;Old+2Bname@b.example"])],
                 mail=["RET=FULL", "ENVID=QQ+2B314", "BODY=8BITMIME"], text="Subject: s\r\n\r\nbl\xfche\r\n")
            report = Report(slurp(apus.wait_delivered(1)[0]))
            self.assertIn("MAIL FROM:<alice@apus.test>", sink.commands[1])
            for word in (" RET=FULL", " ENVID=QQ+2B314", " BODY=8BITMIME"):
                self.assertIn(word, sink.commands[1])
            self.assertEqual(
                sink.commands[2], "RCPT TO:<x@elsewhere.example> NOTIFY=FAILURE ORCPT=rfc822;Old+2Bname@b.example")
            self.assertEqual(report.whole["Original-Envelope-Id"], "QQ+314")
            self.assertEqual(report.whole["Reporting-MTA"], "dns; mx.apus.test")
            self.assertEqual(report.whole["Received-From-MTA"], "dns; client.example (127.0.0.1)")
            self.assertTrue(report.whole["Arrival-Date"])
            (recipient,) = report.recipients
            self.assertEqual(recipient["Original-Recipient"], "rfc822; Old+name@b.example")
            self.assertEqual(recipient["Remote-MTA"], "dns; [127.0.0.1]")
            self.assertTrue(recipient["Last-Attempt-Date"])
            self.assertNotIn("Will-Retry-Until", recipient)
            self.assertIn("550 5.7.1 go away", recipient["Diagnostic-Code"])
            self.assertEqual(report.returned.get_content_type(), "message/rfc822")
            self.assertIn(b"bl\xfche", report.octets)
            self.assertEqual(report.message["Auto-Submitted"], "auto-replied")

    def test_headers_come_back_if_the_sender_wants_no_more_or_the_message_is_too_large(self):
        with Apus(extra='[bounce]\nreturned-size-max = "2KiB"\n') as apus:
            send(apus.port, ["bob@apus.test", "bob2@elsewhere.invalid"], mail=["RET=HDRS"])
            send(apus.port, ["bob2@elsewhere.invalid"], mail=["RET=FULL"], text="Subject: s\r\n\r\n" + "x" * 70 * 60)
            send(apus.port, ["bob2@elsewhere.invalid"], mail=["RET=FULL"], text="Subject: s\r\n\r\nshort\r\n")
            apus.wait_delivered(3, seconds=60)
            kinds = sorted(r.returned.get_content_type() for r in reports(apus))
            self.assertEqual(kinds, ["message/rfc822", "text/rfc822-headers", "text/rfc822-headers"])

    def test_a_delay_is_told_once_with_the_time_that_is_left(self):
        sink = Sink({"RCPT": lambda line: "450 4.2.0 not yet"}, extensions=PLAIN)
        self.addCleanup(sink.close)
        with Apus(smarthost=f"127.0.0.1:{sink.port}", queue=FAST, extra="[bounce]\ndelay-report-after = 1\n") as apus:
            send(apus.port, ["x@elsewhere.example", "y@elsewhere.example"])
            report = Report(slurp(apus.wait_delivered(1)[0]))
            self.assertEqual(
                report.actions,
                [("x@elsewhere.example", "delayed", "4.2.0"), ("y@elsewhere.example", "delayed", "4.2.0")])
            self.assertTrue(all(r["Will-Retry-Until"] for r in report.recipients))
            self.assertEqual(report.message["Subject"], "Your mail is delayed")
            self.assertIn("goes on trying until", report.words)
            count = len(sink.commands)
            self.assertTrue(wait_for(lambda: len(sink.commands) > count + 9, 20), "it is not tried any more")
            self.assertEqual(len(apus.delivered()), 1)
            self.assertTrue(apus.logged("to=<x@elsewhere.example>", "status=warned"))
            sink.rules.clear()
            apus.wait_empty()
            self.assertEqual(sorted(sink.messages[0][1]), ["x@elsewhere.example", "y@elsewhere.example"])

    def test_a_delay_is_told_of_mail_for_a_host_that_never_answers(self):
        with Apus(smarthost=f"127.0.0.1:{free_port()}", queue=FAST, extra="[bounce]\ndelay-report-after = 2\n") as apus:
            for number in range(8):
                send(apus.port, [f"x{number}@elsewhere.example"])
            apus.wait_delivered(8)
            self.assertEqual([r.actions[0][1] for r in reports(apus)], ["delayed"] * 8)

    def test_recipients_who_fail_together_share_one_report(self):
        sink = Sink({"RCPT": lambda line: "550 5.1.1 no"}, extensions=PLAIN)
        self.addCleanup(sink.close)
        with Apus(smarthost=f"127.0.0.1:{sink.port}") as apus:
            send(apus.port, [f"x{n}@elsewhere.example" for n in range(30)] + ["y@elsewhere.invalid"])
            apus.wait_empty()
            (report,) = reports(apus)
            self.assertEqual(len(report.recipients), 31)


class Aliases(unittest.TestCase):
    def start(self, aliases, **settings):
        apus = Apus(local='aliases = "%s"' % "ALIASES", **settings)
        apus.write_settings(local=f'aliases = "{apus.aliases}"')
        with open(apus.aliases, "w") as f:
            f.write(aliases)
        apus.own()
        apus.start()
        self.addCleanup(apus.close)
        return apus

    def test_one_address_behind_an_alias_is_reported_under_the_name_that_the_sender_knows(self):
        sink = Sink(extensions=DSN)
        self.addCleanup(sink.close)
        apus = self.start("info: x@elsewhere.example\n", smarthost=f"127.0.0.1:{sink.port}")
        send(apus.port, [("info@apus.test", ["NOTIFY=SUCCESS"])])
        apus.wait_empty()
        self.assertEqual(apus.delivered(), [])
        line = next(c for c in sink.commands if c.startswith("RCPT"))
        self.assertEqual(line, "RCPT TO:<x@elsewhere.example> NOTIFY=SUCCESS ORCPT=rfc822;info@apus.test")

    def test_several_are_reported_as_expanded_and_the_copies_ask_for_no_success(self):
        sink = Sink(extensions=DSN)
        self.addCleanup(sink.close)
        apus = self.start("team: x@elsewhere.example, bob\n", smarthost=f"127.0.0.1:{sink.port}")
        send(apus.port, [("team@apus.test", ["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;crew@b.example"])])
        apus.wait_empty()
        (report,) = reports(apus)
        self.assertEqual(report.actions, [("team@apus.test", "expanded", "2.0.0")])
        self.assertEqual(report.recipients[0]["Original-Recipient"], "rfc822; crew@b.example")
        self.assertNotIn("elsewhere.example", report.words)
        line = next(c for c in sink.commands if c.startswith("RCPT"))
        self.assertEqual(line, "RCPT TO:<x@elsewhere.example> NOTIFY=FAILURE ORCPT=rfc822;crew@b.example")
        self.assertEqual(len(apus.delivered("bob")), 1)


class Words(unittest.TestCase):
    POLISH = os.path.realpath(os.path.join(HERE, "../../etc/reports/pl.template"))

    def start(self, more=""):
        apus = Apus()
        template = os.path.join(apus.root, "pl.template")
        shutil.copy(self.POLISH, template)
        apus.write_settings(extra=f'[bounce]\ntemplates = ["{template}"]\n{more}')
        apus.own()
        apus.template = template
        self.addCleanup(apus.close)
        return apus

    def test_a_sender_reads_the_language_of_his_domain_else_of_his_message_else_english(self):
        apus = self.start('languages = ["apus.test pl"]\n').start()
        send(apus.port, ["x@elsewhere.invalid"], sender="alice@apus.test")
        report = Report(slurp(apus.wait_delivered(1)[0]))
        subject = email.message_from_bytes(report.octets, policy=email.policy.default)["Subject"]
        self.assertEqual(subject, "Nie udało się dostarczyć Twojej wiadomości")
        self.assertIn("Część adresu po znaku @", report.words)
        self.assertTrue(all(b < 0x80 for b in report.octets))

        apus = self.start().start()
        send(apus.port, ["x@elsewhere.invalid"], text="Subject: s\r\nContent-Language: de, pl-PL\r\n\r\nx\r\n")
        self.assertIn("Część adresu", Report(slurp(apus.wait_delivered(1)[0])).words)
        send(apus.port, ["x@elsewhere.invalid"], text="Subject: s\r\nAccept-Language: pl;q=0.5, en\r\n\r\nx\r\n",
             sender="bob@apus.test")
        self.assertIn("The part of the address", Report(slurp(apus.wait_delivered(1, "bob")[0])).words)

    def test_a_mistake_in_a_template_is_told_with_its_line(self):
        apus = self.start()
        with open(apus.template, "a") as f:
            f.write("\n[more]\nsecond\n")
        status, output, errors = apus.tool("check", check=False)
        self.assertEqual(status, 1)
        self.assertRegex(output + errors, r"pl\.template:\d+: .*\[more\] stands here for the second time")

    def test_a_language_without_a_template_is_told(self):
        apus = self.start('language = "de"\n')
        status, output, errors = apus.tool("check", check=False)
        self.assertEqual(status, 1)
        self.assertIn('no template of the language "de"', output + errors)


class Restraint(unittest.TestCase):
    def test_an_address_that_everybody_forges_gets_no_more_than_its_share(self):
        with Apus(extra="[bounce]\nreports-per-sender-max = 3\n") as apus:
            for number in range(6):
                send(apus.port, [f"x{number}@elsewhere.invalid"])
            apus.wait_empty()
            self.assertEqual(len(apus.delivered()), 3)
            self.assertEqual(len(apus.logged("report-withheld", "from=<alice@apus.test>")), 3)
            self.assertEqual(len(apus.logged("status=dropped", "reports-per-sender-max")), 3)
            rows = {r["program"]: r for r in json.loads(apus.tool("status", "--json")[1])["programs"]}
            self.assertEqual((rows["apus-bounce"]["reports"], rows["apus-bounce"]["withheld"]), (3, 3))

    def test_all_together_are_put_off_beyond_their_number(self):
        with Apus(queue=FAST, extra="[bounce]\nreports-per-minute-max = 2\n") as apus:
            for number in range(3):
                send(apus.port, [f"x{number}@elsewhere.invalid"])
            apus.wait_delivered(2)
            self.assertTrue(wait_for(lambda: apus.logged("report-withheld", "reports-per-minute-max"), 10))
            self.assertEqual(apus.count(), 1)
            self.assertEqual(len(apus.delivered()), 2)

    def test_automatic_mail_and_lists_hear_of_failures_but_not_of_delays(self):
        sink = Sink({"RCPT": lambda line: "450 4.2.0 not yet"}, extensions=PLAIN)
        self.addCleanup(sink.close)
        with Apus(smarthost=f"127.0.0.1:{sink.port}", queue=FAST + "lifetime = 5\n",
                  extra="[bounce]\ndelay-report-after = 1\n") as apus:
            send(apus.port, ["x@elsewhere.example"], text="Precedence: bulk\r\n\r\nx\r\n")
            apus.wait_empty(40)
            self.assertEqual([r.actions[0][1] for r in reports(apus)], ["failed"])
            self.assertEqual(reports(apus)[0].actions[0][2], "5.4.7")

    def test_a_report_that_fails_can_be_discarded(self):
        for setting, count in (("postmaster", 1), ("discard", 0)):
            with Apus(extra=f'[bounce]\npostmaster = "bob"\ndouble-bounces = "{setting}"\n') as apus:
                send(apus.port, ["x@elsewhere.invalid"], sender="nobody-here@apus.test")
                apus.wait_empty()
                self.assertEqual(len(apus.delivered("bob")), count, setting)
                self.assertTrue(apus.logged("to=<nobody-here@apus.test>", "status=reported" if count else "status=dropped"))


    def test_a_report_to_the_postmaster_that_is_sent_on_and_fails_makes_no_other(self):
        sink = Sink({"RCPT": lambda line: "550 5.1.1 no"})
        self.addCleanup(sink.close)
        apus = Apus(smarthost=f"127.0.0.1:{sink.port}")
        self.addCleanup(apus.close)
        # /dev/null has the file done by apus-local, which sends it on as a message of its own.
        apus.write_settings(
            local=f'aliases = "{apus.aliases}"\nalias-files = true\n', extra='[bounce]\npostmaster = "postmaster@apus.test"\n')
        with open(apus.aliases, "w") as f:
            f.write("postmaster: gone@elsewhere.example, /dev/null\n")
        apus.own()
        apus.start()
        send(apus.port, ["x@nowhere.example"], sender="bad@elsewhere.example")
        self.assertTrue(wait_for(lambda: apus.logged("to=<gone@elsewhere.example>", "status=dropped"), 20), apus.log()[-3000:])
        apus.wait_empty()
        self.assertEqual(apus.log().count(" reported "), 2)


class VERP(unittest.TestCase):
    """Reverse-paths that tell whom a report is about."""

    def test_the_copies_of_a_list_have_their_own_and_what_comes_back_reaches_its_owner(self):
        sink = Sink({"RCPT": lambda line: "550 5.1.1 no" if "gone@" in line else None}, extensions=DSN)
        self.addCleanup(sink.close)
        apus = Apus(smarthost=f"127.0.0.1:{sink.port}")
        self.addCleanup(apus.close)
        apus.write_settings(local=f'aliases = "{apus.aliases}"', extra='[bounce]\nverp-senders = ["list@apus.test"]\n')
        with open(apus.aliases, "w") as f:
            f.write("list: bob\n")
        apus.own()
        apus.start()
        send(apus.port, ["x@elsewhere.example", "gone@elsewhere.example", "alice@apus.test"], sender="list@apus.test")
        report = slurp(apus.wait_delivered(1, "bob")[0])
        self.assertEqual(Report(report).actions, [("gone@elsewhere.example", "failed", "5.1.1")])
        self.assertIn(b"\nDelivered-To: bob@apus.test\n", report)
        self.assertIn(b"\nTo: <list+gone=elsewhere.example@apus.test>\n", report)
        self.assertIn(b"Return-Path: <list+alice=apus.test@apus.test>\n", slurp(apus.wait_delivered(1)[0]))
        apus.wait_empty()
        self.assertEqual([m[:2] for m in sink.messages], [("list+x=elsewhere.example@apus.test", ["x@elsewhere.example"])])

    def test_sendmail_asks_for_them_and_nobody_else_can(self):
        sink = Sink(extensions=DSN)
        self.addCleanup(sink.close)
        with Apus(smarthost=f"127.0.0.1:{sink.port}") as apus:
            subprocess.run(
                [os.path.join(apus.folder, "sendmail"), "-XV", "-f", "news@apus.test", "x@elsewhere.example", "y+z@elsewhere.example"],
                input=b"Subject: s\n\nx\n", check=True, env={"APUS_SUBMIT_SOCKET": os.path.join(apus.root, "state/submit")},
                **apus.identity())
            apus.wait_empty()
            self.assertEqual(sorted(m[0] for m in sink.messages), [
                "news+x=elsewhere.example@apus.test", "news+y+z=elsewhere.example@apus.test"])
            with smtplib.SMTP("127.0.0.1", apus.port, timeout=20) as client:
                client.ehlo("client.example")
                self.assertEqual(client.mail("a@b.example", ["XVERP"])[0], 555)


class Parsers(unittest.TestCase):
    """Programs that read reports for a living."""

    # What the next server says, the status that a report must have.
    REPLIES = (("550 5.1.1 no such user", "5.1.1"), ("550 no such user", "5.0.0"), ("552 5.2.2 mailbox full", "5.2.2"),
               ("550 5.2.1 mailbox disabled", "5.2.1"), ("552 5.3.4 too large", "5.3.4"), ("554 5.7.1 blocked", "5.7.1"),
               ("553 5.1.8 bad sender", "5.1.8"), ("550 5.4.1 no", "5.4.1"), ("554 5.6.0 bad content", "5.6.0"),
               ("550 5.1.10 no mail", "5.1.10"))

    def collect(self):
        """A report for each reply, one for an expiry; by address."""
        def rcpt(line):
            name = line.split("<")[1].split("@")[0]
            if name.startswith("r"):
                return self.REPLIES[int(name[1:])][0]
            return "451 4.3.0 never now" if name == "late" else None

        sink = Sink({"RCPT": rcpt}, extensions=DSN)
        self.addCleanup(sink.close)
        expected = {}
        with Apus(smarthost=f"127.0.0.1:{sink.port}", queue=FAST + "lifetime = 3\n") as apus:
            for number, (_, status) in enumerate(self.REPLIES):
                expected[f"r{number}@elsewhere.example"] = status
            expected["late@elsewhere.example"] = "5.4.7"
            for address in expected:
                send(apus.port, [address])
            apus.wait_empty(60)
            found = {}
            for path in apus.delivered():
                octets = slurp(path)
                report = Report(octets)
                found[report.actions[0][0]] = (report, path, octets)
            self.assertEqual({a: r[0].actions[0][2] for a, r in found.items()}, expected)
            return {a: octets for a, (_, _, octets) in found.items()}, expected

    def hold_against_parsers(self, octets, expected):
        """`octets` are reports by the address that each is about, `expected` the statuses."""
        try:
            from flufl.bounce import all_failures
        except ImportError:
            self.skipTest("flufl.bounce is not installed")
        for address, report in octets.items():
            temporary, permanent = all_failures(email.message_from_bytes(report))
            self.assertEqual((set(temporary), permanent), (set(), {address.encode()}), report.decode())
        if subprocess.run(["perl", "-MSisimai", "-e1"], stderr=subprocess.DEVNULL).returncode:
            self.skipTest("Sisimai is not installed (libsisimai-perl)")
        # It reads a mailbox; reports that were not put into one have CR LF.
        mailbox = b"".join(b"From MAILER-DAEMON Thu Jan  1 00:00:00 1970\n" + r.replace(b"\r\n", b"\n") + b"\n" for r in octets.values())
        script = "my $v = Sisimai->dump(\\do { local $/; <STDIN> }, delivered => 1); print $v"
        done = subprocess.run(["perl", "-MSisimai", "-e", script], input=mailbox, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=True)
        rows = {row["recipient"]: row for row in json.loads(done.stdout)}
        self.assertEqual(set(rows), set(expected))
        for address, status in expected.items():
            self.assertEqual(rows[address]["action"], "failed", rows[address])
            # Where no status was given Sisimai guesses one from the words.
            if not status.endswith(".0.0"):
                self.assertEqual(rows[address]["deliverystatus"], status, rows[address])

    def test_flufl_bounce_and_sisimai_know_every_recipient_and_that_he_failed(self):
        self.hold_against_parsers(*self.collect())

    def test_they_know_every_failure_of_the_register(self):
        table = subprocess.run([os.path.join(binaries(), "apus"), "status-codes", "--markdown"], check=True,
                               stdout=subprocess.PIPE, text=True).stdout
        rows = [[cell.strip() for cell in line.split("|")[1:5]] for line in table.splitlines()[2:]]
        rows = [row for row in rows if row[0].startswith("5")]
        self.assertGreater(len(rows), 30)
        reports, expected = {}, {}
        for number, (status, code, program, about) in enumerate(rows):
            address = f"r{number}@elsewhere.example"
            # What a server like ours says is its reply; the rest are the words of our own programs.
            reporter = "mx.elsewhere.example[192.0.2.1]:25" if program == "apus-smtpd" else program
            part = Part(os.path.join(binaries(), "apus-bounce"), {"hostname": "mx.example.org"}, "deliver",
                        **Apus.identity_of(pwd.getpwnam("nobody").pw_uid) if os.geteuid() == 0 else {})
            self.addCleanup(part.kill)
            deliveries = Deliveries(part)
            deliveries.begin("001k0yhzfbbyh", "bounce:", b"Subject: s\r\n\r\nx\r\n", [address],
                             fate=(code or 0, status, reporter, about.replace("`", "")))
            job = deliveries.run()[1]
            reports[address] = b"".join(fields[0] for verb, fields in job["exchange"] if verb == b"data")
            expected[address] = status
            part.kill()
        self.hold_against_parsers(reports, expected)

    def test_success_and_delay_are_no_bounce_to_flufl(self):
        try:
            from flufl.bounce import all_failures
        except ImportError:
            self.skipTest("flufl.bounce is not installed")
        with Apus(users=("alice", "bob")) as apus:
            send(apus.port, [("bob@apus.test", ["NOTIFY=SUCCESS"])])
            temporary, permanent = all_failures(email.message_from_bytes(slurp(apus.wait_delivered(1)[0])))
            self.assertEqual((set(temporary), set(permanent)), (set(), set()))


@unittest.skipIf(postfix.missing(), postfix.missing())
class PostfixBothSides(unittest.TestCase):
    def start(self):
        """Each is the other's way to the world."""
        port = free_port()
        other = postfix.Postfix(relayhost=f"[127.0.0.1]:{port}")
        self.addCleanup(other.close)
        apus = Apus(smarthost=f"127.0.0.1:{other.port}", port=port).start()
        self.addCleanup(apus.close)
        return apus, other

    def test_behind_us_it_reports_the_success_itself(self):
        apus, _ = self.start()
        send(apus.port, [("x@elsewhere.example", ["NOTIFY=SUCCESS", "ORCPT=rfc822;Known@b.example"])],
             mail=["ENVID=our-id"])
        report = Report(slurp(apus.wait_delivered(1, seconds=60)[0]))
        self.assertEqual(report.whole["Reporting-MTA"], "dns; postfix.test")
        self.assertEqual(report.whole["Original-Envelope-Id"], "our-id")
        self.assertEqual(report.recipients[0]["Original-Recipient"], "rfc822;Known@b.example")
        self.assertEqual(report.recipients[0]["Action"], "delivered")
        apus.wait_empty()
        self.assertEqual(len(apus.delivered()), 1, "one of us has reported what the other did")

    def test_before_us_it_leaves_the_report_to_us(self):
        apus, other = self.start()
        with smtplib.SMTP("127.0.0.1", other.port, timeout=20) as client:
            client.ehlo("client.example")
            client.mail("x@elsewhere.example", ["ENVID=their-id", "RET=HDRS"])
            client.rcpt("bob@apus.test", ["NOTIFY=SUCCESS", "ORCPT=rfc822;Bob@old.example"])
            client.data(b"Subject: s\r\n\r\nx\r\n")
        apus.wait_delivered(1, "bob")
        self.assertTrue(wait_for(other.received, 30), apus.log())
        report = Report(slurp(other.received()[0]))
        self.assertEqual(report.whole["Reporting-MTA"], "dns; mx.apus.test")
        self.assertEqual(report.whole["Original-Envelope-Id"], "their-id")
        self.assertEqual(report.whole["Received-From-MTA"], "dns; postfix.test (127.0.0.1)")
        self.assertEqual(report.recipients[0]["Original-Recipient"], "rfc822; Bob@old.example")
        self.assertEqual(report.actions, [("bob@apus.test", "delivered", "2.0.0")])


if __name__ == "__main__":
    unittest.main()
