"""Where a message may go, and how long it may take."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app.webhooks.addresses import Resolve, is_public
from app.webhooks.sending import Sent, send
from tests.webhooks.receiver import receiver


def post(url: str, *, private: bool = True, seconds: float = 5.0, resolve: Resolve | None = None) -> Sent:
    extra = {} if resolve is None else {"resolve": resolve}
    return send(url, {}, b"{}", private_allowed=private, seconds=seconds, **extra)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
        "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1",
        "64:ff9b::7f00:1", "2002:7f00:1::", "::10.0.0.1", "192.0.2.1", "no address",
    ],
)  # fmt: skip
def test_private(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "::ffff:8.8.8.8"]
)
def test_public(address: str) -> None:
    assert is_public(address)


class TestNames:
    def test_name_that_leads_inside(self) -> None:
        with receiver() as there:
            port = int(there.url.rpartition(":")[2].partition("/")[0])
            sent = post(f"http://evil.example:{port}/", private=False, resolve=lambda *_: ["127.0.0.1"])
        assert (sent.error, there.got) == ("address_not_allowed", [])

    def test_name_that_leads_inside_as_well(self) -> None:
        sent = post("http://evil.example/", private=False, resolve=lambda *_: ["8.8.8.8", "10.0.0.1"])
        assert sent.error == "address_not_allowed"

    def test_name_that_changes_its_mind(self) -> None:
        """It is resolved once: the address that was checked is the one that is connected to."""
        asked: list[str] = []

        def resolve(host: str, _: int) -> list[str]:
            asked.append(host)
            return ["127.0.0.1"]

        with receiver() as there:
            port = int(there.url.rpartition(":")[2].partition("/")[0])
            assert post(f"http://hooks.example:{port}/", resolve=resolve).status == 200
        assert asked == ["hooks.example"]
        assert there.got[0][0]["host"] == f"hooks.example:{port}"

    def test_no_such_name(self) -> None:
        def resolve(*_: object) -> list[str]:
            raise socket.gaierror("unknown")

        assert post("http://nowhere.example/", resolve=resolve).error == "name_not_resolved"

    def test_the_next_address_if_the_first_does_not_answer(self) -> None:
        with receiver() as there:
            port = int(there.url.rpartition(":")[2].partition("/")[0])
            sent = post(f"http://hooks.example:{port}/", resolve=lambda *_: ["127.0.0.9", "127.0.0.1"])
        assert sent.status == 200


@contextmanager
def server(answer: bytes, pause: threading.Event | None = None) -> Iterator[str]:
    """Answers every connection with these bytes; with a pause, only when it is over."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                if pause is not None:
                    pause.wait(10)
                connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    finally:
        if pause is not None:
            pause.set()
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


class TestReceivers:
    def test_nobody_there(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        assert post(f"http://127.0.0.1:{port}/").error == "no_connection"

    def test_one_that_does_not_answer(self) -> None:
        with server(b"", threading.Event()) as url:
            assert post(url, seconds=0.2).error == "timeout"

    def test_one_that_drips(self) -> None:
        """Each byte in time, all together far too late: the deadline is for the whole."""
        stop = threading.Event()
        listening = socket.create_server(("127.0.0.1", 0))

        def drip() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                while not stop.wait(0.02):
                    try:
                        connection.sendall(b"x")
                    except OSError:
                        return

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        sent = post(f"http://127.0.0.1:{listening.getsockname()[1]}/", seconds=0.3)
        stop.set()
        thread.join()
        listening.close()
        assert sent.error == "timeout"

    def test_one_that_speaks_no_http(self) -> None:
        with server(b"SSH-2.0-OpenSSH\r\n\r\n") as url:
            assert post(url).error == "protocol"

    def test_one_without_a_trusted_certificate(self, tmp_path: Path) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self_signed(tmp_path))
        listening = socket.create_server(("127.0.0.1", 0))

        def serve() -> None:
            connection, _ = listening.accept()
            with connection, pytest.raises((ssl.SSLError, OSError)):
                context.wrap_socket(connection, server_side=True).recv(1)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        sent = post(f"https://127.0.0.1:{listening.getsockname()[1]}/")
        thread.join()
        listening.close()
        assert sent.error == "tls"


def self_signed(directory: Path) -> Path:
    """Write a key and a certificate that nobody trusts, and return the file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path = directory / "server.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path
