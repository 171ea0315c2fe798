"""The tables of paging and their version. Documents are JSON in text; what is searched has a column of its
own.
"""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

from mlobs.store import Schema

metadata = MetaData()

incidents = Table(
    "notify_incidents",
    metadata,
    Column("id", String, primary_key=True),
    Column("key", String, nullable=False),
    Column("environment", String, nullable=False),
    Column("service", String, nullable=False),
    Column("model", String, nullable=False),
    Column("cause", String, nullable=False),
    Column("severity", String, nullable=False),
    Column("state", String, nullable=False),
    Column("opened_at", Float, nullable=False),
    Column("changed_at", Float, nullable=False),
    Column("resolved_at", Float),
    Column("enriched", Boolean, nullable=False),
    Column("attention_at", Float),
    Column("document", Text, nullable=False),
    Index("notify_incidents_state", "state", "opened_at"),
    Index("notify_incidents_changed", "state", "changed_at"),
    Index("notify_incidents_attention", "attention_at"),
)

timeline = Table(
    "notify_timeline",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("incident", String),
    Column("at", Float, nullable=False),
    Column("kind", String, nullable=False),
    Column("service", String, nullable=False),
    Column("model", String, nullable=False),
    Column("text", Text, nullable=False),
    Column("source", String, nullable=False),
    Index("notify_timeline_incident", "incident", "at"),
    Index("notify_timeline_model", "service", "model", "at"),
)

outbox = Table(
    "notify_outbox",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("incident", String, nullable=False),
    Column("channel", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("dedup_key", String, nullable=False),
    Column("rank", Integer, nullable=False),
    Column("state", String, nullable=False),
    Column("page", Text, nullable=False),
    Column("breach_at", Float, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("due_at", Float, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("uncertain", Boolean, nullable=False),
    Column("lease_owner", String),
    Column("lease_until", Float),
    Column("reason", String),
    Column("done_at", Float),
    Column("fallback_at", Float),
    Index("notify_outbox_state", "state", "kind", "fallback_at"),
    Index("notify_outbox_due", "channel", "state", "rank", "id"),
    Index("notify_outbox_incident", "incident", "channel", "id"),
)

deliveries = Table(
    "notify_deliveries",
    metadata,
    Column("incident", String, primary_key=True),
    Column("channel", String, primary_key=True),
    Column("wanted_at", Float, nullable=False),
    Column("reached_at", Float),
    Column("ref", Text),
)

channels = Table(
    "notify_channels",
    metadata,
    Column("name", String, primary_key=True),
    Column("next_at", Float, nullable=False),
    Column("blocked_until", Float, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("failing_since", Float),
    Column("last_success", Float),
    Column("reason", String),
)

silences = Table(
    "notify_silences",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("match", Text, nullable=False),
    Column("start", Float, nullable=False),
    Column("end", Float, nullable=False),
    Column("by", String, nullable=False),
    Column("comment", Text, nullable=False),
)

locks = Table("notify_locks", metadata, Column("name", String, primary_key=True))

SCHEMA = Schema("notify", 1, metadata)
