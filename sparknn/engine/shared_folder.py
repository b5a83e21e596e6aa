"""Make, check and remove a fit's folder in a directory that all executors share (``shardDir``).

Executors do it: the driver may run elsewhere.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from sparknn.engine.worker_errors import ShardWriteError, WorkerEnvironmentError

#: Runs a task on every executor, and returns the texts that it yields.
RunEverywhere = Callable[[Callable[[Iterable[int]], Iterator[str]]], list[str]]

_TEXT = b"Shards of sparknn are here while a fit runs."
# Seconds within which cancelled tasks end.
_ENDING_S = 6.0


def make(run_everywhere: RunEverywhere, folder: str) -> None:
    """Make a folder, and check that executors can write there and see each other's files.

    Raises
    ------
    WorkerEnvironmentError
    """
    files = sorted(set(run_everywhere(partial(_write, folder))))
    for unseen in run_everywhere(partial(_find_unseen, files)):
        raise WorkerEnvironmentError(
            f"shardDir = {os.path.dirname(folder)!r} is not the same directory on every executor: "
            f"{unseen}. Set it to one that all of them share, such as a Volume or a mount."
        )


def _write(folder: str, partitions: Iterable[int]) -> Iterator[str]:
    """Write a file as shards are written, and yield its path: one for each host."""
    list(partitions)
    path = Path(folder, f"probe-{socket.gethostname()}")
    begun = Path(f"{path}-{uuid.uuid4().hex}")
    try:
        # Rows are for nobody else to read. Other tasks make it at the same time.
        with suppress(FileExistsError):
            os.mkdir(folder, mode=0o700)
        begun.write_bytes(_TEXT)
        os.replace(begun, path)
    except OSError as error:
        raise ShardWriteError(
            f"shardDir = {os.path.dirname(folder)!r} cannot be used on {socket.gethostname()}: "
            f"{error}. Set it to a directory that exists, and that all executors share and may "
            "write to, such as a Volume or a mount."
        ) from error
    yield str(path)


def _find_unseen(files: Sequence[str], partitions: Iterable[int]) -> Iterator[str]:
    list(partitions)
    for path in map(Path, files):
        try:
            # By name: lists of names may be old where they come over a network.
            problem = "" if path.read_bytes() == _TEXT else "it has other contents"
        except OSError as error:
            problem = str(error)
        if problem:
            yield f"{socket.gethostname()} cannot read what another executor wrote ({problem})"


def remove(folders: Sequence[str], partitions: Iterable[int]) -> Iterator[str]:
    """Remove folders, and yield an empty text, the host of what all share, if that succeeds."""
    list(partitions)
    # On NFS, what a cancelled task has open keeps its folder.
    deadline = time.monotonic() + _ENDING_S
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        while os.path.exists(folder):
            if time.monotonic() > deadline:
                return
            time.sleep(0.05)
            shutil.rmtree(folder, ignore_errors=True)
    yield ""
