"""``sparknn doctor``: how a fit works in a session."""

from __future__ import annotations

from argparse import Namespace

from sparknn.cli.session import open_session
from sparknn.ml.doctor import doctor


def run(given: Namespace) -> None:
    """Print what was found; raise an error if a fit cannot work."""
    with open_session("sparknn doctor", verbose=given.verbose) as spark:
        found = doctor(spark, given.shard_dir)
    print(found, flush=True)
    if found.problem:
        raise RuntimeError("fit does not work in this session.")
