# SPDX-License-Identifier: Apache-2.0
"""Who is delivered when: senders, priorities, and what the settings allow towards a destination."""
import os
import smtplib
import socket
import subprocess
import threading
import time
import unittest

from apus import Apus
from peers import Sink, free_port, wait_for

#: Messages in front of the single one.
CROWD = int(os.environ.get("APUS_CROWD_MESSAGES", "4000"))


def send(port, sender, recipient, count=1):
    with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
        for number in range(count):
            client.sendmail(sender, [recipient], f"Subject: {number}\r\n\r\nx\r\n")


class Terms(unittest.TestCase):
    def at(self, terms, sink, queue=""):
        self.addCleanup(sink.close)
        apus = Apus(queue=queue, remote=f"port = {sink.port}\n", extra=f'[[destination]]\nmatch = "127.0.0.1"\n{terms}\n')
        self.addCleanup(apus.close)
        return apus.start()

    def test_no_more_connections_than_allowed_are_open_at_once_and_no_more_messages_go_over_one(self):
        at_once, most, lock = set(), [0], threading.Lock()

        def data(line):
            with lock:
                at_once.add(threading.get_ident())
                most[0] = max(most[0], len(at_once))
            time.sleep(0.02)

        def dot(line):
            with lock:
                at_once.discard(threading.get_ident())

        sink = Sink({"DATA": data, "DOT": dot})
        apus = self.at("connections-max = 2\nmessages-per-connection-max = 3", sink)
        send(apus.port, "a@apus.test", "x@[127.0.0.1]", 30)
        self.assertTrue(wait_for(lambda: len(sink.messages) == 30, 30), apus.log()[-2000:])
        self.assertEqual(most[0], 2)
        self.assertGreaterEqual(sink.connections, 10)
        apus.wait_empty()

    def test_no_more_messages_begin_in_a_minute_than_allowed(self):
        sink = Sink()
        apus = self.at("messages-per-minute-max = 120", sink)
        send(apus.port, "a@apus.test", "x@[127.0.0.1]", 7)
        started = time.monotonic()
        self.assertTrue(wait_for(lambda: len(sink.messages) == 7, 30), apus.log()[-2000:])
        self.assertGreater(time.monotonic() - started, 2.3)
        apus.wait_empty()

    def test_mail_of_high_priority_goes_first_and_of_low_priority_last(self):
        sink = Sink({"DOT": lambda line: time.sleep(0.01)})
        apus = self.at(
            "connections-max = 1", sink,
            queue='paused = true\nhigh-priority-senders = ["pager@apus.test"]\nlow-priority-senders = ["@news.apus.test"]\n')
        for sender in ("a@news.apus.test", "b@apus.test", "pager@apus.test"):
            send(apus.port, sender, "x@[127.0.0.1]", 40)
        apus.write_settings(queue=apus.sections["queue"].replace("paused = true\n", ""))
        os.kill(apus.process.pid, 1)
        self.assertTrue(wait_for(lambda: len(sink.messages) == 120, 60), apus.log()[-2000:])
        order = [m[0] for m in sink.messages]
        mean = {s: sum(i for i, o in enumerate(order) if o == s) / 40 for s in set(order)}
        self.assertLess(mean["pager@apus.test"] + 20, mean["b@apus.test"])
        self.assertLess(mean["b@apus.test"] + 10, mean["a@news.apus.test"])
        # The others have their turns meanwhile.
        self.assertIn("a@news.apus.test", order[:42])


class Crowd(unittest.TestCase):
    def test_a_single_message_to_a_healthy_host_leaves_within_a_second_behind_many_for_hosts_that_do_not_answer(self):
        port = free_port()
        # Hosts that take connections and say nothing.
        for number in range(1, 21):
            self.addCleanup(socket.create_server((f"127.9.0.{number}", port), backlog=4096).close)
        sink = Sink(port=port)
        self.addCleanup(sink.close)
        limits = "" if CROWD > 50_000 else "deliveries-max = 200\nwindow-recipients-max = 1000\n"
        with Apus(top="stop-timeout = 1\n", remote=f"port = {port}\n", queue=limits, extra="[smtp]\nsessions-per-client-max = 1000\n") as apus:
            work = [subprocess.Popen(
                ["smtp-source", "-s", "5", "-m", str(CROWD // 20), "-d", "-f", "bulk@apus.test", "-t", f"x@[127.9.0.{n}]",
                 f"inet:127.0.0.1:{apus.port}"]) for n in range(1, 21)]
            for process in work:
                self.assertEqual(process.wait(300), 0)
            self.assertGreater(apus.count(), CROWD * 0.9)
            started = time.monotonic()
            send(apus.port, "alice@apus.test", "bob@[127.0.0.1]")
            self.assertTrue(wait_for(lambda: sink.messages, 20, 0.01), apus.log()[-2000:])
            self.assertLess(time.monotonic() - started, 1)
            self.assertGreater(apus.count(), CROWD * 0.9)


if __name__ == "__main__":
    unittest.main()
