"""The SLO engine's tables. One row a tick holds every counter, so that a tick is one small write."""

from __future__ import annotations

from sqlalchemy import Column, Float, Integer, LargeBinary, MetaData, String, Table, Text, UniqueConstraint

from mlobs.store import Schema

_meta = MetaData()

account = Table(
    "slo_account",
    _meta,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("slo", String, nullable=False),
    Column("part", String, nullable=False),
    Column("fingerprint", String, nullable=False),
    Column("born", Float),
    UniqueConstraint("slo", "part", "fingerprint"),
)
"""What is counted: `part` is empty for an objective's events; `fingerprint` starts a new account when the
definition changes."""

sample = Table(
    "slo_sample",
    _meta,
    Column("at", Float, primary_key=True),
    Column("body", LargeBinary, nullable=False),
)
"""Reset-free cumulative (bad, total) of every account by id: zlib of little-endian float64 pairs."""

target = Table(
    "slo_target",
    _meta,
    Column("name", String, primary_key=True),
    Column("up", Integer, nullable=False),
    Column("at", Float, nullable=False),
    Column("started", Float),
    Column("error", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
"""The last raw (bad, total) by account that a target showed, and whether it answered."""

status = Table(
    "slo_status",
    _meta,
    Column("slo", String, primary_key=True),
    Column("at", Float, nullable=False),
    Column("body", Text, nullable=False),
)

point = Table(
    "slo_point",
    _meta,
    Column("at", Float, primary_key=True),
    Column("body", Text, nullable=False),
)
"""Budget remaining of every objective, about once an hour, for the burn-down."""

alert = Table(
    "slo_alert",
    _meta,
    Column("key", String, primary_key=True),
    Column("since", Float, nullable=False),
    Column("body", Text, nullable=False),
    Column("ceased", Integer, nullable=False),
)
"""What fires. A ceased one stays for one more tick, so that a crash between commit and hand-over loses no
word."""

value = Table(
    "slo_value",
    _meta,
    Column("name", String, primary_key=True),
    Column("body", Text, nullable=False),
)

SCHEMA = Schema("slo", 1, _meta)
