# SPDX-License-Identifier: Apache-2.0
"""A SCRAM-SHA-256 client, written from RFC 5802 and RFC 7677 alone."""
import base64
import hashlib
import hmac
import os


def digest(octets):
    return hashlib.sha256(octets).digest()


def mac(key, octets):
    return hmac.new(key, octets, "sha256").digest()


def b64(octets):
    return base64.b64encode(octets).decode()


class SCRAM:
    """`header` is the GS2 header without its last comma, `binding` the octets that stand for the connection."""

    def __init__(self, user, password, header="n,", binding=b""):
        self.user, self.password, self.header, self.binding = user, password, header + ",", binding
        self.bare = "n=%s,r=%s" % (user.replace("=", "=3D").replace(",", "=2C"), b64(os.urandom(18)))

    def first(self):
        return self.header + self.bare

    def final(self, challenge):
        fields = dict(f.split("=", 1) for f in challenge.split(","))
        assert fields["r"].startswith(self.bare.split("r=")[1]), challenge
        self.iterations = int(fields["i"])
        self.salt = fields["s"]
        salted = hashlib.pbkdf2_hmac("sha256", self.password.encode(), base64.b64decode(fields["s"]), self.iterations)
        client_key = mac(salted, b"Client Key")
        without = "c=%s,r=%s" % (b64(self.header.encode() + self.binding), fields["r"])
        message = ",".join([self.bare, challenge, without]).encode()
        proof = bytes(a ^ b for a, b in zip(client_key, mac(digest(client_key), message)))
        self.signature = b64(mac(mac(salted, b"Server Key"), message))
        return f"{without},p={b64(proof)}"

    def verify(self, last):
        return last == "v=" + self.signature


def scram(smtp, mechanism, client):
    """Has the exchange with smtplib's SMTP; returns the last reply, and whether the server knew the password."""
    code, text = smtp.docmd("AUTH", f"{mechanism} {b64(client.first().encode())}")
    if code != 334:
        return code, text, False
    code, text = smtp.docmd(b64(client.final(base64.b64decode(text).decode()).encode()))
    if code != 334:
        return code, text, False
    verified = client.verify(base64.b64decode(text).decode())
    code, text = smtp.docmd("")
    return code, text, verified
