"""Which processes are workers of one service, and the folder where they meet. Nothing is to be set for it.

A worker is a child of `multiprocessing` (uvicorn --workers, spawned or forked), or a process that was forked
and runs on without an exec (gunicorn; Linux tells by a flag of the process). Workers of one service and one
parent meet; a child of a worker meets with it. All else (instances under systemd or a supervisor, containers)
is a service of its own, with a scrape of its own, and makes no file.

    <temporary folder>/mlobs-<user id>/<hash of boot, pid namespace, service, parent and its start>/
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from mlobs.sdk.cellfile import SUFFIX, is_free

OWNER = "owner"
# multiprocessing tells a child its parent after the main module is imported; the command tells before.
_SPAWNED = "--multiprocessing-fork"
_FORK_SERVER = "multiprocessing.forkserver"
_FORKED_WITHOUT_EXEC = 0x40  # PF_FORKNOEXEC of include/linux/sched.h


class Process(NamedTuple):
    """A process and when it began (clock ticks since boot): a pid that is used again is another."""

    pid: int
    start: int


def process(pid: int) -> Process:
    """Raises OSError when there is none, or no /proc: then the start is unknown, and 0 for this process."""
    try:
        return Process(pid, int(_status(pid)[19]))
    except OSError:
        if os.path.exists("/proc/self/stat"):
            raise
        return Process(pid, 0)


def _status(pid: int | str) -> list[str]:
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        return file.read().rpartition(")")[2].split()


def parent_of_worker() -> Process | None:
    """The parent of this process if this is a worker of it, else None."""
    module = sys.modules.get("multiprocessing.process")  # where it is not imported, nobody uses it
    found = None if module is None else module.parent_process()
    try:
        if found is not None:
            return process(found.pid)
        parent = os.getppid()
        forked = int(_status("self")[6]) & _FORKED_WITHOUT_EXEC
        began_as = " ".join(sys.orig_argv)
        if _FORK_SERVER in began_as:  # its children are its parent's
            if not forked:
                return process(parent)
            if _FORK_SERVER.encode() in _command(parent):
                return process(int(_status(parent)[1]))
        if (forked and _same_program(parent)) or _SPAWNED in began_as:
            return process(parent)
    except OSError:  # the parent has just ended, or no Linux: nothing to be known
        return None
    return None


def _same_program(parent: int) -> bool:
    """False for a daemon that was forked twice and belongs to init now."""
    try:
        return os.readlink(f"/proc/{parent}/exe") == os.readlink("/proc/self/exe")
    except (
        PermissionError
    ):  # the parent is another user's: gunicorn started as root. Of one session it is ours
        return _status(parent)[3] == _status("self")[3]


def _command(pid: int | str) -> bytes:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read()


def base_folder() -> Path:
    """The user's own folder, made at need. Raises PermissionError when somebody else could write there."""
    folder = Path(tempfile.gettempdir()) / f"mlobs-{os.geteuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} is not a folder of this user alone")
    return folder


def base_folder_if_there() -> Path | None:
    """The user's own folder if workers of any service met before; nothing is made."""
    folder = Path(tempfile.gettempdir()) / f"mlobs-{os.geteuid()}"
    return base_folder() if folder.exists() else None


def _world() -> str:
    """Where a pid means something: this boot, this pid namespace."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # no Linux
        return ""


def folder_name(service: str, owner: Process) -> str:
    """Name of the folder in which the workers of `owner` meet."""
    text = json.dumps([_world(), service, owner])
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def find_folder(service: str, parent: Process) -> Path:
    """The folder for a worker of `parent`, or where `parent` itself met with others; made at need."""
    base = base_folder()
    own = base / folder_name(service, parent)
    if not own.exists():
        met = [path.parent for path in base.glob(f"*/{member_name(parent)}-*{SUFFIX}")]
        for folder in met:
            if owner_of(folder).get("service") == service:
                return folder
    return make_folder(service, parent)


def member_name(member: Process) -> str:
    """How a process's files begin; they sort by its start."""
    return f"{member.start:020d}-{member.pid}"


def make_folder(service: str, owner: Process) -> Path:
    """The folder of `owner`'s workers, new or there already; a new one clears away what the dead left."""
    base = base_folder()
    folder = base / folder_name(service, owner)
    if not folder.exists():
        _clear(base)
        beside = Path(tempfile.mkdtemp(prefix="new-", dir=base))
        said = {"world": _world(), "service": service, "pid": owner.pid, "start": owner.start}
        (beside / OWNER).write_text(json.dumps(said))
        try:
            beside.rename(folder)
        except OSError:  # another worker was first
            shutil.rmtree(beside, ignore_errors=True)
            if not folder.exists():
                raise
    return folder


def owner_of(folder: Path) -> dict[str, object]:
    """What the folder says of its owner; nothing when it cannot be read."""
    try:
        found = json.loads((folder / OWNER).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _clear(base: Path) -> None:
    for folder in base.iterdir():
        said = owner_of(folder)
        if said and _is_over(folder, said):
            shutil.rmtree(folder, ignore_errors=True)


def _is_over(folder: Path, said: dict[str, object]) -> bool:
    """Whether neither the owner nor any member lives. Of another pid namespace nothing is known."""
    world, here = str(said.get("world")).split(), _world().split()
    if world[:1] == here[:1]:
        if world != here:
            return False
        try:
            if process(int(str(said["pid"]))).start == said["start"]:
                return False
        except (OSError, ValueError, KeyError):  # the owner is gone
            return not any(is_held(path) for path in folder.glob(f"*{SUFFIX}"))
    return not any(is_held(path) for path in folder.glob(f"*{SUFFIX}"))


def is_held(path: Path) -> bool:
    """Whether a process lives that counts into this file."""
    try:
        with open(path, "rb") as file:
            return not is_free(file.fileno())
    except OSError:  # just gone
        return False
