"""``--remote`` runs a command on a Spark Connect server."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import processes
import pytest


def test_doctor(spark: object, sparknn: Callable[..., Any]) -> None:
    ran = sparknn("doctor")
    assert ran.status == 0, ran.err
    assert "where tasks find them again" in ran.out
    ran = sparknn("doctor", "--shard-dir", "/nowhere")
    assert ran.status == 1
    assert "shardDir = '/nowhere' cannot be used" in ran.out


@pytest.mark.newest_spark
def test_a_job_on_a_server(connect_server: str, job: Path, points: Path) -> None:
    def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
        command = [
            sys.executable,
            "-m",
            "sparknn",
            *map(str, arguments),
            "--remote",
            connect_server,
        ]
        return processes.run(command)

    trained = run("train", job)
    assert trained.returncode == 0, trained.stderr
    assert "on Spark Connect" in trained.stderr
    found = run("evaluate", "--model", job.parent / "model", "--data", points / "points.csv")
    assert found.returncode == 0, found.stderr
    assert "accuracy" in found.stdout.lower()
