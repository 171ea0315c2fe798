"""`python -m mlobs` is the `mlobs` command."""

from mlobs.cli import main

main()
