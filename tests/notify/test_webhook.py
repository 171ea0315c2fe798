"""The webhook channel against a receiver, and where it refuses to go."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlobs.errors import ConfigError
from mlobs.notify.channels import build_channels
from mlobs.notify.channels.webhook import WebhookChannel
from mlobs.notify.http import Addresses, NotSentError, is_permitted, parse_target, post
from mlobs.notify.retry import Reason
from mlobs.secret import Secret
from mlobs.settings import ChannelSettings, NotifySettings
from tests.notify.stubs import Fault, Stub, receiver, serving, too_many
from tests.notify.test_slack import a_message

HERE = Addresses(allow_http=True, allow_private=True)


@pytest.fixture
def hook() -> Iterator[Stub]:
    with serving(receiver()) as stub:
        yield stub


def channel_to(hook: Stub, timeout: float = 5.0, key: Secret | None = None) -> WebhookChannel:
    return WebhookChannel("hook", hook.url + "/in", allowed=HERE, signing_key=key, timeout=timeout)


def test_the_receiver_gets_the_page_as_json_with_text_and_keys(hook: Stub):
    message = a_message(feature="temp")
    assert channel_to(hook).send(message).sent
    (request,) = hook.requests
    got = request.fields
    assert (got["version"], got["kind"], got["state"], got["severity"]) == (1, "firing", "firing", "page")
    assert got["page"]["features"][0]["feature"] == "temp"
    assert got["page"]["burns"][0]["burn_rate"] == 14.4
    assert "What burns" in got["lines"]
    assert request.headers["idempotency-key"] == "mlobs-abc-1"


def test_the_signature_is_what_the_receiver_computes(hook: Stub, tmp_path: Path):
    (tmp_path / "key").write_text("s3cret")
    message = a_message()
    channel_to(hook, key=Secret("key", file=str(tmp_path / "key"))).send(message)
    (request,) = hook.requests
    stamp, _, mac = request.headers["x-mlobs-signature"].partition(",")
    stamp = stamp.removeprefix("t=")
    right = hmac.new(b"s3cret", stamp.encode() + b"." + request.body, hashlib.sha256).hexdigest()
    assert mac == f"v1={right}"
    assert int(stamp) == int(message.at)


@pytest.mark.parametrize(
    ("fault", "reason", "retry", "uncertain"),
    [
        (too_many("7"), Reason.RATE_LIMITED, True, False),
        (Fault(500), Reason.SERVER_ERROR, True, False),
        (Fault(302, (("Location", "http://169.254.169.254/latest"),)), Reason.REDIRECT, False, False),
        (Fault(404), Reason.NOT_FOUND, False, False),
        (Fault(reset=True), Reason.CONNECTION, True, True),
        (Fault(accept=True, hang=2), Reason.TIMEOUT, True, True),
        (Fault(drip=0.2, answer={"a": "b" * 100}), Reason.OK, False, False),  # its status said so
    ],
)
def test_each_fault_has_its_reason_and_ends_in_time(hook: Stub, fault, reason, retry, uncertain):
    hook.fail(fault)
    began = time.monotonic()
    outcome = channel_to(hook, timeout=0.4).send(a_message())
    assert (outcome.reason, outcome.retry, outcome.uncertain) == (reason, retry, uncertain)
    assert time.monotonic() - began < 1.5
    assert len(hook.requests) == 1, "nothing follows a redirect or repeats by itself"


def test_nobody_listening_is_a_certain_failure():
    with serving(receiver()) as gone:
        pass
    outcome = channel_to(gone).send(a_message())
    assert (outcome.reason, outcome.retry, outcome.uncertain) == (Reason.CONNECTION, True, False)


@pytest.mark.parametrize(
    "address",
    "127.0.0.1 10.0.0.1 172.16.0.1 192.168.1.1 169.254.169.254 100.100.100.200 0.0.0.0 224.0.0.1".split()
    + "::1 fe80::1%eth0 fd00:ec2::254 ::ffff:10.0.0.1 64:ff9b::a9fe:a9fe 2002:7f00:1:: nonsense".split(),
)
def test_private_reserved_and_metadata_addresses_are_refused(address: str):
    assert not is_permitted(address, Addresses())


def test_private_addresses_may_be_allowed_but_not_the_metadata_service():
    private = Addresses(allow_private=True)
    assert is_permitted("10.0.0.1", private)
    assert is_permitted("127.0.0.1", private)
    assert not is_permitted("169.254.169.254", private)
    assert not is_permitted("::ffff:169.254.169.254", private)
    assert is_permitted("169.254.169.254", Addresses(hosts=frozenset({"169.254.169.254"})))
    assert is_permitted("93.184.215.14", Addresses())


def test_a_name_that_resolves_to_this_machine_is_refused(hook: Stub):
    target = parse_target(hook.url.replace("127.0.0.1", "localhost"), "url", Addresses(allow_http=True))
    with pytest.raises(NotSentError) as caught:
        post(target, b"{}", {}, allowed=Addresses(allow_http=True), timeout=2)
    assert caught.value.outcome.reason is Reason.ADDRESS_REFUSED
    assert hook.requests == []


@pytest.mark.parametrize(
    "url",
    [
        "http://a.example/x",
        "ftp://a.example",
        "https://",
        "https://u:p@a.example/",
        "https://a.example/ä",
        "no",
    ],
)
def test_an_address_that_cannot_be_meant_is_refused_without_being_shown(url: str):
    with pytest.raises(ConfigError) as caught:
        parse_target(url, "notify.channels.hook.webhook.url", Addresses())
    assert "notify.channels.hook.webhook.url" in str(caught.value)
    assert "a.example" not in str(caught.value)


def test_channels_are_built_from_the_settings_and_an_unknown_kind_is_refused(hook: Stub):
    options = {"url": hook.url, "allow_http": True, "allow_private": True}
    built = build_channels(NotifySettings({"hook": ChannelSettings("hook", "webhook", options)}))
    assert built["hook"].send(a_message()).sent
    with pytest.raises(ConfigError, match="did you mean 'webhook'"):
        build_channels(NotifySettings({"hook": ChannelSettings("hook", "webhok")}))


def test_the_document_is_strict_json_whatever_the_alert_held(hook: Stub):
    nan = float("nan")
    message = a_message(burn_rate=nan, bad=float("inf"), summary="a\ud800\x00b", at=nan, since=nan)
    assert channel_to(hook).send(message).sent
    (request,) = hook.requests
    json.loads(request.body, parse_constant=pytest.fail)
