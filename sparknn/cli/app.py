"""Arguments, help, log messages and exit status. The commands, and pyspark, load when called."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sparknn import __version__, import_spark_part
from sparknn.cli.errors import UsageError, one_line
from sparknn.cli.keys import EXPERIMENT, FORMATS, OUTPUT_FORMATS, TRAIN, key_lines

_ABOUT = "Train neural networks with Spark, on every partition at once, and use them."
_EXAMPLES = """\
examples:
  sparknn train conf/mnist.toml --set training.maxIter=5 network.hiddenLayers=[300,100]
  sparknn evaluate --model out/mnist/model --data test.parquet
  sparknn predict  --model out/mnist/model --data new.csv --output out/predictions.parquet
  sparknn experiment conf/poster.toml
  sparknn train conf/mnist.toml --remote sc://host:15002

On a cluster, give spark-submit the package and its starter:
  spark-submit --master yarn --py-files sparknn-VERSION.zip __main__.py train job.toml

exit status: 0 done, 1 the job failed, 2 bad usage or configuration, 130 interrupted
"""
_TRAIN = """\
Fit a network from a job file. The smallest job file:

  [data]
  train = "train.csv"             # or parquet, libsvm, json, orc, or a table
  features = ["age", "country"]   # numbers, booleans, text; or one column of vectors or arrays
  label = "bought"

  [network]
  hiddenLayers = [32]

  [output]
  model = "out/model"

Text features are categories; handleInvalid = "keep" in [data] replaces missing numbers. Text
labels are indexed, and predictions then have their text in predictedLabel. `sparknn keys` lists
every key. On a cluster, relative paths start at the home of its default file system.
"""
_EVALUATE = """\
Measure a saved model on rows that have its label: accuracy and a confusion matrix, or, for a
regression, errors and R2. The model may be a network or a pipeline that ends with one.
"""
_PREDICT = """\
Write rows with a saved model's predictions beside them. Rows need the columns that the model was
trained on, but no label. CSV has no vectors: probabilities become text such as [0.1,0.9].
"""
_EXPERIMENT = """\
Measure what averaging costs and gains, by the number of workers. On each of several random splits,
every worker draws some of its rows at random, trains on them for some local epochs, and the
networks are averaged, again and again. The last average is tested on the split's test rows.

Tables, figures and a conclusion go to a folder, as CSV, JSON and PNG; of the fits done so far if
the experiment is stopped. A variant [arms.NAME] takes the keys of [training] and [averaging], too:
"""
_DOCTOR = """\
Fit next to nothing, and print what was found: versions here and on the executors, slots, free room
on scratch disks, the seconds of an empty round, and whether tasks find their shards again. Where
they do not, a fit needs shardDir, or reads all rows in every round.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status, see ``_EXAMPLES``."""
    try:
        arguments = _parser().parse_args(_one_by_one(sys.argv[1:] if argv is None else argv))
    except SystemExit as leave:  # argparse has printed why
        return int(leave.code or 0)
    status, text = 0, ""
    with _messages():
        try:
            _run(arguments)
        except UsageError as mistakes:
            status, text = 2, str(mistakes)
        except KeyboardInterrupt:
            status, text = 130, "interrupted"
        except Exception as error:
            # py4j, in the middle of a call, may have met an error while it handled Control-C.
            status, text = (130, "interrupted") if _is_interrupt(error) else (1, one_line(error))
            if status == 1 and arguments.verbose:
                traceback.print_exc()
    if text:
        print(f"sparknn: {text}", file=sys.stderr, flush=True)
    return status


def _run(given: argparse.Namespace) -> None:
    """Run the command that was given."""
    if getattr(given, "remote", None):
        # As pyspark's own commands do.
        os.environ["SPARK_REMOTE"] = given.remote
    if given.command == "keys":
        print("\n".join(key_lines(TRAIN)).strip(), flush=True)
    elif given.command in ("train", "experiment"):
        command = import_spark_part(f"sparknn.cli.{given.command}")
        command.run(given.config, given.set, verbose=given.verbose)
    elif given.command == "doctor":
        import_spark_part("sparknn.cli.doctor").run(given)
    else:
        import_spark_part("sparknn.cli.apply").run(given)


def _is_interrupt(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


@contextmanager
def _messages() -> Iterator[None]:
    """Show what the library logs, on stderr: only results go to stdout."""
    log, own, root = (logging.getLogger(name) for name in ("sparknn", "sparknn.cli", None))
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Plain())
    # py4j logs on the root logger, with a traceback, the calls that an interrupt breaks off; a root
    # logger that has a handler does not print by itself.
    silence = logging.NullHandler()
    before = log.level, own.level, log.propagate
    log.setLevel(logging.INFO)
    own.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(handler)
    root.addHandler(silence)
    try:
        yield
    finally:
        root.removeHandler(silence)
        log.removeHandler(handler)
        log.setLevel(before[0])
        own.setLevel(before[1])
        log.propagate = before[2]


class _Plain(logging.Formatter):
    """The message, and its level if that is more than information."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return f"{record.levelname.lower()}: {text}" if record.levelno > logging.INFO else text


def _one_by_one(arguments: Sequence[str]) -> list[str]:
    """Repeat --set and --option before each of several KEY=VALUE, and before no other argument."""
    found: list[str] = []
    option = ""
    for text in arguments:
        if option and "=" in text and found[-1] != option and text[0] != "-":
            found.append(option)
        elif found[-1:] != [option]:
            option = text if text in ("--set", "--option") else ""
        found.append(text)
    return found


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    usage = "sparknn COMMAND ..."
    parser = argparse.ArgumentParser("sparknn", usage, _ABOUT, _EXAMPLES, formatter_class=raw)
    parser.add_argument("--version", action="version", version=f"sparknn {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, short: str, about: str = "") -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=short, formatter_class=raw)
        made.prog, made.description = f"sparknn {name}", about or short
        made.add_argument("--verbose", action="store_true", help="on errors, show the traceback")
        return made

    def add_remote() -> None:
        about = "the Spark Connect server to run on, such as sc://host:15002 (or SPARK_REMOTE)"
        made.add_argument("--remote", metavar="URL", help=about)

    def add_pairs(name: str, about: str) -> None:
        about += "; several may follow each other"
        made.add_argument(name, action="append", default=[], metavar="KEY=VALUE", help=about)

    experiment = _EXPERIMENT + "\n".join(key_lines(EXPERIMENT))
    for name, short, about in (
        ("train", "fit a network from a job file (TOML); save, evaluate and plot it", _TRAIN),
        ("experiment", "compare one worker with many: accuracy, rows and seconds", experiment),
    ):
        made = command(name, short, about)
        made.add_argument("config", metavar="CONFIG.toml", help=f"the {name} file")
        add_remote()
        add_pairs("--set", "replace or add a key for this run, such as data.train=rows.csv")
    how = "by default as the path ends, otherwise parquet"
    for name, short, about, invalid in (
        ("evaluate", "measure a saved model on labelled rows", _EVALUATE, ("error", "skip")),
        ("predict", "add predictions to rows", _PREDICT, ("error", "skip", "keep")),
    ):
        made = command(name, short, about)
        add_remote()
        made.add_argument("--model", required=True, metavar="DIR", help="a saved model or pipeline")
        made.add_argument("--data", required=True, metavar="PATH", help="rows: a path, or a table")
        made.add_argument("--format", choices=FORMATS, help=f"of the rows; {how}")
        add_pairs("--option", "for Spark's reader, such as sep=; or header=false")
        rule = "make rows with missing values an error, skip them, or keep them and predict null"
        made.add_argument("--invalid", choices=invalid, help=rule)
    made.add_argument("--output", required=True, metavar="PATH", help="where to write")
    made.add_argument("--output-format", choices=OUTPUT_FORMATS, help=how)
    made.add_argument("--columns", metavar="A,B,...", help="columns to write; by default all")
    made.add_argument("--overwrite", action="store_true", help="replace what is at PATH")
    made = command("doctor", "try whether and how a fit works in a Spark session", _DOCTOR)
    add_remote()
    where = "a directory that all executors share, to be tried, too"
    made.add_argument("--shard-dir", default="", metavar="DIR", help=where)
    command("keys", "list every key that a job file may have, with its meaning and default")
    return parser
