# SPDX-License-Identifier: Apache-2.0
"""Starts the real executables in a directory of their own, for the end-to-end tests; without root unless asked."""
import glob
import json
import mailbox
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time

from peers import free_port, wait_for

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAMS = ["apusd", "apus", "apus-smtpd", "apus-lookup", "apus-vault", "apus-queue", "apus-remote", "apus-local", "apus-bounce", "sendmail"]
DAEMONS = [p for p in PROGRAMS if p not in ("apus", "apusd", "sendmail")]


def built():
    """The folder of the executables under test."""
    folder = os.environ.get("APUS_BIN") or os.path.join(HERE, "../../.build/release")
    return os.path.realpath(folder)


_copied = None


def binaries():
    """The executables, where any user can execute them."""
    global _copied
    if os.geteuid() != 0:
        return built()
    if _copied is None:
        _copied = tempfile.mkdtemp(prefix="apus-bin-")
        os.chmod(_copied, 0o755)
        for name in PROGRAMS:
            shutil.copy(os.path.join(built(), name), _copied)
        import atexit
        atexit.register(shutil.rmtree, _copied, True)
    return _copied


class Apus:
    """One running Apus: settings, state and mailboxes under a temporary directory.

    The text parameters are put into the sections of their names (see `settings`). Started by root, all of it gives
    itself up and runs as nobody; with `root=True` apusd stays root and each program gets its own user. `folder` has the
    executables, if not those of `binaries`.
    """

    def __init__(self, smarthost=None, extra="", local="", remote="", queue="", domains="", top="", users=("alice", "bob"),
                 port=None, root=False, folder=None):
        self.root = tempfile.mkdtemp(prefix="apus-test-")
        self.folder = folder or binaries()
        self.port = port or free_port()
        self.gives_up_root = os.geteuid() == 0 and not root
        self.user = "nobody" if self.gives_up_root else pwd.getpwuid(os.geteuid()).pw_name
        self.users = users
        self.config = os.path.join(self.root, "apus.toml")
        self.logfile = os.path.join(self.root, "log")
        self.aliases = os.path.join(self.root, "aliases")
        self.sections = dict(smarthost=smarthost, extra=extra, local=local, remote=remote, queue=queue, domains=domains, top=top)
        self.process = None
        os.makedirs(os.path.join(self.root, "mail"))
        if root:
            os.chmod(self.root, 0o755)
        self.write_settings()
        self.own()

    def identity(self):
        """Whom a process is started as, for subprocess."""
        return self.identity_of(pwd.getpwnam(self.user).pw_uid) if self.gives_up_root else {}

    @staticmethod
    def identity_of(uid):
        """To be that user, for subprocess; only root can be another one."""
        if uid == os.geteuid():
            return {}
        entry = pwd.getpwuid(uid)
        return dict(user=entry.pw_uid, group=entry.pw_gid, extra_groups=[])

    def own(self):
        if self.gives_up_root:
            entry = pwd.getpwnam(self.user)
            for path, folders, files in os.walk(self.root):
                for name in [path] + [os.path.join(path, f) for f in files]:
                    os.chown(name, entry.pw_uid, entry.pw_gid)

    def settings(self):
        s = self.sections
        if self.user == "root":
            mailboxes = 'mailbox = "maildir:~/Maildir"'
        else:
            users = ", ".join('"%s"' % u for u in self.users)
            mailboxes = f'mailbox = "maildir:{self.root}/mail/%{{user}}"\nusers = [{users}]'
        smart = 'smarthost = "%s"\n' % s["smarthost"] if s["smarthost"] else ""
        return f"""
hostname = "mx.apus.test"
state = "{self.root}/state"
{s["top"]}

[[listen]]
address = "127.0.0.1:{self.port}"
role = "mx"

[domains]
local = ["apus.test"]
relay-from = ["127.0.0.1/32"]
{s["domains"]}

[local]
{mailboxes}
{s["local"]}

[remote]
{smart}{s["remote"]}

[queue]
{s["queue"]}

{s["extra"]}
"""

    def write_settings(self, **changes):
        self.sections.update(changes)
        with open(self.config, "w") as f:
            f.write(self.settings())

    def start(self, wait=True):
        log = open(self.logfile, "ab")
        self.process = subprocess.Popen(
            [os.path.join(self.folder, "apusd"), "--config", self.config], stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, cwd="/", start_new_session=True, **self.identity())
        log.close()
        if wait and not wait_for(lambda: self.answers() and self.tool("queue", "count", check=False)[0] == 0, 30):
            raise AssertionError("apusd does not answer:\n" + self.log())
        return self

    def answers(self):
        import socket
        try:
            with socket.create_connection(("127.0.0.1", self.port), 2) as s:
                s.settimeout(5)
                if s.recv(4) != b"220 ":
                    return False
                s.sendall(b"QUIT\r\n")
                return True
        except OSError:
            return False

    def stop(self, seconds=40):
        """SIGTERM; returns the exit status."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill_all()
                raise AssertionError("apusd did not stop:\n" + self.log()[-4000:])
        return self.process.returncode if self.process else None

    def pids(self, name=None):
        """The pids of our own programs, by name; found through our apusd's children."""
        found = []
        todo = [self.process.pid] if self.process and self.process.poll() is None else []
        while todo:
            pid = todo.pop()
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as f:
                    command = os.path.basename(f.read().split(b"\0")[0].decode())
                for task in os.listdir(f"/proc/{pid}/task"):
                    with open(f"/proc/{pid}/task/{task}/children") as f:
                        todo += [int(p) for p in f.read().split()]
            except OSError:
                continue
            if name is None or command == name:
                found.append(pid)
        return found

    def kill(self, name):
        for pid in self.pids(name):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def kill_in_turn(self, *programs):
        """kill -9 of one program after the other, eight times, under load; then waits until the queue is empty."""
        for round in range(8):
            time.sleep(0.15)
            self.kill(programs[round % len(programs)])
            wait_for(lambda: all(self.pids(name) for name in programs), 20)
        # A part that was killed several times is started again after some seconds.
        if not wait_for(lambda: self.tool("queue", "count", check=False)[0] == 0, 60):
            raise AssertionError("the queue is not back:\n" + self.log()[-5000:])
        self.wait_empty(90)

    def kill_all(self):
        """kill -9 of apusd and everything it has started, as a power cut would."""
        pids = self.pids()
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if self.process:
            self.process.wait(10)
        wait_for(lambda: not any(os.path.exists(f"/proc/{p}") for p in pids), 10)

    def kill_supervisor(self):
        """kill -9 of apusd alone; whether what it has started ends by itself, as it must before another one can start."""
        pids = self.pids()
        self.process.kill()
        self.process.wait(10)
        return wait_for(lambda: not any(os.path.exists(f"/proc/{p}") for p in pids), 40)

    def close(self):
        try:
            if self.process and self.process.poll() is None:
                self.stop()
        finally:
            if self.process and self.process.poll() is None:
                self.kill_all()
            if not os.environ.get("APUS_KEEP"):
                shutil.rmtree(self.root, ignore_errors=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.close()

    def tool(self, *words, check=True):
        """Runs `apus WORDS --config …`; returns (status, stdout, stderr)."""
        done = subprocess.run(
            [os.path.join(self.folder, "apus"), *words, "--config", self.config], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60, cwd="/", **self.identity())
        if check and done.returncode != 0:
            raise AssertionError(f"apus {words}: {done.returncode}\n{done.stdout}{done.stderr}\n{self.log()[-3000:]}")
        return done.returncode, done.stdout, done.stderr

    def count(self):
        return int(self.tool("queue", "count")[1].split()[0])

    def listed(self):
        return json.loads(self.tool("queue", "list", "--json")[1])

    def log(self):
        with open(self.logfile, errors="replace") as f:
            return f.read()

    def logged(self, *parts):
        """The log lines that hold all the parts."""
        return [l for l in self.log().splitlines() if all(p in l for p in parts)]

    def maildir(self, user="alice"):
        if self.user == "root":
            return os.path.join(pwd.getpwnam(user).pw_dir, "Maildir")
        return os.path.join(self.root, "mail", user)

    def delivered(self, user="alice"):
        return sorted(glob.glob(os.path.join(self.maildir(user), "new", "*")))

    def messages(self, user="alice"):
        """What a mail client sees."""
        if not os.path.isdir(self.maildir(user)):
            return []
        return list(mailbox.Maildir(self.maildir(user), create=False))

    def wait_delivered(self, count, user="alice", seconds=30):
        wait_for(lambda: len(self.delivered(user)) >= count, seconds)
        found = self.delivered(user)
        if len(found) < count:
            raise AssertionError(f"{len(found)} of {count} messages for {user}:\n{self.log()[-5000:]}")
        return found

    def wait_empty(self, seconds=30):
        if not wait_for(lambda: self.count() == 0, seconds, 0.1):
            raise AssertionError("the queue is not empty:\n" + self.log()[-5000:])
