# SPDX-License-Identifier: Apache-2.0
"""Parts run alone or in the place of others, by Documentation/pipes.md."""
import contextlib
import os
import shutil
import smtplib
import subprocess
import sys
import tempfile
import time
import unittest

from apus import HERE, PROGRAMS, Apus, binaries
from peers import Sink, slurp, wait_for
from pipes import Part, frame


class Parts(unittest.TestCase):
    def test_a_deliverer_of_thirty_lines_takes_the_place_of_apus_local(self):
        self.deliver()

    def test_a_deliverer_that_takes_content_unasked_gets_what_is_short_with_its_envelope_and_asks_for_the_rest(self):
        self.deliver("1000")

    def deliver(self, *options):
        folder = tempfile.mkdtemp(prefix="apus-parts-")
        self.addCleanup(shutil.rmtree, folder, True)
        os.chmod(folder, 0o777)
        script = os.path.join(folder, "deliverer.py")
        shutil.copy(os.path.join(HERE, "deliverer.py"), script)
        os.makedirs(os.path.join(folder, "out"))
        os.chmod(os.path.join(folder, "out"), 0o777)
        python = shutil.which("python3", path="/usr/bin:/bin") or sys.executable
        words = ", ".join(f'"{word}"' for word in (python, script, f"{folder}/out", *options))
        with Apus(extra=f"[programs]\nlocal = [{words}]\n") as apus:
            out = os.path.join(folder, "out")
            for count, lines in (2, 40000), (4, 3):
                text = "Subject: swapped\r\n\r\n" + "".join("line %d\r\n" % i for i in range(lines))
                with smtplib.SMTP("127.0.0.1", apus.port, timeout=20) as client:
                    client.sendmail("a@b.example", ["alice@apus.test", "bob@apus.test"], text)
                apus.wait_empty()
                files = os.listdir(out)
                self.assertEqual(len(files), count, apus.log())
                self.assertEqual(sum(slurp(os.path.join(out, name)).decode().endswith(text) for name in files), 2)

    def test_apus_remote_sends_content_that_comes_late_and_in_parts_as_a_whole(self):
        with contextlib.closing(Sink()) as sink:
            identity = dict(user="nobody", group="nogroup", extra_groups=[]) if os.geteuid() == 0 else {}
            settings = {"hostname": "mx.example.org", "tls": "off"}
            part = Part(os.path.join(binaries(), "apus-remote"), settings, "deliver", **identity)
            text = b"Subject: late\r\n\r\n" + b"".join(b".line %d\r\n" % i for i in range(500))
            head = [frame("deliver", 7, "0000000000007", "a@b.example", len(text), "8bitmime", f"remote:[127.0.0.1]:{sink.port}", 1_700_000_000_000_000),
                    frame("rcpt", 7, 0, "x@elsewhere.example", ""), frame("go", 7)]
            part.send_raw(b"".join(head))
            # Until then the server has said 354, and waits.
            self.assertTrue(wait_for(lambda: any(line.upper().startswith("DATA") for line in sink.commands)))
            for start in range(0, len(text), 3000):
                time.sleep(0.1)
                part.send_raw(frame("data", 7, text[start:start + 3000]))
            self.assertEqual(part.receive()[:4], [b"outcome", b"7", b"0", b"delivered"], part.logged())
            self.assertEqual(part.receive(), [b"done", b"7"])
            self.assertEqual([body for body in sink.bodies()], [text])
            part.send("noted", 7)
            self.assertEqual(part.close(), 0, part.logged())

    def test_every_program_explains_itself(self):
        for name in PROGRAMS:
            done = subprocess.run([os.path.join(binaries(), name), "--help"], capture_output=True, text=True, timeout=20)
            self.assertEqual(done.returncode, 0, name)
            self.assertIn(name, done.stdout)

    def test_daemons_refuse_to_run_as_root(self):
        if os.geteuid() != 0:
            self.skipTest("needs root")
        for name in ("apus-smtpd", "apus-queue", "apus-remote", "apus-bounce", "apus-lookup", "apus-vault"):
            done = subprocess.run([os.path.join(binaries(), name)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)
            self.assertEqual(done.returncode, 77, name)
            self.assertIn("root", done.stderr)


if __name__ == "__main__":
    unittest.main()
