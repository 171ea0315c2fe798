"""Runs that are too slow, or need too much, for `make test`. `nox -l` lists them."""

import nox

nox.options.default_venv_backend = "venv"
nox.options.sessions = ["tests"]
nox.options.error_on_missing_interpreters = False  # each Python that is there


def install(session: nox.Session) -> None:
    """The locked environment, as tools/build_env.py builds it."""
    locked = ["--require-hashes", "--no-build-isolation", "--quiet", "-r"]
    session.install(*locked, "requirements/build.txt")
    session.install(*locked, "requirements/dev.txt")
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
    locked = ["--require-hashes", "--no-build-isolation", "--quiet", "-r"]
    session.install(*locked, "requirements/build.txt")
    session.install(*locked, "requirements/spark.txt")
    session.install("--quiet", "--no-deps", "--no-build-isolation", "-e", ".")
    session.run("pytest", "tests/drift/test_engines_spark.py", *session.posargs)


@nox.session
def evidently(session: nox.Session) -> None:
    """Drift beside evidently, which needs pandas<3: an environment of its own for it, ours for us."""
    session.install("--quiet", "evidently==0.7.23", "pandas<3")
    theirs, script = f"{session.bin}/python", "tests/benchmarks/bench_drift_evidently.py"
    session.run(".venv/bin/python", script, theirs, *session.posargs, external=True, env={"PYTHONPATH": "."})
