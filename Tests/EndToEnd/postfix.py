# SPDX-License-Identifier: Apache-2.0
"""A Postfix of our own for the end-to-end tests, with private settings, queue and data directories. Needs root."""
import glob
import os
import pwd
import shutil
import subprocess
import tempfile

from peers import free_port, wait_for

DAEMONS = "/usr/lib/postfix/sbin"

SERVICES = """pickup unix n - n 1 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
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
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd"""


def missing():
    """Why there can be no Postfix here; None if there can."""
    if os.geteuid() != 0:
        return "Postfix needs root"
    if not shutil.which("postfix") or not os.path.isdir(DAEMONS):
        return "postfix is not installed"
    return None


class Postfix:
    """One running Postfix. `settings` are added to main.cf, `files` (paths and their text) put beside it.

    Mail for `users` of elsewhere.example goes to a Maildir; others there are refused at RCPT.
    """

    def __init__(self, users=("x", "y"), files=(), **settings):
        self.root = tempfile.mkdtemp(prefix="apus-postfix-")
        os.chmod(self.root, 0o755)
        self.port = free_port()
        self.etc = os.path.join(self.root, "etc")
        self.queue = os.path.join(self.root, "queue")
        owner = pwd.getpwnam("postfix")
        nobody = pwd.getpwnam("nobody")
        for name in ("etc", "queue", "data", "log", "mail"):
            os.mkdir(os.path.join(self.root, name))
        os.chown(os.path.join(self.root, "data"), owner.pw_uid, owner.pw_gid)
        os.chown(os.path.join(self.root, "mail"), nobody.pw_uid, nobody.pw_gid)
        main = {
            "compatibility_level": "3.6", "config_directory": self.etc, "queue_directory": self.queue,
            "data_directory": os.path.join(self.root, "data"), "command_directory": "/usr/sbin",
            "daemon_directory": DAEMONS, "mail_owner": "postfix", "setgid_group": "postdrop",
            "maillog_file": os.path.join(self.root, "log/mail.log"), "maillog_file_prefixes": self.root,
            "myhostname": "postfix.test", "mydomain": "postfix.test", "mydestination": "postfix.test",
            "mynetworks": "127.0.0.0/8", "inet_interfaces": "127.0.0.1", "inet_protocols": "ipv4",
            "smtpd_peername_lookup": "no", "alias_maps": "", "alias_database": "", "local_recipient_maps": "",
            "relay_domains": "", "relayhost": "", "in_flow_delay": "0", "append_dot_mydomain": "no",
            "smtpd_relay_restrictions": "permit_mynetworks, reject",
            "virtual_mailbox_domains": "elsewhere.example", "virtual_mailbox_base": os.path.join(self.root, "mail"),
            "virtual_mailbox_maps": "inline:{ %s }" % ", ".join(f"{u}@elsewhere.example={u}/" for u in users),
            "virtual_uid_maps": f"static:{nobody.pw_uid}", "virtual_gid_maps": f"static:{nobody.pw_gid}",
            "virtual_minimum_uid": "1", "minimal_backoff_time": "1s", "queue_run_delay": "1s",
        }
        main.update(settings)
        with open(os.path.join(self.etc, "main.cf"), "w") as f:
            f.writelines(f"{name} = {value}\n" for name, value in main.items())
        for name, text in dict(files).items():
            os.makedirs(os.path.dirname(os.path.join(self.etc, name)), exist_ok=True)
            with open(os.path.join(self.etc, name), "w") as f:
                f.write(text)
        with open(os.path.join(self.etc, "master.cf"), "w") as f:
            f.write(f"127.0.0.1:{self.port} inet n - n - - smtpd\n{SERVICES}\n")
        self.command("postfix", "start")
        if not wait_for(self.answers, 20, 0.1):
            raise AssertionError("Postfix does not answer:\n" + self.log())

    def command(self, name, *words, **kwargs):
        done = subprocess.run(
            [shutil.which(name) or name, "-c", self.etc, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=60, **kwargs)
        if done.returncode:
            raise AssertionError(f"{name} {words}: {done.stdout.decode(errors='replace')}")
        return done.stdout

    def answers(self):
        import socket
        try:
            with socket.create_connection(("127.0.0.1", self.port), 2) as s:
                s.settimeout(5)
                return s.recv(4) == b"220 "
        except OSError:
            return False

    def sendmail(self, message, *recipients, sender="someone@postfix.test"):
        """Hands a message to this Postfix as a program on its machine does."""
        subprocess.run(
            ["/usr/sbin/sendmail", "-C", self.etc, "-i", "-f", sender, *recipients], input=message, check=True,
            env={"PATH": "/usr/sbin:/usr/bin:/bin", "MAIL_CONFIG": self.etc}, timeout=60)

    def received(self, user="x"):
        return sorted(glob.glob(os.path.join(self.root, "mail", user, "new", "*")))

    def held(self):
        """The messages in the hold queue, as they are with their envelopes."""
        found = []
        for path in sorted(glob.glob(os.path.join(self.queue, "hold", "*"))):
            found.append(self.command("postcat", "-e", "-h", "-b", "-q", os.path.basename(path)))
        return found

    def queued(self):
        return sum(
            len(files) for folder in ("maildrop", "incoming", "active", "deferred")
            for _, _, files in os.walk(os.path.join(self.queue, folder)))

    def log(self):
        try:
            with open(os.path.join(self.root, "log/mail.log"), errors="replace") as f:
                return f.read()
        except OSError:
            return ""

    def close(self):
        try:
            self.command("postfix", "stop")
        finally:
            shutil.rmtree(self.root, ignore_errors=True)
