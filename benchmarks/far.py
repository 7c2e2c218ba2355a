"""A far line between this machine and a network namespace: each packet is late, and some are lost.

Linux does this by the queueing discipline ``netem``, which some kernels lack.  So here a process
carries the packets between two TUN devices, in order.  TCP at both ends is the kernel's own.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import random
import select
import struct
import subprocess
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from benchmarks.nginx import Listener

_TUNSETIFF: Final = 0x400454CA
#: IFF_TUN and IFF_NO_PI: plain IP packets.
_PLAIN: Final = 0x0001 | 0x1000
_LARGEST: Final = 65536
#: Packets on the way in each direction; more are lost, as with netem.
_QUEUE: Final = 1000
_CONTROL: Final = "/proc/sys/net/ipv4/tcp_congestion_control"
#: A network for documentation (RFC 5737), which nobody uses.
_HERE, _THERE = "203.0.113.1", "203.0.113.2"


@contextmanager
def far_line(delay: float, loss: float) -> Iterator[Listener]:
    """Make the line; yield where servers listen at its other end.

    :param delay: seconds of one direction.
    :param loss: part of the packets from the other end that is lost.
    """
    name = f"bv{os.getpid()}"
    devices = f"{name}h", f"{name}t"
    ends = [_device(each) for each in devices]
    try:
        _run("ip", "netns", "add", name)
        try:
            _run("ip", "link", "set", devices[1], "netns", name)
            within = ("ip", "netns", "exec", name)
            for command, device, own, other in (
                ((), devices[0], _HERE, _THERE),
                (within, devices[1], _THERE, _HERE),
            ):
                _run(*command, "ip", "addr", "add", own, "peer", other, "dev", device)
                _run(*command, "ip", "link", "set", device, "up")
            # As the default on Linux, reno takes a loss for a sign of a full line; bbr does not.
            _run(*within, "sh", "-c", f"echo reno > {_CONTROL}")
            carrying = multiprocessing.get_context("fork").Process(
                target=_carry, args=(ends, delay, loss), daemon=True
            )
            carrying.start()
            try:
                yield Listener(_THERE, within)
            finally:
                carrying.terminate()
                carrying.join()
        finally:
            _run("ip", "netns", "delete", name)
    finally:
        for end in ends:
            os.close(end)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def _device(name: str) -> int:
    """Make a TUN device; return its descriptor."""
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _PLAIN))
    return end


def _carry(ends: list[int], delay: float, loss: float) -> None:
    """Carry packets between two devices for ever.

    :param ends: here and there.
    """
    chance = random.Random(0)
    here, there = ends
    waiting: dict[int, deque[tuple[float, bytes]]] = {here: deque(), there: deque()}
    while True:
        due = [queue[0][0] for queue in waiting.values() if queue]
        rest = max(0.0, min(due) - time.monotonic()) if due else None
        for source in select.select(ends, [], [], rest)[0]:
            target = there if source == here else here
            for packet in _packets(source):
                lost = source == there and chance.random() < loss
                if not lost and len(waiting[target]) < _QUEUE:
                    waiting[target].append((time.monotonic() + delay, packet))
        now = time.monotonic()
        for target, queue in waiting.items():
            while queue and queue[0][0] <= now:
                os.write(target, queue.popleft()[1])


def _packets(source: int) -> Iterator[bytes]:
    """Yield the packets that a device has now."""
    for _ in range(_QUEUE):
        try:
            yield os.read(source, _LARGEST)
        except BlockingIOError:
            return
