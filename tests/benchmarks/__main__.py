"""`make bench`: runs every bench_*.py here, each in its own process; ARGS="observe drift" chooses by name."""

import subprocess
import sys
from pathlib import Path


def main() -> int:
    folder = Path(__file__).parent
    names = sorted(path.stem for path in folder.glob("bench_*.py"))
    chosen = [name for name in names if not sys.argv[1:] or any(word in name for word in sys.argv[1:])]
    if not chosen:
        print(f"no benchmark is called that; there are: {', '.join(names) or 'none'}", file=sys.stderr)
        return 2
    failed = []
    for name in chosen:
        print(f"== {name.removeprefix('bench_')}", flush=True)
        # One benchmark's heap, threads and imports do not weigh on the next.
        if subprocess.run([sys.executable, "-m", f"tests.benchmarks.{name}"]).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
