# SPDX-License-Identifier: Apache-2.0
"""Apus between programs that others have written: Postfix before and behind it, swaks, telnet, mutt, smtp-sink, smtp-source."""
import email
import glob
import mailbox
import os
import pty
import pwd
import re
import select
import shutil
import signal
import smtplib
import socket
import subprocess
import tempfile
import threading
import time
import unittest

import postfix
from apus import Apus
from dnsserver import DNSServer
from peers import free_port, slurp, wait_for


def needs(program):
    return unittest.skipUnless(shutil.which(program), f"{program} is not installed")


def send(port, sender, recipients, text):
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        return client.sendmail(sender, recipients, text)


def failures(test, message):
    """The addresses that a bounce parser finds in a report: (temporary, permanent)."""
    try:
        from flufl.bounce import all_failures
    except ImportError:
        test.skipTest("flufl.bounce is not installed")
    return all_failures(message)



def forward(test, port, target):
    """Forwards connections to the port to another one, until the test ends."""
    def pump(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def serve():
        while True:
            try:
                one, _ = server.accept()
                two = socket.create_connection(("127.0.0.1", target))
            except OSError:
                return
            open_ones.extend((one, two))
            for pair in ((one, two), (two, one)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    def close():
        server.shutdown(socket.SHUT_RDWR)
        for each in [server] + open_ones:
            each.close()

    open_ones = []
    server = socket.create_server(("127.0.0.1", port))
    test.addCleanup(close)
    threading.Thread(target=serve, daemon=True).start()


@needs("swaks")
class Swaks(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.apus = Apus().start()
        cls.addClassCleanup(cls.apus.close)

    def swaks(self, *words, recipient="alice@apus.test"):
        done = subprocess.run(
            ["swaks", "--server", "127.0.0.1", "--port", str(self.apus.port), "--from", "swaks@b.example", "--to", recipient,
             "--suppress-data", *words], capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
        return done.returncode, done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace")

    def test_it_delivers_in_every_way_of_speaking(self):
        for words in ([], ["--pipeline"], ["--protocol", "SMTP"], ["--ehlo", "[127.0.0.1]"], ["--attach", "@/etc/passwd"]):
            before = len(self.apus.delivered())
            status, said = self.swaks(*words)
            self.assertEqual(status, 0, said)
            self.apus.wait_delivered(before + 1)

    def test_what_it_sent_is_in_the_mailbox(self):
        before = set(self.apus.delivered())
        status, said = self.swaks("--pipeline", "--header", "Subject: dots", "--body", "first\n.\n..two\n\xe4\xf6\nlast")
        self.assertEqual(status, 0, said)
        self.apus.wait_delivered(len(before) + 1)
        text = slurp((set(self.apus.delivered()) - before).pop())
        self.assertIn("\n\nfirst\n.\n..two\n\xe4\xf6\nlast\n".encode(), text)

    def test_several_recipients_and_an_unknown_one(self):
        before = [len(self.apus.delivered(user)) for user in self.apus.users]
        status, said = self.swaks("--pipeline", recipient="alice@apus.test,nobody-here@apus.test,bob@apus.test")
        self.assertEqual(status, 0, said)
        self.assertIn("550 5.1.1", said)
        for user, count in zip(self.apus.users, before):
            self.apus.wait_delivered(count + 1, user)
        status, said = self.swaks(recipient="nobody-here@apus.test")
        self.assertEqual(status, 24, said)  # no recipient was taken

    def test_a_client_that_quits_or_drops_early_leaves_nothing(self):
        before = len(self.apus.delivered())
        for words in (["--quit-after", "RCPT"], ["--drop-after", "RCPT"], ["--drop-after-send", "DATA"], ["--quit-after", "CONNECT"]):
            self.swaks(*words)
        self.assertEqual(self.apus.count(), 0)
        self.assertEqual(len(self.apus.delivered()), before)


@needs("telnet")
class Telnet(unittest.TestCase):
    def test_a_message_typed_by_hand_arrives(self):
        with Apus() as apus:
            process = subprocess.Popen(
                ["telnet", "127.0.0.1", str(apus.port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            self.addCleanup(process.stdout.close)
            for line in ("helo me", "mail from:<you@example.org>", "rcpt to:<alice@apus.test>", "data", "Subject: by hand", "",
                         "It works.", "."):
                # A person types, and not always without a pause.
                for part in (line[:3], line[3:] + "\n"):
                    time.sleep(0.1)
                    process.stdin.write(part.encode())
                    process.stdin.flush()
            apus.wait_delivered(1)
            process.stdin.write(b"quit\n")
            process.stdin.flush()
            process.wait(10)
            process.stdin.close()
            said = process.stdout.read().decode()
            codes = re.findall(r"^(\d{3})[ ]", said, re.MULTILINE)
            self.assertEqual(codes, ["220", "250", "250", "250", "354", "250", "221"], said)
            self.assertTrue(slurp(apus.delivered()[0]).endswith(b"Subject: by hand\n\nIt works.\n"))


class Readers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.apus = Apus().start()
        cls.addClassCleanup(cls.apus.close)
        for i in range(3):
            send(cls.apus.port, "a@b.example", ["alice@apus.test"], f"Subject: number {i}\r\n\r\nFrom here on {i}\r\n.\r\n")
        cls.apus.wait_delivered(3)

    def test_python_reads_the_mailbox(self):
        box = mailbox.Maildir(self.apus.maildir(), create=False)
        self.assertEqual(sorted(m["Subject"] for m in box), ["number 0", "number 1", "number 2"])
        for message in box:
            self.assertEqual(message["Return-Path"], "<a@b.example>")
            self.assertEqual(message.get_payload().splitlines()[0], "From here on " + message["Subject"][-1])
            self.assertIsNotNone(email.utils.parsedate_to_datetime(message["Received"].rsplit(";", 1)[1].strip()))

    @needs("mutt")
    def test_mutt_reads_the_mailbox(self):
        folder = tempfile.mkdtemp(prefix="apus-mutt-")
        self.addCleanup(shutil.rmtree, folder, True)
        box = os.path.join(folder, "box")
        shutil.copytree(self.apus.maildir(), box)
        out = os.path.join(folder, "out")
        with open(os.path.join(folder, "rc"), "w") as f:
            f.write(f"set folder={folder} wait_key=no quit=yes pipe_split=no\n")
            f.write(f'push "<tag-pattern>~A<enter><tag-prefix><pipe-message>cat >{out}<enter><exit>"\n')
        pid, terminal = pty.fork()
        if pid == 0:
            os.environ.update(TERM="vt100", HOME=folder)
            try:
                os.execvp("mutt", ["mutt", "-n", "-F", os.path.join(folder, "rc"), "-f", box])
            finally:
                os._exit(127)
        end = time.monotonic() + 20
        while time.monotonic() < end:
            if select.select([terminal], [], [], 0.2)[0]:
                try:
                    if not os.read(terminal, 4096):
                        break
                except OSError:  # the terminal is gone with its program
                    break
        else:
            os.kill(pid, signal.SIGKILL)
        os.close(terminal)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        text = slurp(out).decode()
        for i in range(3):
            self.assertEqual(text.count(f"Subject: number {i}\n"), 1, text)
            self.assertIn(f"From here on {i}\n", text)


class SMTPSink:
    """A smtp-sink that dumps what it gets."""

    def __init__(self, *options):
        self.port = free_port()
        self.folder = tempfile.mkdtemp(prefix="apus-smtp-sink-")
        words = ["smtp-sink", *options, "-d", os.path.join(self.folder, "m.")]
        if os.geteuid() == 0:
            os.chown(self.folder, pwd.getpwnam("nobody").pw_uid, -1)
            words += ["-u", "nobody"]
        self.process = subprocess.Popen(
            words + [f"127.0.0.1:{self.port}", "128"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        # It says nothing when it is ready; whether its port is taken shows it.
        if not wait_for(lambda: self.listens() or self.process.poll() is not None, 10) or self.process.poll() is not None:
            raise AssertionError("smtp-sink: " + self.process.stderr.read().decode())

    def listens(self):
        with open("/proc/net/tcp") as f:
            return any(line.split()[1] == "0100007F:%04X" % self.port and line.split()[3] == "0A" for line in f.readlines()[1:])

    def dumps(self):
        """The transactions that reached the final dot; the sink's own lines (X-…) are in front."""
        return [text for text in (slurp(path) for path in glob.glob(os.path.join(self.folder, "m.*"))) if text.count(b"X-Rcpt-Args")]

    def close(self):
        self.process.terminate()
        self.process.wait(10)
        self.process.stderr.close()
        shutil.rmtree(self.folder, ignore_errors=True)


@needs("smtp-sink")
class SmtpSink(unittest.TestCase):
    def sink(self, *options):
        sink = SMTPSink(*options)
        self.addCleanup(sink.close)
        return sink

    def apus(self, sink):
        apus = Apus(smarthost=f"127.0.0.1:{sink.port}", queue="retry-min = 1\nretry-max = 2\n").start()
        self.addCleanup(apus.close)
        return apus

    def test_it_gets_the_mail_whatever_it_announces(self):
        for options in ([], ["-p"], ["-8"], ["-e"], ["-E"], ["-e", "-p", "-8", "-E"], ["-P"], ["-w", "1"], ["-f", "EHLO"]):
            with self.subTest(options=options):
                sink = self.sink(*options)
                apus = self.apus(sink)
                send(apus.port, "a@b.example", ["x@elsewhere.example", "y@elsewhere.example"],
                     "Subject: sink\r\n\r\n" + "line\r\n" * 2000 + ".dot\r\n")
                apus.wait_empty()
                dumps = sink.dumps()
                self.assertEqual(len(dumps), 1, apus.log())
                self.assertIn(b"x@elsewhere.example", dumps[0])
                self.assertIn(b"y@elsewhere.example", dumps[0])
                self.assertTrue(dumps[0].replace(b"\r\n", b"\n").rstrip(b"\n").endswith(b"line\n" * 2000 + b".dot"))
                final = apus.logged(" recipient ", "status=delivered")
                self.assertEqual(len(final), 2, final)
                apus.stop()

    def test_what_it_refuses_for_now_stays_and_is_tried_again(self):
        for command in ("CONNECT", "MAIL", "RCPT", "DATA", "."):
            for option in ("-r", "-Q", "-q"):
                with self.subTest(command=command, option=option):
                    sink = self.sink(option, command)
                    apus = self.apus(sink)
                    send(apus.port, "alice@apus.test", ["x@elsewhere.example"], "Subject: later\r\n\r\nx\r\n")
                    self.assertTrue(wait_for(lambda: len(apus.logged(" recipient ", "status=deferred")) >= 2, 20), apus.log())
                    self.assertEqual(apus.count(), 1)
                    self.assertFalse(apus.logged("status=failed") or apus.logged("status=delivered"), apus.log())
                    apus.stop()

    def test_what_it_refuses_for_good_comes_back_once(self):
        for command in ("MAIL", "RCPT", "DATA", "."):
            with self.subTest(command=command):
                sink = self.sink("-f", command)
                apus = self.apus(sink)
                send(apus.port, "alice@apus.test", ["x@elsewhere.example", "y@elsewhere.example"], "Subject: never\r\n\r\nx\r\n")
                apus.wait_delivered(1)
                apus.wait_empty()
                self.assertEqual(len(apus.delivered()), 1)
                temporary, permanent = failures(self, email.message_from_bytes(slurp(apus.delivered()[0])))
                self.assertEqual(permanent, {b"x@elsewhere.example", b"y@elsewhere.example"})
                apus.stop()

    def test_a_refusal_in_the_middle_of_a_large_message_comes_back(self):
        sink = self.sink("-A", "1")
        apus = self.apus(sink)
        send(apus.port, "alice@apus.test", ["x@elsewhere.example"], "Subject: large\r\n\r\n" + ("y" * 70 + "\r\n") * 200_000)
        apus.wait_delivered(1, seconds=60)
        self.assertIn(b"550", slurp(apus.delivered()[0]))
        apus.wait_empty()


@needs("smtp-source")
class SmtpSource(unittest.TestCase):
    def test_load_from_many_sessions_arrives_whole(self):
        with Apus() as apus:
            done = subprocess.run(
                ["smtp-source", "-s", "20", "-m", "400", "-l", "3000", "-f", "a@b.example", "-t", "alice@apus.test",
                 f"127.0.0.1:{apus.port}"], capture_output=True, text=True, timeout=120)
            self.assertEqual(done.returncode, 0, done.stderr)
            paths = apus.wait_delivered(400, seconds=60)
            apus.wait_empty()
            self.assertEqual(len(apus.delivered()), 400)
            self.assertEqual(len({os.path.getsize(p) > 3000 for p in paths}), 1)

    @needs("smtp-sink")
    def test_load_passes_through_with_several_recipients(self):
        sink = SMTPSink()
        self.addCleanup(sink.close)
        with Apus(smarthost=f"127.0.0.1:{sink.port}") as apus:
            done = subprocess.run(
                ["smtp-source", "-d", "-s", "10", "-m", "100", "-r", "5", "-f", "a@b.example", "-t", "x@elsewhere.example",
                 f"127.0.0.1:{apus.port}"], capture_output=True, text=True, timeout=120)
            self.assertEqual(done.returncode, 0, done.stderr)
            apus.wait_empty(60)
            self.assertEqual(len(apus.logged(" recipient ", "status=delivered")), 500)
            self.assertEqual(sum(dump.count(b"X-Rcpt-Args") for dump in sink.dumps()), 500)


@unittest.skipIf(postfix.missing(), postfix.missing())
class PostfixBehind(unittest.TestCase):
    """A real Postfix as the next hop."""

    @classmethod
    def setUpClass(cls):
        cls.postfix = postfix.Postfix()
        cls.addClassCleanup(cls.postfix.close)

    def apus(self, **sections):
        apus = Apus(smarthost=f"[127.0.0.1]:{self.postfix.port}", **sections).start()
        self.addCleanup(apus.close)
        return apus

    def test_mail_arrives_there_as_it_was(self):
        apus = self.apus()
        before = set(self.postfix.received("x"))
        body = "".join(f"line {i} \xe4\r\n" for i in range(2000)) + ".\r\n..dots\r\n"
        with smtplib.SMTP("127.0.0.1", apus.port, timeout=20) as client:
            client.sendmail("a@b.example", ["x@elsewhere.example", "y@elsewhere.example"],
                            b"Subject: through\r\n\r\n" + body.encode("latin-1"), ["BODY=8BITMIME"])
        self.assertTrue(wait_for(lambda: len(self.postfix.received("x")) > len(before), 20), apus.log() + self.postfix.log())
        text = slurp((set(self.postfix.received("x")) - before).pop())
        self.assertTrue(text.endswith(body.replace("\r\n", "\n").encode("latin-1")))
        identity = re.search(r" queued .*\bid=(\w+)", apus.log()).group(1)
        self.assertIn(b"by mx.apus.test", text)
        self.assertIn(identity.encode(), text)
        apus.wait_empty()
        final = apus.logged(" recipient ", f"id={identity}", "status=delivered")
        self.assertEqual(len(final), 2, final)
        for line in final:
            # What Postfix said is in the line, with its queue id.
            self.assertIn("queued as", line)
            self.assertIn("code=250", line)

    def test_recipients_it_refuses_come_back_and_the_others_arrive(self):
        apus = self.apus()
        before = len(self.postfix.received("x"))
        send(apus.port, "alice@apus.test", ["nobody@elsewhere.example", "x@elsewhere.example", "gone@elsewhere.example"],
             "Subject: some\r\nMessage-ID: <some@apus.test>\r\n\r\nx\r\n")
        self.assertTrue(wait_for(lambda: len(self.postfix.received("x")) == before + 1, 20), apus.log())
        found, text = set(), b""
        for path in apus.wait_delivered(1):
            text += slurp(path)
            temporary, permanent = failures(self, email.message_from_bytes(slurp(path)))
            self.assertEqual(temporary, set())
            found |= permanent
        apus.wait_empty()
        self.assertEqual(found, {b"nobody@elsewhere.example", b"gone@elsewhere.example"})
        self.assertIn(b"User unknown in virtual mailbox table", text)
        self.assertIn(b"<some@apus.test>", text)
        self.assertEqual(len(apus.delivered()), 1, "one report for one message")

    def test_a_message_too_large_for_it_comes_back(self):
        strict = postfix.Postfix(message_size_limit="20000", virtual_mailbox_limit="20000", mailbox_size_limit="20000")
        self.addCleanup(strict.close)
        with Apus(smarthost=f"[127.0.0.1]:{strict.port}") as apus:
            send(apus.port, "alice@apus.test", ["x@elsewhere.example"], "Subject: large\r\n\r\n" + "0123456789\r\n" * 4000)
            message = email.message_from_bytes(slurp(apus.wait_delivered(1)[0]))
            self.assertEqual(failures(self, message)[1], {b"x@elsewhere.example"})
            self.assertIn("5.3.4", message.get_payload()[1].as_string())
            apus.wait_empty()

    def test_it_can_hold_what_it_gets(self):
        holding = postfix.Postfix(smtpd_recipient_restrictions="check_client_access static:HOLD, permit_mynetworks, reject")
        self.addCleanup(holding.close)
        with Apus(smarthost=f"[127.0.0.1]:{holding.port}") as apus:
            with smtplib.SMTP("127.0.0.1", apus.port, timeout=20) as client:
                for i in range(20):
                    client.sendmail("a@b.example", ["x@elsewhere.example"], f"Subject: held {i}\r\n\r\nx\r\n")
            apus.wait_empty()
            held = b"".join(holding.held()).decode("latin-1")
            self.assertEqual(sorted(int(n) for n in re.findall(r"^Subject: held (\d+)", held, re.MULTILINE)), list(range(20)))

    def test_one_that_is_away_gets_the_mail_when_it_is_back(self):
        port = free_port()
        with Apus(smarthost=f"[127.0.0.1]:{port}", queue="retry-min = 1\nretry-max = 2\n") as apus:
            send(apus.port, "alice@apus.test", ["x@elsewhere.example"], "Subject: patience\r\n\r\nx\r\n")
            self.assertTrue(wait_for(lambda: apus.logged("status=deferred", "refused"), 20), apus.log())
            before = len(self.postfix.received("x"))
            forward(self, port, self.postfix.port)
            self.assertTrue(wait_for(lambda: len(self.postfix.received("x")) == before + 1, 30), apus.log())
            apus.wait_empty()


@unittest.skipIf(postfix.missing(), postfix.missing())
class PostfixBefore(unittest.TestCase):
    """A real Postfix that has Apus as its relay host."""

    @classmethod
    def setUpClass(cls):
        cls.apus = Apus(extra="[smtp]\nrecipients-max = 100\nsize-max = 200000\n").start()
        cls.addClassCleanup(cls.apus.close)
        cls.postfix = postfix.Postfix(
            relayhost=f"[127.0.0.1]:{cls.apus.port}", message_size_limit="1000000", virtual_mailbox_limit="0",
            mailbox_size_limit="0")
        cls.addClassCleanup(cls.postfix.close)

    def test_its_sendmail_sends_through_us(self):
        before = set(self.apus.delivered())
        # No 8-bit header: Postfix would want SMTPUTF8 for it, which we do not offer.
        self.postfix.sendmail(b"Subject: hello\n\n.\n..\nFrom me \xe4\nno newline at end", "alice@apus.test")
        self.apus.wait_delivered(len(before) + 1)
        text = slurp((set(self.apus.delivered()) - before).pop())
        self.assertTrue(text.endswith(b"\n\n.\n..\nFrom me \xe4\nno newline at end\n"), text)
        self.assertIn(b"Return-Path: <someone@postfix.test>\n", text)
        self.assertIn(b"from postfix.test", text)
        self.assertTrue(wait_for(lambda: self.postfix.queued() == 0, 10), self.postfix.log())
        self.assertIn("status=sent (250 2.0.0", self.postfix.log())

    def test_many_messages_over_its_connections(self):
        before = len(self.apus.delivered("bob"))
        with smtplib.SMTP("127.0.0.1", self.postfix.port, timeout=20) as client:
            for i in range(60):
                client.sendmail("a@b.example", ["bob@apus.test"], f"Subject: many {i}\r\n\r\nx\r\n")
        self.apus.wait_delivered(before + 60, "bob")
        self.assertTrue(wait_for(lambda: self.postfix.queued() == 0, 10), self.postfix.log())
        self.assertEqual(len(self.apus.delivered("bob")), before + 60)

    def test_it_makes_its_own_bounce_of_what_we_refuse(self):
        # The bounce comes to our alice, through us.
        for recipient, text, words in (
            ("nobody-here@apus.test", b"x\r\n", "5.1.1"), ("bob@apus.test", b"0123456789\r\n" * 40000, "5.3.4"),
        ):
            before = set(self.apus.delivered())
            send(self.postfix.port, "alice@apus.test", [recipient], b"Subject: refused\r\n\r\n" + text)
            self.apus.wait_delivered(len(before) + 1)
            report = slurp((set(self.apus.delivered()) - before).pop())
            self.assertIn(words.encode(), report)
            self.assertIn(b"Return-Path: <>\n", report)

    def test_more_recipients_than_we_take_at_once_come_in_several_messages(self):
        # Postfix sends 50 at once by default; with more it meets our limit and comes again with the rest.
        self.postfix.command("postconf", "smtp_destination_recipient_limit=130")
        self.postfix.command("postfix", "reload")
        before = len(self.apus.delivered())
        recipients = [f"alice+{i}@apus.test" for i in range(130)]
        time.sleep(1)
        send(self.postfix.port, "a@b.example", recipients, "Subject: crowd\r\n\r\nx\r\n")
        self.assertTrue(wait_for(lambda: self.postfix.queued() == 0, 30, 0.2), self.postfix.log()[-3000:])
        self.apus.wait_delivered(before + 130)
        self.apus.wait_empty()
        lines = re.findall(r"recipient id=(\w+) to=<(alice\+\d+@apus\.test)>.* status=delivered", self.apus.log())
        self.assertEqual(sorted(recipient for _, recipient in lines), sorted(recipients))
        self.assertEqual(len({identity for identity, _ in lines}), 2)

    def test_a_killed_queue_costs_it_nothing_but_time(self):
        before = len(self.apus.delivered("bob"))
        for i in range(30):
            self.postfix.sendmail(b"Subject: steady\n\nx\n", "bob@apus.test")
            if i == 10:
                self.apus.kill("apus-queue")
        self.assertTrue(wait_for(lambda: self.postfix.queued() == 0, 60, 0.2), self.postfix.log()[-3000:])
        self.apus.wait_delivered(before + 30, "bob")
        self.assertEqual(len(self.apus.delivered("bob")), before + 30)


class Reports(unittest.TestCase):
    def test_a_domain_that_does_not_exist_is_known_to_a_bounce_parser(self):
        dns = DNSServer({"null.example": {"MX": [[0, ""]]}})
        self.addCleanup(dns.close)
        with Apus(extra=f'[dns]\nresolvers = ["127.0.0.1:{dns.port}"]\n') as apus:
            send(apus.port, "alice@apus.test", ["x@nonexistent.example", "y@null.example"], "Subject: gone\r\n\r\nx\r\n")
            found = set()
            self.assertTrue(wait_for(lambda: apus.count() == 0 and apus.delivered(), 30), apus.log())
            for path in apus.delivered():
                found |= failures(self, email.message_from_bytes(slurp(path)))[1]
            self.assertEqual(found, {b"x@nonexistent.example", b"y@null.example"})


class Loops(unittest.TestCase):
    def round(self, **sections):
        """An Apus whose smarthost leads back to it; a forwarder hides that from the check of the settings."""
        apus = Apus(smarthost=f"127.0.0.1:{free_port()}", **sections)
        self.addCleanup(apus.close)
        forward(self, int(apus.sections["smarthost"].rsplit(":", 1)[1]), apus.port)
        return apus.start()

    def test_settings_that_lead_to_itself_are_a_mistake(self):
        port = free_port()
        apus = Apus(port=port, smarthost=f"127.0.0.1:{port}")
        self.addCleanup(apus.close)
        status, out, err = apus.tool("check", check=False)
        self.assertEqual(status, 1)
        self.assertIn("smarthost", out + err)

    def test_a_message_that_goes_round_ends_in_one_report(self):
        apus = self.round()
        send(apus.port, "alice@apus.test", ["x@elsewhere.example"], "Subject: round\r\n\r\nand round\r\n")
        report = slurp(apus.wait_delivered(1, seconds=60)[0])
        apus.wait_empty()
        self.assertEqual(len(apus.delivered()), 1)
        self.assertIn(b"5.4.6", report)
        self.assertLessEqual(len(apus.logged("apus-queue queued ")), 52)
        self.assertEqual(len(apus.logged(" recipient ", "status=failed")), 1)

    def test_a_report_that_goes_round_too_dies_and_the_postmaster_is_told(self):
        apus = self.round(extra='[bounce]\npostmaster = "bob@apus.test"\n')
        send(apus.port, "who@elsewhere.example", ["x@elsewhere.example"], "Subject: round\r\n\r\nand round\r\n")
        apus.wait_delivered(1, "bob", seconds=60)
        apus.wait_empty()
        self.assertEqual((len(apus.delivered("bob")), len(apus.delivered("alice"))), (1, 0))
        self.assertLessEqual(len(apus.logged("apus-queue queued ")), 104)


if __name__ == "__main__":
    unittest.main()
