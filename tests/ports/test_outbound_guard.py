"""The guard: which addresses may be reached, and that nothing else ever sees a connection."""

from __future__ import annotations

import socket

import pytest

from app.domain.certainty import Observation
from app.ports.addresses import OutboundPolicy, UrlRefused, literal_forbidden, parse_target
from app.ports.outbound import Exchange, Outbound, Resolver
from tests.ports.misbehaving_server import answers, response, serving

NOBODY = OutboundPolicy()
LOCAL_ADDRESSES = ["127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", "64:ff9b::7f00:1", "2002:7f00:1::"]


async def ask(outbound: Outbound, url: str, *, seconds: float = 5) -> Exchange:
    try:
        return await outbound.send(
            "POST", url, headers=[], content=b"{}", seconds=seconds, limit=1000, may_send=lambda: True
        )
    finally:
        await outbound.aclose()


def resolving_to(*addresses: str) -> Resolver:
    async def resolve(host: str, port: int) -> list[str]:
        return list(addresses)

    return resolve


# --- which addresses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        *LOCAL_ADDRESSES,
        "10.1.2.3",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "198.18.0.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "2001:db8::1",
        "3fff::1",
        "5f00::1",
        "::ffff:10.0.0.1",
        "::ffff:0:127.0.0.1",
        "::127.0.0.1",
        "::8.8.8.8",
        "64:ff9b::10.0.0.1",
        "64:ff9b:1::1",
        "2002:a00:1::",
        "2001:0:4136:e378:8000:63bf:f5ff:fffe",
        "2a00:1450:4001:81b::5efe:10.0.0.1",
        "100::1",
        "not an address",
        "",
    ],
)
def test_policy_refuses_an_address_that_is_not_public(address: str) -> None:
    assert not NOBODY.permits(address, host="example.com")


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::"],
)
def test_policy_permits_a_public_address(address: str) -> None:
    assert NOBODY.permits(address, host="example.com")


@pytest.mark.parametrize(
    ("allow", "address", "host", "permitted"),
    [
        ("10.0.0.0/8", "10.1.2.3", "x", True),
        ("10.0.0.0/8", "11.0.0.1", "x", True),
        ("10.0.0.0/8", "192.168.0.1", "x", False),
        ("10.0.0.0/8", "::ffff:10.1.2.3", "x", True),
        ("::1", "::1", "x", True),
        ("::1", "127.0.0.1", "x", False),
        ("127.0.0.0/8,::1,localhost", "::1", "localhost", True),
        (" Calendar.Internal. ", "10.0.0.1", "calendar.internal", True),
        ("calendar.internal", "10.0.0.1", "calendar.internal.", True),
        ("calendar.internal", "10.0.0.1", "evil.calendar.internal", False),
        ("", "10.0.0.1", "x", False),
    ],
)
def test_policy_permits_what_the_operator_listed(allow: str, address: str, host: str, permitted: bool) -> None:
    assert OutboundPolicy.parse(allow).permits(address, host=host) is permitted


@pytest.mark.parametrize("entry", ["10.0.0.0/33", "http://x", "x:80", "*.internal", "a b"])
def test_policy_names_the_entry_that_it_cannot_read(entry: str) -> None:
    with pytest.raises(ValueError, match="neither a host name nor a network") as refused:
        OutboundPolicy.parse(f"localhost,{entry}")

    assert repr(entry) in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://127.1/",
        "http://0x7f000001/",
        "http://2130706433/",
        "http://127.0.0.1./",
        "http://127。0。0。1/",
        "http://0.0.0.0/",
        "http://10.0.0.1:8080/x",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "http://localhost/",
        "http://LOCALHOST.:80/",
        "http://a.localhost/",
        "http://ip6-localhost/",
        "http://localhost.localdomain/",
        "http://metadata.google.internal/",
        "http://user:password@example.com/",
        "ftp://example.com/",
        "http+unix://%2Frun%2Fx.sock/",
        "file:///etc/passwd",
        "//example.com",
        "example.com",
        "http://",
        "http://example.com:0/",
        "http://example.com:70000/",
        "http://exa\nmple.com/",
        "",
    ],
)
def test_url_that_could_never_be_sent_to_is_told_without_dns(url: str) -> None:
    assert literal_forbidden(url, NOBODY)


@pytest.mark.parametrize(
    "url", ["https://example.com/x", "http://8.8.8.8/", "https://internal/", "http://[2606:4700::1]/"]
)
def test_url_that_needs_dns_to_be_judged_is_let_through(url: str) -> None:
    assert literal_forbidden(url, NOBODY) is None


@pytest.mark.parametrize("url", ["http://127.0.0.1:9000/", "http://localhost:9000/", "http://[::1]/", "http://127.1/"])
def test_local_url_is_let_through_when_the_operator_allows_loopback(url: str) -> None:
    assert literal_forbidden(url, OutboundPolicy.parse("127.0.0.0/8,::1,localhost")) is None


def test_url_is_taken_apart_as_http_needs_it() -> None:
    target = parse_target("https://Exämple.com/a b/%2F?q=ü#part")

    assert (target.scheme, target.host, target.port) == ("https", "xn--exmple-cua.com", 443)
    assert target.path == b"/a%20b/%2F?q=%C3%BC"
    assert target.authority == b"xn--exmple-cua.com"


def test_url_with_a_password_is_refused_with_advice() -> None:
    with pytest.raises(UrlRefused, match="put credentials in a header"):
        parse_target("https://user:password@example.com/")


# --- zero connections ----------------------------------------------------------------------------------------------

SPELLINGS = [
    "127.0.0.1",
    "127.1",
    "0x7f000001",
    "0x7f.1",
    "2130706433",
    "0.0.0.0",
    "0",
    "localhost",
    "localhost.",
    "LOCALHOST",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:127.0.0.1]",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_no_connection_reaches_a_local_listener_however_it_is_spelled(spelling: str) -> None:
    async with (
        serving(answers(response(200))) as four,
        serving(answers(response(200)), host="::1", port=four.port) as six,
    ):
        exchange = await ask(Outbound(NOBODY), f"http://{spelling}:{four.port}/")

        assert (four.connections, six.connections) == (0, 0)
        assert exchange.observation in (Observation.FORBIDDEN, Observation.DNS_FAILED, Observation.REQUEST_INVALID)
        assert exchange.sent_after is None


@pytest.mark.parametrize("address", LOCAL_ADDRESSES)
async def test_no_connection_reaches_a_local_listener_through_a_public_looking_name(address: str) -> None:
    async with (
        serving(answers(response(200))) as four,
        serving(answers(response(200)), host="::1", port=four.port) as six,
    ):
        outbound = Outbound(NOBODY, resolver=resolving_to(address))

        exchange = await ask(outbound, f"http://calendar.example.com:{four.port}/")

        assert (four.connections, six.connections) == (0, 0)
        assert exchange.observation is Observation.FORBIDDEN
        assert address not in exchange.detail


@pytest.mark.parametrize("spelling", ["127.0.0.1", "127.1", "0x7f000001", "2130706433", "localhost", "[::1]"])
async def test_the_same_spellings_do_reach_the_listener_when_loopback_is_allowed(spelling: str) -> None:
    async with (
        serving(answers(response(200))) as four,
        serving(answers(response(200)), host="::1", port=four.port) as six,
    ):
        policy = OutboundPolicy.parse("127.0.0.0/8,::1")

        exchange = await ask(Outbound(policy), f"http://{spelling}:{four.port}/")

        assert exchange.status == 200
        assert four.connections + six.connections == 1


async def test_only_the_judged_addresses_of_a_mixed_answer_are_tried() -> None:
    async with (
        serving(answers(response(200))) as four,
        serving(answers(response(200)), host="::1", port=four.port) as six,
    ):
        outbound = Outbound(OutboundPolicy.parse("127.0.0.0/8"), resolver=resolving_to("::1", "127.0.0.1"))

        await ask(outbound, f"http://calendar.example.com:{four.port}/")

        assert (four.connections, six.connections) == (1, 0)


async def test_name_is_resolved_once_so_that_it_cannot_change_after_it_was_judged() -> None:
    asked = 0

    async def rebinds(host: str, port: int) -> list[str]:
        nonlocal asked
        asked += 1
        return ["127.0.0.1"] if asked == 1 else ["::1"]

    async with (
        serving(answers(response(200))) as four,
        serving(answers(response(200)), host="::1", port=four.port) as six,
    ):
        outbound = Outbound(OutboundPolicy.parse("127.0.0.0/8"), resolver=rebinds)

        exchange = await ask(outbound, f"http://calendar.example.com:{four.port}/")

        assert exchange.status == 200
        assert asked == 1
        assert six.connections == 0


async def test_next_address_is_tried_when_the_first_refuses() -> None:
    async with serving(answers(response(200))) as server:
        outbound = Outbound(OutboundPolicy.parse("127.0.0.0/8"), resolver=resolving_to("127.0.0.2", "127.0.0.1"))

        exchange = await ask(outbound, f"http://calendar.example.com:{server.port}/")

        assert exchange.status == 200


async def test_redirect_into_the_network_is_not_followed() -> None:
    async with serving(answers(response(200))) as inside:
        redirect = response(302, headers=f"Location: {inside.url}/\r\n")
        async with serving(answers(redirect)) as outside:
            exchange = await ask(Outbound(OutboundPolicy.parse("127.0.0.0/8")), outside.url)

        assert exchange.status == 302
        assert inside.connections == 0


async def test_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(answers(response(200))) as proxy, serving(answers(response(200))) as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)

        await ask(Outbound(OutboundPolicy.parse("127.0.0.0/8")), server.url)

        assert (proxy.connections, server.connections) == (0, 1)


def test_this_machine_has_the_addresses_the_corpus_needs() -> None:
    """Else "zero connections" at ::1 would mean nothing."""
    with socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))

        assert probe.getsockname()[1] > 0
