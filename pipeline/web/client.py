"""Who is at the other end: the address of a client as far as it can be believed, and the network that it is in."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from starlette.requests import HTTPConnection

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_CUT = {4: 24, 6: 48}


def client_address(connection: HTTPConnection, proxies: Sequence[Network]) -> Address | None:
    """The address of the client; None where the server was reached by no address.

    `X-Forwarded-For` is whatever a client likes, except for what our own proxies have written to its right: it is
    read from there for as long as who wrote it is one of `proxies`.
    """
    told = ",".join(connection.headers.getlist("x-forwarded-for")).split(",")
    client = _parsed(connection.client.host) if connection.client else None
    while client and told and any(client in network for network in proxies):
        before = _parsed(told.pop())
        if before is None:
            break
        client = before
    return client


def network_of(connection: HTTPConnection, proxies: Sequence[Network]) -> str:
    """The network of the client, cut to /24 or to /48 for IPv6, such as `203.0.113.0/24`; empty where it has no address."""
    address = client_address(connection, proxies)
    return str(ip_network((address, _CUT[address.version]), strict=False)) if address else ""


def _parsed(text: str) -> Address | None:
    """An address as a header has it: perhaps with a port, in brackets, or IPv4 in the clothes of IPv6."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        # Of a zone (fe80::1%eth0) only this machine knows what it means.
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
