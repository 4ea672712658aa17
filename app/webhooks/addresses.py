"""Where messages may be sent: nowhere inside the operator's own network, unless a setting says so."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from app.webhooks.errors import WebhookUrlRefused

Resolve = Callable[[str, int], Sequence[str]]
"""From host and port to IP addresses; raises OSError."""

_IP = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_COMPATIBLE = ipaddress.ip_network("::/96")
_MAX_URL = 2000


def system_addresses(host: str, port: int) -> list[str]:
    """Return what the system's resolver says, without doubles; OSError if it says nothing."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_public(address: str) -> bool:
    """Tell whether an IP address is on the public Internet, also if it hides an IPv4 address in an IPv6 one.

    Loopback, private, link-local (where clouds keep their credentials), shared, reserved and multicast
    addresses are not.
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return all(one.is_global and not one.is_multicast for one in (ip, *_within(ip)))


def _within(ip: _IP) -> list[_IP]:
    """Return the IPv4 addresses that packets to an IPv6 address may end up at."""
    if not isinstance(ip, ipaddress.IPv6Address):
        return []
    hidden: list[_IP | None] = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
    if ip in _NAT64 or ip in _COMPATIBLE:
        hidden.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    return [one for one in hidden if one is not None]


def checked_url(url: str, *, private_allowed: bool) -> str:
    """Return `url` if it can be a webhook's. Names are resolved, and checked, when something is sent.

    Raises:
        WebhookUrlRefused: no https URL, one with credentials or a fragment, too long, or a private address.
    """
    schemes = ("https", "http") if private_allowed else ("https",)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise WebhookUrlRefused("It is no URL.", "Send one such as https://example.org/lethe.") from error
    if parts.scheme not in schemes or not host or port == 0:
        raise WebhookUrlRefused(
            f"It is no {' or '.join(schemes)} URL with a host.", "Send one such as https://example.org/lethe."
        )
    if not url.isascii() or not url.isprintable() or " " in url or len(url) > _MAX_URL:
        raise WebhookUrlRefused(
            f"It has characters that a URL cannot have, or more than {_MAX_URL}.",
            "Encode it: international names in Punycode, everything else with percent signs.",
        )
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise WebhookUrlRefused(
            "It has credentials or a fragment.",
            "Leave them out: messages are signed, which tells your receiver who sends.",
        )
    if not private_allowed and ((_is_ip(host) and not is_public(host)) or host.rstrip(".") == "localhost"):
        raise WebhookUrlRefused(
            "It is an address inside a private network.",
            "Use one that is reachable from the Internet; operators can set LETHE_WEBHOOK_PRIVATE_ADDRESSES.",
        )
    return url


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
