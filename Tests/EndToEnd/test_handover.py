# SPDX-License-Identifier: Apache-2.0
"""apus-queue run by hand: mail that goes on to others and reports, which agents hand back to the queue."""
import signal
import time
import unittest

from powercut.byhand import Message
from test_queue import ByHand


class Handover(ByHand):
    def setUp(self):
        super().setUp()
        self.held, self.frames, self.later = [], [], set()

    def hand(self, agents=("apus-local",), **more):
        """A queue whose agents of these names keep their deliveries open, and whose look-ups cannot tell of some addresses."""
        def agent(name, sender, recipients):
            if name in agents:
                self.held.append(name)
                return None
            return [("failed", 550, "5.1.1") if r.startswith("f") else ("delivered", 250, "2.0.0") for r in recipients]

        queue = self.queue(agent=agent, **more)
        asked, delivered = queue.asked, queue.delivered

        def ask(verb, channel, fields):
            if verb == b"resolve" and fields[0].decode() in self.later:
                queue.pipes["apus-lookup"].send("later", channel, "not now")
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
        self.assertEqual(len(self.logged(queue, "event=queued")), 2, queue.logged())

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
