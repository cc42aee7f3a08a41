# SPDX-License-Identifier: Apache-2.0
"""What an operator does to the queue: filters, orders, export, import, check, explain, on a running and a stopped queue."""
import json
import os
import smtplib
import subprocess
import time
import unittest

from apus import Apus, binaries
from peers import Sink, free_port, wait_for


def send(apus, recipients, sender="a@b.example", size=0):
    body = "Subject: t\r\n\r\n" + "".join("%07d line\r\n" % i for i in range(size // 14 + 1))
    with smtplib.SMTP("127.0.0.1", apus.port, timeout=30) as client:
        client.sendmail(sender, recipients, body)
    return body


def paused(**more):
    return Apus(queue="paused = true\n" + more.pop("queue", ""), **more)


class Filters(unittest.TestCase):
    def test_list_shows_what_matches_and_the_limit_counts_matches(self):
        with paused() as apus:
            for i in range(30):
                send(apus, ["alice@apus.test", "bob@apus.test"] if i % 2 else ["x%d@far%d.example" % (i, i % 3)],
                     sender="s%d@b.example" % (i % 5))
            apus.tool("queue", "hold", apus.listed()[3]["id"], "--to", "bob@apus.test")

            def listed(*words):
                return json.loads(apus.tool("queue", "list", "--json", *words)[1])
            self.assertEqual(len(listed()), 30)
            self.assertEqual(len(listed("--to", "bob@apus.test")), 15)
            self.assertEqual(len(listed("--to", "BOB@*", "--to", "@far0.example")), 20)
            self.assertEqual(len(listed("--from", "s1@b.example", "--to", "@apus.test")), 3)
            self.assertEqual(len(listed("--destination", "far1.example")), 5)
            self.assertEqual(len(listed("--destination", "local:bob", "--limit", "4")), 4)
            self.assertEqual(len(listed("--older", "1h")), 0)
            held = listed("--status", "held")
            self.assertEqual([(m["to"], m["status"], m["recipients"], m["matching"]) for m in held],
                             [("bob@apus.test", "held", 2, 1)])
            self.assertEqual(apus.tool("queue", "list", "--status", "failed")[1], "Nothing matches.\n")
            status, _, error = apus.tool("queue", "list", "--to", "nobody", check=False)
            self.assertEqual(status, 69)
            self.assertIn("no address", error)
            self.assertEqual(apus.tool("queue", "list", "--older", "soon", check=False)[0], 64)

    def test_an_order_changes_only_the_recipients_that_match(self):
        with paused() as apus:
            send(apus, ["alice@apus.test", "bob@apus.test", "carl@far.example"])
            send(apus, ["bob@apus.test"])
            for verb in ("remove", "bounce", "hold", "flush"):
                self.assertEqual(apus.tool("queue", verb, check=False)[0], 64, verb)
            before = apus.listed()
            dry = apus.tool("queue", "remove", "--to", "bob@apus.test", "--dry-run")[1]
            self.assertEqual(dry.count("<bob@apus.test>"), 2)
            self.assertIn("2 messages: 2 recipients would be removed", dry)
            data = json.loads(apus.tool("queue", "hold", "--all", "--dry-run", "--json")[1])
            self.assertEqual((len(data["recipients"]), data["messages"], data["changed"]), (4, 2, 4))
            self.assertEqual(json.loads(apus.tool("queue", "hold", "--to", "@none.example", "--dry-run", "--json")[1]),
                             {"recipients": [], "messages": 0, "changed": 0, "under-way": 0, "dry-run": True})
            self.assertEqual(apus.listed(), before)
            self.assertIn("2 messages: 2 recipients removed", apus.tool("queue", "remove", "--to", "bob@apus.test")[1])
            shown = json.loads(apus.tool("queue", "show", before[0]["id"], "--json")[1])
            self.assertEqual([r["to"] for r in shown["recipients"]], ["alice@apus.test", "carl@far.example"])
            self.assertEqual(apus.count(), 1)
            self.assertEqual(len(apus.logged("operated", "verb=remove", "status=removed")), 2)

    def test_reroute_sends_recipients_another_way(self):
        sink = Sink()
        self.addCleanup(sink.close)
        with Apus(smarthost="127.0.0.1:%d" % free_port(), queue='retry-min = "1h"') as apus:
            send(apus, ["x@far.example", "alice@apus.test"])
            self.assertTrue(wait_for(lambda: apus.listed() and apus.listed()[0]["reason"], 20), apus.log())
            self.assertEqual(apus.tool("queue", "reroute", "nonsense", "--all", check=False)[0], 69)
            out = apus.tool("queue", "reroute", "remote:[127.0.0.1]:%d" % sink.port, "--to", "@far.example")[1]
            self.assertIn("1 recipient to go by remote:", out)
            apus.wait_empty()
            self.assertTrue(wait_for(lambda: len(sink.messages) == 1, 10))
            self.assertEqual(apus.logged("operated", "verb=reroute")[0].count("127.0.0.1"), 1)


class Stopped(unittest.TestCase):
    def test_a_stopped_queue_is_shown_and_changed_by_an_apus_queue_that_the_command_starts(self):
        apus = paused()
        self.addCleanup(apus.close)
        apus.start()
        send(apus, ["alice@apus.test", "bob@apus.test"])
        send(apus, ["bob@apus.test"], size=300_000)
        apus.stop()
        status, out, error = apus.tool("queue", "count")
        self.assertEqual(out.split()[:4], ["2", "messages,", "3", "recipients,"])
        self.assertIn("apusd is not running", error)
        ids = [m["id"] for m in apus.listed()]
        apus.tool("queue", "hold", ids[0])
        self.assertEqual(json.loads(apus.tool("queue", "show", ids[0], "--json")[1])["recipients"][0]["status"], "held")
        apus.tool("queue", "remove", ids[1])
        apus.start()
        self.assertEqual([(m["id"], m["status"]) for m in apus.listed()], [(ids[0], "held")])
        self.assertEqual(apus.tool("queue", "count")[2], "")
        apus.stop()
        # Nobody else may have it open meanwhile.
        import fcntl
        with open(os.path.join(apus.root, "state/queue/format")) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            status, _, error = apus.tool("queue", "count", check=False)
        self.assertEqual(status, 75, error)
        self.assertIn("open elsewhere", error)

    def test_without_a_queue_there_is_a_clear_word(self):
        apus = paused()
        self.addCleanup(apus.close)
        status, _, error = apus.tool("queue", "count", check=False)
        self.assertEqual(status, 69)
        self.assertIn("no queue at", error)


if __name__ == "__main__":
    unittest.main()
