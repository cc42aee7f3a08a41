# SPDX-License-Identifier: Apache-2.0
"""Apus, from a release build: APUS_BIN is the folder with its executables
(default: .build/release of this checkout, or the PATH). Needs the users that etc/accounts makes."""
import os, shutil, subprocess
from benchlib import HERE, HOST


def binary(name):
    for folder in (os.environ.get("APUS_BIN"), os.path.join(HERE, "../.build/release")):
        if folder and os.path.exists(os.path.join(folder, name)):
            return os.path.abspath(os.path.join(folder, name))
    found = shutil.which(name)
    if not found:
        raise RuntimeError(name + " not found: set APUS_BIN")
    return found


class Driver:
    modes = {"relay", "hold", "local"}

    def __init__(self, env):
        self.env = env
        self.proc = None

    def start(self, mode, connections=200):
        e = self.env
        owner = (e.runs_as, None) if e.runs_as else None
        state = e.mkdir("state", owner)
        users = f'users = ["{e.user}"]\n' if e.runs_as else ""
        tls = f'[tls]\ncertificate = "{e.cert}"\nprivate-key = "{e.key}"\n' if e.cert else ""
        self.conf = e.write("apus.toml", f"""
hostname = "mx.bench.test"
state = "{state}"

[[listen]]
address = "{HOST}:{e.port}"
role = "mx"

[smtp]
sessions-max = {max(10_000, connections + 100)}

[domains]
local = ["{e.local_domain}"]
relay-from = ["127.0.0.0/8"]

[local]
mailbox = "maildir:~/Maildir"
{users}
[remote]
smarthost = "{HOST}:{e.sink_port}"

[queue]
paused = {"true" if mode == "hold" else "false"}
{tls}""")
        self.proc = e.spawn([binary("apusd"), "--config", self.conf])

    def stop(self):
        if self.proc and self.proc.poll() is None:
            self.proc.terminate()
            self.proc.wait(20)

    def queued(self):
        out = subprocess.run([binary("apus"), "queue", "count", "--config", self.conf],
                             stdout=subprocess.PIPE, text=True, check=True).stdout
        return int(out.split()[0])
