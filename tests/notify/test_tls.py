"""TLS as it is on the wire: certificates are checked, for webhooks and for mail."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mlobs.notify.channels.mail import EmailChannel
from mlobs.notify.channels.webhook import WebhookChannel
from mlobs.notify.http import Addresses
from mlobs.notify.retry import Reason
from tests.notify.test_mail import Mailbox, OnKernelPort
from tests.notify.test_slack import a_message


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PEM of a key and a certificate for 127.0.0.1 that nobody but its own file vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "receiver")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + built.public_bytes(serialization.Encoding.PEM)
    )
    return path


def server_side(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.mark.parametrize("trusted", [True, False])
def test_a_webhook_is_sent_only_to_whom_the_certificate_vouches_for(certificate: Path, trusted: bool):
    got: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *args: None  # type: ignore[method-assign]  # a refused handshake
    server.socket = server_side(certificate).wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        channel = WebhookChannel(
            "hook",
            f"https://127.0.0.1:{server.server_address[1]}/in",
            allowed=Addresses(allow_private=True, ca_file=str(certificate) if trusted else None),
            timeout=5,
        )
        outcome = channel.send(a_message())
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
    assert (outcome.sent, len(got)) == (trusted, int(trusted))
    assert trusted or (outcome.reason, outcome.uncertain) == (Reason.CONNECTION, False)


@pytest.mark.parametrize("tls", ["starttls", "tls"])
@pytest.mark.parametrize("trusted", [True, False])
def test_mail_leaves_only_under_a_checked_certificate(certificate: Path, tls: str, trusted: bool):
    context = server_side(certificate)
    how = (
        {"tls_context": context, "require_starttls": True} if tls == "starttls" else {"ssl_context": context}
    )
    controller = OnKernelPort(Mailbox(), hostname="127.0.0.1", port=0, **how)
    controller.start()
    try:
        channel = EmailChannel(
            "mail",
            "ada@ops.example",
            "127.0.0.1",
            port=controller.port,
            tls=tls,
            ca_file=str(certificate) if trusted else None,
            timeout=5,
        )
        outcome = channel.send(a_message())
    finally:
        controller.stop()
    assert (outcome.sent, len(controller.handler.letters)) == (trusted, int(trusted))
    assert trusted or (outcome.reason, outcome.retry) == (Reason.CONNECTION, True)


def test_a_server_without_starttls_gets_no_letter():
    controller = OnKernelPort(Mailbox(), hostname="127.0.0.1", port=0)
    controller.start()
    try:
        outcome = EmailChannel("mail", "a@b.example", "127.0.0.1", port=controller.port, timeout=5).send(
            a_message()
        )
    finally:
        controller.stop()
    assert (outcome.sent, outcome.retry, controller.handler.letters) == (False, True, [])
