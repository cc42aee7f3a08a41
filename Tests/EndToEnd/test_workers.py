# SPDX-License-Identifier: Apache-2.0
"""Processes of users that do not answer: their user's mail waits, and nobody else's."""
import os
import pwd
import shutil
import signal
import subprocess
import time
import unittest

from hangingmount import HangingMount
from peers import wait_for
from pipes import Deliveries
from test_agents import CONTENT, RealUsers, message_id


def state(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return None


class WorkersThatHang(RealUsers):
    def test_a_worker_that_stands_still_is_killed_although_more_mail_is_given_to_it(self):
        part = self.part(**{"worker-silence": 5})
        deliveries = Deliveries(part)
        user = self.USERS[0]
        deliveries.begin(message_id(0), f"local:{user}", CONTENT, ["x@example.org"])
        deliveries.run()
        pid, = self.workers(part)
        os.kill(pid, signal.SIGSTOP)
        begun = time.monotonic()
        outcomes = {}
        for i in range(1, 8):
            deliveries.begin(message_id(i), f"local:{user}", CONTENT, ["x@example.org"])
            time.sleep(1)
        for job in deliveries.run().values():
            outcomes.setdefault(job["outcomes"][0][0], []).append(job["outcomes"][0])
        self.assertLess(time.monotonic() - begun, 20)
        self.assertEqual({tuple(o[1:3]) for o in outcomes["deferred"]}, {("0", "4.3.0")})
        self.assertIn("silent for too long", part.logged())
        self.assertIsNone(state(pid))
        again = deliveries.begin(message_id(1), f"local:{user}", CONTENT, ["x@example.org"])
        self.assertEqual(deliveries.run()[again]["outcomes"][0][0], "delivered")

    def test_programs_one_after_the_other_may_have_their_time_each(self):
        part = self.part(**{"worker-silence": 5, "program-time": 1, "dot-programs": "true"})
        home = pwd.getpwnam(self.USERS[0]).pw_dir
        with open(f"{home}/.forward", "w") as f:
            f.write("".join(f"|sleep 0.9; echo {n} >> ran\n" for n in range(40)))
        os.chown(f"{home}/.forward", pwd.getpwnam(self.USERS[0]).pw_uid, -1)
        self.addCleanup(os.unlink, f"{home}/.forward")
        deliveries = Deliveries(part)
        channel = deliveries.begin(message_id(0), f"local:{self.USERS[0]}", CONTENT, [f"{self.USERS[0]}@example.org"])
        # Together they take longer than the 31 s after which a worker that is silent is killed.
        self.assertEqual(deliveries.run(seconds=60)[channel]["outcomes"][0][0], "delivered")
        with open(f"{home}/ran") as f:
            self.assertEqual([int(line) for line in f], list(range(40)))

    def test_a_program_that_cannot_be_ended_costs_no_processor_and_keeps_nobody_waiting(self):
        user = self.USERS[0]
        home = pwd.getpwnam(user).pw_dir
        # It becomes root, so that its user cannot kill it.
        program = f"{home}/stays"
        compiler = shutil.which("cc") or shutil.which("clang") or "gcc"
        subprocess.run([compiler, "-x", "c", "-", "-o", program], check=True, text=True,
                       input="#include <unistd.h>\nint main(void) { return setuid(0) || sleep(40); }\n")
        os.chown(program, 0, 0)
        os.chmod(program, 0o4755)
        with open(f"{home}/.forward", "w") as f:
            f.write("|exec ./stays\n")
        os.chown(f"{home}/.forward", pwd.getpwnam(user).pw_uid, -1)
        for name in (program, f"{home}/.forward"):
            self.addCleanup(os.unlink, name)
        part = self.part(**{"worker-silence": 60, "program-time": 1, "dot-programs": "true"})
        deliveries = Deliveries(part)
        channel = deliveries.begin(message_id(0), f"local:{user}", CONTENT, [f"{user}@example.org"])
        outcome = deliveries.run(seconds=30)[channel]["outcomes"][0]
        self.assertEqual((outcome[0], outcome[2]), ("deferred", "4.3.0"))
        self.assertIn("cannot be ended", outcome[4])
        pid, = self.workers(part)
        with open(f"/proc/{pid}/stat") as f:
            times = f.read().rsplit(")", 1)[1].split()[11:13]
        self.assertLess(sum(map(int, times)) / os.sysconf("SC_CLK_TCK"), 3)

    def test_more_users_than_processes_wait_for_nobody_to_be_idle(self):
        part = self.part(**{"workers-max": 1, "worker-idle": 60})
        deliveries = Deliveries(part)
        begun = time.monotonic()
        channels = [deliveries.begin(message_id(n), f"local:{user}", CONTENT, [f"{user}@example.org"]) for n, user in enumerate(self.USERS)]
        ended = deliveries.run(seconds=30)
        self.assertEqual([ended[c]["outcomes"][0][0] for c in channels], ["delivered"] * 3)
        self.assertLess(time.monotonic() - begun, 5)

    def test_a_worker_that_waits_for_the_queue_is_not_killed(self):
        part = self.part(**{"worker-silence": 5})
        deliveries = Deliveries(part)
        channel = deliveries.begin(message_id(1), f"local:{self.USERS[0]}", CONTENT, ["x@example.org"])
        pid, = self.workers(part) if wait_for(lambda: self.workers(part), 10) else (None,)
        time.sleep(8)
        self.assertEqual(self.workers(part), [pid])
        self.assertEqual(deliveries.run()[channel]["outcomes"][0][0], "delivered")

    def test_a_mailbox_on_a_dead_mount_costs_its_user_alone(self):
        stuck, fine = self.USERS[:2]
        home = pwd.getpwnam(stuck).pw_dir
        mounted = os.path.join(home, "Maildir")
        os.makedirs(mounted, exist_ok=True)
        try:
            mount = HangingMount(mounted)
        except OSError as error:
            self.skipTest(f"no FUSE here: {error}")
        self.addCleanup(mount.close)
        # One worker at once: whoever hangs must not take its place.
        part = self.part(**{"worker-silence": 5, "workers-max": 1})
        deliveries = Deliveries(part)
        first = deliveries.begin(message_id(1), f"local:{stuck}", CONTENT, ["x@example.org"])
        self.assertEqual(deliveries.run()[first]["outcomes"][0][:3], ["deferred", "0", "4.3.0"])
        pid, = self.workers(part)
        # Why: the kill wakes it first, and for some milliseconds it runs.
        self.assertTrue(wait_for(lambda: state(pid) == "D", 5), state(pid))
        second = [deliveries.begin(message_id(i), f"local:{stuck}", CONTENT, ["x@example.org"]) for i in range(2, 30)]
        others = [deliveries.begin(message_id(i), f"local:{fine}", CONTENT, ["y@example.org"]) for i in range(100, 110)]
        ended = deliveries.run(seconds=60)
        for channel in second:
            self.assertEqual(ended[channel]["outcomes"][0][:3], ["deferred", "0", "4.3.0"])
            self.assertIn("does not answer", ended[channel]["outcomes"][0][4])
        for channel in others:
            self.assertEqual(ended[channel]["outcomes"][0][0], "delivered")
        self.assertIn("worker-stuck", part.logged())
        # From then on his mail is answered for at once.
        begun = time.monotonic()
        last = deliveries.begin(message_id(200), f"local:{stuck}", CONTENT, ["x@example.org"])
        self.assertEqual(deliveries.run()[last]["outcomes"][0][0], "deferred")
        self.assertLess(time.monotonic() - begun, 3)
        self.assertEqual(state(pid), "D")
        # It does not keep the program from ending either.
        begun = time.monotonic()
        self.assertEqual(part.close(), 0)
        self.assertLess(time.monotonic() - begun, 5)


if __name__ == "__main__":
    unittest.main()
