"""Calls to addresses that others name: which may be called, and a connection to exactly the address that was checked.

A name is resolved once, every address it has must be public, and the connection goes to one of those under the name's own
Host and SNI. No redirects, no environment proxies, no kept connections; the caller bounds time and size.
"""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import SplitResult, urlsplit

import httpx

Address = IPv4Address | IPv6Address
Resolver = Callable[[str, int], Awaitable[Sequence[Address]]]

TOTAL_SECONDS = 10.0
CONNECTIONS_MAX = 64
LOOPBACK_HOSTS = frozenset(("localhost", "127.0.0.1", "::1"))

_PORTS = {"http": 80, "https": 443}
_PRINTABLE = re.compile(r"[!-\[\]-~]{1,2048}")  # visible ASCII but no backslash: parsers disagree about it
_HOST = re.compile(
    r"(?=.{4,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])", re.ASCII
)
_INNER_NAMES = (
    ".arpa",
    ".corp",
    ".home",
    ".internal",
    ".intranet",
    ".invalid",
    ".lan",
    ".local",
    ".localhost",
    ".onion",
)


class UrlRefused(Exception):
    """The URL must be https on port 443 of a public host name, without user name and fragment."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class AddressRefused(Exception):
    """The name leads to an address that may not be called."""


class AnswerTooLarge(Exception):
    """The answer is longer than anybody wants to read."""


def check_url(url: str, *, loopback: bool) -> SplitResult:
    """The URL in its parts; `loopback` lets plain http to this machine pass. Where the name leads is checked later."""
    if not _PRINTABLE.fullmatch(url):
        raise UrlRefused("characters")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UrlRefused("malformed") from None
    host = parts.hostname or ""
    if "@" in parts.netloc:
        raise UrlRefused("userinfo")
    if "#" in url:
        raise UrlRefused("fragment")
    if loopback and parts.scheme == "http" and host in LOOPBACK_HOSTS and port != 0:
        return parts
    if parts.scheme != "https":
        raise UrlRefused("scheme")
    if port not in (None, 443):
        raise UrlRefused("port")
    # A last label that begins with a letter leaves no room for the many spellings of an IPv4 address.
    if not _HOST.fullmatch(host) or host.endswith(_INNER_NAMES):
        raise UrlRefused("host")
    return parts


# IANA special-purpose registries, and what `ipaddress.is_global` lets through: 6to4 relays, AS112, AMT, multicast,
# a cloud's wire server.
_NO_IPV4 = [
    IPv4Network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32", "169.254.0.0/16",
        "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24",
        "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
    )
]  # fmt: skip

# Of IPv6 only global unicast is called at all, so mapped, NAT64, unique-local, link-local, multicast and SRv6 addresses
# are out from the start; then come the holes inside it: Teredo and its neighbours, 6to4, documentation, 6bone, AS112.
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NO_IPV6 = [
    IPv6Network(network)
    for network in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3ffe::/16", "3fff::/20")
]


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether the platform may open a connection to `address`."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NO_IPV4)
    if address.scope_id is not None or address not in _GLOBAL_UNICAST:
        return False
    return not any(address in network for network in _NO_IPV6)


async def resolve(host: str, port: int) -> list[Address]:
    """Every address the system's resolver knows for `host`."""
    answers = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(ip_address(answer[4][0]) for answer in answers))


def open_client(verify: bool | str = True) -> httpx.AsyncClient:
    """A client that keeps no connection: the address is checked for each attempt, and none is shared between names."""
    return httpx.AsyncClient(
        verify=verify,
        timeout=TOTAL_SECONDS,
        limits=httpx.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=0),
        follow_redirects=False,
        trust_env=False,
    )


async def find_addresses(parts: SplitResult, *, loopback: bool, resolver: Resolver) -> Sequence[Address]:
    """All addresses of the name, if every one of them may be called: one bad apple and the name is not trusted."""
    host = parts.hostname or ""
    addresses = await resolver(host, port_of(parts))
    if loopback and parts.scheme == "http" and host in LOOPBACK_HOSTS:
        allowed = all(address.is_loopback for address in addresses)
    else:
        allowed = all(is_public(address) for address in addresses)
    if not addresses or not allowed:
        raise AddressRefused
    return addresses


async def send(
    client: httpx.AsyncClient,
    method: str,
    parts: SplitResult,
    addresses: Sequence[Address],
    *,
    headers: Mapping[str, str],
    body: bytes | None = None,
) -> httpx.Response:
    """The opened answer of a checked address, under the name's own Host and SNI; a dead one is followed by the next."""
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    unreachable: httpx.ConnectError | None = None
    for address in addresses:
        literal = f"[{address}]" if isinstance(address, IPv6Address) else str(address)
        request = client.build_request(
            method,
            f"{parts.scheme}://{literal}:{port_of(parts)}{path}",
            headers={**headers, "host": parts.netloc},
            content=body,
            extensions={"sni_hostname": parts.hostname, "timeout": client.timeout.as_dict()},
        )
        try:
            return await client.send(request, stream=True)
        except httpx.ConnectError as failure:
            unreachable = failure
    assert unreachable is not None
    raise unreachable


async def read_bounded(response: httpx.Response, limit_bytes: int) -> bytes:
    """The answer's body as it was sent, nothing decompressed; AnswerTooLarge beyond the limit."""
    taken = bytearray()
    async for chunk in response.aiter_raw(limit_bytes):
        taken += chunk
        if len(taken) > limit_bytes:
            raise AnswerTooLarge
    return bytes(taken)


def port_of(parts: SplitResult) -> int:
    """The port a connection goes to."""
    return parts.port or _PORTS[parts.scheme]
