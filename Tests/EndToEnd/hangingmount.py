# SPDX-License-Identifier: Apache-2.0
"""A file system that takes a question and never answers it, as a dead NFS server: who asks hangs, and cannot be killed.

Speaks as much of the kernel's FUSE protocol as it takes to be a directory in which every name is looked for forever.
"""
import ctypes
import os
import struct
import threading
import time

LOOKUP, FORGET, GETATTR, OPENDIR, INIT = 1, 2, 3, 27, 26


class HangingMount:
    """Mounted at `path` until `close`. Raises OSError where that is not possible."""

    def __init__(self, path):
        self.path = path
        self.asked = threading.Event()
        self.device = os.open("/dev/fuse", os.O_RDWR)
        libc = ctypes.CDLL(None, use_errno=True)
        options = f"fd={self.device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
        if libc.mount(b"hanging", path.encode(), b"fuse", 0, options):
            os.close(self.device)
            raise OSError(ctypes.get_errno(), "mount")
        self.libc = libc
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        try:
            while True:
                self.answer(os.read(self.device, 1 << 17))
        except OSError:
            pass

    def answer(self, request):
        _, opcode, unique, _ = struct.unpack_from("<IIQQ", request)
        if opcode == INIT:
            self.reply(unique, struct.pack("<IIIIHHI", 7, 31, 0, 0, 1, 1, 4096).ljust(64, b"\0"))
        elif opcode == GETATTR:
            attributes = struct.pack("<QQQQQQIIIIIIIIII", 1, 0, 0, 0, 0, 0, 0, 0, 0, 0o40777, 2, 0, 0, 0, 4096, 0)
            self.reply(unique, struct.pack("<QII", 3600, 0, 0) + attributes)
        elif opcode == OPENDIR:
            self.reply(unique, struct.pack("<QII", 1, 0, 0))
        elif opcode == LOOKUP:
            self.asked.set()

    def reply(self, unique, body):
        os.write(self.device, struct.pack("<IiQ", 16 + len(body), 0, unique) + body)

    def close(self):
        """Ends the connection: those who hang get an error."""
        self.libc.umount2(self.path.encode(), 2)
        os.close(self.device)
        time.sleep(0.1)
