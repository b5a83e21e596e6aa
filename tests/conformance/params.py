"""Check params: constructed, stored, copied, explained. Nothing is fitted."""

import inspect
import json
import re

from pyspark.ml.param import Params

from conformance.subject import Subject, by_name


def check_constructible_without_arguments(subject: Subject) -> None:
    cls = type(subject.estimator)
    estimator = cls()
    assert not estimator._paramMap, "a default counts as set"
    signature = inspect.signature(cls.__init__)
    kinds = {name: parameter.kind for name, parameter in signature.parameters.items()}
    kinds.pop("self")
    assert set(kinds) == {param.name for param in estimator.params}
    assert set(kinds.values()) == {inspect.Parameter.KEYWORD_ONLY}


def check_constructor_only_stores(subject: Subject) -> None:
    """The constructor sets exactly the params that are passed."""
    cls = type(subject.estimator)
    plain = cls()
    given = {p.name: plain.getOrDefault(p) for p in plain.params if plain.hasDefault(p)}
    estimator = cls(**given)
    assert by_name(estimator._paramMap) == given
    assert _kept(estimator) == _kept(plain)
    assert estimator._defaultParamMap.keys() == {estimator.getParam(name) for name in given}
    # None is what pyspark's constructors call "not set".
    assert not cls(**dict.fromkeys(given))._paramMap
    assert by_name(cls().setParams(**given)._paramMap) == given


def _kept(stage: Params) -> set[str]:
    return {name for name, value in vars(stage).items() if value is not None}


def check_params_have_setters_getters_and_docs(subject: Subject) -> None:
    estimator = type(subject.estimator)()
    translate_worker_errors = estimator.explainParams()
    for param in estimator.params:
        suffix = param.name[0].upper() + param.name[1:]
        get, set_ = getattr(estimator, f"get{suffix}"), getattr(estimator, f"set{suffix}")
        assert get.__doc__, param.name
        assert set_.__doc__, param.name
        assert len(param.doc) > 10, param.name
        assert f"{param.name}: {param.doc}" in translate_worker_errors
        if estimator.hasDefault(param):
            value = estimator.getOrDefault(param)
            assert set_(value) is estimator, f"set{suffix} does not chain"
            assert estimator.isSet(param)
            assert get() == value
            assert json.loads(json.dumps(value)) == value, f"JSON does not hold {param.name}"
            estimator.clear(param)
            assert not estimator.isSet(param)
            assert get() == value


def check_copy_is_isolated(subject: Subject) -> None:
    original = subject.other()
    before = original.extractParamMap()
    copied = original.copy({original.maxIter: 7})
    assert type(copied) is type(original)
    assert copied.uid == original.uid
    assert copied.getMaxIter() == 7
    copied.setSeed(99)
    copied.clear(copied.featuresCol)
    assert original.extractParamMap() == before


def check_uids_of_estimators(subject: Subject) -> None:
    cls = type(subject.estimator)
    one, other = cls(), cls()
    assert re.fullmatch(rf"{cls.__name__}_[0-9a-f]{{12}}", one.uid)
    assert one.uid != other.uid
    assert str(one) == one.uid
    assert one.copy().uid == one.uid
    assert {param.parent for param in one.params} == {one.uid}


def check_params_of_the_model(subject: Subject) -> None:
    """A model has the estimator's params and values: maps made for one work on the other."""
    model, estimator = subject.model, subject.estimator
    assert model.uid == estimator.uid
    assert {param.parent for param in model.params} == {model.uid}
    for param in estimator.params:
        if param.name == "numClasses":
            # A property, as in Spark's own models.
            assert isinstance(model.numClasses, int)
            continue
        assert model.hasParam(param.name), param.name
        if estimator.isDefined(param):
            assert model.getOrDefault(param) == estimator.getOrDefault(param), param.name
            assert model.isSet(param) == estimator.isSet(param), param.name
    renamed = model.copy({estimator.predictionCol: "guess"})
    assert renamed.getPredictionCol() == "guess"
    assert model.getPredictionCol() == estimator.getPredictionCol()
    assert isinstance(model, Params)
