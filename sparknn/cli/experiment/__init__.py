"""``sparknn experiment``: the poster's protocol, and what averaging costs and gains, measured."""

from sparknn.cli.experiment.command import run

__all__ = ["run"]
