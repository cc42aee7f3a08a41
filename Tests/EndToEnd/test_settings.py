# SPDX-License-Identifier: Apache-2.0
"""Every key of apus.toml at once, against the programs that get it."""
import re
import subprocess
import time
import os
import unittest

from apus import DAEMONS, Apus, binaries
from peers import wait_for

# What the harness sets itself, what test_auth.py has its own files for, and programs that others take the place of.
LEFT_OUT = {"listen.tls", "listen.certificate", "listen.private-key", "hostname", "state", "listen.address", "listen.role", "domains.local", "domains.relay-from", "local.mailbox", "local.users",
            "auth.passwords", "remote.passwords", "auth.system", "auth.checkpassword", "submission.senders", "programs.local", "programs.remote", "programs.bounce"}
# Keys whose default is no value that could be written.
SAMPLES = {"local.recipient-delimiter": '"+-"', "virtual.domains": '["v.example"]', "virtual.owner": '"alice"', "virtual.lmtp": '"/run/lmtp"',
           "virtual.domain-tables": '["socketmap:inet:127.0.0.1:9:domains"]', "virtual.aliases": '["socketmap:unix:/run/x:aliases"]',
           "virtual.mailboxes": '["socketmap:inet:[::1]:9:mailboxes"]', "virtual.mailbox": '"maildir:~/%{domain}/%{local}"',
            "remote.smarthost": '"127.0.0.1:9"', "remote.address-family": '"ipv4-first"',
           "remote.own-addresses": '["192.0.2.1"]', "dns.resolvers": '["127.0.0.1:9", "127.0.0.2"]', "dns.resolver-file": '"/etc/hosts"',
           "bounce.postmaster": '"alice"', "bounce.double-bounces": '"discard"', "bounce.language": '"en"',
           "bounce.verp-senders": '["@lists.example.org"]', "bounce.languages": '["*.example.org en"]', "destination.match": '"*.example.org"', "destination.connections-max": "5",
           "destination.messages-per-connection-max": "9", "destination.messages-per-minute-max": "600",
           "sendmail.origin": '"apus.test"', "sendmail.senders": '"any"', "sendmail.trusted-users": '["nobody"]',
           "domains.relay-certificates": '["' + "AB:" * 31 + 'AB"]', "remote.ca-file": '"/etc/ssl/certs/ca-certificates.crt"',
           "remote.tls": '"verify"', "destination.tls": '"require"', "submission.bare-line-feed": '"repair"', "submission.from": '"own"', "local.over-quota": '"fail"', "local.alias-user": '"nobody"', "local.dot-files": '"qmail"', "local.program": '["/bin/cat", "%{user}"]', "local.lmtp": '"[127.0.0.1]:24"', "destination.user": '"shop@example.org"',
           "auth.dovecot": '"/nonexistent/auth-client"', "auth.mechanisms": '["PLAIN", "SCRAM-SHA-256"]',
           "submission.messages-per-hour-max": "100", "submission.recipients-per-hour-max": "1000",
           "queue.high-priority-senders": '["pager@example.org", "<>"]', "queue.low-priority-senders": '["@news.example.org"]'}
REPEATED = {"destination"}
UNITS = {"s": "s", "min": "m", "h": "h", "d": "d", "KiB": "KiB", "MiB": "MiB", "GiB": "GiB", "TiB": "TiB"}


def written(default):
    """A default as the reference shows it, as TOML."""
    if re.fullmatch(r"\d+|true|false", default):
        return default
    match = re.fullmatch(r"(\d+) (\w+)", default)
    return f'"{match.group(1)}{UNITS[match.group(2)]}"' if match else None


class EverySetting(unittest.TestCase):
    def test_every_key_of_the_reference_is_taken_by_the_check_and_by_the_programs_at_start_and_reload(self):
        text = subprocess.run([os.path.join(binaries(), "apus"), "settings", "--markdown"], check=True, capture_output=True, text=True).stdout
        sections, table = {}, ""
        for line in text.splitlines():
            if line.startswith("### "):
                name = line[4:].strip("`[]")
                table = "" if "top" in name else name
            row = re.match(r"\| `([a-z-]+)` \| (.*?) \| (.*?) \|", line)
            path = f"{table}.{row.group(1)}" if row and table else row and row.group(1)
            if not row or path in LEFT_OUT or path.split(".")[0] in ("tls", "certificate"):
                continue
            value = SAMPLES.get(path) or written(row.group(3).strip("`"))
            # Files that are not there are a mistake; test_dsn and others have them.
            if path in ("local.aliases", "bounce.templates", "forwarding.srs-domain", "forwarding.srs-secret"):
                continue
            self.assertIsNotNone(value, f"{path}: no value for the default {row.group(3)}; add a sample")
            sections.setdefault(table, []).append(f"{row.group(1)} = {value}\n")
        self.assertGreater(sum(map(len, sections.values())), 50)
        self.assertIn("destination-deliveries-max = 20\n", sections["queue"])
        extra = "".join(
            f"{f'[[{t}]]' if t in REPEATED else f'[{t}]'}\n{''.join(rows)}\n" for t, rows in sections.items()
            if t in ("smtp", "sendmail", "dns", "bounce", "auth", "submission", "virtual", *REPEATED))
        remote = [r for r in sections["remote"]]
        apus = Apus(top="".join(sections[""]), local="".join(sections["local"]), remote="".join(remote),
                    queue="".join(sections["queue"]), extra=extra)
        self.addCleanup(apus.close)
        apus.write_settings(local="".join(sections["local"]))
        status, out, err = apus.tool("check", check=False)
        self.assertEqual(status, 0, out + err)
        apus.start()
        before = {name: apus.pids(name) for name in DAEMONS}
        os.kill(apus.process.pid, 1)
        self.assertTrue(wait_for(lambda: apus.logged("apusd reload"), 10), apus.log())
        time.sleep(1)
        self.assertEqual({name: apus.pids(name) for name in DAEMONS}, before, apus.log())
        self.assertFalse(apus.logged("fault"), apus.log())


if __name__ == "__main__":
    unittest.main()
