# SPDX-License-Identifier: Apache-2.0
"""apus-vault alone, over its pipes (Documentation/pipes.md, section 7)."""
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import unittest

from apus import Apus, binaries
from peers import wait_for
from pipes import Part, frame
from saslclient import b64


class Alone(unittest.TestCase):
    """A vault for each test."""

    def vault(self, peer=None, **settings):
        identity = Apus.identity_of(pwd.getpwnam("nobody").pw_uid) if os.geteuid() == 0 else {}
        part = Part(os.path.join(binaries(), "apus-vault"), settings, "vault", words=["--link", f"vault:{peer}:0:1"] if peer else [], **identity)
        self.addCleanup(part.kill)
        return part

    def folder(self):
        folder = tempfile.mkdtemp(prefix="apus-vault-")
        self.addCleanup(shutil.rmtree, folder, True)
        os.chmod(folder, 0o755)
        return folder

    def secret(self, name, mode=0o600):
        """An empty file that the vault may read."""
        path = os.path.join(self.folder(), name)
        open(path, "w").close()
        if os.geteuid() == 0:
            os.chown(path, pwd.getpwnam("nobody").pw_uid, -1)
        os.chmod(path, mode)
        return path

    def file(self, mode=0o600, scheme="sha512"):
        path = self.secret("passwords")
        subprocess.run(
            [os.path.join(binaries(), "apus"), "passwd", "alice", "--stdin", "--scheme", scheme, "--file", path],
            input=b"secret\n", check=True, capture_output=True)
        os.chmod(path, mode)
        return path

    def begin(self, part, channel, mechanism="PLAIN", response=None, client="192.0.2.1"):
        part.send_raw(self.beginning(channel, mechanism, response, client))

    def beginning(self, channel, mechanism="PLAIN", response=None, client="192.0.2.1"):
        fields = [mechanism, client, "tls", "", "", ""]
        return frame("begin", channel, *(fields if response is None else fields + [response]))


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
        self.assertEqual(part.receive()[:2], [b"later", b"3"])
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

    def scram(self, part, channel, user=b"alice"):
        self.begin(part, channel, "SCRAM-SHA-256", b"n,,n=" + user + b",r=abcdefgh")
        return part.receive()

    def external(self, part, channel):
        part.send("begin", channel, "EXTERNAL", "192.0.2.1", "tls", "", "", b"x" * 32, "")
        return part.receive()

    def test_while_the_file_cannot_be_used_nobody_is_told_that_he_is_wrong_by_any_mechanism(self):
        path = self.file(mode=0o644, scheme="scram-sha-256")
        part = self.vault(passwords=path, mechanism=["SCRAM-SHA-256", "EXTERNAL", "PLAIN"], **{"failures-per-client-max": 2})
        part.receive()
        for channel in range(1, 13, 3):
            self.assertEqual(self.scram(part, channel)[:2], [b"later", b"%d" % channel])
            self.assertEqual(self.external(part, channel + 1)[:2], [b"later", b"%d" % (channel + 1)])
            self.begin(part, channel + 2, response=b"\0alice\0wrong")
            self.assertEqual(part.receive()[:2], [b"later", b"%d" % (channel + 2)])
        # And nothing of it was counted.
        os.chmod(path, 0o600)
        self.assertTrue(wait_for(lambda: (self.begin(part, 20, response=b"\0alice\0secret"), part.receive())[1]
                                 == [b"granted", b"20", b"alice"], 10, 0.5), part.logged())

    def test_a_mechanism_that_was_withdrawn_is_nobodys_failure(self):
        part = self.vault(passwords=self.file(), **{"failures-per-client-max": 2})
        part.receive()
        for channel in range(1, 6):
            self.assertEqual(self.scram(part, channel)[:2], [b"later", b"%d" % channel])
        self.begin(part, 6, response=b"\0alice\0secret")
        self.assertEqual(part.receive(), [b"granted", b"6", b"alice"])

    def test_many_attempts_at_once_are_bounded_and_each_is_answered(self):
        part = self.vault(passwords=self.file())
        part.receive()
        for channel in range(1, 301):
            self.begin(part, channel, response=b"\0alice\0wrong", client=f"198.51.100.{channel % 100}")
        answers = [part.receive(120) for _ in range(300)]
        self.assertEqual({int(a[1]) for a in answers}, set(range(1, 301)))
        self.assertEqual({a[0] for a in answers}, {b"denied", b"later"})

    def test_one_client_guesses_no_more_often_side_by_side_than_one_after_the_other(self):
        part = self.vault(passwords=self.file(), **{"failures-per-client-max": 4})
        part.receive()
        part.send_raw(b"".join(self.beginning(channel, response=b"\0alice\0wrong") for channel in range(1, 51)))
        answers = [part.receive(120) for _ in range(50)]
        self.assertEqual({int(a[1]) for a in answers}, set(range(1, 51)))
        self.assertEqual(sum(a[2] == b"credentials" for a in answers), 4, answers)
        self.begin(part, 51, response=b"\0alice\0secret")
        self.assertEqual(part.receive(), [b"denied", b"51", b"blocked", b""])
        self.begin(part, 52, response=b"\0alice\0secret", client="192.0.2.2")
        self.assertEqual(part.receive(), [b"granted", b"52", b"alice"])

    def test_exchanges_in_which_it_is_the_clients_turn_count_as_guesses_to_come(self):
        part = self.vault(passwords=self.file(), **{"failures-per-client-max": 2})
        part.receive()
        for channel in (1, 2):
            self.begin(part, channel, "LOGIN")
            self.assertEqual(part.receive()[0], b"challenge")
        self.begin(part, 3, "LOGIN")
        self.assertEqual(part.receive()[:2], [b"later", b"3"])
        # To give one up before there was anything to check is no failure.
        part.send("cancel", 1)
        self.begin(part, 4, response=b"\0alice\0secret")
        self.assertEqual(part.receive(), [b"granted", b"4", b"alice"])

    def test_who_does_not_wait_for_the_answer_has_failed(self):
        part = self.vault(passwords=self.file(), **{"failures-per-client-max": 3})
        part.receive()
        for channel in (1, 2, 3):
            part.send_raw(self.beginning(channel, response=b"\0alice\0secret") + frame("cancel", channel))
        self.begin(part, 4, response=b"\0alice\0secret")
        self.assertEqual(part.receive(), [b"denied", b"4", b"blocked", b""])

    def test_a_check_that_took_too_long_for_the_asker_is_nobodys_failure(self):
        part = self.vault(passwords=self.file(), **{"failures-per-client-max": 3})
        part.receive()
        for channel in range(1, 11):
            part.send_raw(self.beginning(channel, response=b"\0alice\0secret") + frame("cancel", channel, "overdue"))
        self.begin(part, 11, response=b"\0alice\0secret")
        self.assertEqual(part.receive(), [b"granted", b"11", b"alice"])

    def test_only_one_source_can_be_set(self):
        done = subprocess.run(
            [os.path.join(binaries(), "apus-vault"), "--setting", "passwords=/x", "--setting", "system=true",
             *(["--user", "nobody"] if os.geteuid() == 0 else [])], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        self.assertEqual(done.returncode, 78, done.stderr)


class Askers(Alone):
    """Who is at the other end is said by whoever starts the vault; here by hand."""

    def accounts(self):
        path = self.secret("remote-passwords")
        with open(path, "w") as f:
            f.write("smtp.example.net shop@example.org correct horse\n")
        return path

    def login(self, part):
        part.send("login", 1, "smtp.example.net", "shop@example.org", "PLAIN")
        return part.receive()

    def assert_broken_off(self, part):
        part.process.wait(20)
        self.assertIn("link-fault", part.logged())

    def test_our_own_passwords_are_for_apus_remote_alone(self):
        proof = [b"proof", b"1", b"PLAIN", b"last", b"\0shop@example.org\0correct horse"]
        for peer in ("apus-smtpd", None, "another"):
            part = self.vault(peer, **{"remote-passwords": self.accounts()})
            part.receive()
            self.assertIsNone(self.login(part), peer)
            self.assert_broken_off(part)
        part = self.vault("apus-remote", **{"remote-passwords": self.accounts()})
        part.receive()
        self.assertEqual(self.login(part), proof)

    def test_apus_remote_cannot_try_the_passwords_of_users(self):
        for verb, channel, fields in (("begin", 1, ["PLAIN", "192.0.2.1", "tls", "", "", "", b"\0alice\0secret"]),
                                      ("spent", 0, ["alice", 1, 1])):
            part = self.vault("apus-remote", passwords=self.file())
            part.receive()
            part.send(verb, channel, *fields)
            self.assertIsNone(part.receive(), verb)
            self.assert_broken_off(part)


class Dovecot(Alone):
    """The test says what Dovecot says."""

    def setUp(self):
        self.path = os.path.join(self.folder(), "auth-client")
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
