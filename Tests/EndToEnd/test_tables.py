# SPDX-License-Identifier: Apache-2.0
"""Tables of other programs: SQLite behind socketmap, and what becomes of mail when they fail."""
import os
import threading
import time
import unittest

from apus import Apus
from peers import wait_for
from tableserver import TableServer
from test_virtual import recipient, send


class Tables(unittest.TestCase):
    def started(self, server, settings="", **sections):
        apus = Apus(**sections)
        self.addCleanup(apus.close)
        self.folder = apus.root + "/vmail"
        os.mkdir(self.folder, 0o777)
        os.chmod(self.folder, 0o777)
        place = server.place if server else f"socketmap:unix:{apus.root}/nobody"
        apus.write_settings(extra=f"""
[virtual]
domain-tables = ["{place}:domains"]
mailboxes = ["{place}:mailboxes"]
aliases = ["{place}:aliases"]
owner = "{apus.user}"
mailbox = "maildir:{self.folder}/%{{domain}}/%{{local}}"
{settings}
""")
        apus.start()
        return apus

    def server(self, path=None):
        server = TableServer(path)
        self.addCleanup(server.close)
        server.execute("INSERT INTO domains VALUES ('v.example')")
        for name in ("joe", "mary", "a b"):
            address = f'"{name}"@v.example' if " " in name else f"{name}@v.example"
            server.execute("INSERT INTO mailboxes (address) VALUES (?)", address)
        server.execute("INSERT INTO aliases VALUES ('info@v.example', 'joe@v.example, mary@v.example')")
        server.execute("INSERT INTO aliases VALUES ('run@v.example', '|/bin/sh')")
        return server

    def new(self, name):
        folder = f"{self.folder}/v.example/{name}/new"
        return os.listdir(folder) if os.path.isdir(folder) else []

    def test_users_of_a_database_get_mail_and_a_change_counts_at_once(self):
        server = self.server()
        apus = self.started(server)
        self.assertEqual(send(apus, "Joe+tag@v.example", "info@v.example", '"a b"@v.example', "alice@apus.test"), {})
        self.assertTrue(wait_for(lambda: [len(self.new(n)) for n in ("joe", "mary", "a%20b")] == [2, 1, 1]), apus.log()[-3000:])
        apus.wait_delivered(1)
        self.assertIn("550 5.1.1", recipient(apus, "new@v.example"))
        server.execute("INSERT INTO mailboxes (address) VALUES ('new@v.example')")
        self.assertIn("250", recipient(apus, "new@v.example"))
        server.execute("DELETE FROM mailboxes WHERE address = 'mary@v.example'")
        self.assertTrue(wait_for(lambda: "550 5.1.1" in recipient(apus, "mary@v.example"), 10, 0.5))
        # What a database says can run no program.
        self.assertIn("451", recipient(apus, "run@v.example"))
        # Keys are in lower case, and a user of the machine is not asked for.
        self.assertIn(("mailboxes", "joe+tag@v.example"), server.questions)
        self.assertNotIn("alice", " ".join(key for _, key in server.questions))
        self.assertIn(f"({server.place}:mailboxes)", apus.tool("explain", "joe@v.example")[1])

    def test_a_table_that_fails_makes_mail_wait_and_never_bounce(self):
        server = self.server()
        apus = self.started(server, "table-timeout = 1")
        server.replies = {
            "temp@v.example": server.netstring("TEMP the database is away"),
            "timeout@v.example": server.netstring("TIMEOUT "), "perm@v.example": server.netstring("PERM no"),
            "other@v.example": server.netstring("HELLO"), "noise@v.example": b"220 mx ESMTP\r\n",
            "long@v.example": b"100001:OK ", "short@v.example": b"9:NOTF", "slow@v.example": lambda: time.sleep(3),
            "two@v.example": server.netstring("NOTFOUND ") * 2, "busy.example": server.netstring("TEMP busy"),
        }
        started = time.time()
        for address in list(server.replies)[:-2] + ["x@busy.example"]:
            address = address if "@" in address else "x@" + address
            self.assertRegex(recipient(apus, address), "^451 4", address)
        self.assertLess(time.time() - started, 8)
        # An answer that nobody asked for is not the next one's.
        recipient(apus, "two@v.example")
        for name in ("joe", "mary"):
            self.assertIn("250", recipient(apus, f"{name}@v.example"))
        self.assertIn("550 5.1.1", recipient(apus, "nobody@v.example"))
        self.assertTrue(apus.logged("table-away", "the database is away"))

    def test_a_slow_answer_holds_up_nobody_else(self):
        server = self.server()
        apus = self.started(server, "table-timeout = 10")
        release = threading.Event()
        self.addCleanup(release.set)
        server.replies = {f"slow{n}@v.example": lambda: release.wait(20) and server.netstring("NOTFOUND ") for n in range(5)}
        answers = []
        threads = [threading.Thread(target=lambda n=n: answers.append(recipient(apus, f"slow{n}@v.example"))) for n in range(5)]
        for thread in threads:
            thread.start()
        self.assertTrue(wait_for(lambda: sum("slow" in key for _, key in server.questions) == 5, 10), server.questions)
        started = time.time()
        for number in range(10):
            self.assertIn("250", recipient(apus, "joe@v.example"))
            self.assertIn("250", recipient(apus, "alice@apus.test"))
        self.assertLess(time.time() - started, 5)
        self.assertEqual(answers, [])
        release.set()
        for thread in threads:
            thread.join(15)
        self.assertEqual([a[:9] for a in answers], ["550 5.1.1"] * 5)

    def test_more_questions_than_connections_are_all_answered(self):
        server = self.server()
        apus = self.started(server)
        answers = []
        threads = [threading.Thread(target=lambda n=n: answers.append(recipient(apus, f"u{n}@v.example"))) for n in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        self.assertEqual([a[:9] for a in answers], ["550 5.1.1"] * 40)
        self.assertLessEqual(server.connections, 8)

    def test_a_server_that_comes_and_goes_is_found_again(self):
        apus = self.started(None, "table-timeout = 2")
        self.assertIn("451", recipient(apus, "joe@v.example"))
        # Nothing is relayed while it is not known what is ours; the users of the machine do not wait.
        self.assertIn("451", recipient(apus, "x@elsewhere.example"))
        self.assertIn("250", recipient(apus, "alice@apus.test"))
        server = self.server(apus.root + "/nobody")
        os.chmod(apus.root + "/nobody", 0o666)
        self.assertIn("250", recipient(apus, "joe@v.example"))
        # It may close a connection that waits for the next question.
        for round in range(3):
            server.hang_up()
            time.sleep(0.05 * round)
            self.assertIn("250", recipient(apus, "mary@v.example"))
            self.assertIn("550", recipient(apus, f"nobody{round}@v.example"))
        server.close()
        os.unlink(apus.root + "/nobody")
        self.assertTrue(wait_for(lambda: "451" in recipient(apus, "joe@v.example"), 10, 0.5))

    def test_the_place_of_a_server_is_on_this_machine(self):
        apus = Apus()
        self.addCleanup(apus.close)
        for place in ("socketmap:inet:192.0.2.1:99:users", "socketmap:unix:/run/x", "socketmap:inet:localhost:99:users"):
            apus.write_settings(extra=f'[virtual]\naliases = ["{place}"]\n')
            status, out, err = apus.tool("check", check=False)
            self.assertNotEqual(status, 0, place)
            self.assertIn("is not a table", out + err)


if __name__ == "__main__":
    unittest.main()
