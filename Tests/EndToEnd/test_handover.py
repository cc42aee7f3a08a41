# SPDX-License-Identifier: Apache-2.0
"""apus-queue run by hand: mail that goes on to others and reports, which agents hand back to the queue."""
import os
import signal
import tempfile
import time
import unittest

from powercut.byhand import Message
from test_queue import ByHand


class Handover(ByHand):
    def setUp(self):
        super().setUp()
        self.held, self.frames, self.later, self.unknown, self.targets = [], [], set(), set(), {}

    def hand(self, agents=("apus-local",), **more):
        """A queue whose agents of these names keep their deliveries open, and whose look-ups cannot tell of some addresses
        (`later`), know that they are nobody's (`unknown`), or lead to routes of others (`targets`)."""
        def agent(name, sender, recipients):
            if name in agents:
                self.held.append(name)
                return None
            if name == "apus-bounce":
                return [("failed", 0, "5.0.0")] * len(recipients)
            return [("failed", 550, "5.1.1") if r.startswith("f") else ("delivered", 250, "2.0.0") for r in recipients]

        queue = self.queue(agent=agent, **more)
        asked, delivered = queue.asked, queue.delivered

        def ask(verb, channel, fields):
            if verb == b"resolve" and fields[0].decode() in self.later:
                queue.pipes["apus-lookup"].send("later", channel, "not now")
            elif verb == b"resolve" and fields[0].decode() in self.unknown:
                queue.pipes["apus-lookup"].send("unknown", channel, "5.1.1", "nobody")
            elif verb == b"resolve" and fields[0].decode() in self.targets:
                routes = self.targets[fields[0].decode()]
                for route in routes:
                    queue.pipes["apus-lookup"].send("target", channel, fields[0], route)
                queue.pipes["apus-lookup"].send("resolved", channel, len(routes))
            else:
                asked(verb, channel, fields)

        def deliver(name, verb, channel, fields):
            self.frames.append((name, channel, verb.decode(), fields))
            delivered(name, verb, channel, fields)
        queue.asked, queue.delivered = ask, deliver
        return queue

    def open(self, queue, name):
        """The channel of the delivery that this agent keeps."""
        return next(channel for (agent, channel), job in queue.deliveries.items() if agent == name)

    def forward(self, queue, channel, *paths):
        pipe = queue.pipes["apus-local"]
        for path in paths:
            pipe.send("forward", channel, 0, "a@b.example", path)
        pipe.send("outcome", channel, 0, "delivered", 0, "2.0.0", "t", "sent on")
        pipe.send("done", channel)

    def report(self, queue, channel, *recipients):
        pipe = queue.pipes["apus-bounce"]
        pipe.send("mail", channel, "", "7bit", 0, "report")
        for recipient in recipients or ["a@b.example"]:
            pipe.send("rcpt", channel, recipient)
        pipe.send("data", channel, b"Subject: r\r\n\r\nx\r\n")
        pipe.send("commit", channel, 17, "", "")

    def verbs(self, name, channel):
        return [verb for n, c, verb, _ in self.frames if (n, c) == (name, channel)]


class Owed(Handover):
    def test_the_agent_is_told_of_whom_is_owed_his_mail_still_because_it_cannot_go_on(self):
        queue = self.hand()
        self.later = {"x@later.example"}
        self.hand_in(queue, Message("a@b.example", ["u@local.test"], b"hi\r\n"))
        queue.until(lambda: self.held, "no delivery")
        channel = self.open(queue, "apus-local")
        self.forward(queue, channel, "x@later.example")
        queue.until(lambda: "noted" in self.verbs("apus-local", channel), "not noted")
        self.assertEqual(self.verbs("apus-local", channel)[-2:], ["owed", "noted"])

    def test_of_what_goes_on_only_noted_is_told(self):
        queue = self.hand()
        self.hand_in(queue, Message("a@b.example", ["u@local.test"], b"hi\r\n"))
        queue.until(lambda: self.held, "no delivery")
        channel = self.open(queue, "apus-local")
        self.forward(queue, channel, "x@far.example")
        queue.until(lambda: "noted" in self.verbs("apus-local", channel), "not noted")
        self.assertNotIn("owed", self.verbs("apus-local", channel))


class Aliases(Handover):
    def test_an_alias_that_names_itself_by_another_domain_of_ours_is_done_once(self):
        queue = self.hand()
        self.targets = {"joe@a.test": ["alias:joe"], "joe@b.test": ["local:joe", "alias:joe"]}
        self.hand_in(queue, Message("a@b.example", ["joe@a.test"], b"hi\r\n"))
        queue.until(lambda: self.held, "no delivery")
        self.forward(queue, self.open(queue, "apus-local"), "joe@b.test")
        queue.until(lambda: len(self.held) == 2, "nothing goes on")
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            queue.turn()
        self.assertEqual([f[4] for n, _, v, f in self.frames if v == "deliver"], [b"alias:joe", b"local:joe"])


class Room(Handover):
    def test_mail_goes_on_while_half_of_the_reserve_is_untouched(self):
        message = Message("a@b.example", ["u@local.test"], b"x" * 200_000 + b"\r\n")
        with self.hand() as queue:
            self.hand_in(queue, message)
        self.held.clear()
        # More than the disk has, and half of it less.
        disk = os.statvfs(tempfile.gettempdir())
        queue = self.hand(reserve=disk.f_bavail * disk.f_frsize * 3 // 2)
        queue.until(lambda: self.held, "no delivery")
        refused = Message("a@b.example", ["v@local.test"], b"hi\r\n")
        self.hand_in(queue, refused)
        self.assertEqual(refused.answer[:3], ("refused", "452", "4.3.1"))
        self.forward(queue, self.open(queue, "apus-local"), "x@far.example")
        queue.until(lambda: queue.answer("count")[0]["messages"] == b"0", "not done")
        self.assertEqual([v for n, _, v, _ in self.frames if n == "apus-remote" and v == "deliver"], ["deliver"])


class Wishes(Handover):
    """What the sender wishes about reports, and mail that goes on."""

    def fields(self, name, verb):
        """The fields of all frames of that verb that the agent has got."""
        return [[f.decode() for f in fields] for n, _, v, fields in self.frames if (n, v) == (name, verb)]

    def forwarded(self, dsn, *paths):
        queue = self.hand()
        message = Message("a@b.example", ["u@local.test"], b"hi\r\n")
        message.dsn = dsn
        self.hand_in(queue, message)
        queue.until(lambda: self.held, "no delivery")
        self.forward(queue, self.open(queue, "apus-local"), *paths)
        queue.until(lambda: queue.answer("count")[0]["messages"] == b"0", "not done")
        return queue

    def test_who_wants_no_reports_gets_none_of_an_address_that_does_not_exist(self):
        self.unknown = {"no@far.example"}
        self.forwarded(("NEVER",), "no@far.example", "x@far.example")
        self.assertEqual([f[1] for f in self.fields("apus-remote", "rcpt")], ["x@far.example"])
        self.assertEqual(self.fields("apus-bounce", "deliver"), [])

    def test_who_wants_them_does(self):
        self.unknown = {"no@far.example"}
        self.forwarded(("FAILURE",), "no@far.example", "x@far.example")
        self.assertEqual([f[1] for f in self.fields("apus-bounce", "rcpt")], ["no@far.example"])

    def test_the_address_that_the_sender_wrote_to_goes_on_with_the_mail(self):
        self.forwarded(("SUCCESS",), "x@far.example")
        self.assertEqual([f[1:] for f in self.fields("apus-remote", "rcpt")],
                         [["x@far.example", "", "SUCCESS", "rfc822;u@local.test"]])
        # The next server takes nothing over here: it is told as relayed, and nothing of it before.
        self.assertEqual([f[6] for f in self.fields("apus-bounce", "fate")], ["relayed"])

    def test_the_one_that_he_gave_as_the_original_stays(self):
        self.forwarded(("FAILURE", "rfc822;o@b.example"), "x@far.example")
        self.assertEqual(self.fields("apus-remote", "rcpt")[0][4], "rfc822;o@b.example")

    def test_mail_that_goes_on_to_several_addresses_is_expanded(self):
        self.forwarded(("SUCCESS",), "x@far.example", "y@far.example")
        self.assertEqual([f[6] for f in self.fields("apus-bounce", "fate")], ["expanded"])


class Stop(Handover):
    def stopped(self, queue, name):
        """A queue that was asked to stop while that agent has a delivery; its channel."""
        queue.until(lambda: self.held, "no delivery")
        queue.process.send_signal(signal.SIGTERM)
        queue.until(lambda: self.logged(queue, "stopping"), "no stop")
        return self.open(queue, name)

    def ended(self, queue):
        queue.until(lambda: queue.process.poll() is not None, "no end")
        self.assertEqual(queue.process.returncode, 0, queue.logged())
        self.assertEqual(self.logged(queue, "link-fault"), [])

    def test_what_goes_on_while_the_queue_stops_is_accepted(self):
        queue = self.hand()
        self.hand_in(queue, Message("a@b.example", ["u@local.test"], b"hi\r\n"))
        self.forward(queue, self.stopped(queue, "apus-local"), "x@far.example")
        self.ended(queue)
        self.assertEqual(len(self.logged(queue, " queued id=")), 2, queue.logged())

    def test_a_report_that_comes_while_the_queue_stops_is_accepted(self):
        queue = self.hand(agents=("apus-bounce",))
        self.hand_in(queue, Message("a@b.example", ["f@far.example"], b"hi\r\n"))
        self.report(queue, self.stopped(queue, "apus-bounce"))
        self.ended(queue)
        self.assertEqual(len(self.logged(queue, "status=reported")), 1, queue.logged())

    def test_frames_behind_the_refusal_of_a_report_are_no_fault(self):
        queue = self.hand(agents=("apus-bounce",), **{"recipients-max": 1})
        self.hand_in(queue, Message("a@b.example", ["f@far.example"], b"hi\r\n"))
        queue.until(lambda: self.held, "no delivery")
        channel = self.open(queue, "apus-bounce")
        self.report(queue, channel, "a@b.example", "c@d.example")
        queue.until(lambda: "refused" in self.verbs("apus-bounce", channel), "not refused")
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            queue.turn()
        self.assertEqual(self.logged(queue, "link-fault"), [])
        self.assertTrue(queue.pipes["apus-bounce"].is_open)


if __name__ == "__main__":
    unittest.main()
