# SPDX-License-Identifier: Apache-2.0
"""Postfix, from the Debian package, run with private config, queue and data directories."""
import os, subprocess
from benchlib import HOST, count_files


class Driver:
    modes = {"relay", "hold", "defer", "discard", "local"}
    skip = ("idle-10k",)               # a process of more than a megabyte for each connection

    def __init__(self, env):
        self.env = env

    def start(self, mode, connections=200):
        e = self.env
        e.mkdir("etc")
        queue = e.mkdir("queue")
        data = e.mkdir("data", ("postfix", "postfix"), 0o755)
        log = e.mkdir("log")
        limit = max(200, connections + 20)
        main = {
            "compatibility_level": "3.6",
            "config_directory": e.path("etc"), "queue_directory": queue, "data_directory": data,
            "command_directory": "/usr/sbin", "daemon_directory": "/usr/lib/postfix/sbin",
            "mail_owner": "postfix", "setgid_group": "postdrop",
            "maillog_file": log + "/mail.log", "maillog_file_prefixes": log,
            "myhostname": "mx.bench.test", "mydomain": "bench.test", "mynetworks": "127.0.0.0/8",
            "inet_interfaces": "127.0.0.1", "inet_protocols": "ipv4",
            "mydestination": e.local_domain if mode == "local" else "localhost",
            "alias_maps": "", "alias_database": "",
            "relay_domains": "", "relayhost": "[%s]:%d" % (HOST, e.sink_port),
            "home_mailbox": "Maildir/",
            "smtpd_relay_restrictions": "permit_mynetworks, reject",
            "in_flow_delay": "0",
            "default_process_limit": str(limit),
            "smtpd_client_connection_count_limit": "0",
            "initial_destination_concurrency": "20",
            "default_destination_concurrency_limit": "50",
            "local_destination_concurrency_limit": "20",
            "message_size_limit": "30000000", "mailbox_size_limit": "0",
        }
        if e.cert:
            main.update({"smtpd_tls_security_level": "may", "smtpd_tls_cert_file": e.cert,
                         "smtpd_tls_key_file": e.key})
        if mode == "hold":
            main["smtpd_recipient_restrictions"] = "check_client_access static:HOLD, permit_mynetworks, reject"
        if mode == "defer":
            main["defer_transports"] = "smtp"
        if mode == "discard":
            main["default_transport"] = "discard"
            main["relayhost"] = ""
        e.write("etc/main.cf", "".join("%s = %s\n" % kv for kv in main.items()))
        rows = ["%s:%d inet n - n - - smtpd" % (HOST, e.port)]
        for line in """pickup unix n - n 60 1 pickup
            cleanup unix n - n - 0 cleanup
            qmgr unix n - n 300 1 qmgr
            tlsmgr unix - - n 1000? 1 tlsmgr
            rewrite unix - - n - - trivial-rewrite
            bounce unix - - n - 0 bounce
            defer unix - - n - 0 bounce
            trace unix - - n - 0 bounce
            verify unix - - n - 1 verify
            flush unix n - n 1000? 0 flush
            proxymap unix - - n - - proxymap
            proxywrite unix - - n - 1 proxymap
            smtp unix - - n - - smtp
            relay unix - - n - - smtp
            showq unix n - n - - showq
            error unix - - n - - error
            retry unix - - n - - error
            discard unix - - n - - discard
            local unix - n n - - local
            virtual unix - n n - - virtual
            lmtp unix - - n - - lmtp
            anvil unix - - n - 1 anvil
            scache unix - - n - 1 scache
            postlog unix-dgram n - n - 1 postlogd""".splitlines():
            rows.append(line.strip())
        e.write("etc/master.cf", "\n".join(rows) + "\n")
        p = e.spawn(["postfix", "-c", e.path("etc"), "start"])
        if p.wait(60):
            raise RuntimeError("postfix start: see " + e.path("spawn.log"))
        with open(e.path("queue/pid/master.pid")) as f:
            e.cgroup.roots.append(int(f.read()))

    def stop(self):
        subprocess.run(["postfix", "-c", self.env.path("etc"), "stop"], timeout=30,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def listing(self):
        return ["postqueue", "-c", self.env.path("etc"), "-p"]

    def queued(self):
        q = self.env.path("queue")
        return count_files(*(os.path.join(q, d) for d in ("maildrop", "incoming", "active", "deferred", "hold")))
