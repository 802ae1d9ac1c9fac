"""A faulty network between a client and a server: each connection has a plan, drawn from a seeded generator.

    plain    nothing happens                     delay    each piece comes late
    bytes    byte by byte, each its own segment  stall    for a while nothing is read or passed on
    cut      ends in the middle, both ways       reset    the same, by RST
    half     what the client sends ends in the middle; what comes back is passed on

A connection is a socketpair on the client's side and TCP on the server's, so the client needs no port of ours.
"""

import random
import select
import socket
import struct
import threading
import time

from .checks import PATIENCE

HARMLESS = ("plain", "bytes", "delay", "stall")
HARMFUL = ("cut", "reset", "half")


class Link:
    """One connection; `client` is the client's socket. The thread ends when both directions have."""

    def __init__(self, port, plan, seed, spoil=False):
        self.plan, self.random, self.spoil = plan, random.Random(seed), spoil
        self.client, self.near = socket.socketpair()
        self.client.settimeout(PATIENCE)
        self.up = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.up.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.left = self.random.randrange(1, 20000) if plan in HARMFUL else 1 << 60  # bytes, then it strikes
        self.struck = False
        self.thread = threading.Thread(target=self.carry, daemon=True)
        self.thread.start()

    def pass_on(self, to, piece):
        if self.plan == "delay":
            time.sleep(self.random.random() * 0.005)
        elif self.plan == "stall" and self.random.random() < 0.1:
            time.sleep(self.random.random() * 0.3)
        if self.spoil and self.random.random() < 0.05:
            piece = bytes([piece[0] ^ 1]) + piece[1:]
        step = 1 if self.plan == "bytes" else len(piece)
        for at in range(0, len(piece), step):
            to.sendall(piece[at:at + step])

    def turn(self, source, open_sides):
        """Pass on what source has. False: it is over."""
        to = self.up if source is self.near else self.near
        piece = source.recv(self.random.choice((1, 7, 100, 4096, 65536)))
        counts = self.plan != "half" or source is self.near
        if counts and len(piece) > self.left:
            self.struck = True
            piece = piece[:self.left]  # its first part goes out still
        self.left -= len(piece) if counts else 0
        if piece:
            self.pass_on(to, piece)
        if self.struck and self.plan != "half":
            return False
        if not piece or (self.struck and counts):
            open_sides.remove(source)
            to.shutdown(socket.SHUT_WR)
        return bool(open_sides)

    def carry(self):
        open_sides = [self.near, self.up]
        try:
            going = True
            while going:
                ready = select.select(open_sides, [], [], PATIENCE)[0]
                going = bool(ready)
                for source in ready:
                    going = going and self.turn(source, open_sides)
        except OSError:  # one side has gone
            pass
        if self.plan == "reset" and self.struck:
            self.up.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.up.close()
        self.near.close()

    def end(self):
        """The client is done with it. False: the other side does not end."""
        self.client.close()
        self.thread.join(PATIENCE)
        return not self.thread.is_alive()
