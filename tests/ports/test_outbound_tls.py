"""TLS of the guarded client: names checked although addresses are dialled, and no byte of a request before that."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app.domain.certainty import Observation
from app.ports.addresses import OutboundPolicy
from app.ports.outbound import Exchange, Outbound
from tests.ports.misbehaving_server import Connection, answers, response, serving


async def ask(outbound: Outbound, url: str, *, seconds: float = 5) -> Exchange:
    try:
        return await outbound.send(
            "POST", url, headers=[], content=b"{}", seconds=seconds, limit=1000, may_send=lambda: True
        )
    finally:
        await outbound.aclose()


def to_loopback(client_tls: ssl.SSLContext | None) -> Outbound:
    """A client for which every name is this machine."""

    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    return Outbound(OutboundPolicy.parse("127.0.0.0/8"), resolver=resolve, tls=client_tls)


def certificate(folder: Path, *names: x509.GeneralName) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A self-signed certificate for the names: (the server's context, a client's that trusts it)."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    day = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(day)
        .not_valid_after(day.replace(year=2120))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "public.pem", folder / "private.pem"
    public.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(public, private)
    return server, ssl.create_default_context(cafile=public)


@pytest.mark.parametrize(
    ("name", "host"),
    [
        (x509.DNSName("calendar.example.com"), "calendar.example.com"),
        (x509.DNSName("calendar.example.com"), "calendar.example.com."),
        (x509.IPAddress(ipaddress.ip_address("127.0.0.1")), "127.0.0.1"),
    ],
)
async def test_https_checks_the_certificate_against_the_name_not_the_address(
    tmp_path: Path, name: x509.GeneralName, host: str
) -> None:
    server_tls, client_tls = certificate(tmp_path, name)
    async with serving(answers(response(200)), tls=server_tls) as server:
        outbound = to_loopback(client_tls)

        exchange = await ask(outbound, f"https://{host}:{server.port}/")

        assert exchange.status == 200
        assert server.requests[0].split(b"\r\n")[1] == f"Host: {host}:{server.port}".encode()


@pytest.mark.parametrize("trusted", [True, False])
async def test_https_sends_no_byte_of_the_request_when_the_certificate_is_not_right(
    tmp_path: Path, trusted: bool
) -> None:
    server_tls, client_tls = certificate(tmp_path, x509.DNSName("other.example.com"))
    async with serving(answers(response(200)), tls=server_tls) as server:
        outbound = to_loopback(client_tls if trusted else None)

        exchange = await ask(outbound, f"https://calendar.example.com:{server.port}/")

        assert exchange.observation is Observation.TLS_FAILED
        assert "certificate" in exchange.detail
        assert exchange.sent_after is None
        assert server.requests == []


async def test_https_is_not_sent_when_the_server_speaks_no_tls() -> None:
    async with serving(answers(response(200))) as server:
        exchange = await ask(to_loopback(None), f"https://127.0.0.1:{server.port}/", seconds=1)

        assert exchange.observation in (Observation.TLS_FAILED, Observation.DEADLINE_UNSENT)
        assert server.requests == []


async def test_permit_is_asked_after_the_handshake(tmp_path: Path) -> None:
    server_tls, client_tls = certificate(tmp_path, x509.DNSName("calendar.example.com"))
    shaken = asyncio.Event()
    received = bytearray()

    async def listens(connection: Connection) -> None:
        shaken.set()
        received.extend(await connection.reader.read())

    async with serving(listens, tls=server_tls) as server:
        outbound = to_loopback(client_tls)
        exchange = await outbound.send(
            "POST",
            f"https://calendar.example.com:{server.port}/",
            headers=[],
            content=b"{}",
            seconds=5,
            limit=10,
            may_send=lambda: False,
        )
        await asyncio.wait_for(shaken.wait(), 5)

    assert exchange.observation is Observation.FENCED
    assert bytes(received) == b""


async def test_connections_are_kept_alive_over_tls(tmp_path: Path) -> None:
    server_tls, client_tls = certificate(tmp_path, x509.DNSName("calendar.example.com"))
    async with serving(answers(response(200)), tls=server_tls) as server:
        outbound = to_loopback(client_tls)
        for _ in range(3):
            exchange = await outbound.send(
                "POST",
                f"https://calendar.example.com:{server.port}/",
                headers=[],
                content=b"{}",
                seconds=5,
                limit=10,
                may_send=lambda: True,
            )
            assert exchange.status == 200
        await outbound.aclose()

        assert server.connections == 1
