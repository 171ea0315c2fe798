"""TLS as it is on the wire: certificates are checked, and what is under it is printed by nobody."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mlobs.notify.channels.mail import EmailChannel
from mlobs.notify.channels.slack import SlackChannel
from mlobs.notify.channels.webhook import WebhookChannel
from mlobs.notify.http import Addresses
from mlobs.notify.retry import Reason
from mlobs.secret import Secret
from tests.notify.stubs import Slack, receiver, serving
from tests.notify.test_mail import Mailbox, OnKernelPort
from tests.notify.test_secrets import print_everything
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


@pytest.fixture(autouse=True)
def nothing_printed(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """The standard library prints what it sends where a process has turned that on; of ours it does not."""
    print_everything(monkeypatch)
    yield
    printed = "".join(capfd.readouterr())
    assert "send: " not in printed


@pytest.mark.parametrize("trusted", [True, False])
def test_a_webhook_is_sent_only_to_whom_the_certificate_vouches_for(certificate: Path, trusted: bool):
    hook = receiver()
    with serving(hook, server_side(certificate)):
        allowed = Addresses(allow_private=True, ca_file=str(certificate) if trusted else None)
        outcome = WebhookChannel("hook", hook.url, allowed=allowed, timeout=5).send(a_message())
    assert (outcome.sent, len(hook.requests)) == (trusted, int(trusted))
    assert trusted or (outcome.reason, outcome.uncertain) == (Reason.CONNECTION, False)


@pytest.mark.parametrize("trusted", [True, False])
def test_slack_gets_the_token_only_under_a_checked_certificate(
    certificate: Path, trusted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "token").write_text("xoxb-right")
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    slack = Slack()
    with serving(slack.stub, server_side(certificate)):
        token = Secret("token", file=str(tmp_path / "token"))
        outcome = SlackChannel("chat", "#oncall", token, base_url=slack.stub.url, timeout=5).send(a_message())
    assert (outcome.sent, len(slack.stub.requests)) == (trusted, int(trusted))
    assert trusted or (outcome.reason, outcome.retry) == (Reason.CONNECTION, True)


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
