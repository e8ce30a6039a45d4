"""Which user of this machine a loopback connection comes from, as the kernel knows it.

TCP carries no user, but on Linux the table of sockets does: the other end of a loopback connection is a socket of this
machine too, and its row names its owner. Where there is no such table the answer is None, and a token is asked for.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path

TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))


def peer_uid(client: tuple[str, int], server: tuple[str, int]) -> int | None:
    """The user id that owns the client's end of a connection between two loopback addresses; None when nobody can tell.

    >>> peer_uid(("192.0.2.1", 1), ("127.0.0.1", 2)) is None
    True
    """
    try:
        if not all(ipaddress.ip_address(host).is_loopback for host, _ in (client, server)):
            return None
    except ValueError:
        return None
    wanted = {
        (_spelled(client[0], client[1], wide), _spelled(server[0], server[1], wide)) for wide in (False, True)
    }
    for table in TABLES:
        try:
            lines = table.read_text().splitlines()[1:]
        except OSError:
            return None
        for line in lines:
            parts = line.split()
            if (parts[1], parts[2]) in wanted:
                return int(parts[7])
    return None


def _spelled(host: str, port: int, wide: bool) -> str:
    """An address as the kernel's tables write it: words of four bytes, each in the order of this machine.

    >>> _spelled("127.0.0.1", 5000, False)
    '0100007F:1388'
    """
    address = ipaddress.ip_address(host)
    raw = address.packed
    if wide and address.version == 4:
        raw = b"\0" * 10 + b"\xff\xff" + raw
    words = [raw[start : start + 4][::-1] for start in range(0, len(raw), 4)]
    return f"{b''.join(words).hex().upper()}:{port:04X}"
