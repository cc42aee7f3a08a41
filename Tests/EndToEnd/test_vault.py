# SPDX-License-Identifier: Apache-2.0
"""apus-vault alone, over its pipes (Documentation/pipes.md, section 7)."""
import os
import pty
import pwd
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import termios
import unittest

from apus import Apus, binaries
from peers import wait_for
from pipes import Part
from saslclient import b64


class Alone(unittest.TestCase):
    """A vault for each test."""

    def vault(self, **settings):
        identity = Apus.identity_of(pwd.getpwnam("nobody").pw_uid) if os.geteuid() == 0 else {}
        part = Part(os.path.join(binaries(), "apus-vault"), settings, "vault", **identity)
        self.addCleanup(part.kill)
        return part

    def file(self, mode=0o600):
        folder = tempfile.mkdtemp(prefix="apus-vault-")
        self.addCleanup(shutil.rmtree, folder, True)
        os.chmod(folder, 0o755)
        path = os.path.join(folder, "passwords")
        subprocess.run(
            [os.path.join(binaries(), "apus"), "passwd", "alice", "--stdin", "--scheme", "sha512", "--file", path],
            input=b"secret\n", check=True, capture_output=True)
        if os.geteuid() == 0:
            os.chown(path, pwd.getpwnam("nobody").pw_uid, -1)
        os.chmod(path, mode)
        return path

    def passwd(self, path, *words, input=b"secret\n"):
        return subprocess.run(
            [os.path.join(binaries(), "apus"), "passwd", *words, "--file", path], input=input, capture_output=True, timeout=60)

    def test_slips_with_the_password_command_are_told_without_a_word_of_the_system(self):
        path = self.file()
        for words, text, status, said in (
                (["alice"], b"", 64, b"there is no terminal to ask at; use --stdin"),
                (["alice", "--stdin"], b"\n", 65, b"a password has 1 to"),
                (["bob", "--delete"], b"", 65, b"there is no user bob in " + path.encode()),
        ):
            done = self.passwd(path, *words, input=text)
            self.assertEqual(done.returncode, status, done.stderr)
            self.assertTrue(done.stderr.startswith(b"apus: " + said), done.stderr)
            for word in (b"Inappropriate", b"Invalid argument", b"No such file"):
                self.assertNotIn(word, done.stderr)

    def test_a_link_to_the_password_file_stays_one(self):
        path = self.file()
        link = os.path.join(os.path.dirname(path), "link")
        os.symlink("passwords", link)
        self.assertEqual(self.passwd(link, "bob", "--stdin").returncode, 0)
        self.assertTrue(os.path.islink(link))
        with open(path) as f:
            self.assertIn("bob:", f.read())
        os.unlink(path)
        self.assertEqual(self.passwd(link, "bob", "--stdin").returncode, 71)

    def test_who_interrupts_the_question_for_a_password_sees_again_what_he_types(self):
        path = self.file()
        with open(path, "rb") as f:
            before = f.read()
        # A session without a shell is not stopped from its terminal: after Ctrl-Z the question is asked again.
        for key, number in ((b"\x03", signal.SIGINT), (b"\x1a", None)):
            pid, terminal = pty.fork()
            if pid == 0:
                try:
                    # A test that runs in the background has them ignored.
                    for one in (signal.SIGINT, signal.SIGTSTP):
                        signal.signal(one, signal.SIG_DFL)
                    os.execv(os.path.join(binaries(), "apus"), ["apus", "passwd", "alice", "--file", path])
                finally:
                    os._exit(127)
            self.addCleanup(os.close, terminal)
            shown, end = b"", None

            def asks(question, count):
                nonlocal shown
                while shown.count(question) < count:
                    self.assertTrue(select.select([terminal], [], [], 20)[0], shown)
                    shown += os.read(terminal, 1_000)

            def has_ended():
                nonlocal end
                found, end = os.waitpid(pid, os.WNOHANG)
                return found == pid

            def echoes():
                return bool(termios.tcgetattr(terminal)[3] & termios.ECHO)
            asks(b"New password", 1)
            self.assertFalse(echoes())
            os.write(terminal, key)
            if number is not None:
                self.assertTrue(wait_for(has_ended, 20, 0.02))
                self.assertEqual(os.WTERMSIG(end), number)
                self.assertTrue(echoes())
                continue
            asks(b"New password", 2)
            os.write(terminal, b"horse battery\n")
            asks(b"Once more", 1)
            os.write(terminal, b"horse battery\n")
            self.assertTrue(wait_for(has_ended, 20, 0.02))
            self.assertEqual(end, 0)
            self.assertTrue(echoes())
            self.assertNotIn(b"horse", shown)
        with open(path, "rb") as f:
            self.assertNotEqual(f.read(), before)

    def begin(self, part, channel, mechanism="PLAIN", response=None):
        fields = [mechanism, "192.0.2.1", "tls", "", "", ""]
        part.send("begin", channel, *(fields if response is None else fields + [response]))


class PasswordFile(Alone):
    def test_it_answers_over_its_pipe(self):
        part = self.vault(passwords=self.file())
        self.assertEqual(part.receive(), [b"mechanisms", b"0", b"PLAIN", b"LOGIN"])
        self.begin(part, 1, response=b"\0alice\0secret")
        self.assertEqual(part.receive(), [b"granted", b"1", b"alice"])
        self.begin(part, 2, response=b"\0alice\0wrong")
        self.assertEqual(part.receive(), [b"denied", b"2", b"credentials", b"alice"])
        self.begin(part, 3, "LOGIN")
        self.assertEqual(part.receive(), [b"challenge", b"3", b"Username:"])
        part.send("answer", 3, "Alice")
        self.assertEqual(part.receive(), [b"challenge", b"3", b"Password:"])
        part.send("cancel", 3)
        part.send("answer", 3, "secret")
        self.begin(part, 3, "SCRAM-SHA-256")
        self.assertEqual(part.receive(), [b"denied", b"3", b"mechanism", b""])
        self.assertEqual(part.close(), 0)

    def test_what_breaks_the_rules_ends_the_link(self):
        for verb, fields in (("begin", ["PLAIN"]), ("check", ["a@b.example"]), ("begin", ["X", "192.0.2.1", "tls", "", "", ""]),
                             ("begin", ["PLAIN", "nowhere", "tls", "", "", ""]), ("begin", ["PLAIN", "192.0.2.1", "tls", "", "", "abc"])):
            part = self.vault(passwords=self.file())
            self.assertEqual(part.receive()[0], b"mechanisms")
            part.send(verb, 1, *fields)
            self.assertIsNone(part.receive(), (verb, fields))
            part.process.wait(20)
            self.assertIn("link-fault", part.logged())

    def test_a_file_that_others_can_read_is_not_used(self):
        part = self.vault(passwords=self.file(mode=0o644))
        part.receive()
        self.begin(part, 1, response=b"\0alice\0secret")
        self.assertEqual(part.receive()[:2], [b"later", b"1"])
        self.assertIn("passwords-unusable", part.logged())

    def test_many_attempts_at_once_are_bounded_and_each_is_answered(self):
        part = self.vault(passwords=self.file())
        part.receive()
        for channel in range(1, 301):
            self.begin(part, channel, response=b"\0alice\0wrong")
        answers = [part.receive(120) for _ in range(300)]
        self.assertEqual({int(a[1]) for a in answers}, set(range(1, 301)))
        self.assertEqual({a[0] for a in answers}, {b"denied", b"later"})

    def test_only_one_source_can_be_set(self):
        done = subprocess.run(
            [os.path.join(binaries(), "apus-vault"), "--setting", "passwords=/x", "--setting", "system=true",
             *(["--user", "nobody"] if os.geteuid() == 0 else [])], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        self.assertEqual(done.returncode, 78, done.stderr)


class Dovecot(Alone):
    """The test says what Dovecot says."""

    def setUp(self):
        folder = tempfile.mkdtemp(prefix="apus-vault-")
        self.addCleanup(shutil.rmtree, folder, True)
        os.chmod(folder, 0o755)
        self.path = os.path.join(folder, "auth-client")
        self.listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(self.listener.close)
        self.listener.bind(self.path)
        os.chmod(self.path, 0o777)
        self.listener.listen()
        self.listener.settimeout(20)
        self.part = self.vault(dovecot=self.path)
        self.assertEqual(self.part.receive(), [b"mechanisms", b"0", b"PLAIN", b"LOGIN"])
        self.accept()

    def accept(self):
        """Dovecot is there (again), and the vault knows it."""
        ready = self.part.logged().count("dovecot-ready")
        self.connection = self.listener.accept()[0]
        self.addCleanup(self.connection.close)
        self.connection.settimeout(20)
        self.lines = self.connection.makefile("rb")
        self.addCleanup(self.lines.close)
        self.say("VERSION\t1\t2", "MECH\tPLAIN\tplaintext", "MECH\tLOGIN\tplaintext", "DONE")
        self.assertEqual([self.lines.readline()[:4] for _ in range(2)], [b"VERS", b"CPID"])
        self.assertTrue(wait_for(lambda: self.part.logged().count("dovecot-ready") > ready, 20))

    def say(self, *lines):
        self.connection.sendall("".join(line + "\n" for line in lines).encode())

    def go_away(self):
        self.connection.shutdown(socket.SHUT_RDWR)

    def challenge(self, channel):
        """An exchange in which it is the client's turn; Dovecot's number of it."""
        self.begin(self.part, channel, "LOGIN")
        number = self.lines.readline().split(b"\t")[1].decode()
        self.say(f"CONT\t{number}\t{b64(b'Username:')}")
        self.assertEqual(self.part.receive(), [b"challenge", b"%d" % channel, b"Username:"])
        return number

    def assert_silence(self):
        with self.assertRaises(TimeoutError):
            self.part.receive(0.5)

    def test_who_has_a_challenge_to_answer_learns_of_the_loss_with_the_answer(self):
        self.challenge(1)
        self.begin(self.part, 2, response=b"\0alice\0secret")
        self.lines.readline()
        self.go_away()
        self.assertEqual(self.part.receive()[:2], [b"later", b"2"])
        self.assert_silence()
        self.accept()
        self.part.send("answer", 1, "alice")
        self.assertEqual(self.part.receive()[:2], [b"later", b"1"])
        # The new Dovecot has heard nothing of it.
        self.begin(self.part, 3, response=b"\0alice\0secret")
        self.assertEqual(self.lines.readline()[:5], b"AUTH\t")

    def test_a_dovecot_that_loses_patience_is_heard_when_the_client_has_answered(self):
        number = self.challenge(1)
        self.say(f"FAIL\t{number}\tuser=alice")
        self.assert_silence()
        self.part.send("answer", 1, "alice")
        self.assertEqual(self.part.receive(), [b"denied", b"1", b"credentials", b"alice"])

    def test_a_dovecot_that_speaks_out_of_its_turn_is_not_believed(self):
        number = self.challenge(1)
        self.say(f"OK\t{number}\tuser=alice")
        self.assert_silence()
        self.assertIn("dovecot-fault", self.part.logged())
        self.part.send("answer", 1, "alice")
        self.assertEqual(self.part.receive()[:2], [b"later", b"1"])


if __name__ == "__main__":
    unittest.main()
