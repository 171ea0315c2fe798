"""E-mail over SMTP with TLS: plain text, one thread an incident, a letter for what comes later.

`tls`: `starttls` (the default), `tls` from the first byte, or `none`, which only a server on this machine
gets. A `Message-ID` made of the message's number is the same when it is sent again, so that a mailbox shows
it once.
"""

from __future__ import annotations

import smtplib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Any

from mlobs.errors import ConfigError, Problem, nearest
from mlobs.notify.channels.base import Message
from mlobs.notify.drawing import announcement, plain
from mlobs.notify.page import FIRING, TEST
from mlobs.notify.retry import Outcome, Reason, sent
from mlobs.secret import Secret

PORTS = {"starttls": 587, "tls": 465, "none": 25}
TURNS = 3
"""A letter has as many timeouts of time as it takes turns: greeting, login, letter."""
_MEND_S = 60.0


class EmailChannel:
    """Sends to the addresses of `to` (separated by commas) through one server."""

    kind = "email"
    updates = True
    update_every = 120.0
    digests = True
    rate: float | None = 1.0

    def __init__(
        self,
        name: str,
        to: str,
        host: str,
        *,
        port: int | None = None,
        tls: str = "starttls",
        sender: str = "",
        user: str = "",
        password: Secret | None = None,
        ca_file: str | None = None,
        timeout: float = 10.0,
    ) -> None:
        field = f"notify.channels.{name}.email"
        if tls not in PORTS:
            raise ConfigError(
                Problem(f"{field}.tls", "starttls, tls or none", repr(tls), nearest(tls, PORTS))
            )
        if tls == "none" and host not in ("127.0.0.1", "::1", "localhost"):
            raise ConfigError(
                Problem(f"{field}.tls", "starttls or tls", "none", "pages do not travel in clear")
            )
        self.to = tuple(one.strip() for one in to.split(",") if one.strip())
        for one in (*self.to, *filter(None, [sender])):
            if "@" not in one or any(bad in one for bad in "\r\n<>, "):
                raise ConfigError(
                    Problem(f"{field}.to", "addresses like a@b.example", repr(one[:80]), "mend it")
                )
        self.name = name
        self._host = host
        self._port = port or PORTS[tls]
        self._tls = tls
        self._sender = sender or self.to[0]
        self._user = user
        self._password = password
        self._ca_file = ca_file
        self._timeout = timeout

    def send(self, message: Message) -> Outcome:
        letter = write(message, self._sender, self.to)
        first = message.ref or str(letter["Message-ID"])
        handed_over = False
        refused: dict[str, tuple[int, bytes]] | None = None
        alarm = _Alarm()
        try:
            with alarm.after(TURNS * self._timeout), self._connect(alarm) as server:
                if self._user and self._password is not None:
                    server.login(self._user, self._password.reveal())
                handed_over = True
                refused = server.send_message(letter)
        except (smtplib.SMTPException, OSError) as problem:
            if refused is None:  # else only the goodbye went wrong: the letter was taken
                return _fault(problem, handed_over, alarm.late)
        if refused:
            detail = f"{len(refused)} of {len(self.to)} addresses were refused"
            return Outcome(True, Reason.OK, ref=first, detail=detail)
        return sent(first)

    def _connect(self, alarm: _Alarm) -> smtplib.SMTP:
        if self._tls == "none":
            return _Plain(alarm, self._host, self._port, timeout=self._timeout)
        context = ssl.create_default_context(cafile=self._ca_file)
        if self._tls == "tls":
            return _Tls(alarm, self._host, self._port, timeout=self._timeout, context=context)
        server = _Plain(alarm, self._host, self._port, timeout=self._timeout)
        try:
            server.starttls(context=context)
        except BaseException:
            server.close()
            raise
        return server


class _Alarm:
    """Hangs up on a server that drips its answers: smtplib's time-out is for each read."""

    def __init__(self) -> None:
        self.server: smtplib.SMTP | None = None
        self.late = False

    @contextmanager
    def after(self, seconds: float) -> Iterator[None]:
        timer = threading.Timer(seconds, self._hang_up)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _hang_up(self) -> None:
        self.late = True
        line = getattr(self.server, "sock", None)
        if line is not None:
            try:
                line.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it was closed meanwhile: what we wanted


class _Plain(smtplib.SMTP):
    """Known to its alarm before it connects."""

    debuglevel = 0  # ours, whatever a process turns on for everybody: it prints the login

    def __init__(self, alarm: _Alarm, *args: Any, **options: Any) -> None:
        alarm.server = self
        super().__init__(*args, **options)


class _Tls(smtplib.SMTP_SSL):
    debuglevel = 0

    def __init__(self, alarm: _Alarm, *args: Any, **options: Any) -> None:
        alarm.server = self
        super().__init__(*args, **options)


def write(message: Message, sender: str, to: tuple[str, ...]) -> EmailMessage:
    """The letter. Headers hold cleaned text only; the policy refuses line breaks in them all the same."""
    letter = EmailMessage(policy=SMTP)
    domain = sender.partition("@")[2]
    letter["Subject"] = announcement(message.kind, message.page)
    letter["From"] = sender
    letter["To"] = ", ".join(to)
    letter["Date"] = format_datetime(datetime.fromtimestamp(message.at, UTC))
    letter["Message-ID"] = f"<{message.dedup_key}.{message.number}@{domain}>"
    if message.kind != TEST:
        root = f"<{message.dedup_key}@{domain}>"
        letter["References"] = f"{root} {message.ref}" if message.ref else root
        if message.ref:  # the incident's first letter
            letter["In-Reply-To"] = message.ref
    letter["Auto-Submitted"] = "auto-generated"
    if message.kind == FIRING:
        letter["Importance"] = "high"
    letter.set_content("\n".join(plain(message.page)) + "\n")
    return letter


def _fault(problem: Exception, handed_over: bool, late: bool) -> Outcome:
    """What became of a letter that was not taken. `late`: we hung up, so that a code may be half a code."""
    # smtplib tells of a time-out while it reads as of a connection that was closed
    slow = late or isinstance(problem, TimeoutError) or isinstance(problem.__context__, TimeoutError)
    if not slow and isinstance(problem, smtplib.SMTPAuthenticationError):
        return Outcome(False, Reason.UNAUTHORIZED, True, _MEND_S, whole_channel=True, detail="SMTP login")
    if not slow and isinstance(problem, smtplib.SMTPRecipientsRefused):
        return _judge(max((code for code, _ in problem.recipients.values()), default=550))
    if not slow and isinstance(problem, smtplib.SMTPResponseException):
        return _judge(problem.smtp_code)
    reason = Reason.TIMEOUT if slow else Reason.CONNECTION
    name = "no answer in time" if slow else type(problem).__name__
    return Outcome(False, reason, True, uncertain=handed_over, whole_channel=True, detail=name)


def _judge(code: int) -> Outcome:
    """4xx may pass later; 5xx will not, and is said once; anything else is no answer to a letter."""
    if 400 <= code < 500 or code <= 0:
        reason = Reason.RATE_LIMITED if code in (421, 450, 451, 452) else Reason.SERVER_ERROR
        return Outcome(False, reason, True, whole_channel=True, detail=f"SMTP {code}")
    if code < 400:
        return Outcome(False, Reason.MALFORMED_ANSWER, True, uncertain=True, whole_channel=True)
    if code in (530, 534, 535, 538):
        return Outcome(False, Reason.UNAUTHORIZED, True, _MEND_S, whole_channel=True, detail=f"SMTP {code}")
    reason = Reason.TOO_LARGE if code == 552 else Reason.REJECTED
    return Outcome(False, reason, detail=f"SMTP {code}")
