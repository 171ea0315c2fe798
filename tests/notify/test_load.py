"""Many incidents at once, faulty channels, two desks on one database."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from mlobs.notify import outbox, read
from mlobs.notify.channels.base import Message
from mlobs.notify.desk import Desk
from mlobs.notify.drawing import plain
from mlobs.notify.page import decode_page
from mlobs.notify.retry import Outcome, Reason, sent
from mlobs.notify.tables import SCHEMA
from mlobs.records import Alert
from mlobs.settings import RouteSettings
from mlobs.store import open_store
from tests.notify.desks import T0, Told, an_alert, ceased, make_desk, make_settings, make_store


@dataclass
class Faulty:
    """A channel of one message a second that fails for a share of its calls, in every way there is."""

    rng: random.Random
    share: float = 0.3
    name: str = "oncall"
    kind: str = "slack"
    updates: bool = True
    update_every: float = 0.0
    rate: float | None = 1.0
    digests: bool = False
    delivered: list[tuple[float, str, str]] = field(default_factory=list)
    attempts: list[float] = field(default_factory=list)
    models: dict[str, set[str]] = field(default_factory=lambda: {"firing": set(), "resolved": set()})
    not_before: float = 0.0
    early: int = 0

    def arrive(self, message: Message) -> None:
        self.delivered.append((message.at, message.page.model, message.kind))
        self.models.setdefault(message.kind, set()).add(message.page.model)

    def send(self, message: Message) -> Outcome:
        self.attempts.append(message.at)
        self.early += message.at < self.not_before
        if self.rng.random() >= self.share:
            self.arrive(message)
            return sent()
        fault = self.rng.randrange(4)
        if fault == 0:
            wait = self.rng.uniform(1, 5)
            self.not_before = message.at + wait
            return Outcome(False, Reason.RATE_LIMITED, True, wait, whole_channel=True)
        if fault == 1:
            self.arrive(message)
            return Outcome(False, Reason.TIMEOUT, True, uncertain=True, whole_channel=True)
        reason = Reason.SERVER_ERROR if fault == 2 else Reason.CONNECTION
        return Outcome(False, reason, True, whole_channel=True)


def storm(incidents: int, seed: int) -> Faulty:
    """`incidents` models in trouble within a minute, healed an hour later, until all has been said."""
    channel = Faulty(random.Random(seed))
    desk = make_desk(channel, seed=seed)  # type: ignore[arg-type]
    alerts = [an_alert(model=f"m{number}", cause="latency") for number in range(incidents)]
    now = T0
    for part in range(10):
        desk.receive(alerts[: (part + 1) * incidents // 10], now)
        now += 6
    for _ in range(incidents * 4):
        if len(channel.models["firing"]) == incidents:
            break
        desk.pump(now)
        now += 1
    healed = [ceased(one, now) for one in alerts]
    desk.receive(healed, now)
    now += 300
    for _ in range(incidents * 8):
        if len(channel.models["resolved"]) == incidents:
            break
        desk.pump(now)
        now += 1
    return channel


def check_storm(channel: Faulty, incidents: int) -> None:
    firing = {model for _, model, kind in channel.delivered if kind == "firing"}
    resolved = {model for _, model, kind in channel.delivered if kind == "resolved"}
    assert (len(firing), len(resolved)) == (incidents, incidents), "something was lost"
    assert channel.early == 0, "an attempt before Retry-After"
    gaps = [b - a for a, b in zip(channel.attempts, channel.attempts[1:], strict=False)]
    assert min(gaps) >= 1.0 - 1e-6, "more than one message a second"
    order: dict[str, list[str]] = {}
    for _, model, kind in channel.delivered:
        order.setdefault(model, []).append(kind)
    assert all(kinds[0] == "firing" for kinds in order.values()), "resolved before firing"


def test_a_hundred_and_twenty_incidents_with_30_percent_faulty_answers_lose_nothing():
    check_storm(storm(120, seed=3), 120)


@pytest.mark.nightly
def test_ten_thousand_incidents_with_30_percent_faulty_answers_lose_nothing():
    check_storm(storm(10_000, seed=4), 10_000)


def test_a_thousand_alerts_in_a_minute_are_grouped_and_the_most_severe_go_first():
    channel = Told(updates=False, rate=1.0)
    desk = make_desk(channel)
    rng = random.Random(5)
    alerts = [
        an_alert(
            model=f"m{number % 40}",
            name=f"a{number}",
            feature=f"f{number}",
            cause=rng.choice(["drift", "data_quality", "latency"]),
            severity="page" if number % 40 < 10 else "ticket",
        )
        for number in range(1000)
    ]
    rng.shuffle(alerts)
    for part in range(20):
        desk.receive(alerts[: (part + 1) * 50], T0 + 3 * part, complete=False)
    for second in range(60, 180):
        desk.pump(T0 + second)
    severities = [one.page.severity for one in channel.got]
    assert len(severities) == 40
    assert severities == ["page"] * 10 + ["ticket"] * 30


def test_hundreds_of_models_at_once_are_a_few_messages_that_name_them_all():
    channel, phone = Told(updates=False, rate=1.0, digests=True), Told("phone")
    store = make_store()
    desk = make_desk(channel, phone, store=store)
    alerts = [
        an_alert(model=f"m{number:03}", severity="page" if number >= 290 else "ticket")
        for number in range(300)
    ]
    desk.receive(alerts, T0)
    for second in range(10):
        desk.pump(T0 + second)
    assert len(phone.got) == 300, "a machine gets each"
    assert [one.page.severity for one in channel.got[:5]] == ["page"] * 5
    (digest,) = [one for one in channel.got if one.page.others]
    assert digest.page.title == "295 more incidents began at about the same time: 5 pages, 290 tickets"
    assert digest.page.others[0].startswith("page prod/fraud-api/m295/latency")
    assert len(plain(digest.page)) <= 40
    desk.receive([ceased(one, T0 + 20) for one in alerts], T0 + 20)
    for second in range(10):
        desk.pump(T0 + 400 + second)
    assert [one.kind for one in channel.got if one.page.others] == ["firing", "resolved"]
    account = read.ledger(store, T0 + 500)
    assert account.balanced
    assert account.queued == 0


def test_a_digest_that_is_not_taken_goes_to_the_fallback():
    bad = Told(answer=lambda message: Outcome(False, Reason.SERVER_ERROR, True), rate=1.0, digests=True)
    phone = Told("phone")
    settings = make_settings("oncall", "phone", routes=[RouteSettings({}, ("oncall",))], fallback="phone")
    desk = make_desk(bad, phone, settings=settings)
    desk.receive([an_alert(model=f"m{number}") for number in range(50)], T0)
    for second in range(0, 310, 10):
        desk.pump(T0 + second)
    assert min(one.page.key for one in phone.got) == "prod/fraud-api//storm"
    assert len(phone.got) == 6


def run_two(url: str, incidents: int, restarts: bool) -> list[Message]:
    """Two desks, each with a connection of its own, share a database until all is said."""
    got: list[Message] = []
    alerts: list[Alert] = [an_alert(model=f"m{number}") for number in range(incidents)]
    problems: list[BaseException] = []
    deadline = time.monotonic() + 120

    def serve(number: int) -> None:
        try:
            rng = random.Random(number)
            while len(got) < incidents and time.monotonic() < deadline:
                store = open_store(url, [SCHEMA])
                channel = Told(answer=lambda message: got.append(message) or sent())
                desk = Desk(make_settings(), store, {"oncall": channel}, rng=rng, inline=True)
                for _ in range(3 if restarts else 10_000):
                    share = alerts[: 1 + int(incidents * rng.random() * 1.5)]
                    desk.receive(share, time.time(), complete=False)
                    desk.pump(time.time())
                    if len(got) >= incidents or time.monotonic() > deadline:
                        break
                desk.close()
                store.close()
        except BaseException as problem:  # shown by the test's own thread
            problems.append(problem)

    threads = [threading.Thread(target=serve, args=(number,)) for number in (1, 2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(150)
    assert problems == []
    return got


def test_two_desks_on_one_postgres_that_restart_cleanly_repeat_nothing_in_500(postgres_url: str):
    open_store(postgres_url, [SCHEMA]).close()
    got = run_two(postgres_url, 500, restarts=True)
    assert len(got) == 500
    assert set(Counter(one.dedup_key for one in got).values()) == {1}
    assert len({one.page.model for one in got}) == 500


def test_clean_restarts_on_one_file_repeat_nothing(tmp_path: Path):
    got: list[Message] = []
    alerts = [an_alert(model=f"m{number}") for number in range(100)]
    for number in range(25):
        store = make_store(tmp_path / "state.db")
        store.hold()
        channel = Told(answer=lambda message: got.append(message) or sent())
        desk = make_desk(channel, store=store, inline=number % 2 == 0)
        desk.receive(alerts[: 4 * (number + 1)], T0 + number)
        desk.pump(T0 + number)
        desk.close()
        store.close()
    assert Counter(one.page.model for one in got) == Counter(one.model for one in alerts)


def test_latency_is_told_from_the_breach_to_the_delivery():
    channel = Told(answer=lambda message: sent())
    desk = make_desk(channel)
    desk.receive([an_alert()], T0)
    (told,) = desk.pump(T0 + 12)
    assert told.latency_s == 12
    assert replace(told.page, at=0.0).model == "fraud"


def test_a_message_that_is_being_claimed_takes_nothing_in_on_postgres(postgres_url: str):
    """A page that grew louder while another process claims the quiet one must be a message of its own."""
    store = open_store(postgres_url, [SCHEMA])
    desk = make_desk(Told(), store=store)
    ticket = an_alert(severity="ticket")
    (incident,) = desk.receive([ticket], T0)
    raised = threading.Thread(target=desk.receive, args=([ticket, an_alert()], T0 + 1))
    with store.write() as connection:
        claimed = outbox.claim(connection, "oncall", "another", T0, rate=None)
        raised.start()
        raised.join(0.3)  # it waits for the claim to commit
    raised.join(20)
    assert claimed is not None
    with store.write() as connection:
        outbox.record(connection, claimed, "another", sent(), T0, random.Random(1))
        later = outbox.claim(connection, "oncall", "another", T0 + 2, rate=None)
    store.close()
    assert later is not None
    assert (later.incident, later.kind, decode_page(later.page).severity) == (incident.id, "firing", "page")


def test_what_a_process_claimed_and_never_recorded_is_due_again_when_its_lease_ends():
    store = make_store()
    desk = make_desk(Told(), store=store)
    desk.receive([an_alert()], T0)
    with store.write() as connection:
        assert outbox.claim(connection, "oncall", "dead", T0, rate=None) is not None
        before, after = T0 + outbox.LEASE_S - 1, T0 + outbox.LEASE_S
        assert outbox.due(connection, ["oncall"], before) == set()
        assert outbox.claim(connection, "oncall", "other", before, rate=None) is None
        assert outbox.due(connection, ["oncall"], after) == {"oncall"}
        again = outbox.claim(connection, "oncall", "other", after, rate=None)
    assert again is not None
    assert again.uncertain
