"""The kinds of values that `mlobs.yaml` holds, each read from text once and exactly."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from mlobs.durations import parse_duration
from mlobs.objectives import parse_objective
from mlobs.slices import slice_at


def refuse(expected: str, remedy: str, *, hidden: bool = False) -> PydanticCustomError:
    """`hidden`: the value holds a secret, and the error must not show it."""
    told = {"expected": expected, "remedy": remedy, "hidden": hidden}
    return PydanticCustomError("mlobs", "{expected}; {remedy}", told)


def duration(value: object) -> Decimal:
    try:
        return parse_duration(value) if isinstance(value, str) else parse_duration(f"{value}")
    except ValueError:
        raise refuse("a duration", "write a number with a unit, like 100ms, 5m or 30d") from None


def positive_seconds(value: object) -> float:
    seconds = float(duration(value))
    if seconds <= 0:
        raise refuse("a duration above zero", "write one like 1m")
    return seconds


def slice_length(value: object) -> float:
    seconds = positive_seconds(value)
    try:
        slice_at(0.0, seconds)
    except ValueError:
        raise refuse(
            "a slice that divides a day, or whole days", "write one like 1m, 15m, 1h or 1d"
        ) from None
    return seconds


def objective_ratio(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise refuse("an objective", "write 99.9% or 0.999")
    try:
        return parse_objective(value)
    except ValueError as problem:
        raise refuse("an objective between 0 and 1", str(problem)) from None


def share(value: object) -> Decimal:
    """A share in (0, 1], written `2%` or `0.02`."""
    try:
        text = str(value).strip()
        share = Decimal(text[:-1]) / 100 if text.endswith("%") else Decimal(text)
    except ArithmeticError:
        raise refuse("a share", "write 2% or 0.02") from None
    if not 0 < share <= 1:
        raise refuse("a share above 0 and up to 1", "write 2% or 0.02")
    return share


def any_share(value: object) -> float:
    """A share in [0, 1], written `2%` or `0.02`."""
    return 0.0 if str(value).strip() in ("0", "0%", "0.0") else float(share(value))


def k_of_n(value: object) -> tuple[int, int]:
    parts = str(value).split()
    if len(parts) == 3 and parts[1] == "of" and parts[0].isdigit() and parts[2].isdigit():
        k, n = int(parts[0]), int(parts[2])
        if 1 <= k <= n <= 1000:
            return k, n
    raise refuse("`k of n` windows", "write for example 3 of 5")


def time_zone(value: object) -> str:
    try:
        ZoneInfo(str(value))
    except (OSError, ValueError, KeyError):
        raise refuse("an IANA time zone", "write one like UTC or America/New_York") from None
    return str(value)


def period(text: str) -> tuple[float, str | None]:
    if text in ("month", "quarter"):
        return (30 if text == "month" else 91) * 86400.0, text
    seconds = float(parse_duration(text))
    if seconds <= 0:
        raise ValueError(text)
    return seconds, None


def listen_address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise refuse("an address and a port up to 65535", "write for example 127.0.0.1:9464")
    return text


def collector_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        whole = parts.scheme in ("http", "https", "grpc", "grpcs") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number
        whole = False
    if not whole:
        raise refuse("the collector's URL", "write for example http://127.0.0.1:4318")
    return text


def store_url(text: str) -> str:
    """A secret in the file would be in every repr of the settings; libpq has its own places for it."""
    parts = urlsplit(text)
    if parts.password or "password" in parse_qs(parts.query):
        raise refuse(
            "a database URL without a password",
            "leave it to PGPASSWORD, PGPASSFILE or ~/.pgpass",
            hidden=True,
        )
    return text


def _period_text(text: str) -> str:
    try:
        period(text)
    except ValueError:
        raise refuse("a duration, `month` or `quarter`", "write for example 30d") from None
    return text


Duration = Annotated[Decimal, BeforeValidator(duration)]
Seconds = Annotated[float, BeforeValidator(positive_seconds)]
SliceLength = Annotated[float, BeforeValidator(slice_length)]
Period = Annotated[str, BeforeValidator(str), AfterValidator(_period_text)]
Zone = Annotated[str, BeforeValidator(time_zone)]
Share = Annotated[Decimal, BeforeValidator(share)]
AnyShare = Annotated[float, BeforeValidator(any_share)]
Severity = Literal["page", "ticket"]
Name = Annotated[str, Field(min_length=1, max_length=200)]


class Part(BaseModel):
    """What every part of the file has in common: no unknown names, values never in pydantic's own
    messages.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, hide_input_in_errors=True)
