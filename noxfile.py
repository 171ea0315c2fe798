"""Runs that are too slow, or need too much, for `make test`. `nox -l` lists them."""

import nox

nox.options.default_venv_backend = "venv"
nox.options.sessions = ["tests"]
nox.options.error_on_missing_interpreters = False  # each Python that is there


def install(session: nox.Session, lock: str = "dev") -> None:
    """A locked environment, as tools/build_env.py builds it."""
    locked = ["--require-hashes", "--no-build-isolation", "--quiet", "-r"]
    session.install(*locked, "requirements/build.txt")
    # The locks are complete. Older pips lose the pin of pandas where evidently asks for `pandas[parquet]`.
    session.install("--no-deps", *locked, f"requirements/{lock}.txt")
    session.install("--quiet", "--no-deps", "--no-build-isolation", "-e", ".")


@nox.session(python=["3.11", "3.12", "3.13", "3.14"])
def tests(session: nox.Session) -> None:
    """Every test of `make test`, on each Python that is installed."""
    install(session)
    session.run("python", "tools/fetch-servers")
    session.run("pytest", *session.posargs)


@nox.session
def nightly(session: nox.Session) -> None:
    """The slow tests, with many more examples of each property."""
    install(session)
    session.run("python", "tools/fetch-servers")
    # Exit status 5: no test is marked nightly.
    session.run(
        "pytest", "-m", "nightly", *session.posargs, env={"MLOBS_HYPOTHESIS": "nightly"}, success_codes=[0, 5]
    )


@nox.session
def spark(session: nox.Session) -> None:
    """The drift engine on a real Spark; needs Java 17 (apt install openjdk-17-jre-headless)."""
    install(session, "spark")
    session.run("pytest", "tests/drift/test_engines_spark.py", *session.posargs)


@nox.session
def evidently(session: nox.Session) -> None:
    """Drift beside evidently, which needs pandas<3; its own report through our command. Arguments: rows."""
    install(session, "evidently")
    session.run("pytest", "-q", "tests/drift/test_report.py", "-k", "evidently")
    session.run(
        "python", "tests/benchmarks/bench_drift_evidently.py", f"{session.bin}/python", *session.posargs,
        env={"PYTHONPATH": "."},
    )  # fmt: skip
