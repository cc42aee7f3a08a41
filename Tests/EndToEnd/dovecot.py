# SPDX-License-Identifier: Apache-2.0
"""A Dovecot of our own for the end-to-end tests, which does nothing but say who somebody is. Needs root."""
import grp
import os
import pwd
import shutil
import signal
import subprocess

from peers import slurp, wait_for

DOVECOT = shutil.which("dovecot", path=os.environ.get("PATH", "") + ":/usr/sbin")


def missing():
    """Why there can be no Dovecot here; None if there can."""
    if os.geteuid() != 0:
        return "Dovecot needs root to start"
    return None if DOVECOT else "dovecot-core is not installed"


class Dovecot:
    """`users` maps names to passwords, `folder` gets its files, `user` is whom it gives itself up to. `passdbs` is put in front
    of that of the users. `socket` is where it is asked."""

    def __init__(self, folder, users, user="nobody", mechanisms="plain login scram-sha-256", passdbs=""):
        self.process = None
        self.base = os.path.join(folder, "dovecot-run")
        self.socket = os.path.join(self.base, "auth-client")
        self.config = os.path.join(folder, "dovecot.conf")
        self.logfile = os.path.join(folder, "dovecot.log")
        os.makedirs(self.base)
        # Whatever the rest of the folder belongs to, Dovecot wants the way to its own to be root's.
        os.chmod(folder, 0o755)
        with open(os.path.join(folder, "dovecot-users"), "w") as f:
            f.writelines(f"{name}:{{PLAIN}}{password}\n" for name, password in users.items())
        group = grp.getgrgid(pwd.getpwnam(user).pw_gid).gr_name
        with open(self.config, "w") as f:
            f.write(f"""
protocols =
base_dir = {self.base}
state_dir = {self.base}
log_path = {self.logfile}
auth_mechanisms = {mechanisms}
auth_failure_delay = 0
default_internal_user = {user}
default_internal_group = {group}
default_login_user = {user}
ssl = no
{passdbs}
passdb {{
  driver = passwd-file
  mechanisms = plain login scram-sha-256
  args = {folder}/dovecot-users
}}
userdb {{
  driver = static
  args = uid=1 gid=1 home=/nonexistent
}}
service auth {{
  unix_listener auth-client {{
    mode = 0666
  }}
}}
# Otherwise each failure makes the next answer later.
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
""")

    def start(self):
        self.process = subprocess.Popen([DOVECOT, "-F", "-c", self.config], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if not wait_for(lambda: os.path.exists(self.socket), 20):
            raise AssertionError("Dovecot does not start:\n" + self.log())
        return self

    def stop(self):
        if self.process is None or self.process.poll() is not None:
            return
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children") as f:
            children = [int(pid) for pid in f.read().split()]
        self.process.terminate()
        self.process.wait(20)
        # Its auth process would go on as long as somebody is connected.
        for pid in children:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def log(self):
        return slurp(self.logfile).decode(errors="replace") if os.path.exists(self.logfile) else ""
