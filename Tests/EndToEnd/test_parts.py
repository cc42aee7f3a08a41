# SPDX-License-Identifier: Apache-2.0
"""Parts run alone or in the place of others, by Documentation/pipes.md."""
import os
import shutil
import smtplib
import subprocess
import sys
import tempfile
import unittest

from apus import HERE, PROGRAMS, Apus, binaries
from peers import slurp, wait_for


class Parts(unittest.TestCase):
    def test_a_deliverer_of_thirty_lines_takes_the_place_of_apus_local(self):
        folder = tempfile.mkdtemp(prefix="apus-parts-")
        self.addCleanup(shutil.rmtree, folder, True)
        os.chmod(folder, 0o777)
        script = os.path.join(folder, "deliverer.py")
        shutil.copy(os.path.join(HERE, "deliverer.py"), script)
        os.makedirs(os.path.join(folder, "out"))
        os.chmod(os.path.join(folder, "out"), 0o777)
        python = shutil.which("python3", path="/usr/bin:/bin") or sys.executable
        with Apus(extra=f'[programs]\nlocal = ["{python}", "{script}", "{folder}/out"]\n') as apus:
            body = "".join("line %d\r\n" % i for i in range(40000))
            with smtplib.SMTP("127.0.0.1", apus.port, timeout=20) as client:
                client.sendmail("a@b.example", ["alice@apus.test", "bob@apus.test"], "Subject: swapped\r\n\r\n" + body)
            out = os.path.join(folder, "out")
            self.assertTrue(wait_for(lambda: len(os.listdir(out)) == 2, 20), apus.log())
            for name in os.listdir(out):
                self.assertTrue(slurp(os.path.join(out, name)).decode().endswith("Subject: swapped\r\n\r\n" + body))
            apus.wait_empty()

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
