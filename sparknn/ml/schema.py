"""Check that columns exist and have usable types: on the schema, before any job runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pyspark.ml.linalg import VectorUDT
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    BooleanType,
    DataType,
    DateType,
    NumericType,
    StringType,
    StructType,
)

from sparknn.engine.sql import get_conf, is_connect
from sparknn.ml.validators import did_you_mean


@dataclass(frozen=True)
class SchemaProblem:
    """A column that cannot be used.

    Parameters
    ----------
    column : str
    param : str
        The param that names it; empty for a column that the model would add.
    message : str
    """

    column: str
    param: str
    message: str


class SchemaError(ValueError):
    """Columns that are missing, of the wrong type, or exist already; all of them at once.

    Parameters
    ----------
    problems : SchemaProblem
    """

    def __init__(self, *problems: SchemaProblem) -> None:
        super().__init__(*problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(problem.message for problem in self.problems)


def check_is_dataframe(data: object, method: str, otherwise: str = "") -> None:
    """Raise TypeError if ``data`` is not a Spark DataFrame.

    Parameters
    ----------
    method : str
        Name of the method for the message.
    otherwise : str
        Another hint for the message.
    """
    # On pyspark 3.5 Spark Connect has a DataFrame of its own.
    if isinstance(data, DataFrame) or is_connect(data):
        return
    kind = type(data)
    home = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    hint = "Make one first, with spark.createDataFrame(data)"
    if kind.__module__.startswith("pyspark.pandas"):
        hint = "Call its to_spark() first"
    raise TypeError(
        f"{method} takes a Spark DataFrame; a {home}{kind.__qualname__} arrived. {hint}{otherwise}."
    )


def with_fields(df: DataFrame, names: Iterable[str | None]) -> tuple[DataFrame, list[str]]:
    """Add fields of structs, such as ``a.features``, as columns of that name; return their names.

    Spark's own estimators take such names. A column that has the name itself stays.
    """
    fields = {
        name: F.col(name)
        for name in names
        if name and name not in df.schema.names and _is_field(df.schema, name)
    }
    return df.withColumns(fields) if fields else df, list(fields)


def _is_field(kind: DataType, name: str) -> bool:
    for part in name.split("."):
        if not isinstance(kind, StructType) or kind.names.count(part) != 1:
            return False
        kind = kind[part].dataType
    return True


def training_problems(
    schema: StructType,
    *,
    label: str,
    classifies: bool,
    weight: str | None,
    validation_indicator: str | None,
    outputs: Sequence[str],
    case_matters: bool,
) -> list[SchemaProblem]:
    """Return what is wrong with the columns of training data, features excepted.

    As in Spark's own estimators, columns are found by their exact names.

    Parameters
    ----------
    case_matters : bool
        See ``case_matters``.
    outputs : sequence of str
        Columns that the model will add. As with Spark's estimators, the training data must not have
        them: transform would fail after the fit.
    """
    problems = [
        *ambiguous_problems(
            schema,
            [
                ("labelCol", label),
                ("weightCol", weight),
                ("validationIndicatorCol", validation_indicator),
            ],
            case_matters,
        ),
        _label_problem(schema, label, classifies),
        _problem(
            schema,
            weight,
            "weightCol",
            "weights",
            NumericType,
            "numbers",
            "Cast it to double, or clear weightCol.",
        ),
        _problem(
            schema,
            validation_indicator,
            "validationIndicatorCol",
            "which rows are for validation",
            BooleanType,
            "booleans",
            "Compare it with something, or cast it to boolean.",
        ),
        *output_problems(schema, outputs, case_matters),
    ]
    return [problem for problem in problems if problem]


def raise_all(problems: Iterable[SchemaProblem | None]) -> None:
    """Raise one SchemaError with every problem that is not None."""
    found = [problem for problem in problems if problem]
    if found:
        raise SchemaError(*found)


def feature_problem(schema: StructType, name: str) -> SchemaProblem | None:
    """Return what is wrong with a column of features, or None."""
    if missing := missing_problem(schema, name, "featuresCol", "features"):
        return missing
    found = schema[name].dataType
    if isinstance(found, VectorUDT) or _is_numbers(found):
        return None
    if isinstance(found, NumericType | StringType | BooleanType):
        hint = "Name it in inputCols, or assemble it with VectorAssembler first."
    else:
        hint = "Convert it to a vector or an array of doubles first."
        if type(found).__module__.startswith("pyspark.mllib"):
            hint = "Convert it by MLUtils.convertVectorColumnsToML first."
    return _wrong_type(name, found, "featuresCol", f"a vector or an array of numbers. {hint}")


def case_matters(session: SparkSession) -> bool:
    """Return whether Spark distinguishes 'prediction' and 'PREDICTION'; by default it does not."""
    return get_conf(session, "spark.sql.caseSensitive", "false").lower() == "true"


def ambiguous_problems(
    schema: StructType, used: Iterable[tuple[str, str | None]], case_matters: bool
) -> list[SchemaProblem]:
    """Return the columns that Spark cannot tell from another, whose name differs only by case.

    ``used`` are params and the names that they have.
    """
    if case_matters:
        return []
    alike: dict[str, list[str]] = defaultdict(list)
    for other in schema.names:
        alike[other.lower()].append(other)
    found = []
    for param, name in used:
        same = alike.get(name.lower(), []) if name else []
        if len(set(same)) > 1 and name in same:
            names = " and ".join(f"'{other}'" for other in same)
            message = (
                f"{param} is '{name}', but columns {names} differ only by case, which Spark "
                "ignores. Rename or drop all but one, or set spark.sql.caseSensitive to true."
            )
            found.append(SchemaProblem(str(name), param, message))
    return found


def output_problems(
    schema: StructType, outputs: Sequence[str], case_matters: bool
) -> list[SchemaProblem]:
    """Return the output columns that exist already, or that two params name."""
    key = str if case_matters else str.lower
    existing = {key(name): name for name in schema.names}
    named: dict[str, list[str]] = defaultdict(list)
    for name in filter(None, outputs):
        named[key(name)].append(name)
    problems = [
        SchemaProblem(
            name,
            "",
            f"Output column '{name}' already exists{_by_name(name, existing[same])}. Drop it, or "
            f"choose another name for the output.",
        )
        for same, (name, *_) in named.items()
        if same in existing
    ]
    return problems + [
        SchemaProblem(
            name,
            "",
            f"Output column '{name}' is named by more than one param. Choose different names.",
        )
        for name, *others in named.values()
        if others
    ]


def _by_name(name: str, found: str) -> str:
    if name == found:
        return ""
    return f" as '{found}', the same to Spark unless spark.sql.caseSensitive is true"


def _label_problem(schema: StructType, name: str, classifies: bool) -> SchemaProblem | None:
    if missing := missing_problem(schema, name, "labelCol", "labels"):
        return missing
    found = schema[name].dataType
    if isinstance(found, NumericType):
        return None
    if not classifies:
        if isinstance(found, VectorUDT) or _is_numbers(found):
            return None
        expected = "a number to predict, or a vector or an array of numbers for several targets."
        return _wrong_type(name, found, "labelCol", f"{expected} {_to_number(found)}")
    hint = _to_number(found)
    if isinstance(found, StringType):
        hint = "Index it with StringIndexer first."
    elif isinstance(found, VectorUDT | ArrayType):
        hint = "For targets that are vectors, use NeuralNetRegressor."
    return _wrong_type(name, found, "labelCol", f"class numbers 0, 1, 2, ... {hint}")


def _to_number(found: DataType) -> str:
    if isinstance(found, DateType):
        return "Convert it by unix_date first, or index it with StringIndexer if it is a class."
    return "Cast it to double first."


def _problem(
    schema: StructType,
    name: str | None,
    param: str,
    holds: str,
    kind: type[DataType],
    expected: str,
    hint: str,
) -> SchemaProblem | None:
    if name is None:
        return None
    if missing := missing_problem(schema, name, param, holds):
        return missing
    found = schema[name].dataType
    if isinstance(found, kind):
        return None
    return _wrong_type(name, found, param, f"{expected}. {hint}")


def missing_problem(schema: StructType, name: str, param: str, holds: str) -> SchemaProblem | None:
    """Return what is wrong with a column that must exist once, or None."""
    count = schema.names.count(name)
    if count == 1:
        return None
    if count > 1:
        several = f"There are {count} columns '{name}' ({holds}). Drop or rename all but one."
        return SchemaProblem(name, param, several)
    guess = did_you_mean(name, schema.names)
    columns = ", ".join(schema.names[:20]) + (", ..." if len(schema.names) > 20 else "")
    message = f"There is no column '{name}' ({holds}){guess or '.'} Columns: {columns}."
    return SchemaProblem(name, param, message)


def _is_numbers(found: DataType) -> bool:
    return isinstance(found, ArrayType) and isinstance(found.elementType, NumericType)


def _wrong_type(name: str, found: DataType, param: str, expected: str) -> SchemaProblem:
    message = f"Column '{name}' has type {found.simpleString()}; expected {expected}"
    return SchemaProblem(name, param, message)
