# SPDX-License-Identifier: Apache-2.0
"""Aliases that include files."""
import os
import unittest

from apus import Apus
from peers import wait_for
from test_virtual import recipient, send, write


class Includes(unittest.TestCase):
    def apus(self, aliases, allowed=True):
        apus = Apus()
        self.addCleanup(apus.close)
        write(apus.aliases, aliases.format(root=apus.root))
        apus.write_settings(local=f'aliases = "{apus.aliases}"\n' + ("alias-includes = true\n" if allowed else ""))
        return apus

    def test_a_list_in_a_file_gets_its_mail_and_a_change_counts_within_seconds(self):
        apus = self.apus("list: :include:{root}/list\n")
        write(apus.root + "/list", f"# people\nalice\n:include:{apus.root}/more\n")
        write(apus.root + "/more", "bob,\n")
        self.assertEqual(apus.tool("check")[1], f"{apus.config}: OK\n")
        apus.start()
        self.assertEqual(send(apus, "list@apus.test"), {})
        for user in ("alice", "bob"):
            apus.wait_delivered(1, user)
        self.assertIn(f"includes bob ({apus.root}/more)", apus.tool("explain", "list@apus.test")[1])
        write(apus.root + "/more", "alice\n")
        self.assertTrue(wait_for(lambda: "by local:bob" not in apus.tool("explain", "list@apus.test")[1], 10, 0.5))
        # What is not in order does not take its place.
        write(apus.root + "/list", "alice\n|/bin/sh\n")
        self.assertTrue(wait_for(lambda: recipient(apus, "list@apus.test") and apus.logged("alias-fault", "/list", "line=2"), 10, 0.5))
        self.assertIn("250", recipient(apus, "list@apus.test"))
        self.assertIn("programs", apus.tool("check")[1] + apus.tool("check")[2])

    def test_without_leave_nothing_is_included(self):
        apus = self.apus("list: :include:{root}/list\n", allowed=False)
        write(apus.root + "/list", "alice\n")
        text = apus.tool("check")
        self.assertIn("local.alias-includes", text[1] + text[2])
        apus.start()
        self.assertIn("451", recipient(apus, "list@apus.test"))

    def test_what_is_no_file_is_not_waited_for(self):
        apus = self.apus("".join(f"a{n}: :include:{p}\n" for n, p in enumerate(
            ["{root}/pipe", "/dev/zero", "{root}", "/does/not/exist", "{root}/empty"])))
        os.mkfifo(apus.root + "/pipe")
        os.chmod(apus.root + "/pipe", 0o666)
        write(apus.root + "/empty", "")
        apus.start()
        for number in range(5):
            self.assertIn("451", recipient(apus, f"a{number}@apus.test"))
        self.assertIn("250", recipient(apus, "alice@apus.test"))


if __name__ == "__main__":
    unittest.main()
