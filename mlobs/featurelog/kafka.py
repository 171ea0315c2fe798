"""`kafka://host:port[,host:port]/topic[?group=name]`: the address, and how librdkafka is set up.

Credentials and TLS are settings of librdkafka in the file that MLOBS_KAFKA_CONFIG names, one `name=value` a
line. confluent-kafka is imported at the first use: neither `import mlobs` nor a serving process loads it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from mlobs.errors import ConfigError, MissingExtraError, Problem, shown
from mlobs.names import ENV_KAFKA_CONFIG

SCHEME: Final = "kafka://"
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_FORM: Final = "kafka://host:port/topic"


@dataclass(frozen=True, slots=True)
class Address:
    brokers: str
    topic: str
    group: str


def parse_address(url: str) -> Address:
    """Raises ConfigError for what is no address, or holds credentials."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    topic = parts.path.strip("/")
    if "@" in parts.netloc:
        raise ConfigError(
            Problem(
                "feature_log", _FORM, "credentials in it", f"put them into the file of {ENV_KAFKA_CONFIG}"
            )
        )
    if parts.scheme != "kafka" or not parts.netloc or not _TOPIC.fullmatch(topic) or set(options) - {"group"}:
        raise ConfigError(
            Problem("feature_log", f"{_FORM}, with ?group=name at most", shown(url), "write it so")
        )
    return Address(parts.netloc, topic, options.get("group", "mlobs"))


def client_settings(address: Address, environ: Mapping[str, str]) -> dict[str, Any]:
    """What producer and consumer share. Raises ConfigError for a settings file that cannot be read."""
    settings: dict[str, Any] = {"bootstrap.servers": address.brokers, "client.id": "mlobs", "log_level": 3}
    path = environ.get(ENV_KAFKA_CONFIG)
    if not path:
        return settings
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise ConfigError(
            Problem(ENV_KAFKA_CONFIG, "a file that can be read", shown(path), "mend the path or its mode")
        ) from None
    for number, line in enumerate(lines, 1):
        name, equals, value = line.partition("=")
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not equals:  # the line itself may hold a secret
            raise ConfigError(
                Problem(f"{ENV_KAFKA_CONFIG} line {number}", "name=value", "no '='", "write it so")
            )
        settings[name.strip()] = value.strip()
    return settings


def library() -> Any:
    """confluent-kafka. Raises MissingExtraError without it."""
    try:
        import confluent_kafka
    except ModuleNotFoundError:
        raise MissingExtraError.for_extra("a feature log in Kafka", "kafka") from None
    return confluent_kafka
