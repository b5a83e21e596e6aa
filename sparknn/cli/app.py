"""Arguments, help, and what becomes of errors. The commands load when they are called."""

from __future__ import annotations

import argparse
import logging
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sparknn import __version__
from sparknn.cli import experiment_keys
from sparknn.cli.failures import one_line
from sparknn.cli.mistakes import PathError, UsageError

_INTERRUPTED = 130  # as shells report a program that Ctrl-C ended

_ABOUT = """\
Train neural networks with Spark, on every partition at once, and use them.

commands:
  train      fit a network as a job file (TOML) says; save, evaluate and plot it
  evaluate   measure a saved model on labelled rows
  predict    add a saved model's predictions to rows
  experiment one worker against many: accuracy, rows and seconds
  keys       list every key that a job file may have
"""

_EXAMPLES = """\
examples:
  sparknn train conf/mnist.toml
  sparknn train conf/mnist.toml --set training.maxIter=5 network.hiddenLayers=[300,100]
  sparknn evaluate --model out/mnist/model --data test.parquet
  sparknn predict  --model out/mnist/model --data new.csv --output out/predictions.parquet
  sparknn experiment conf/poster.toml

On a cluster, give spark-submit the package and its starter:
  spark-submit --master yarn --py-files sparknn-VERSION.zip __main__.py train job.toml

exit status: 0 done, 1 the job failed, 2 bad usage or configuration, 130 interrupted
"""

_TRAIN = """\
Fit a network as a job file says. The smallest job file:

  [data]
  train = "train.csv"             # or parquet, libsvm, json, orc, or a table
  features = ["age", "income"]    # or one column of vectors or arrays
  label = "bought"

  [network]
  hiddenLayers = [32]

  [output]
  model = "out/model"

Text labels are indexed, and predictions then have their text in predictedLabel. `sparknn keys`
lists every key. Relative paths start at the working directory (on a cluster, at the home of its
default file system). Rounds are reported as they end; every mistake in a job file is named at once.
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
What averaging costs and gains, by the number of workers. For each of several random splits of the
rows, and each number of workers: a worker draws some of its rows at random, trains on them for some
local epochs, and the networks are averaged; so for a fixed number of local epochs. The last average
is tested on the split's test rows, and so is every round's, on which nothing is selected.

Prints the accuracies, the seconds (measured here; and, as a model, with a core for every worker),
accuracy over training, and where averaging wins and loses. All of it goes to a folder as CSV, JSON
and PNG, fit by fit: an experiment that is stopped keeps what it has. --verbose shows every round.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; by default those of the process.

    Returns
    -------
    int
        0: done; 1: the job failed; 2: bad usage or configuration; 130: interrupted.
    """
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as leave:  # argparse has said why
        return int(leave.code or 0)
    with _messages():
        try:
            _run(arguments)
        except KeyboardInterrupt:
            _complain("interrupted")
            return _INTERRUPTED
        except (PathError, UsageError) as mistakes:
            _complain(str(mistakes))
            return 2
        except Exception as error:
            if _came_of_an_interrupt(error):
                _complain("interrupted")
                return _INTERRUPTED
            if arguments.verbose:
                traceback.print_exc()
            _complain(one_line(error) + _advice(arguments.command, str(error)))
            return 1
    return 0


def _run(arguments: argparse.Namespace) -> None:
    """Import a command and call it: `--help` need not wait for pyspark."""
    from sparknn.cli import evaluate, experiment, predict, train

    match arguments.command:
        case "train":
            train.run(arguments.config, arguments.set, verbose=arguments.verbose)
        case "evaluate":
            evaluate.run(
                arguments.model,
                evaluate.source(arguments.data, arguments.format, arguments.option),
                arguments.invalid,
                verbose=arguments.verbose,
            )
        case "predict":
            predict.run(
                arguments.model,
                evaluate.source(arguments.data, arguments.format, arguments.option),
                predict.target(arguments.output, arguments.output_format, arguments.overwrite),
                arguments.columns,
                arguments.invalid,
                verbose=arguments.verbose,
            )
        case "experiment":
            experiment.run(arguments.config, arguments.set, verbose=arguments.verbose)
        case _:
            train.print_keys()


def _came_of_an_interrupt(error: BaseException | None) -> bool:
    """Whether py4j, in the middle of a call, met an error while it handled Control-C."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def _advice(command: str, error: str) -> str:
    """What an error of the library comes down to on the command line."""
    if "handleInvalid" not in error:
        return ""
    choices = {"predict": "skip or --invalid keep", "evaluate": "skip"}
    return f" Here: --invalid {choices[command]}." if command in choices else ""


def _complain(text: str) -> None:
    print(f"sparknn: {text}", file=sys.stderr, flush=True)


@contextmanager
def _messages() -> Iterator[None]:
    """Show what the library logs, on stderr: results alone go to stdout."""
    log = logging.getLogger("sparknn")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Plain())
    before = log.level, log.propagate
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(handler)
    # py4j logs on the root logger, with a traceback, what an interrupt breaks off; a root logger
    # that has a handler does not print by itself.
    silence = logging.NullHandler()
    logging.getLogger().addHandler(silence)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(silence)
        log.removeHandler(handler)
        log.level, log.propagate = before


class _Plain(logging.Formatter):
    """The message, and its level if that is more than information."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return f"{record.levelname.lower()}: {text}" if record.levelno > logging.INFO else text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sparknn",
        usage="sparknn COMMAND ...",
        description=_ABOUT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"sparknn {__version__}")
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, help=argparse.SUPPRESS
    )

    def command(name: str, about: str) -> argparse.ArgumentParser:
        made = commands.add_parser(
            name,
            prog=f"sparknn {name}",
            description=about,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.add_argument("--verbose", action="store_true", help="on errors, show the traceback")
        return made

    train = command("train", _TRAIN)
    train.add_argument("config", metavar="CONFIG.toml", help="the job file")
    _add_set(train, "training.maxIter=5 training.seed=1")

    evaluate = command("evaluate", _EVALUATE)
    _add_input(evaluate)
    _add_invalid(
        evaluate, ("error", "skip"), "rows that hold missing values are an error, or left out"
    )

    predict = command("predict", _PREDICT)
    _add_input(predict)
    _add_invalid(
        predict,
        ("error", "skip", "keep"),
        "rows that hold missing values are an error, left out, or kept with null predictions",
    )
    predict.add_argument("--output", required=True, metavar="PATH", help="where to write")
    predict.add_argument(
        "--output-format",
        metavar="FORMAT",
        help="parquet, csv, json, orc or table; by default as the path ends, otherwise parquet",
    )
    predict.add_argument(
        "--columns",
        metavar="A,B,...",
        help="columns to write, such as id,prediction; by default all, with the predictions",
    )
    predict.add_argument("--overwrite", action="store_true", help="replace what is at PATH")

    keys = "\n".join(f"  {line}" for line in experiment_keys.key_lines())
    experiment = command("experiment", f"{_EXPERIMENT}\nkeys of an experiment file:\n{keys}")
    experiment.add_argument("config", metavar="CONFIG.toml", help="the experiment file")
    _add_set(experiment, "experiment.splits=1 data.rows=5000")

    command("keys", "List every key that a job file may have, with its meaning and default.")
    return parser


def _add_set(parser: argparse.ArgumentParser, example: str) -> None:
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help=f"replace or add a key for this run: --set {example}",
    )


def _add_invalid(parser: argparse.ArgumentParser, choices: Sequence[str], about: str) -> None:
    parser.add_argument("--invalid", choices=choices, help=f"{about}; by default as the model says")


def _add_input(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="DIR", help="a saved model or pipeline")
    parser.add_argument("--data", required=True, metavar="PATH", help="rows: a path, or a table")
    parser.add_argument(
        "--format",
        metavar="FORMAT",
        help="parquet, csv, libsvm, json, orc or table; by default as the path ends",
    )
    parser.add_argument(
        "--option",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="of Spark's reader, such as sep=; or header=false",
    )
