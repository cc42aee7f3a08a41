# SPDX-License-Identifier: Apache-2.0
"""Tables of other programs: SQLite behind socketmap, and what becomes of mail when they fail."""
import os
import subprocess
import threading
import time
import unittest

from apus import Apus
from peers import wait_for
from tableserver import TableServer
from test_virtual import recipient, send, write


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

    def test_a_server_that_hung_once_is_asked_again(self):
        server = self.server()
        apus = self.started(server, "table-timeout = 1")

        def ask(names):
            answers = {}
            threads = [threading.Thread(target=lambda n=n: answers.update({n: recipient(apus, f"{n}@v.example")})) for n in names]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
            return [answers[n][:3] for n in names]
        never = threading.Event()
        self.addCleanup(never.set)
        server.replies = {f"busy{n}@v.example": lambda: time.sleep(0.2) or server.netstring("NOTFOUND ") for n in range(8)}
        server.replies |= {f"hung{n}@v.example": lambda: never.wait(60) and server.netstring("NOTFOUND ") for n in range(8)}
        # All the connections that there may be, each with an answer behind it.
        self.assertEqual(ask([f"busy{n}" for n in range(8)]), ["550"] * 8)
        self.assertEqual(ask([f"hung{n}" for n in range(8)]), ["451"] * 8)
        self.assertTrue(wait_for(lambda: "250" in recipient(apus, "joe@v.example"), 5, 0.5))

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


class CompiledTables(unittest.TestCase):
    def setUp(self):
        self.apus = Apus()
        self.addCleanup(self.apus.close)
        self.file = self.apus.root + "/mailboxes"
        write(self.file, "joe@v.example\n\"a b\"@v.example\n")
        self.build()
        os.mkdir(self.apus.root + "/vmail", 0o777)
        os.chmod(self.apus.root + "/vmail", 0o777)
        self.apus.write_settings(extra=f"""
[virtual]
domains = ["v.example"]
mailboxes = ["lmdb:{self.file}.lmdb"]
owner = "{self.apus.user}"
mailbox = "maildir:{self.apus.root}/vmail/%{{domain}}/%{{local}}"
""")

    def build(self, check=True):
        done = subprocess.run([os.path.join(self.apus.folder, "apus"), "table", "build", self.file],
                              capture_output=True, text=True, timeout=60)
        if check:
            self.assertEqual(done.returncode, 0, done.stderr)
        return done.returncode, done.stdout, done.stderr

    def query(self, table, key):
        done = subprocess.run([os.path.join(self.apus.folder, "apus"), "table", "query", table, key],
                              capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout.strip()

    def test_another_table_takes_its_place_without_a_restart_and_without_a_gap(self):
        apus = self.apus.start()
        self.assertEqual(send(apus, "joe@v.example", '"A B"@v.example'), {})
        self.assertIn("550 5.1.1", recipient(apus, "mary@v.example"))
        pids = apus.pids("apus-lookup")
        write(self.file, "joe@v.example\nmary@v.example\n")
        self.build()
        deadline = time.time() + 10
        while "250" not in recipient(apus, "mary@v.example"):
            self.assertIn("250", recipient(apus, "joe@v.example"))
            self.assertLess(time.time(), deadline, apus.log()[-2000:])
            time.sleep(0.2)
        self.assertEqual(apus.pids("apus-lookup"), pids)
        # What is no table does not take its place, and neither does nothing.
        for step in (lambda: write(self.file + ".lmdb", "no table"), lambda: os.unlink(self.file + ".lmdb")):
            count = len(apus.logged("table-unreadable"))
            step()
            self.assertTrue(wait_for(
                lambda: recipient(apus, "joe@v.example") and len(apus.logged("table-unreadable")) > count, 10, 0.3), apus.log()[-2000:])
            self.assertIn("250", recipient(apus, "mary@v.example"))
        self.assertEqual(apus.pids("apus-lookup"), pids)

    def test_a_missing_table_makes_nobody_unknown(self):
        os.unlink(self.file + ".lmdb")
        write(self.file + ".lmdb", "no table")
        apus = self.apus.start()
        self.assertIn("451", recipient(apus, "joe@v.example"))
        self.build()
        self.assertTrue(wait_for(lambda: "250" in recipient(apus, "joe@v.example"), 10, 0.3))

    def test_a_file_with_a_mistake_changes_nothing(self):
        write(self.file, "joe@v.example new\nmary v.example\nx y\n")
        status, out, err = self.build(check=False)
        self.assertEqual(status, 65)
        self.assertIn(f"{self.file}:2: ", err)
        self.assertIn(f"{self.file}:3: ", err)
        self.assertEqual(self.query(f"lmdb:{self.file}.lmdb", "joe@v.example"), (0, ""))
        self.assertEqual(sorted(n for n in os.listdir(self.apus.root) if "mailboxes" in n), ["mailboxes", "mailboxes.lmdb"])

    def test_a_key_can_be_asked_for(self):
        write(self.file, "Joe@v.example  a@b.example, c\n@v.example all\n")
        self.build()
        for table in (f"text:{self.file}", f"lmdb:{self.file}.lmdb"):
            self.assertEqual(self.query(table, "JOE@V.example"), (0, "a@b.example, c"))
            self.assertEqual(self.query(table, "@v.example"), (0, "all"))
            self.assertEqual(self.query(table, "x@v.example"), (1, ""))
            self.assertEqual(self.query(table, "not a key")[0], 64)
        self.assertEqual(self.query("lmdb:/does/not/exist", "x@v.example")[0], 74)

    def test_patterns_lead_where_they_say_and_wait_while_they_are_not_in_order(self):
        patterns, beginnings = self.apus.root + "/patterns", self.apus.root + "/beginnings"
        write(patterns, "/^(.*)-list@v\\.example$/ $1@v.example\n/^two@/ joe@v.example, alice\n")
        write(beginnings, "sales- alice\n")
        text = self.apus.sections["extra"]
        self.apus.write_settings(extra=text + f'aliases = ["regexp:{patterns}", "prefix:{beginnings}"]\n')
        apus = self.apus.start()
        self.assertEqual(send(apus, "joe-list@v.example", "two@v.example", "sales-eu@v.example"), {})
        # One message, one copy.
        apus.wait_delivered(1)
        self.assertIn(f"({patterns}:1)", apus.tool("explain", "joe-list@v.example")[1])
        self.assertIn("550 5.1.1", recipient(apus, "nobody@v.example"))
        self.assertIn("550 5.1.1", recipient(apus, '"a, x@evil.example, joe-list"@v.example'))
        self.assertEqual(self.query(f"regexp:{patterns}", "Joe-List@v.example"), (0, "joe@v.example"))
        self.assertEqual(self.query(f"prefix:{beginnings}", "sales-x@v.example"), (0, "alice"))
        write(patterns, "/(/ x\n")
        self.assertIn(f"{patterns}:1: ", apus.tool("check")[1] + apus.tool("check")[2])
        self.assertTrue(wait_for(lambda: recipient(apus, "joe-list@v.example") and apus.logged("table-fault"), 10, 0.3))
        self.assertIn("250", recipient(apus, "joe-list@v.example"))
        apus.kill("apus-lookup")
        self.assertTrue(wait_for(lambda: "451" in recipient(apus, "joe-list@v.example") and apus.pids("apus-lookup"), 10, 0.3))
        self.assertTrue(wait_for(lambda: apus.logged("later", "is not in order"), 10, 0.3))

    def test_the_table_can_be_read_by_whom_the_file_can_be(self):
        for mode in (0o640, 0o604, 0o600):
            os.chmod(self.file, mode)
            if os.geteuid() == 0:
                os.chown(self.file, 4321, 1234)
            self.build()
            old, new = os.stat(self.file), os.stat(self.file + ".lmdb")
            self.assertEqual((old.st_uid, old.st_gid, old.st_mode), (new.st_uid, new.st_gid, new.st_mode))


if __name__ == "__main__":
    unittest.main()
