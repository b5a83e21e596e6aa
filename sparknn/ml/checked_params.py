"""Declare a Param once, with its default and its valid values, and check values when they are set.

Spark's ``Param`` has a name, a doc and a converter. ``CheckedParam`` adds a default and a rule, and
``CheckedParams`` checks values. One error reports everything that is wrong in a call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
from pyspark.ml.param import Param, Params, TypeConverters

from sparknn.ml.validators import Rule, did_you_mean

if TYPE_CHECKING:
    from typing import Self

T = TypeVar("T")
S = TypeVar("S", bound=Params)

#: Lets a fit choose the value, by its rows and workers.
AUTO = "auto"


class ParamError(ValueError, TypeError):
    """Invalid values or names of params; all of one call.

    Also a ``TypeError``, which pyspark raises for a value of the wrong type, and Python for an
    unknown keyword.

    Parameters
    ----------
    owner : str
        The class of the params.
    problems : dict of str to str
        What is wrong with each param, by name.
    """

    def __init__(self, owner: str, problems: Mapping[str, str]) -> None:
        super().__init__(owner, dict(problems))
        self.owner = owner
        self.problems = dict(problems)

    def __str__(self) -> str:
        lines = [f"{name}{problem}" for name, problem in self.problems.items()]
        if len(lines) == 1:
            return f"{self.owner}: {lines[0]}"
        return "\n- ".join([f"{self.owner}: {len(lines)} params are wrong.", *lines])


@dataclass(frozen=True)
class AutoOr:
    """Convert a value with ``convert``, but leave the word 'auto' as it is."""

    convert: Callable[[Any], Any]

    def __call__(self, value: Any) -> Any:
        return AUTO if isinstance(value, str) and value == AUTO else self.convert(value)


#: What each converter accepts, for error messages.
_KINDS: dict[Any, str] = {
    TypeConverters.toInt: "a whole number",
    TypeConverters.toFloat: "a number",
    TypeConverters.toBoolean: "True or False",
    TypeConverters.toString: "a string",
    TypeConverters.toListInt: "a list of whole numbers",
    TypeConverters.toListFloat: "a list of numbers",
    TypeConverters.toListString: "a list of names",
}


def _kind(convert: Any) -> str:
    if isinstance(convert, AutoOr):
        return f"{_kind(convert.convert)} or '{AUTO}'"
    return _KINDS.get(convert) or str(getattr(convert, "kind", "another type"))


class CheckedParam(Param[T]):
    """A Param with its default and its rule.

    Parameters
    ----------
    name, doc : str
        The rule is appended to the doc.
    convert : callable
        One of ``TypeConverters``, ``AutoOr`` of one, or a callable whose ``kind`` names what it
        accepts.
    default : optional
        None leaves the param undefined until it is set.
    rule : Rule, optional
    """

    def __init__(
        self,
        name: str,
        doc: str,
        convert: Callable[[Any], T],
        default: T | None = None,
        rule: Rule | None = None,
    ) -> None:
        allowed = "" if rule is None else f" ({rule})"
        super().__init__(Params._dummy(), name, f"{doc}{allowed}.", typeConverter=convert)
        self.default = default
        self.rule = rule


class CheckedParams(Params):
    """Params whose values are checked whenever they are set.

    By the constructor, setters, parameter maps and the loading of a stage. ``None`` means "not
    set", as in the constructors of pyspark.
    """

    #: Params of earlier versions, and what to use instead.
    _removed: ClassVar[Mapping[str, str]] = {}

    def __init__(self) -> None:
        super().__init__()
        declared = [param for param in self.params if isinstance(param, CheckedParam)]
        self._setDefault(**{p.name: p.default for p in declared if p.default is not None})

    def __getattr__(self, name: str) -> Any:
        """Name the setter or getter that was meant."""
        known = [each for each in dir(type(self)) if each[:3] == name[:3]]
        guess = did_you_mean(name, known) if name[:3] in ("set", "get") else ""
        raise AttributeError(
            f"{type(self).__name__} has no attribute '{name}'{guess or '.'}", name=name, obj=self
        )

    def hasParam(self, paramName: str) -> bool:
        """Return whether there is a param of this name."""
        # Spark's own reads the attribute, which fails for some properties of an empty model.
        return any(param.name == paramName for param in self.params)

    def _optional_column(self, name: str) -> str | None:
        """Return the column that a param names, or None."""
        return self.getOrDefault(name) or None if self.isDefined(name) else None

    def _checked(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``values`` converted; raise ParamError if any is invalid."""
        converted: dict[str, Any] = {}
        problems: dict[str, str] = {}
        for name, value in values.items():
            if name in self._removed:
                problems[name] = f" was removed: {self._removed[name]}"
            elif not self.hasParam(name):
                guess = did_you_mean(name, [param.name for param in self.params])
                problems[name] = f": there is no such param{guess or '.'}"
            elif value is None:
                converted[name] = None
            else:
                converted[name], problem = self._convert(self.getParam(name), value)
                if problem:
                    problems[name] = problem
        if problems:
            raise ParamError(type(self).__name__, problems)
        return converted

    def _convert(self, param: Param[Any], value: Any) -> tuple[Any, str | None]:
        """Return the converted value, and what is wrong with it or None."""
        found = f" = {value!r}; "
        if isinstance(value, np.generic):
            value = value.item()
        try:
            value = param.typeConverter(value)
        except (TypeError, ValueError, OverflowError):
            return value, f"{found}expected {_kind(param.typeConverter)}."
        is_auto = isinstance(param.typeConverter, AutoOr) and value == AUTO
        if isinstance(param, CheckedParam) and param.rule is not None and not is_auto:
            problem = param.rule.problem(value)
            if problem:
                return value, f"{found}{problem}{'' if problem.endswith('?') else '.'}"
        return value, None

    def _set(self, **kwargs: Any) -> Self:
        for name, value in self._checked(kwargs).items():
            param = self.getParam(name)
            if value is None:
                self._paramMap.pop(param, None)
            else:
                self._paramMap[param] = value
        return self

    def set(self, param: Param[Any], value: Any) -> None:
        """Set one param; ParamError if the value is invalid."""
        self._shouldOwn(param)
        self._set(**{param.name: value})

    def copy(self, extra: Mapping[Param[Any], Any] | None = None) -> Self:
        """Return a copy with the same uid, and with those params of ``extra`` that are its own.

        Raises
        ------
        ParamError
            Naming every param of ``extra`` whose value is invalid.
        """
        self._checked(
            {
                param.name: value
                for param, value in (extra or {}).items()
                if isinstance(param, Param) and param in self.params
            }
        )
        copied: Self = super().copy(dict(extra or {}))
        return copied


def getter(param: Param[T]) -> Callable[[Any], T]:
    """Return the method ``getX`` of a param."""

    def get(self: Params) -> T:
        return self.getOrDefault(getattr(self, param.name))

    _name(get, "get", param, "Return the value, or the default, of")
    return get


def setter(param: Param[T]) -> Callable[[S, T], S]:
    """Return the method ``setX`` of a param, which returns the stage."""

    def set_(self: S, value: T) -> S:
        return self._set(**{param.name: value})

    _name(set_, "set", param, "Set")
    return set_


def _name(method: Any, verb: str, param: Param[Any], doc: str) -> None:
    method.__name__ = verb + param.name[0].upper() + param.name[1:]
    method.__qualname__ = method.__name__
    method.__doc__ = f"{doc} ``{param.name}``: {param.doc}"
