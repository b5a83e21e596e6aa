"""What tests of a cluster share. They run by ``make test-cluster``, not among the others."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import Cluster, have_namespaces, two_hosts

import sparknn

ROOT = Path(__file__).resolve().parents[2]

# Of Spark's Python workers, which also import faults.py. Read when the JVM starts.
os.environ["PYTHONPATH"] = os.pathsep.join(
    map(str, [ROOT, ROOT / "tests", ROOT / "tests" / "cluster"])
)
assert Path(sparknn.__file__).is_relative_to(ROOT), "The checkout comes first on PYTHONPATH."


def pytest_report_header() -> str:
    return f"two hosts: {'network namespaces' if have_namespaces() else 'loopback addresses'}"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A standalone cluster of two hosts."""
    with two_hosts(tmp_path_factory.mktemp("cluster")) as started:
        yield started
