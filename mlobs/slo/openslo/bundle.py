"""A set of OpenSLO documents as one value."""

from __future__ import annotations

from dataclasses import dataclass

from mlobs.settings import Settings, SloSettings

VERSION = "openslo/v1"
NOTE = "mlobs/"
"""What our annotations begin with."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """The documents of one service."""

    service: str
    slo: SloSettings
    description: str = ""
    sources: tuple[tuple[str, str], ...] = ()
    """(name, URL) of each DataSource of type Prometheus."""
    targets: tuple[tuple[str, str], ...] = ()
    """(name, kind) of each AlertNotificationTarget."""


def bundle_of(settings: Settings) -> Bundle:
    """What `settings` say about objectives."""
    sources = (("prometheus", settings.slo.prometheus),) if settings.slo.prometheus else ()
    targets = tuple((name, channel.kind) for name, channel in sorted(settings.notify.channels.items()))
    return Bundle(settings.service, settings.slo, sources=sources, targets=targets)


def settings_of(bundle: Bundle) -> Settings:
    """Settings that hold the bundle's objectives; channels are mlobs.yaml's business."""
    return Settings(service=bundle.service, slo=bundle.slo)
