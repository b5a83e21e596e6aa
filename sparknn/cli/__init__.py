"""The command line: train, evaluate, predict, in a shell or under spark-submit."""

from sparknn.cli.app import main

__all__ = ["main"]
