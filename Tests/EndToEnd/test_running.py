# SPDX-License-Identifier: Apache-2.0
"""Starting, stopping, reloading, being killed; the operator's command."""
import collections
import json
import os
import random
import re
import signal
import smtplib
import socket
import subprocess
import threading
import time
import unittest

from apus import DAEMONS, Apus, binaries
from peers import figure, free_port, Raw, Sink, slurp, wait_for
from tracing import Trace, can_trace


def send(port, subject, recipients=("alice@apus.test",), sender="a@b.example"):
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        client.sendmail(sender, list(recipients), f"Subject: {subject}\r\n\r\nx\r\n")


class Settings(unittest.TestCase):
    def test_check_finds_all_mistakes_with_line_and_hint(self):
        apus = Apus(queue="pauseed = true\nretry-min = \"soon\"\n")
        self.addCleanup(apus.close)
        lines = apus.settings().splitlines()
        status, out, err = apus.tool("check", check=False)
        self.assertEqual(status, 1)
        text = out + err
        for word, hint in (("pauseed", "paused"), ("retry-min", "")):
            line = next(i for i, l in enumerate(lines, 1) if l.startswith(word))
            found = [l for l in text.splitlines() if f"apus.toml:{line}" in l and word in l and hint in l]
            self.assertTrue(found, text)

    def test_check_looks_at_files_and_addresses_beside_other_mistakes(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            apus = Apus(port=port, queue="pausd = true\n", local='aliases = "/nonexistent/aliases"\n')
            self.addCleanup(apus.close)
            status, out, err = apus.tool("check", check=False)
        self.assertEqual(status, 1)
        for word in ("pausd", "/nonexistent/aliases", f"127.0.0.1:{port}", "3 mistakes"):
            self.assertIn(word, out + err)

    def test_a_mailbox_for_all_users_by_a_slip_is_a_mistake(self):
        apus = Apus()
        self.addCleanup(apus.close)
        text = apus.settings().replace("%{user}", "%{usr}")
        with open(apus.config, "w") as f:
            f.write(text)
        status, out, err = apus.tool("check", check=False)
        self.assertEqual(status, 1)
        self.assertIn("%{user}", out + err)

    def test_apusd_refuses_wrong_settings_and_says_what_and_where(self):
        apus = Apus(queue="pauseed = true\n")
        self.addCleanup(apus.close)
        apus.start(wait=False)
        self.assertNotEqual(apus.process.wait(20), 0)
        self.assertIn("pauseed", apus.log())

    def test_a_state_directory_whose_path_is_too_long_for_a_socket_is_a_mistake(self):
        apus = Apus()
        self.addCleanup(apus.close)
        text = apus.settings()
        for count, expected in ((107 - len("/control"), 0), (108 - len("/control"), 1)):
            path = f"{apus.root}/".ljust(count, "s")
            with open(apus.config, "w") as f:
                f.write(text.replace(f"{apus.root}/state", path))
            status, out, err = apus.tool("check", check=False)
            self.assertEqual(status, expected, out + err)
            self.assertEqual("can have 107" in out, expected == 1, out)

    @unittest.skipUnless(os.geteuid() == 0, "needs root")
    def test_what_only_root_can_read_is_no_mistake_of_who_is_not_root(self):
        apus = Apus()
        self.addCleanup(apus.close)
        key, passwords, secret = (os.path.join(apus.root, name) for name in ("key.pem", "passwords", "secret"))
        apus.write_settings(extra=f"""
[tls]
certificate = "{key}"
[auth]
passwords = "{passwords}"
[forwarding]
srs-domain = "srs.apus.test"
srs-secret = "{secret}"
""")
        for path in (key, passwords, secret):
            with open(path, "w") as f:
                f.write("no certificate\n")
            os.chmod(path, 0o600)
        status, out, err = apus.tool("check", check=False)
        self.assertEqual(status, 0, out + err)
        for path in (key, passwords, secret):
            self.assertTrue([l for l in out.splitlines() if "advice: " in l and path in l and "root can tell" in l], out)
        os.chmod(key, 0o644)
        self.assertEqual(apus.tool("check", check=False)[0], 1)
        os.chmod(key, 0o600)
        apus.start(wait=False)
        self.assertEqual(apus.process.wait(20), 78)

    def test_good_settings_pass_the_check(self):
        apus = Apus()
        self.addCleanup(apus.close)
        self.assertEqual(apus.tool("check")[0], 0)


class Operating(unittest.TestCase):
    def test_queue_verbs_hold_release_show_remove_bounce_and_status(self):
        sink = Sink()
        self.addCleanup(sink.close)
        with Apus(smarthost=f"127.0.0.1:{sink.port}", queue="paused = true\n") as apus:
            for i in range(4):
                send(apus.port, f"m{i}", ["x@elsewhere.example"], sender="alice@apus.test")
            self.assertEqual(apus.count(), 4)
            rows = apus.listed()
            self.assertEqual(len(rows), 4)
            ids = [r["id"] for r in rows]
            self.assertIn("x@elsewhere.example", apus.tool("queue", "show", ids[0])[1])
            apus.tool("queue", "hold", ids[0])
            apus.tool("queue", "remove", ids[1])
            apus.tool("queue", "bounce", ids[2])
            self.assertTrue(apus.tool("status")[1])
            json.loads(apus.tool("status", "--json")[1])
            self.assertNotEqual(apus.tool("queue", "show", "0000000000000", check=False)[0], 0)
            apus.write_settings(queue="paused = false\n")
            os.kill(apus.process.pid, signal.SIGHUP)
            apus.wait_delivered(1)  # the bounce
            self.assertTrue(wait_for(lambda: len(sink.messages) == 1), apus.log())
            self.assertTrue(wait_for(lambda: apus.count() == 1), apus.tool("queue", "list")[1])
            self.assertIn(b"Subject: m3", sink.messages[0][2])
            apus.tool("queue", "release", ids[0])
            self.assertTrue(wait_for(lambda: len(sink.messages) == 2), apus.log())
            apus.wait_empty()

    def test_without_apusd_the_tool_says_so(self):
        apus = Apus()
        self.addCleanup(apus.close)
        status, out, err = apus.tool("queue", "count", check=False)
        self.assertNotEqual(status, 0)
        self.assertIn("apusd", out + err)


class Supervision(unittest.TestCase):
    def test_every_program_that_dies_is_restarted_and_the_mail_goes_on(self):
        sink = Sink()
        self.addCleanup(sink.close)
        with Apus(smarthost=f"127.0.0.1:{sink.port}") as apus:
            for round_number, name in enumerate(DAEMONS):
                old = apus.pids(name)
                self.assertTrue(old, name)
                apus.kill(name)
                self.assertTrue(wait_for(lambda: apus.pids(name) and apus.pids(name) != old, 20), name)

                def works():
                    try:
                        send(apus.port, f"after {name}", ["alice@apus.test", "x@elsewhere.example"])
                        return True
                    except (smtplib.SMTPException, OSError):
                        return False
                self.assertTrue(wait_for(works, 30, 0.2), name + apus.log())
            apus.wait_delivered(len(DAEMONS))
            self.assertTrue(wait_for(lambda: len(sink.messages) >= len(DAEMONS)))

    def test_apusd_with_closed_standard_descriptors_keeps_its_control_socket_from_the_programs(self):
        apus = Apus()
        self.addCleanup(apus.close)
        apus.process = subprocess.Popen(
            ["sh", "-c", 'exec "$0" --config "$1" <&- >&- 2>&-', os.path.join(apus.folder, "apusd"), apus.config], cwd="/",
            start_new_session=True, **apus.identity())
        self.assertTrue(wait_for(apus.answers, 30))

        def files(pid):
            folder = f"/proc/{pid}/fd"
            return {int(n): os.readlink(f"{folder}/{n}") for n in os.listdir(folder)}
        own = files(apus.process.pid)
        self.assertEqual([own[n] for n in (0, 1, 2)], ["/dev/null"] * 3)
        with open("/proc/net/unix") as f:
            control = ["socket:[%s]" % l.split()[6] for l in f if l.strip().endswith(f"{apus.root}/state/control")]
        self.assertTrue(set(control) & set(own.values()), own)
        for name in DAEMONS:
            pid, = apus.pids(name)[:1]
            self.assertFalse(set(control) & set(files(pid).values()), name)

    @unittest.skipUnless(can_trace(), "needs strace and root")
    def test_a_program_whose_end_has_been_noted_is_not_signalled_any_more(self):
        with Apus() as apus, Trace(apus.process.pid, "kill,wait4") as trace:
            bounce, = apus.pids("apus-bounce")
            apus.kill("apus-bounce")
            self.assertTrue(wait_for(lambda: apus.pids("apus-bounce") not in ([], [bounce]), 20), apus.log())
        noted, = [c for c in trace.named(["wait4"]) if c.result == str(bounce)]
        late = [c for c in trace.named(["kill"], f"{bounce},") if c.ended > noted.begun]
        self.assertEqual(late, [])

    def test_with_the_queue_away_mail_is_refused_for_now_and_the_connection_stays_usable(self):
        with Apus() as apus:
            with Raw(apus.port) as s:
                s.command("EHLO c.example")
                for pid in apus.pids("apus-queue"):
                    os.kill(pid, signal.SIGKILL)
                refused = None
                for _ in range(200):
                    reply = s.command("MAIL FROM:<a@b.example>")
                    if reply.startswith("250"):
                        reply = s.command("RCPT TO:<alice@apus.test>")
                    if reply.startswith("250"):
                        reply = s.command("DATA")
                    if reply.startswith("354"):
                        s.send("Subject: q\r\n\r\nx\r\n.\r\n")
                        reply = s.reply()
                    self.assertTrue(reply.startswith(("250", "451 4.3.0", "451 4.4")), reply)
                    if reply.startswith("451"):
                        refused = reply
                        s.command("RSET")
                        time.sleep(0.05)
                    else:
                        break
                self.assertTrue(reply.startswith("250"), reply)

    def test_sighup_reloads_without_dropping_a_connection_and_wrong_settings_keep_the_old_ones(self):
        with Apus() as apus:
            with Raw(apus.port) as s:
                s.command("EHLO c.example")
                apus.write_settings(extra="[smtp]\nsize-max = 123456\n")
                os.kill(apus.process.pid, signal.SIGHUP)

                def announced():
                    with Raw(apus.port) as t:
                        return "SIZE 123456" in t.command("EHLO c.example")
                self.assertTrue(wait_for(announced, 15, 0.1), apus.log())
                apus.write_settings(extra="[smtp]\nsize-maxx = 1\n")
                os.kill(apus.process.pid, signal.SIGHUP)
                self.assertTrue(wait_for(lambda: "size-maxx" in apus.log(), 15), apus.log())
                self.assertTrue(announced())
                s.command("MAIL FROM:<a@b.example>")
                s.command("RCPT TO:<alice@apus.test>")
                s.command("DATA")
                s.send("Subject: still\r\n\r\nx\r\n.\r\n")
                self.assertTrue(s.reply().startswith("250"))
            apus.wait_delivered(1)

    def test_a_reload_says_which_change_of_a_listener_needs_a_restart_and_the_listeners_stay(self):
        def listening(*hosts):
            return "".join(f'[[listen]]\naddress = "{host}:{port}"\nrole = "mx"\n' for host in hosts)

        def greets(family, host):
            with socket.socket(family) as s:
                s.settimeout(5)
                s.connect((host, port))
                return s.recv(4) == b"220 "
        for before, after, word in (
                (["[::]", "0.0.0.0"], ["[::]"], "would now have to take IPv4 as well"),
                (["[::]"], ["[::]", "127.0.0.1"], "would now have to leave IPv4 to another listener"),
                (["127.0.0.1"], ["0.0.0.0"], "overlaps 127.0.0.1:"),
                (["127.0.0.1"], ["[::]"], "overlaps 127.0.0.1:"),
                (["[::]"], ["0.0.0.0"], "overlaps [::]:"),
        ):
            port = free_port()
            with self.subTest(before=before, after=after), Apus(extra=listening(*before)) as apus:
                apus.write_settings(extra=listening(*after))
                status, out, _ = apus.tool("check")
                self.assertIn("advice: ", out)
                self.assertIn("restart apusd", out)
                os.kill(apus.process.pid, signal.SIGHUP)
                self.assertTrue(wait_for(lambda: apus.logged("reload-refused"), 15), apus.log())
                self.assertTrue(apus.logged("settings-mistake", word, "restart apusd"), apus.log())
                self.assertTrue(greets(socket.AF_INET, "127.0.0.1"))
                if "[::]" in before:
                    self.assertTrue(greets(socket.AF_INET6, "::1"))
                apus.stop()
                apus.start()
                self.assertTrue(greets(socket.AF_INET, "127.0.0.1"))

    def test_sigterm_finishes_what_is_in_flight_and_exits_with_zero(self):
        sink = Sink({"DOT": lambda line: time.sleep(1.0)})
        self.addCleanup(sink.close)
        with Apus(smarthost=f"127.0.0.1:{sink.port}") as apus:
            send(apus.port, "flight", ["x@elsewhere.example"])
            self.assertTrue(wait_for(lambda: any(c == "DATA" for c in sink.commands)))
            self.assertEqual(apus.stop(), 0)
            self.assertEqual(len(sink.messages), 1)
            apus.start()
            time.sleep(1)
            self.assertEqual(len(sink.messages), 1, "delivered twice")
            self.assertEqual(apus.count(), 0)


class Crashes(unittest.TestCase):
    def test_kill_nine_under_load_loses_no_message_that_got_its_250(self):
        everybody = DAEMONS + ["apusd", "everything"]
        rounds = int(os.environ.get("APUS_CRASH_ROUNDS", str(len(everybody))))
        seed = int(os.environ.get("APUS_CRASH_SEED", str(random.randrange(1 << 30))))
        choose = random.Random(seed)
        sink = Sink()
        self.addCleanup(sink.close)
        apus = Apus(smarthost=f"127.0.0.1:{sink.port}", queue="retry-min = 1\nretry-max = 2\n").start()
        self.addCleanup(apus.close)
        accepted, lock, running = [], threading.Lock(), [True]

        def load(worker):
            number = 0
            while running[0] and number < 100000:
                number += 1
                token = f"tok-{seed}-{worker}-{number}-end"
                local = number % 2 == 0
                try:
                    with smtplib.SMTP("127.0.0.1", apus.port, timeout=10) as client:
                        client.sendmail("a@b.example", ["alice@apus.test" if local else "x@elsewhere.example"],
                                        f"Subject: {token}\r\n\r\n{'x' * 500}\r\n")
                    with lock:
                        accepted.append((token, local))
                except (smtplib.SMTPException, OSError):
                    time.sleep(0.02)

        workers = [threading.Thread(target=load, args=(i,), daemon=True) for i in range(20)]
        for w in workers:
            w.start()
        kills, victims = [], []
        for _ in range(rounds):
            time.sleep(choose.uniform(0.3, 1.2))
            # Each has its turn before one has it again.
            if not victims:
                victims = choose.sample(everybody, len(everybody))
            victim = victims.pop()
            kills.append(victim)
            if victim == "everything":
                apus.kill_all()
                apus.start()
            elif victim == "apusd":
                self.assertTrue(apus.kill_supervisor(), "programs outlive apusd:\n" + apus.log()[-3000:])
                apus.start()
            else:
                apus.kill(victim)
        time.sleep(0.5)
        running[0] = False
        for w in workers:
            w.join(30)
        self.assertTrue(wait_for(lambda: apus.answers() and apus.tool("queue", "count", check=False)[0] == 0, 40), apus.log()[-3000:])
        apus.tool("queue", "flush", "--all")
        # The sink is slower than what is left of Apus between kills: the longer that goes on, the more waits.
        apus.wait_empty(120 + 3 * rounds)
        here = collections.Counter(t for p in apus.delivered() for t in re.findall(rb"Subject: (tok-\S+)", slurp(p)))
        there = collections.Counter(t for body in sink.bodies() for t in re.findall(rb"Subject: (tok-\S+)", body))
        lost = [t for t, local in accepted if not (here if local else there)[t.encode()]]
        self.assertFalse(lost, f"seed {seed}, kills {kills}: {len(lost)} of {len(accepted)} lost, first {lost[:3]}")
        self.assertGreater(len(accepted), 20)
        twice = [t for t, local in accepted if local and here[t.encode()] > 1]
        self.assertFalse(twice, f"seed {seed}, kills {kills}: a Maildir has no window for duplicates: {twice[:3]}")
        # Elsewhere, only what was under way when its sender or the queue died may come again: at most one window each.
        again = sum(there[t.encode()] - 1 for t, local in accepted if not local)
        most = 20 * sum(victim in ("apus-queue", "apus-remote", "apusd", "everything") for victim in kills)
        figure("crashes", f"seed {seed}: {rounds} rounds, {len(accepted)} accepted, {len(lost)} lost, "
               f"{len(twice)} twice in a Maildir, {again} twice elsewhere")
        self.assertLessEqual(again, most, f"seed {seed}, kills {kills}")


if __name__ == "__main__":
    unittest.main()
