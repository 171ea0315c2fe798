"""The channels, one file each, and their making from the settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mlobs.errors import ConfigError, MissingExtraError, Problem, nearest
from mlobs.notify.channels.base import Channel, Message
from mlobs.notify.channels.console import ConsoleChannel, to_stdout
from mlobs.notify.channels.mail import EmailChannel
from mlobs.notify.channels.pagerduty import DEFAULT_BASE as PAGERDUTY
from mlobs.notify.channels.pagerduty import PagerDutyChannel
from mlobs.notify.channels.webhook import WebhookChannel
from mlobs.notify.http import Addresses
from mlobs.settings import ChannelSettings, NotifySettings

__all__ = ["Channel", "Message", "build_channels"]


def build_channels(settings: NotifySettings, write: Callable[[str], None] = to_stdout) -> dict[str, Channel]:
    """Every configured channel by name; `write` is where console channels print.

    Raises ConfigError for an address that is refused and MissingExtraError where a library is not installed.
    """
    makers: Mapping[str, Callable[[ChannelSettings], Channel]] = {
        "console": lambda one: ConsoleChannel(one.name, write),
        "webhook": _webhook,
        "slack": _slack,
        "pagerduty": _pagerduty,
        "email": _email,
    }
    built: dict[str, Channel] = {}
    for name, one in settings.channels.items():
        maker = makers.get(one.kind)
        if maker is None:
            raise ConfigError(
                Problem(
                    f"notify.channels.{name}", "a kind of channel", repr(one.kind), nearest(one.kind, makers)
                )
            )
        built[name] = maker(one)
    return built


def _webhook(one: ChannelSettings) -> Channel:
    url = one.secrets.get("url") or str(one.options["url"])
    return WebhookChannel(
        one.name,
        url,
        allowed=allowed_addresses(one),
        signing_key=one.secrets.get("signing_key"),
        timeout=float(one.options.get("timeout", 10)),
    )


def _slack(one: ChannelSettings) -> Channel:
    try:  # the extra [slack]
        from mlobs.notify.channels.slack import DEFAULT_BASE, SlackChannel
    except ModuleNotFoundError:
        raise MissingExtraError.for_extra(f"notify.channels.{one.name}.slack", "slack") from None
    return SlackChannel(
        one.name,
        str(one.options["channel"]),
        one.secrets["token"],
        base_url=str(one.options.get("base_url", DEFAULT_BASE)),
        interactive="signing_secret" in one.secrets,
    )


def _pagerduty(one: ChannelSettings) -> Channel:
    return PagerDutyChannel(
        one.name,
        one.secrets["routing_key"],
        base_url=str(one.options.get("base_url", PAGERDUTY)),
        allowed=allowed_addresses(one),
        timeout=float(one.options.get("timeout", 10)),
    )


def _email(one: ChannelSettings) -> Channel:
    port = one.options.get("port")
    return EmailChannel(
        one.name,
        str(one.options["to"]),
        str(one.options["host"]),
        port=int(port) if port is not None else None,
        tls=str(one.options.get("tls", "starttls")),
        sender=str(one.options.get("sender", "")),
        user=str(one.options.get("user", "")),
        password=one.secrets.get("password"),
        ca_file=str(one.options["ca_file"]) if "ca_file" in one.options else None,
    )


def allowed_addresses(one: ChannelSettings) -> Addresses:
    """`allow_http`, `allow_private`, `allow_hosts` (names, separated by commas) and `ca_file` of a
    channel.
    """
    hosts = str(one.options.get("allow_hosts", ""))
    return Addresses(
        allow_http=bool(one.options.get("allow_http", False)),
        allow_private=bool(one.options.get("allow_private", False)),
        hosts=frozenset(host.strip().lower() for host in hosts.split(",") if host.strip()),
        ca_file=str(one.options["ca_file"]) if "ca_file" in one.options else None,
    )
