# SPDX-License-Identifier: Apache-2.0
"""What an operator does to the queue: filters, orders, export, import, check, explain, on a running and a stopped queue."""
import json
import os
import re
import smtplib
import subprocess
import time
import unittest

from apus import Apus, binaries
from peers import Sink, free_port, wait_for
from pipes import frame


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

    def test_of_several_ids_each_gives_an_object_on_one_line(self):
        with paused() as apus:
            for _ in range(2):
                send(apus, ["alice@apus.test", "bob@apus.test"])
            ids = [m["id"] for m in apus.listed()]
            for words in (["--dry-run"], []):
                lines = apus.tool("queue", "hold", *ids, *words, "--json")[1].splitlines()
                self.assertEqual([json.loads(line)["changed"] for line in lines], [2, 2], lines)

    def test_what_cannot_be_written_is_told_by_the_exit_status_unless_the_reader_has_gone(self):
        def run(*words, output):
            return subprocess.run(
                [os.path.join(binaries(), "apus"), *words, "--config", apus.config], stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.PIPE, text=True, timeout=60, cwd="/", **apus.identity())
        with paused() as apus:
            send(apus, ["alice@apus.test", "bob@apus.test"])
            with open("/dev/full", "w") as full:
                for words in (["list"], ["list", "--json"], ["count"], ["hold", "--all"], ["export"]):
                    done = run("queue", *words, output=full)
                    self.assertEqual(done.returncode, 74, (words, done.stderr))
                    self.assertIn("No space left on device", done.stderr)
                    self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
                self.assertEqual(run("check", output=full).returncode, 74)
            self.assertEqual([m["status"] for m in apus.listed()], ["held"])
            reading, writing = os.pipe()
            os.close(reading)
            done = run("queue", "list", output=writing)
            os.close(writing)
            self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_reroute_sends_recipients_another_way(self):
        sink = Sink()
        self.addCleanup(sink.close)
        with Apus(smarthost="127.0.0.1:%d" % free_port(), queue='retry-min = "1h"') as apus:
            send(apus, ["x@far.example", "alice@apus.test"])
            self.assertTrue(wait_for(lambda: apus.listed() and apus.listed()[0]["reason"], 20), apus.log())
            self.assertEqual(apus.tool("queue", "reroute", "nonsense", "--all", check=False)[0], 69)
            out = apus.tool("queue", "reroute", "remote:[127.0.0.1]:%d" % sink.port, "--to", "@far.example")[1]
            self.assertIn("1 recipient rerouted to remote:", out)
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

    def test_apusd_waits_for_a_command_that_has_the_queue_open(self):
        apus = paused()
        self.addCleanup(apus.close)
        apus.start()
        send(apus, ["alice@apus.test"])
        apus.stop()
        tool = subprocess.Popen(
            [os.path.join(binaries(), "apus"), "queue", "import", "--config", apus.config], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/", **apus.identity())
        tool.stdin.write(frame("export", 0, "apus-queue", 1, 0, "test", 1))
        tool.stdin.flush()
        self.assertIn(b"apusd is not running", self.line_with(tool.stderr, b"not running"))
        apus.start(wait=False)
        self.assertTrue(wait_for(lambda: apus.logged("another process has this queue open"), 20), apus.log())
        tool.communicate(frame("end", 0, 0, 0, 0))
        self.assertEqual(tool.returncode, 0)
        self.assertTrue(wait_for(lambda: apus.answers() and apus.tool("queue", "count", check=False)[1].startswith("1 "), 30))

    def line_with(self, file, word):
        for line in iter(file.readline, b""):
            if word in line:
                return line
        return b""

    def test_an_address_is_explained_by_a_running_apus_only(self):
        apus = paused()
        self.addCleanup(apus.close)
        apus.start()
        send(apus, ["alice@apus.test"])
        identity = apus.listed()[0]["id"]
        apus.stop()
        self.assertEqual(apus.tool("explain", "alice@apus.test", check=False)[0], 69)
        self.assertIn("Not tried yet", apus.tool("explain", identity)[1])

    def test_a_stopped_queue_is_shown_and_changed_where_senders_are_rewritten(self):
        apus = paused()
        self.addCleanup(apus.close)
        secret = os.path.join(apus.root, "srs-secret")
        with open(secret, "w") as f:
            f.write("0123456789abcdef0123456789abcdef\n")
        apus.write_settings(extra=f'[forwarding]\nsrs-domain = "srs.apus.test"\nsrs-secret = "{secret}"\n')
        apus.own()
        apus.start()
        send(apus, ["alice@apus.test"])
        apus.stop()
        self.assertTrue(apus.tool("queue", "count")[1].startswith("1 "))
        apus.tool("queue", "hold", "--all")
        self.assertEqual([m["status"] for m in apus.listed()], ["held"])

    def test_a_stopped_queue_is_shown_however_many_domains_are_local(self):
        apus = paused()
        self.addCleanup(apus.close)
        apus.start()
        send(apus, ["alice@apus.test"])
        apus.stop()
        with open(apus.config) as f:
            text = f.read()
        domains = ", ".join(f'"domain-{number}.example"' for number in range(60_000))
        self.assertIn('local = ["apus.test"]', text)
        with open(apus.config, "w") as f:
            f.write(text.replace('local = ["apus.test"]', f'local = ["apus.test", {domains}]'))
        self.assertTrue(apus.tool("queue", "count")[1].startswith("1 "))

    def test_without_a_queue_there_is_a_clear_word(self):
        apus = paused()
        self.addCleanup(apus.close)
        status, _, error = apus.tool("queue", "count", check=False)
        self.assertEqual(status, 69)
        self.assertIn("no queue at", error)


def read_export(octets):
    """An export as Documentation/queue-export.md describes it: a list of messages, and whether it is whole."""
    def netstrings(octets):
        while octets:
            length, _, rest = octets.partition(b":")
            if len(rest) <= int(length):
                return
            assert rest[int(length):int(length) + 1] == b","
            yield rest[:int(length)]
            octets = rest[int(length) + 1:]
    messages, message = [], None
    for frame in netstrings(octets):
        verb, _, *fields = netstrings(frame)
        pairs = {name.decode(): value for name, value in zip(fields[1::2], fields[2::2])}
        if verb == b"export":
            assert fields[:3] == [b"apus-queue", b"1", b"2"]
        elif verb == b"message":
            message = message or {"id": fields[0].decode(), "recipients": {}, "data": b""}
            message.update(pairs)
        elif verb == b"recipient":
            message["recipients"].setdefault(int(fields[0]), {}).update(pairs)
        elif verb == b"data":
            message["data"] += fields[0]
        elif verb == b"gone":
            message = None
        elif verb == b"whole":
            assert len(message["data"]) == int(fields[0])
            messages.append(message)
            message = None
        elif verb == b"end":
            return messages, int(fields[0]) == len(messages)
    return messages, False


class Exports(unittest.TestCase):
    def filled(self):
        apus = paused()
        self.addCleanup(apus.close)
        apus.start()
        self.bodies = [
            send(apus, ["alice@apus.test", "bob@apus.test"]), send(apus, ["x@far.example"], sender="", size=700_000),
            send(apus, ["bob@apus.test"], size=3_000)]
        self.ids = [m["id"] for m in apus.listed()]
        apus.tool("queue", "hold", self.ids[0], "--to", "bob@apus.test")
        apus.tool("queue", "bounce", self.ids[2])
        return apus

    def run_tool(self, apus, *words, input=b""):
        return subprocess.run([os.path.join(binaries(), "apus"), *words, "--config", apus.config], input=input,
                              capture_output=True, timeout=120, cwd="/", **apus.identity())

    def shown(self, apus):
        return [json.loads(apus.tool("queue", "show", i, "--json")[1]) for i in self.ids]

    def test_an_export_is_read_by_thirty_lines_of_python_and_by_another_queue(self):
        apus = self.filled()
        exported = self.run_tool(apus, "queue", "export")
        self.assertEqual(exported.returncode, 0, exported.stderr)
        self.assertIn(b"exported 3 messages, 4 recipients", exported.stderr)
        messages, is_whole = read_export(exported.stdout)
        self.assertTrue(is_whole)
        self.assertEqual([m["id"] for m in messages], self.ids)
        for message, body in zip(messages, self.bodies):
            self.assertTrue(message["data"].endswith(body.encode()))
            self.assertTrue(message["data"].startswith(b"Received:"))
        self.assertEqual([m["from"] for m in messages], [b"a@b.example", b"", b"a@b.example"])
        self.assertNotIn("due", messages[0]["recipients"][1])
        self.assertEqual(messages[2]["recipients"][0]["state"], b"failed")
        self.assertEqual(messages[2]["recipients"][0]["reason"], b"returned by the postmaster")
        before = self.shown(apus)
        other = paused(users=apus.users)
        self.addCleanup(other.close)
        other.start()
        send(other, ["alice@apus.test"])
        done = self.run_tool(other, "queue", "import", input=exported.stdout)
        self.assertEqual((done.returncode, done.stdout), (0, b"3 messages imported\n"), done.stderr)
        self.assertEqual(self.shown(other), before)
        self.assertEqual(len(other.logged("apus-queue", "imported")), 3)
        # Again: nothing is doubled.
        done = self.run_tool(other, "queue", "import", "--json", input=exported.stdout)
        self.assertEqual(json.loads(done.stdout), {"imported": 0, "skipped": 3, "renamed": 0})
        self.assertEqual(other.count(), 4)
        # What was held stays held, the rest goes on: alice's mail, and a report about what had failed.
        other.write_settings(queue='retry-min = "1h"', smarthost="127.0.0.1:%d" % free_port())
        other.process.send_signal(1)
        other.wait_delivered(2)
        report = lambda: [m for m in other.listed() if m["from"] == "" and m["to"] == "a@b.example"]
        self.assertTrue(wait_for(report, 20), other.listed())
        self.assertTrue(other.logged("id=" + self.ids[2], "status=reported"))
        self.assertEqual([m["status"] for m in other.listed() if m["id"] == self.ids[0]], ["held"])

    def test_a_cut_export_says_what_came_in_and_the_whole_one_brings_the_rest(self):
        apus = self.filled()
        whole = self.run_tool(apus, "queue", "export").stdout
        apus.stop()
        other = paused(users=apus.users)
        self.addCleanup(other.close)
        other.start()
        cut = self.run_tool(other, "queue", "import", input=whole[:400_000])
        self.assertEqual((cut.returncode, cut.stdout), (65, b"1 messages imported\n"))
        self.assertIn(b"ends before its end", cut.stderr)
        self.assertEqual(other.count(), 1)
        without_end = self.run_tool(other, "queue", "import", input=whole[:-3])
        self.assertEqual((without_end.returncode, without_end.stdout),
                         (65, b"2 messages imported, 1 skipped that are in the queue already\n"))
        self.assertEqual(self.run_tool(other, "queue", "import", input=whole).returncode, 0)
        self.assertEqual(other.count(), 3)
        other.stop()
        self.assertTrue(wait_for(lambda: not other.pids(), 5))
        again = self.run_tool(other, "queue", "export")
        strip = lambda octets: read_export(octets)[0]
        self.assertEqual(strip(again.stdout), strip(whole))

    def test_what_is_no_export_of_this_version_is_refused_with_a_reason(self):
        apus = self.filled()
        whole = self.run_tool(apus, "queue", "export").stdout
        for octets, word in (
                (b"", b"no export"), (b"From alice\n", b"no export"), (b"12:3:row,1:0,1:a,,", b"no export"),
                (whole.replace(b"1:1,1:2,4:apus", b"1:1,1:7,4:apus", 1), b"format 1.7"),
                (whole.replace(b"1:1,1:2,4:apus", b"1:2,1:2,4:apus", 1), b"format 2.2"),
                (whole.replace(b"6:client,", b"6:colour,", 1), b"colour"),
                (whole.replace(b"4:7bit,", b"4:9bit,", 1), b"9bit"),
                (whole.replace(b"9:local:bob,", b"9:bounce:bo,", 1), b"route")):
            done = self.run_tool(apus, "queue", "import", input=octets)
            self.assertNotEqual(done.returncode, 0, octets[:40])
            self.assertIn(word, done.stderr)
            self.assertEqual(apus.count(), 3)

    def test_filters_apply_to_an_export_and_files_are_not_overwritten(self):
        apus = self.filled()
        path = os.path.join(apus.root, "state", "export")
        done = self.run_tool(apus, "queue", "export", path, "--to", "bob@apus.test", "--json")
        self.assertEqual(json.loads(done.stdout)["recipients"], 2, done.stderr)
        with open(path, "rb") as f:
            messages, is_whole = read_export(f.read())
        self.assertTrue(is_whole)
        self.assertEqual([list(m["recipients"]) for m in messages], [[1], [0]])
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        self.assertNotEqual(self.run_tool(apus, "queue", "export", path).returncode, 0)

    def test_an_import_that_finds_no_room_says_so_and_leaves_a_sound_queue(self):
        apus = paused()
        self.addCleanup(apus.close)
        apus.start()
        for _ in range(12):
            send(apus, ["alice@apus.test"], size=2_000_000)
        whole = self.run_tool(apus, "queue", "export").stdout
        other = paused(users=apus.users, queue='size-max = "16MiB"\nreserve = "1MiB"')
        self.addCleanup(other.close)
        other.start()
        done = self.run_tool(other, "queue", "import", "--json", input=whole)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(b"no room", done.stderr)
        count = json.loads(done.stdout)["imported"]
        self.assertIn(count, range(3, 9))
        self.assertEqual(other.count(), count)
        self.assertEqual(other.tool("queue", "check")[1].split(";")[0], "no fault")
        # With room the rest comes in.
        other.stop()
        other.write_settings(queue="paused = true")
        other.start()
        done = self.run_tool(other, "queue", "import", "--json", input=whole)
        self.assertEqual(json.loads(done.stdout), {"imported": 12 - count, "skipped": count, "renamed": 0}, done.stderr)

    def test_a_large_queue_is_imported_listed_checked_and_exported_in_little_memory(self):
        apus = paused()
        self.addCleanup(apus.close)
        apus.start()
        count, body = 20_000, "Subject: x\r\n\r\n" + "y" * 3000 + "\r\n"
        start = int(time.time() * 1e6) - 10**9
        digits = "0123456789abcdefghjkmnpqrstvwxyz"
        def message(number):
            identity = "".join(digits[(start + number >> 5 * (12 - place)) & 31] for place in range(13))
            return (frame("message", 0, identity, "from", "a@b.example", "body", "7bit", "arrival", start,
                          "expiry", start + 10**12, "prefix-size", 0)
                    + frame("message", 0, identity, "size", len(body), "client", "")
                    + frame("recipient", 0, 0, "to", "u%d@far.example" % number, "route", "remote:far.example",
                            "priority", "low", "state", "queued", "due", start + 10**11)
                    + frame("recipient", 0, 0, "attempts", 0) + frame("data", 0, body) + frame("whole", 0, len(body)))
        octets = (frame("export", 0, "apus-queue", 1, 0, "test", 1) + b"".join(message(n) for n in range(count))
                  + frame("end", 0, count, count, count * len(body)))
        self.assertEqual(self.run_tool(apus, "queue", "import", input=octets).returncode, 0)
        self.assertEqual(apus.tool("queue", "list", "--to", "nobody@far.example")[1], "Nothing matches.\n")
        self.assertIn("1 recipient would be held", apus.tool("queue", "hold", "--to", "u19999@*", "--dry-run")[1])
        self.assertEqual(apus.tool("queue", "check")[1].split(";")[0], "no fault")
        messages, is_whole = read_export(self.run_tool(apus, "queue", "export", "--to", "u1999*").stdout)
        self.assertEqual((len(messages), is_whole), (11, True))
        exported = self.run_tool(apus, "queue", "export").stdout
        self.assertTrue(exported[exported.index(b"7:message"):] == octets[octets.index(b"7:message"):])
        with open("/proc/%d/status" % apus.pids("apus-queue")[0]) as file:
            peak = int(re.search(r"VmHWM:\s+(\d+)", file.read())[1])
        self.assertLess(peak, 64_000)

    def test_a_message_whose_id_is_taken_gets_another_and_is_found_again(self):
        apus = self.filled()
        whole = self.run_tool(apus, "queue", "export").stdout
        changed = whole.replace(b"4:from,11:a@b.example,", b"4:from,11:z@b.example,")
        for result in ({"imported": 2, "skipped": 1, "renamed": 2}, {"imported": 0, "skipped": 3, "renamed": 0}):
            done = self.run_tool(apus, "queue", "import", "--json", input=changed)
            self.assertEqual(json.loads(done.stdout), result, done.stderr)
        self.assertEqual(apus.count(), 5)


class Checks(unittest.TestCase):
    def test_a_sound_queue_is_found_sound_while_mail_comes_and_goes(self):
        with Apus() as apus:
            for i in range(5):
                send(apus, ["alice@apus.test"], size=i * 90_000)
                status, out, _ = apus.tool("queue", "check", check=False)
                self.assertEqual((status, out.split(";")[0]), (0, "no fault"), out)
            data = json.loads(apus.tool("queue", "check", "--repair", "--json")[1])
            self.assertEqual((data["faults"], data["found"], data["repaired"]), ([], 0, 0))

    def test_damage_to_the_file_is_named_and_repaired_where_that_loses_no_mail(self):
        apus = paused()
        self.addCleanup(apus.close)
        apus.start()
        send(apus, ["x@far.example"])
        send(apus, ["y@damaged.example"])
        apus.stop()
        path = os.path.join(apus.root, "state/queue/data.mdb")
        with open(path, "r+b") as file:
            octets = file.read()
            # The value of a due entry, and an address in the record of a recipient.
            octets, count = re.subn(rb"(?s)(\x03[\x00-\x02].{4}remote:fa)r(\.example)", rb"\1x\2", octets)
            self.assertGreater(count, 0)
            octets = octets.replace(b"y@damaged.example\x00", b"y@dam@ged.example\x00")
            file.seek(0)
            file.write(octets)
        status, out, error = apus.tool("queue", "check", check=False)
        self.assertEqual(status, 1, error)
        self.assertIn("put right at the start (repaired)", out)
        self.assertIn("recipient 0: recipient-unreadable", out)
        self.assertIn("(left to you)", out)
        status, out, _ = apus.tool("queue", "check", "--repair", "--json", check=False)
        found = json.loads(out)["faults"]
        self.assertEqual((status, [(f["kind"], f["action"]) for f in found]), (1, [("recipient-unreadable", "left")]))
        # The other mail goes on.
        self.assertEqual(self.listed_routes(apus), ["remote:far.example"])

    def listed_routes(self, apus):
        return [m["route"] for m in apus.listed() if "route" in m]


class Explanations(unittest.TestCase):
    def test_an_address_is_explained_step_by_step(self):
        with Apus() as apus:
            with open(apus.aliases, "w") as f:
                f.write("# ours\nteam: alice, x@far.example\n")
            os.chmod(apus.aliases, 0o644)
            apus.write_settings(local='aliases = "%s"' % apus.aliases, smarthost="127.0.0.1:%d" % free_port())
            apus.process.send_signal(1)
            self.assertTrue(wait_for(lambda: "smarthost" in apus.tool("explain", "x@far.example")[1], 10))
            out = apus.tool("explain", "team@apus.test")[1]
            self.assertIn("apus.test is one of our domains (domains.local)", out)
            self.assertIn("team is an alias of alice, x@far.example (%s:2)" % apus.aliases, out)
            self.assertIn("-> <alice@apus.test> by local:alice", out)
            data = json.loads(apus.tool("explain", "bob+news@apus.test", "--json")[1])
            self.assertEqual(data["verdict"], "accepted")
            self.assertEqual([s["kind"] for s in data["steps"]], ["domain", "tag", "user"])
            self.assertEqual([t["route"] for t in data["targets"]], ["local:bob"])
            out = apus.tool("explain", "nobody@apus.test")[1]
            self.assertIn("Mail for it is refused: 5.1.1", out)
            self.assertEqual(apus.tool("explain", "no address", check=False)[0], 69)

    def test_an_address_without_a_domain_is_explained_as_sendmail_completes_it(self):
        with paused() as apus:
            self.assertIn("-> <alice@apus.test> by local:alice", apus.tool("explain", "alice")[1])
            self.assertIn("administrator is neither an alias nor a user", apus.tool("explain", "administrator")[1])
        with paused(extra='[sendmail]\norigin = "far.example"\n') as apus:
            self.assertIn("<alice@far.example>", apus.tool("explain", "alice")[1])

    def test_what_is_asked_of_the_destination_is_explained(self):
        extra = """
[[destination]]
match = "127.0.0.1"
user = "shop@apus.test"
[[destination]]
match = "%s"
tls = "%s"
user = "42"
[[destination]]
match = "192.0.2.1"
connections-max = 3
"""
        words = {
            "off": "in plain text", "may": "with TLS if it is offered, whatever the certificate",
            "require": "with TLS, whatever the certificate", "verify": "with TLS and a verified certificate",
            "implicit": "with TLS from the first octet and a verified certificate"}
        with Apus(smarthost="127.0.0.1:%d" % free_port(), remote='tls = "require"', queue="paused = true") as apus:
            path = os.path.join(apus.root, "accounts")
            with open(path, "w") as f:
                f.write("127.0.0.1 shop@apus.test secret\nfar.example 42 secret\n")
            os.chmod(path, 0o600)
            out = apus.tool("explain", "x@far.example")[1]
            self.assertIn("\n   with TLS, whatever the certificate: require (remote.tls)\n", out)
            self.assertNotIn("authenticated", out)
            self.assertNotIn("TLS", apus.tool("explain", "alice@apus.test")[1])
            for demand, text in words.items():
                # Without a smarthost mail for far.example goes to its own exchangers.
                apus.write_settings(smarthost=None, remote=f'tls = "require"\npasswords = "{path}"', extra=extra % ("*.example", demand))
                apus.own()
                apus.process.send_signal(1)
                line = f"\n   {text}: {demand} ([[destination]] *.example)\n   authenticated as 42 ([[destination]] *.example)\n"
                self.assertTrue(wait_for(lambda: line in apus.tool("explain", "x@far.example")[1], 10), apus.tool("explain", "x@far.example"))
            data = json.loads(apus.tool("explain", "x@far.example", "--json")[1])["targets"][0]
            self.assertEqual((data["tls"], data["tls-place"], data["user"]), ("implicit", "[[destination]] *.example", "42"))
            data = json.loads(apus.tool("explain", "x@[192.0.2.1]", "--json")[1])["targets"][0]
            self.assertEqual((data["tls"], data["tls-place"], data["connections-max"]), ("require", "remote.tls", 3))
            self.assertNotIn("user", data)
            out = apus.tool("explain", "x@[127.0.0.1]")[1]
            self.assertIn("require (remote.tls)\n   authenticated as shop@apus.test ([[destination]] 127.0.0.1)\n", out)

    def test_a_message_is_explained_with_its_past_and_its_future(self):
        port = free_port()
        with Apus(smarthost="127.0.0.1:%d" % port, queue='retry-min = "10m"') as apus:
            for _ in range(4):
                send(apus, ["x@far.example"])
            send(apus, ["y@far.example"])
            ids = [m["id"] for m in apus.listed()]
            self.assertTrue(wait_for(lambda: apus.logged("destination-down"), 20), apus.log())
            self.assertTrue(wait_for(lambda: "Tried once" in apus.tool("explain", ids[0])[1], 20))
            out = apus.tool("explain", ids[0])[1]
            self.assertIn("<x@far.example> by remote:[127.0.0.1]:%d:" % port, out)
            self.assertIn("Connection refused", out)
            self.assertIn("Next attempt in", out)
            self.assertIn("down the first time, next tried in", out)
            self.assertIn("It is given up after", out)
            data = json.loads(apus.tool("explain", ids[0], "--json")[1])
            self.assertEqual((data["recipients"][0]["attempts"], data["recipients"][0]["down-times"]), (1, 1))
            out = apus.tool("explain", "x@far.example")[1]
            self.assertIn("down the first time", out)
            apus.tool("queue", "hold", ids[1])
            self.assertIn("Held by the operator", apus.tool("explain", ids[1])[1])
            # What has failed waits for a report as long as the queue is paused.
            apus.write_settings(queue='retry-min = "10m"\npaused = true')
            apus.process.send_signal(1)
            self.assertTrue(wait_for(lambda: "The queue is paused" in apus.tool("explain", ids[0])[1], 10))
            apus.tool("queue", "bounce", ids[0])
            out = apus.tool("explain", ids[0])[1]
            self.assertIn("a report to <a@b.example> is due now", out)
            self.assertIn("5.0.0 returned by the postmaster", out)


if __name__ == "__main__":
    unittest.main()
