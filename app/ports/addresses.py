"""Which addresses the world outside may have: `OutboundPolicy`, and what can be said of a URL without DNS.

It promises: an address is permitted only if every IPv4 or IPv6 address it stands for is globally reachable unicast,
or the operator's allow-list (`SUREFOOT_OUTBOUND_ALLOW`) names its host or network. `ipaddress.is_global` alone is
not enough: it knows nothing of addresses inside addresses (IPv4-mapped, 6to4, Teredo, NAT64, ISATAP) nor of clouds.
It never resolves a name: that is done once, at the connection, in `app/ports/connecting.py`.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

import httpx

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_CLOSED_V4: Final = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network; 0.0.0.0 reaches loopback on Linux
        "10.0.0.0/8",  # private, RFC 1918
        "100.64.0.0/10",  # carrier-grade NAT, RFC 6598; a cloud's metadata service lives here
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # a cloud's host agent, though the address is public
        "169.254.0.0/16",  # link-local; metadata services
        "172.16.0.0/12",  # private, RFC 1918
        "192.0.0.0/24",  # protocol assignments, RFC 6890
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays, deprecated
        "192.168.0.0/16",  # private, RFC 1918
        "198.18.0.0/15",  # benchmarking
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
_OPEN_V6: Final = IPv6Network("2000::/3")
"""The only IPv6 unicast space that is handed out: whatever lies outside is local, multicast or reserved."""
_CLOSED_V6: Final = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments; Teredo inside it is decoded before
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4; decoded before
        "3fff::/20",  # documentation, RFC 9637
    )
)
_NAT64: Final = IPv6Network("64:ff9b::/96")
_ISATAP: Final = (0x00005EFE, 0x02005EFE)
"""The upper half of an interface identifier that embeds an IPv4 address (RFC 5214 §6.1)."""

_LOCAL_NAMES: Final = ("localhost", "localhost.localdomain", "localhost6", "ip6-localhost", "ip6-loopback")
_METADATA_NAMES: Final = ("metadata.google.internal", "metadata")
_LOOPBACK: Final = ("127.0.0.1", "::1")


@dataclass(frozen=True, kw_only=True, slots=True)
class OutboundPolicy:
    """The operator's allow-list. Empty: public addresses only."""

    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    @staticmethod
    def parse(allow: str) -> OutboundPolicy:
        """`"localhost, 10.1.0.0/16, ::1"`: hosts by exact name, networks in CIDR form. Raises ValueError naming the
        entry that is neither."""
        hosts: set[str] = set()
        networks: list[Network] = []
        for entry in (part.strip() for part in allow.split(",")):
            if not entry:
                continue
            try:
                networks.append(ip_network(entry.strip("[]"), strict=False))
            except ValueError:
                if "/" in entry or ":" in entry or "*" in entry or " " in entry:
                    raise ValueError(
                        f"outbound_allow: {entry!r} is neither a host name nor a network like 10.0.0.0/8; "
                        "ports, schemes and wildcards are not used here"
                    ) from None
                hosts.add(canonical_host(entry))
        return OutboundPolicy(hosts=frozenset(hosts), networks=tuple(networks))

    def permits(self, address: str, *, host: str) -> bool:
        """May a connection for `host` go to `address` (what `host` resolved to)? Unreadable addresses may not."""
        if canonical_host(host) in self.hosts:
            return True
        try:
            parsed = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        return self._listed(parsed) or all(self._listed(face) or _is_open(face) for face in _faces(parsed))

    def _listed(self, address: Address) -> bool:
        return any(address.version == network.version and address in network for network in self.networks)


class UrlRefused(ValueError):
    """The URL can never be sent to; the message is a fragment that says why."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL taken apart, as HTTP/1.1 needs it."""

    scheme: str
    host: str
    """A-labels, lower case, without brackets."""
    port: int
    path: bytes
    """Path and query as they go on the wire."""
    authority: bytes
    """The Host header."""

    @property
    def shown(self) -> str:
        return f"{self.host}:{self.port}"


@lru_cache(maxsize=1024)
def parse_target(url: str) -> Target:
    """Raises `UrlRefused`. Most tools have one URL for all their calls, hence the cache."""
    try:
        parsed = httpx.URL(url)
        host = parsed.raw_host.decode("ascii").lower()
        port = parsed.port
    except (httpx.InvalidURL, UnicodeError, ValueError):
        raise UrlRefused("its url is not valid") from None
    if parsed.scheme not in ("http", "https"):
        raise UrlRefused("its url is neither http nor https")
    if not host or "%" in host:
        raise UrlRefused("its url has no valid host")
    if parsed.userinfo:
        raise UrlRefused("its url carries a user name; put credentials in a header")
    if port is None:
        port = 443 if parsed.scheme == "https" else 80
    if not 0 < port < 65536:
        raise UrlRefused("its url has no valid port")
    return Target(scheme=parsed.scheme, host=host, port=port, path=parsed.raw_path, authority=parsed.netloc)


def literal_forbidden(url: str, policy: OutboundPolicy) -> str | None:
    """Why this URL could never be sent to under the policy, as far as that shows without DNS; else None.

    Literal addresses in every spelling that a resolver understands (`127.1`, `0x7f000001`, `2130706433`), and names
    that mean this machine. Other names are judged at each send, by what they resolve to then.
    """
    try:
        host = parse_target(url).host
    except UrlRefused as error:
        return str(error)
    name = canonical_host(host)
    if name in _LOCAL_NAMES or name.endswith((".localhost", ".localdomain")):
        permitted = any(policy.permits(address, host=host) for address in _LOOPBACK)
        return None if permitted else f"{name} is this machine"
    if name in _METADATA_NAMES and name not in policy.hosts:
        return f"{name} is a cloud's metadata service"
    address = _literal_address(name)
    if address is None or policy.permits(address, host=host):
        return None
    return f"{name} is not a public address"


def canonical_host(host: str) -> str:
    return host.strip().strip("[]").rstrip(".").lower()


def _literal_address(name: str) -> str | None:
    if ":" in name:
        return name.partition("%")[0]
    try:
        return socket.inet_ntoa(socket.inet_aton(name))
    except OSError:
        return None


def _faces(address: Address) -> Iterator[Address]:
    """Every address that this one stands for: those inside it, or else itself."""
    if isinstance(address, IPv4Address):
        yield address
        return
    low = int(address) & 0xFFFFFFFF
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    elif address in _NAT64:
        yield IPv4Address(low)
    elif address.sixtofour is not None:
        yield address.sixtofour
    elif address.teredo is not None:
        yield from address.teredo
    else:
        yield address
        if (int(address) >> 32) & 0xFFFFFFFF in _ISATAP:
            yield IPv4Address(low)


def _is_open(address: Address) -> bool:
    """Globally reachable unicast, by our list and by Python's."""
    if not address.is_global or address.is_multicast:
        return False
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _CLOSED_V4)
    return address in _OPEN_V6 and not any(address in network for network in _CLOSED_V6)
