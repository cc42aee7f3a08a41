# SPDX-License-Identifier: Apache-2.0
"""A SCRAM-SHA-256 client, written from RFC 5802 and RFC 7677 alone; and tokens, with the client that shows them (RFC 7628)."""
import base64
import hashlib
import hmac
import json
import os
import time


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


def token(key, user, issued=None, lifetime=600, algorithm="HS256", **claims):
    """A JSON Web Token (RFC 7519) that says who it is, signed with HMAC-SHA-256 (RFC 7515); `issued` is a time, of now if None."""
    issued = int(time.time()) if issued is None else int(issued)
    header = {"typ": "JWT", "alg": algorithm}
    body = {"sub": user, "iat": issued, "nbf": issued, "exp": issued + lifetime, **claims}
    parts = [json.dumps(part).encode() for part in (header, body)]
    text = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
    signature = mac(key, text.encode()) if algorithm == "HS256" else b""
    return text + "." + base64.urlsafe_b64encode(signature).decode().rstrip("=")


def bearer(smtp, mechanism, user, shown):
    """Shows a token with smtplib's SMTP; returns the last reply."""
    if mechanism == "OAUTHBEARER":
        message = f"n,a={user},\1host=mx.apus.test\1port=587\1auth=Bearer {shown}\1\1"
    else:
        message = f"user={user}\1auth=Bearer {shown}\1\1"
    code, text = smtp.docmd("AUTH", f"{mechanism} {b64(message.encode())}")
    # Why not is told as a challenge; the client says that it has seen it.
    return smtp.docmd(b64(b"\1")) if code == 334 else (code, text)
