# SPDX-License-Identifier: Apache-2.0
"""sendmail, mailq and newaliases, and the programs that call them."""
import email
import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import unittest

from apus import Apus, binaries
from peers import Raw, Sink, slurp, wait_for


class Sendmail(unittest.TestCase):
    def apus(self, **sections):
        apus = Apus(**sections)
        self.addCleanup(apus.close)
        return apus.start()

    def call(self, apus, *words, text="", name="sendmail", user=None, check=0):
        path = os.path.join(binaries(), "sendmail")
        if name != "sendmail":
            path = os.path.join(apus.root, name)
            if not os.path.exists(path):
                os.symlink(os.path.join(binaries(), "sendmail"), path)
        identity = apus.identity() if user is None else Apus.identity_of(pwd.getpwnam(user).pw_uid)
        done = subprocess.run(
            [path, *words], input=text.encode(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60,
            env={"APUS_SUBMIT_SOCKET": f"{apus.root}/state/submit", "PATH": os.environ["PATH"]}, cwd="/", **identity)
        if check is not None:
            self.assertEqual(done.returncode, check, done.stderr.decode() + apus.log()[-1500:])
        return done

    def received(self, apus, user="alice", count=1):
        return [email.message_from_bytes(slurp(p)) for p in apus.wait_delivered(count, user)]

    def test_a_message_of_a_program_is_completed_and_delivered_to_whom_its_header_names(self):
        apus = self.apus()
        self.call(apus, "-t", "-i", text="To: Alice <alice>, bob@apus.test\nBcc: postmaster\nSubject: hi\n\none\n.\ntwo\n")
        message, = self.received(apus)
        self.assertEqual(message.get_payload(), "one\n.\ntwo\n")
        self.assertIn(f"<{apus.user}@apus.test>", message["From"])
        self.assertTrue(message["Date"].endswith("+0000"))
        self.assertRegex(message["Message-ID"], r"^<[0-9.]+@apus\.test>$")
        self.assertIsNone(message["Bcc"])
        self.assertRegex(message["Received"], rf"^by mx\.apus\.test \(from user {pwd.getpwnam(apus.user).pw_uid}\)\s+id \w+; ")
        self.assertEqual(len(self.received(apus, "bob")), 1)
        apus.wait_empty()
        self.assertTrue(apus.logged("apus-smtpd connect", "role=local"), apus.log())

    def test_a_dot_alone_ends_the_message_unless_told_otherwise(self):
        apus = self.apus()
        self.call(apus, "-f", "me@else.example", "alice", text="Subject: s\n\none\n.\ntwo\n")
        message, = self.received(apus)
        self.assertEqual(message.get_payload(), "one\n")
        self.assertIn("Return-Path: <me@else.example>", slurp(apus.delivered()[0]).decode())
        # Not even a header, and lines of any kind.
        self.call(apus, "-i", "bob", text=".. dots\n.\n\r\nw\r\n" + "x" * 3000 + "\nno end")
        body = slurp(apus.wait_delivered(1, "bob")[0])
        self.assertTrue(body.endswith(b"\n\n.. dots\n.\n\nw\n" + b"x" * 3000 + b"\nno end\n"), body[-200:])

        # The letter in a word of its own, as getopt(3) takes it.
        self.call(apus, "-o", "i", "bob", text="Subject: s\n\none\n.\ntwo\n")
        self.assertIn("one\n.\ntwo\n", [m.get_payload() for m in self.received(apus, "bob", 2)])

    def test_addresses_without_a_domain_get_one_also_in_the_header(self):
        apus = self.apus()
        # As cron has it.
        self.call(
            apus, "-FCronDaemon", "-i", "-oem", "alice",
            text="From: root (Cron Daemon)\nTo: alice, B <bob>,\n carol@else.example\nCc: a list: dora, <eve>;\nSubject: x\n\nx\n")
        message, = self.received(apus)
        self.assertEqual(message["From"], "root@apus.test (Cron Daemon)")
        self.assertEqual(message["To"], "alice@apus.test, B <bob@apus.test>,\n carol@else.example")
        self.assertEqual(message["Cc"], "a list: dora@apus.test, <eve@apus.test>;")

    def test_a_session_that_is_ready_in_a_file_is_taken(self):
        apus = self.apus()
        session = "EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<alice@apus.test>\r\nDATA\r\nSubject: x\r\n\r\nx\r\n.\r\nQUIT\r\n"
        done = self.call(apus, "-bs", text=session)
        self.assertEqual(re.findall(r"^\d{3}(?= )", done.stdout.decode(), re.M), ["220", "250", "250", "250", "354", "250", "221"])
        self.received(apus)

    @unittest.skipUnless(os.geteuid() == 0, "needs root")
    def test_one_user_cannot_keep_everybody_else_out(self):
        apus = self.apus(extra="[smtp]\nsessions-max = 8\n", root=True)
        program = ("import socket, sys\nfor n in range(9):\n s = socket.socket(socket.AF_UNIX)\n s.connect(sys.argv[1])\n"
                   " print(s.recv(99)[:3].decode(), flush=True)\n globals()[str(n)] = s\nsys.stdin.read()\n")
        user = subprocess.Popen(
            ["/usr/bin/python3", "-c", program, f"{apus.root}/state/submit"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            cwd="/", **Apus.identity_of(pwd.getpwnam("daemon").pw_uid))
        self.addCleanup(user.stdout.close)
        self.addCleanup(user.kill)
        self.assertEqual([user.stdout.readline().strip() for _ in range(9)], [b"220"] * 2 + [b"421"] * 7)
        with Raw(apus.port) as session:
            self.assertTrue(session.greeting.startswith("220"))
        user.stdin.close()
        user.wait()
        self.assertTrue(wait_for(lambda: len(apus.logged("disconnect", "uid=1 ")) == 2, 10), apus.log())
        self.assertIn(b"\n221 ", self.call(apus, "-bs", user="daemon", text="QUIT\r\n").stdout)

    def test_who_does_not_exist_is_told_by_the_exit_status_or_by_a_report_if_others_exist(self):
        apus = self.apus()
        done = self.call(apus, "ghost", text="Subject: s\n\nx\n", check=67)
        self.assertIn("no such user here", done.stderr.decode())
        self.call(apus, "-f", "alice@apus.test", "bob", "ghost", text="Subject: s\n\nx\n")
        self.assertEqual(len(self.received(apus, "bob")), 1)
        report, = self.received(apus)
        self.assertEqual(report.get_content_type(), "multipart/report")
        self.assertIn("ghost@apus.test", report.as_string())

    def test_what_it_shows_of_the_session_goes_nowhere_if_standard_error_is_closed(self):
        apus = self.apus()
        path = os.path.join(binaries(), "sendmail")
        done = subprocess.run(
            ["sh", "-c", f'exec "{path}" -v alice 2>&-'], input=b"Subject: s\n\nx\n", stdout=subprocess.PIPE, timeout=60,
            env={"APUS_SUBMIT_SOCKET": f"{apus.root}/state/submit", "PATH": os.environ["PATH"]}, cwd="/", **apus.identity())
        self.assertEqual(done.returncode, 0, apus.log()[-1500:])
        message, = self.received(apus)
        self.assertEqual(message.get_payload(), "x\n")
        time.sleep(0.2)
        self.assertFalse(apus.logged("apus-smtpd", "500"), apus.log()[-1500:])

    def test_without_the_mail_system_it_says_so_and_asks_to_try_again(self):
        apus = self.apus()
        apus.stop()
        done = self.call(apus, "alice", text="x\n", check=75)
        self.assertIn("the mail system does not run", done.stderr.decode())
        self.assertIn("was not sent", done.stderr.decode())
        self.assertTrue(self.call(apus, "-bs", check=75).stdout.startswith(b"421 4.3.2 "))

    def test_a_message_for_thousands_is_taken_up_to_what_the_queue_takes(self):
        apus = self.apus(queue="paused = true\n")
        self.call(apus, *[f"r{i}@elsewhere.example" for i in range(3000)], text="Subject: s\n\nx\n")
        self.assertEqual(apus.count(), 1)
        done = self.call(apus, *[f"r{i}@elsewhere.example" for i in range(10_001)], text="Subject: s\n\nx\n", check=65)
        self.assertIn("too many recipients", done.stderr.decode())
        apus.stop()
        apus = self.apus(queue="paused = true\nrecipients-max = 50\n")
        done = self.call(apus, *[f"r{i}@elsewhere.example" for i in range(51)], text="Subject: s\n\nx\n", check=65)
        self.assertIn("452 too many recipients", done.stderr.decode())
        self.assertEqual(apus.count(), 0)

    def test_wrong_calls_are_refused(self):
        apus = self.apus()
        self.call(apus, text="x\n", check=64)
        self.call(apus, "-t", text="Subject: nobody\n\nx\n", check=64)
        self.call(apus, "-y", "alice", text="x\n", check=64)
        self.call(apus, "-bd", check=64)
        self.call(apus, "bad address@@", text="x\n", check=65)
        self.assertEqual(apus.count(), 0)

    def test_no_part_of_a_call_becomes_a_command_of_its_own(self):
        apus = self.apus()
        more = "\r\nMAIL FROM:<ceo@bank.example>\r\nRCPT TO:<bob>\r\nDATA\r\nSubject: smuggled\r\n\r\npay\r\n.\r\n"
        for address in (f'"x{more}"@y.example', f"x@[{more}]", '"x\x01"@y.example', '"x\x7f"@y.example', "x\x0by@y.example"):
            self.call(apus, "-i", "-f", address, "alice", text="Subject: s\n\nb\n", check=65)
            self.call(apus, "-i", "--", address, text="Subject: s\n\nb\n", check=65)
        for option in ("-N", "-R"):
            self.call(apus, "-i", option, f"never{more}", "alice", text="Subject: s\n\nb\n", check=65)
        self.call(apus, "-t", text='To: "x\x01"@y.example\nSubject: s\n\nb\n', check=65)
        self.assertEqual(apus.count(), 0)
        self.assertEqual(apus.delivered("alice") + apus.delivered("bob"), [])
        self.assertFalse(apus.logged("ceo@bank.example"), apus.log()[-2000:])

    def test_smtp_on_standard_input_is_a_session_of_the_local_socket(self):
        apus = self.apus()
        process = subprocess.Popen(
            [os.path.join(binaries(), "sendmail"), "-bs"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={"APUS_SUBMIT_SOCKET": f"{apus.root}/state/submit"}, cwd="/", **apus.identity())
        self.addCleanup(process.stdout.close)

        def say(line, code):
            process.stdin.write(line.encode())
            process.stdin.flush()
            reply = b""
            while not re.search(rb"^\d{3} .*\r\n\Z", reply, re.M):
                part = process.stdout.read1(4096)
                self.assertTrue(part, reply)
                reply += part
            self.assertTrue(reply.startswith(code.encode()), reply)
            return reply

        say("", "220")
        self.assertIn(b"\r\n250-XORIGIN apus.test\r\n", say("EHLO me\r\n", "250"))
        say("MAIL FROM:<a@b.example>\r\n", "250")
        say("RCPT TO:<alice@apus.test>\r\n", "250")
        say("DATA\r\n", "354")
        say("Subject: s\r\n\r\nx\r\n.\r\n", "250 2.0.0 Queued as")
        say("QUIT\r\n", "221")
        process.stdin.close()
        self.assertEqual(process.wait(20), 0)
        self.received(apus)

    def test_a_program_that_writes_a_line_now_and_then_is_waited_for(self):
        apus = self.apus(extra="[smtp]\ndata-timeout = 1\ncommand-timeout = 1\n")
        process = subprocess.Popen(
            [os.path.join(binaries(), "sendmail"), "alice@apus.test"], stdin=subprocess.PIPE, stderr=subprocess.PIPE,
            env={"APUS_SUBMIT_SOCKET": f"{apus.root}/state/submit"}, cwd="/", **apus.identity())
        for part in (b"Subject: job\n\nbegun\n", b"still there\n", b"done\n"):
            process.stdin.write(part)
            process.stdin.flush()
            time.sleep(3)
        self.assertEqual(process.communicate(timeout=30), (None, b""))
        self.assertEqual(process.returncode, 0)
        self.assertEqual(self.received(apus)[0].get_payload(), "begun\nstill there\ndone\n")

    def test_a_large_message_goes_by_a_file_and_comes_as_it_was(self):
        apus = self.apus()
        body = b"".join(b"line %d of the message\n" % number for number in range(150_000))
        self.call(apus, "alice@apus.test", text=(b"Subject: large\n\n" + body).decode())
        self.assertEqual(self.received(apus)[0].get_payload(), body.decode())

    @unittest.skipUnless(os.geteuid() == 0, "needs other users")
    def test_smtp_on_standard_input_does_not_stand_still_when_both_sides_send_before_they_read(self):
        folder = tempfile.mkdtemp(prefix="apus-pump-")
        self.addCleanup(shutil.rmtree, folder, True)
        os.chmod(folder, 0o755)
        path, size, heard = os.path.join(folder, "submit"), 4_000_000, []
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(1)
            os.chmod(path, 0o777)

            def serve():
                client, _ = listener.accept()
                with client:
                    client.sendall(b"s" * size)
                    while data := client.recv(65536):
                        heard.append(len(data))
            server = threading.Thread(target=serve, daemon=True)
            server.start()
            done = subprocess.run(
                [os.path.join(binaries(), "sendmail"), "-bs"], input=b"c" * size, stdout=subprocess.PIPE, timeout=60,
                env={"APUS_SUBMIT_SOCKET": path}, cwd="/")
            server.join(10)
        self.assertEqual((done.returncode, done.stdout, sum(heard)), (0, b"s" * size, size))

    def test_users_may_be_held_to_their_own_addresses(self):
        apus = Apus(extra='[sendmail]\nsenders = "own"\ntrusted-users = ["daemon"]\n', root=True)
        self.addCleanup(apus.close)
        apus.write_settings(queue="paused = true\n")
        apus.start()
        text = "Subject: s\n\nx\n"
        self.call(apus, "postmaster", text=text, user="nobody")
        self.call(apus, "-f", "nobody+tag@apus.test", "postmaster", text=text, user="nobody")
        self.call(apus, "-f", "<>", "postmaster", text=text, user="nobody")
        for foreign in ("root@apus.test", "nobody@else.example"):
            done = self.call(apus, "-f", foreign, "postmaster", text=text, user="nobody", check=77)
            self.assertIn("not your own address", done.stderr.decode())
        self.call(apus, "-f", "any@else.example", "postmaster", text=text, user="daemon")
        self.call(apus, "-f", "any@else.example", "postmaster", text=text, user="root")
        self.assertEqual(apus.count(), 5)

    def test_mailq_shows_the_queue_and_newaliases_has_nothing_to_do(self):
        sink = Sink()
        self.addCleanup(sink.close)
        apus = self.apus(queue="paused = true\n", smarthost=f"127.0.0.1:{sink.port}")
        self.call(apus, "-f", "a@b.example", "x@elsewhere.example", text="Subject: s\n\nx\n")
        self.assertEqual(apus.count(), 1)
        self.call(apus, name="newaliases")
        # It looks for the settings at their usual place, which need not be there.
        done = self.call(apus, name="mailq", check=None)
        self.assertIn(done.returncode, (69, 75, 78), done.stderr)

    def test_an_address_that_looks_like_an_option_is_verified_all_the_same(self):
        apus = self.apus()
        # It looks for the settings at their usual place, which need not be there.
        done = self.call(apus, "-bv", "--", "--json", check=None)
        self.assertIn(done.returncode, (0, 69, 77, 78), done.stderr)
        self.assertNotIn(b"Usage", done.stderr)

    def test_a_large_message_passes_octet_for_octet(self):
        apus = self.apus()
        lines = "".join(f".{n} {'y' * (n % 200)}\n" for n in range(60_000))
        self.call(apus, "-i", "alice", text="Subject: large\n\n" + lines)
        message, = self.received(apus)
        self.assertEqual(message.get_payload(), lines)

    @unittest.skipUnless(shutil.which("mutt"), "mutt is not installed")
    def test_mutt_sends_through_it(self):
        apus = self.apus()
        home = os.path.join(apus.root, "home")
        os.makedirs(home)
        apus.own()
        subprocess.run(
            ["mutt", "-n", "-F", "/dev/null", "-e", f"set sendmail='{binaries()}/sendmail -oem -oi'", "-e", "set record=''",
             "-e", "set from=me@apus.test use_envelope_from=yes", "-s", "from mutt", "-b", "bob@apus.test", "alice@apus.test"],
            input=b"hello\n.\nworld\n", check=True, timeout=60, cwd="/",
            env={"APUS_SUBMIT_SOCKET": f"{apus.root}/state/submit", "PATH": os.environ["PATH"], "HOME": home}, **apus.identity())
        message, = self.received(apus)
        self.assertEqual(message["Subject"], "from mutt")
        self.assertIn("hello\n.\nworld\n", message.get_payload())
        self.assertIn("Return-Path: <me@apus.test>", slurp(apus.delivered()[0]).decode())
        blind, = self.received(apus, "bob")
        self.assertIsNone(blind["Bcc"])


if __name__ == "__main__":
    unittest.main()
