"""sparknn and what a user might take instead, on MNIST and one machine: ``make bench-peers``.

Every peer trains on all of MNIST (784-300-10 where it is a network) with 2 cores, from the parquet
file to a model, in turns with the others, as ``PEERS`` says. ``--quick`` takes a tenth of the rows
and short fits; ``make bench-peers ARGS='sparknn "PyTorch, 2 threads"'`` runs some of the peers.

The time to an accuracy is that of the shortest fit that reaches it on the test rows: each length is
a fit of its own, because step sizes fall over a fit. Lengths grow until the last goal is reached.
Not timed are imports, the start of Spark, and a first fit of length 1 on 6,000 rows. A peer runs in
a process of its own; its memory is that of the process tree, shared pages counted once, sampled
twice a second (Linux). Of Spark's JVM, that is what its heap has grown to, 4 GiB at most. CPU
seconds, of all cores together, depend less on what else runs.

PyTorch, XGBoost and scikit-learn come with ``pip install '.[peers]'``.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from peer_fits import GOALS, MNIST, tree
from timing import ratio, spread

from sparknn import __version__


@dataclass(frozen=True)
class Peer:
    """How a peer trains, fixed beforehand, and for how long."""

    #: A key of ``peer_fits.FITS``.
    kind: str
    settings: str
    #: Rounds, epochs, iterations or trees per class; 0 is the default.
    lengths: tuple[int, ...]
    needs: str = ""
    #: Threads of BLAS and OpenMP in its first process.
    threads: int = 1
    #: Takes minutes: runs in the first round only.
    once: bool = False


_SGD = "batches of 64, Nesterov momentum 0.9, step size in one cycle up to"
PEERS = {
    "sparknn": Peer("sparknn", "2 workers; fits of maxIter rounds", (2, 3, 4, 6, 10)),
    "sparknn, nothing set": Peer("sparknn", "nothing but hiddenLayers", (0,)),
    "PyTorch, 2 threads": Peer("torch", f"{_SGD} 0.1; epochs", (1, 2, 3, 4), "torch", threads=2),
    "PyTorch, 1 thread": Peer("torch", f"{_SGD} 0.1; epochs", (1, 2, 3, 4), "torch"),
    "PyTorch DDP": Peer(
        "torch-ddp",
        f"TorchDistributor, 2 local processes, gloo, in each {_SGD} 0.15; epochs",
        (1, 2, 3, 4),
        "torch",
    ),
    "scikit-learn": Peer(
        "scikit",
        "MLPClassifier as by default (Adam, batches of 200); epochs",
        (2, 5, 10),
        "sklearn",
        threads=2,
    ),
    "Spark's MLPC": Peer(
        "mlpc", "L-BFGS, blockSize 128, no tolerance; iterations", (100,), once=True
    ),
    "XGBoost on Spark": Peer(
        "xgboost",
        "SparkXGBClassifier, 2 workers, depth 6, step 0.3, 64 bins, half of the columns per tree; "
        "trees per class",
        (40, 100),
        "xgboost",
        once=True,
    ),
}
TRANSFORM = "transform"
TRAIN, FEW = str(MNIST / "train.parquet"), 6_000
OUT = MNIST.parents[2] / "out/peers"
Run = dict[str, Any]


def memory(pids: list[int]) -> int:
    """Bytes in use, shared pages counted once; 0 if unknown."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):  # it has ended
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            (line,) = [line for line in rollup.splitlines() if line.startswith("Pss:")]
            total += int(line.split()[1]) << 10
    return total


def measure(arguments: list[str], threads: int, limit_s: float, log_path: Path) -> Run:
    """Run ``peer_fits`` in a process of its own, and end it where it exceeds the limit."""
    variables = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    python = {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
    environment = {**os.environ, **python, **dict.fromkeys(variables, str(threads))}
    started, peak, exceeded = time.perf_counter(), 0, False
    with tempfile.TemporaryDirectory() as folder, log_path.open("w") as log:
        output = Path(folder, "measured")
        output.touch()
        script = str(Path(__file__).with_name("peer_fits.py"))
        command = [sys.executable, script, *arguments, "--output", str(output)]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            while process.poll() is None and not exceeded:
                time.sleep(0.5)
                peak = max(peak, memory(tree(process.pid)))
                exceeded = time.perf_counter() - started > limit_s
        finally:
            if process.poll() is None:
                for pid in tree(process.pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                process.wait()
        lines = [json.loads(line) for line in output.read_text().splitlines()]
    run: Run = {"fits": [line.pop("fit") for line in lines if "fit" in line]}
    for line in lines:
        run |= line
    outcome = f"not in {limit_s:.0f} s" if exceeded else "failed" if process.returncode else ""
    if outcome == "failed":
        print(f"Failed: see {log_path}", file=sys.stderr)
    seconds = time.perf_counter() - started
    about = {"outcome": outcome, "process_s": seconds, "load": os.getloadavg()[0]}
    return run | about | {"peak_bytes": peak or None}


def run_in_turns(names: list[str], asked: argparse.Namespace) -> Iterator[Run]:
    """Yield what each peer did, once per round, and ``transform`` after the first."""
    until = time.perf_counter() + 60 * asked.minutes
    took: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        few = str(Path(folder, "few.parquet"))
        pq.write_table(pq.read_table(TRAIN)[:FEW], few, row_group_size=FEW // 6)
        files = ["--train", few if asked.quick else TRAIN, "--warm", few]
        for number in range(1, 1 + (1 if asked.quick else asked.rounds)):
            for name in [*names, TRANSFORM]:
                peer = PEERS.get(name, Peer("transform", "", (), once=True))
                if number > 1 and peer.once:
                    continue
                if time.perf_counter() + took.get(name, asked.limit) > until:
                    print(f"Round {number}: no time for {name}.", file=sys.stderr)
                    continue
                lengths = [min(n, 3) for n in peer.lengths[:1]] if asked.quick else peer.lengths
                arguments = [peer.kind, *map(str, lengths), *files, "--seed", str(number)]
                log = OUT / f"{name.replace(' ', '-')}-{number}.log"
                run = measure(arguments, peer.threads, asked.limit, log)
                took[name] = run["process_s"]
                print(f"Round {number}, {name}: {took[name]:.0f} s", file=sys.stderr)
                yield {"name": name, "round": number} | run


def reached(run: Run, goal: float) -> dict[str, Any] | None:
    """Return the shortest fit that reaches an accuracy."""
    return next((fit for fit in run["fits"] if fit["accuracy"] >= goal), None)


def goal_cell(runs: list[Run], goal: float) -> str:
    fits = [fit for run in runs if (fit := reached(run, goal))]
    if not fits:
        return next((run["outcome"] for run in runs if run["outcome"]), "not reached")
    cell = spread([fit["seconds"] for fit in fits], digits=1)
    cell += f", CPU {statistics.median(fit['cpu_s'] for fit in fits):.1f}"
    setup = [fit["setup_s"] for fit in fits if fit["setup_s"] is not None]
    cell += f", set-up {statistics.median(setup):.1f}" if setup else ""
    return cell + (f"; in {len(fits)} of {len(runs)} runs" if len(fits) < len(runs) else "")


def listed(runs: list[Run], key: str, scale: float, unit: str) -> str:
    values = [run[key] * scale for run in runs if run.get(key)]
    return spread(values, unit, digits=0) if values else "unknown"


def table(runs: list[Run]) -> Iterator[str]:
    """Yield the lines of a Markdown table, and of what is compared with sparknn turn by turn."""
    goals = [f"seconds to {100 * goal:g} %" for goal in GOALS]
    head = ["", *goals, "most accurate, %", "start, not counted", "peak memory", "rows predicted"]
    yield f"| {' | '.join(head)} |"
    yield "| --- " * len(head) + "|"
    of = {name: [run for run in runs if run["name"] == name] for name in PEERS}
    for name, mine in of.items():
        if mine:
            accuracies = [100 * fit["accuracy"] for run in mine for fit in run["fits"]]
            cells = [
                name,
                *(goal_cell(mine, goal) for goal in GOALS),
                f"{max(accuracies):.2f}" if accuracies else "none",
                listed(mine, "start_s", 1, "s"),
                listed(mine, "peak_bytes", 2**-20, "MiB"),
                listed(mine, "rows_per_s", 1e-3, "thousand/s"),
            ]
            yield f"| {' | '.join(cells)} |"
    yield ""
    for name, goal in [(name, goal) for name in list(of)[1:] for goal in GOALS]:
        ours = {run["round"]: run for run in of["sparknn"]}
        turns = [(run, ours[run["round"]]) for run in of[name] if run["round"] in ours]
        fits = [(reached(theirs, goal), reached(mine, goal)) for theirs, mine in turns]
        both = [(theirs, ours) for theirs, ours in fits if theirs and ours]
        if both:
            wall, cpu = (
                ratio([theirs[key] for theirs, _ in both], [ours[key] for _, ours in both])
                for key in ("seconds", "cpu_s")
            )
            yield f"- {name}, {100 * goal:g} %: {wall} sparknn's seconds, {cpu} its CPU seconds"


def rates(runs: list[Run]) -> Iterator[str]:
    """Yield a line about ``transform``, rows per second."""
    for run in (run for run in runs if run["name"] == TRANSFORM):
        ours, theirs = run.get("sparknn"), run.get("mlpc")
        if not ours or not theirs:
            yield f"- transform: {run['outcome']}"
            continue
        thousands = [spread([rate / 1000 for rate in each], "") for each in (ours, theirs)]
        yield (
            f"- transform of the test rows, thousand rows per second: sparknn {thousands[0]}, MLPC "
            f"{thousands[1]} with BLAS {run['blas']}; sparknn is {ratio(ours, theirs)} as fast"
        )


def circumstances(runs: list[Run]) -> Iterator[str]:
    """Yield lines about the machine."""
    about = machine()
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    loads = [run["load"] for run in runs]
    yield f"- {about['cores']} cores, {about['processor']}; {versions}"
    if loads:
        yield (
            f"- Load average, the processes measured included: {min(loads):.1f} to {max(loads):.1f}"
        )


def draw(runs: list[Run], path: Path) -> str:
    """Draw accuracy by seconds, medians of the fits of one length."""
    if not find_spec("matplotlib"):
        return "No figure: matplotlib is not installed (pip install 'sparknn[plot]')."
    from matplotlib.figure import Figure

    axes = Figure(figsize=(8, 5), layout="constrained").subplots()
    for name in PEERS:
        points: dict[int | None, list[tuple[float, float]]] = {}
        for fit in (fit for run in runs if run["name"] == name for fit in run["fits"]):
            points.setdefault(fit["length"], []).append((fit["seconds"], 100 * fit["accuracy"]))
        if points:
            axes.plot(
                *np.array([np.median(p, axis=0) for p in points.values()]).T, "o-", label=name
            )
    for goal in GOALS:
        axes.axhline(100 * goal, color="grey", linewidth=0.5)
    axes.set(xscale="log", xlabel="seconds from file to model", ylabel="test accuracy, %")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.legend()
    axes.figure.savefig(path, dpi=150)
    return f"Figure: {path}"


def machine() -> Run:
    """What the figures depend on."""
    model = platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(
            (line.split(": ")[1] for line in lines if line.startswith("model name")), model
        )
    versions = {"sparknn": __version__}
    for name in ("pyspark", "numpy", "torch", "xgboost", "scikit-learn"):
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return {"processor": model, "cores": os.cpu_count(), "versions": versions}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help=f"some of {'; '.join(PEERS)}; default: all")
    parser.add_argument("--quick", action="store_true", help=f"{FEW:,} rows, short fits, one round")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument(
        "--minutes", type=float, default=14, help="start nothing that may end later"
    )
    parser.add_argument("--limit", type=float, default=150, help="seconds of a peer per round")
    asked = parser.parse_args()
    if unknown := sorted(set(asked.names) - set(PEERS)):
        parser.error(f"no peer {'; '.join(unknown)}; there are {'; '.join(PEERS)}")
    wanted = list(asked.names or PEERS)
    missing = {
        name: f"{name}, without {PEERS[name].needs} (pip install '.[peers]')"
        for name in wanted
        if PEERS[name].needs and not find_spec(PEERS[name].needs)
    }
    names = [name for name in wanted if name not in missing]
    OUT.mkdir(parents=True, exist_ok=True)
    notes = [f"- {name}: {PEERS[name].settings} {PEERS[name].lengths}" for name in names]
    notes += [f"- Left out: {name}" for name in missing.values()]
    if asked.quick:
        notes.append(f"- Of {FEW:,} rows and short fits (--quick): these figures say nothing.")
    runs: list[Run] = []
    text = "Nothing was run."
    for run in run_in_turns(names, asked):
        # Written after every run: a benchmark that is ended keeps what it has measured.
        runs.append(run)
        text = "\n".join([*table(runs), *rates(runs), "", *circumstances(runs), *notes])
        write(text, names, runs)
    print(f"{text}\n\n{draw(runs, OUT / 'peers.png')}")


def write(text: str, names: list[str], runs: list[Run]) -> None:
    """Write the table as Markdown, all that was measured as JSON, and the fits as CSV."""
    (OUT / "peers.md").write_text(text + "\n")
    about = machine() | {"peers": {name: asdict(PEERS[name]) for name in names}}
    (OUT / "peers.json").write_text(json.dumps(about | {"runs": runs}, indent=1))
    with (OUT / "peers.csv").open("w", newline="") as file:
        columns = ["name", "round", "length", "seconds", "setup_s", "cpu_s", "accuracy"]
        lines = csv.DictWriter(file, columns)
        lines.writeheader()
        for run in runs:
            lines.writerows(
                {"name": run["name"], "round": run["round"], **fit} for fit in run["fits"]
            )


if __name__ == "__main__":
    main()
