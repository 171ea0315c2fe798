"""Builds a virtual environment from a hash-locked requirements file: build_env.py DIR LOCK.

Runs on a bare Python >= 3.11 with the pip that its venv bundles. An environment that stands is brought up
to the lock in place, so that what runs in it keeps running; one of another Python is built anew.
"""

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def pip(env: Path, title: str, *args: str, total: int = 0) -> None:
    """Runs pip; shows one line of progress, and everything it said when it fails."""
    said: list[str] = []
    seen = 0
    command = [str(env / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", *args]
    # pip's own progress bars would be a screenful for each package.
    process = subprocess.Popen(
        [*command, "--progress-bar", "off"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        seen += line.startswith(("Collecting ", "Requirement already satisfied"))
        if total and sys.stdout.isatty():
            step = "installing" if line.startswith("Installing") else f"{min(seen, total)}/{total}"
            print(f"\r\033[K  {title}: {step}", end="", flush=True)
    if total and sys.stdout.isatty():
        print("\r\033[K", end="")
    if process.wait():
        sys.stderr.write("".join(said[-40:]))
        sys.exit(f"mlobs: pip could not install {title}; its last words stand above.")


def main() -> None:
    env, lock = ROOT / sys.argv[1], ROOT / sys.argv[2]
    started = time.monotonic()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    python = env / "bin" / "python"
    if not python.exists() or not (env / "lib" / f"python{version}").exists():
        shutil.rmtree(env, ignore_errors=True)
        print(f"Building {env.name} with Python {version} from {lock.relative_to(ROOT)} ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(env)], check=True)
    else:
        print(f"Bringing {env.name} up to {lock.relative_to(ROOT)} ...", flush=True)

    packages = len(re.findall(r"^[\w.-]+==", lock.read_text(), flags=re.MULTILINE))
    # Source packages are built with locked tools: an isolated build would fetch its own, unhashed.
    locked = ["--require-hashes", "--no-build-isolation", "-r"]
    pip(env, "build tools", *locked, "requirements/build.txt")
    pip(env, "packages", *locked, str(lock), total=packages)
    pip(env, "mlobs itself", "--no-deps", "--no-build-isolation", "-e", ".")
    (env / ".stamp").touch()
    print(f"{env.name} is ready: {packages} packages in {time.monotonic() - started:.0f} s.", flush=True)


if __name__ == "__main__":
    main()
