"""Where a message may go: a name is resolved once, its addresses are judged, and the judged address is connected to.

So a name that means something else at the second look (DNS rebinding) changes nothing.
"""

from __future__ import annotations

import ipaddress
import socket

from gyrostat.errors import GyrostatError

TIMEOUT_S = 10.0


class UndeliveredError(GyrostatError):
    """A message did not arrive; trying again may help unless `is_final`."""

    code = "notify"
    retryable = True
    exit_code = 3

    @property
    def is_final(self) -> bool:
        """Whether the same message would be refused for ever."""
        return bool(self.facts.get("is_final"))


_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_public(text: str) -> bool:
    """Whether an address belongs to somebody out there: not private, loopback, link-local, reserved or multicast."""
    address = ipaddress.ip_address(text.partition("%")[0])
    inner = None
    if isinstance(address, ipaddress.IPv6Address):
        # An IPv4 address in IPv6 clothes goes to the IPv4 host.
        inner = address.ipv4_mapped or address.sixtofour
        inner = inner or (address.teredo[1] if address.teredo else None)
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if inner is not None:
        return is_public(str(inner))
    return address.is_global and not address.is_multicast


def resolve(host: str, port: int, *, private: bool) -> list[tuple[int, tuple[object, ...]]]:
    """`(family, address)` to connect to, in the resolver's order.

    Raises:
        UndeliveredError: there is no such name, or one of its addresses is not public and `private` is not declared.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UndeliveredError("its host's name cannot be resolved") from error
    if not private and any(not is_public(str(sockaddr[0])) for *_, sockaddr in found):
        raise UndeliveredError(
            "its address is private, loopback or link-local, which is refused. Declare it, if it is meant: private: true"
        )
    return [(family, sockaddr) for family, _, _, _, sockaddr in found]


def connect(host: str, port: int, *, private: bool) -> socket.socket:
    """A connection to the first address that answers.

    Raises:
        UndeliveredError: as `resolve`, or none answers.
    """
    last: OSError | None = None
    for family, sockaddr in resolve(host, port, private=private):
        link = socket.socket(family, socket.SOCK_STREAM)
        link.settimeout(TIMEOUT_S)
        try:
            link.connect(sockaddr)
        except OSError as error:
            last = error
            link.close()
        else:
            return link
    raise UndeliveredError(f"it does not answer ({why(last)})") from last


def why(error: BaseException | None) -> str:
    """An error's reason without names or addresses, which may be secrets."""
    if isinstance(error, TimeoutError):
        return "timed out"
    text = getattr(error, "strerror", None)
    return text if isinstance(text, str) and text else type(error).__name__
