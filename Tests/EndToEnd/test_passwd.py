# SPDX-License-Identifier: Apache-2.0
"""`apus passwd`, and the terminal that it asks at."""
import os
import pty
import select
import signal
import subprocess
import termios
import unittest

from apus import binaries
from peers import wait_for
from test_vault import Alone


class PasswordCommand(Alone):
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


if __name__ == "__main__":
    unittest.main()
