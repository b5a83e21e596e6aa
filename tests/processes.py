"""Processes of their own, which end in time with everything that they started."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any


def run(
    command: Sequence[object], *, timeout_s: float = 120, **settings: Any
) -> "subprocess.CompletedProcess[str]":
    """Run a command and keep what it says. After ``timeout_s`` seconds, kill its whole group.

    ``subprocess.run`` kills the first process only, and then waits for ever for the JVM and the
    executors that it started, as they hold its pipes.
    """
    process = subprocess.Popen(
        [*map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **settings,
    )
    try:
        stdout, stderr = process.communicate(timeout=timeout_s)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        _, stderr = process.communicate(timeout=60)
        sys.stderr.write(stderr)
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)
