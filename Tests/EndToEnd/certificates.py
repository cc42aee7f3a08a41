# SPDX-License-Identifier: Apache-2.0
"""Certificates for the end-to-end tests, made by the openssl command."""
import os
import subprocess


class Authority:
    """An authority of our own in a folder; everybody can read what it makes."""

    def __init__(self, folder):
        self.folder = folder
        os.makedirs(folder, exist_ok=True)
        os.chmod(folder, 0o755)
        self.run("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=Authority -keyout ca.key -out ca.pem")

    def path(self, name):
        return os.path.join(self.folder, name)

    def run(self, words):
        subprocess.run(["openssl", *words.split(" ")], cwd=self.folder, check=True, capture_output=True)
        for name in os.listdir(self.folder):
            os.chmod(self.path(name), 0o644)

    def issue(self, name, *hosts, key="ec -pkeyopt ec_paramgen_curve:P-256", days=30):
        """Makes NAME.pem (the chain) and NAME.key; returns their paths."""
        self.run(f"req -newkey {key} -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr")
        with open(self.path(name + ".ext"), "w") as f:
            f.write("subjectAltName=" + ",".join(("IP:" if h[0].isdigit() else "DNS:") + h for h in hosts) + "\n")
        self.run(f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days {days} -extfile {name}.ext -out {name}.crt")
        with open(self.path(name + ".pem"), "wb") as out:
            for part in (name + ".crt", "ca.pem"):
                with open(self.path(part), "rb") as f:
                    out.write(f.read())
        os.chmod(self.path(name + ".pem"), 0o644)
        return self.path(name + ".pem"), self.path(name + ".key")

    def fingerprint(self, name):
        done = subprocess.run(
            ["openssl", "x509", "-in", self.path(name + ".crt"), "-noout", "-fingerprint", "-sha256"], check=True,
            capture_output=True, text=True)
        return done.stdout.strip().split("=")[1]
