"""What holds for every public sketch class."""

import copy
import doctest
import pickle
import subprocess
import sys

import numpy as np
import pytest

import netprobe.sketches
from netprobe.sketches import Cardinality, Counter, Histogram, Quantiles, Rate, TopN

CLASSES = [Cardinality, Counter, Histogram, Quantiles, Rate, TopN]


def filled(kind):
    sketch = kind()
    sketch.update(np.arange(1, 400) * 10**9)
    return sketch


def test_examples_of_the_module():
    assert doctest.testmod(netprobe.sketches).attempted > 5
    assert doctest.testmod(netprobe.sketches).failed == 0


@pytest.mark.parametrize("kind", CLASSES)
def test_every_class(kind):
    sketch = filled(kind)
    read = kind.deserialize(sketch.serialize())
    for again in (read, pickle.loads(pickle.dumps(sketch)), copy.copy(sketch)):
        assert type(again) is kind
        assert repr(again) == repr(sketch)
        before = repr(sketch)
        again.merge(sketch)
        assert repr(sketch) == before, "a copy shares nothing"
    sketch.merge(sketch)
    assert kind.__doc__ and kind.update.__doc__ and repr(kind())


@pytest.mark.parametrize("kind", CLASSES)
def test_classes_do_not_mix(kind):
    sketch = filled(kind)
    for other in CLASSES:
        if other is kind:
            continue
        with pytest.raises(TypeError):
            sketch.merge(filled(other))
        with pytest.raises(ValueError):
            other.deserialize(sketch.serialize())
    for wrong in (None, 3):
        with pytest.raises(TypeError):
            sketch.merge(wrong)
    with pytest.raises(ValueError):
        kind.deserialize(b"")


@pytest.mark.parametrize("kind", CLASSES)
def test_subclasses_stay_what_they_are(kind):
    class Mine(kind):
        pass

    assert type(Mine.deserialize(filled(kind).serialize())) is Mine


def test_columns_of_other_libraries():
    class Column:
        def __array__(self, dtype=None, copy=None):
            return np.arange(5)

    for kind in CLASSES:
        sketch, expected = kind(), kind()
        sketch.update(Column())
        expected.update(np.arange(5))
        assert repr(sketch) == repr(expected)


@pytest.mark.parametrize("kind", [Cardinality, TopN])
def test_text_of_pandas_and_of_flows(kind):
    """Arrays of Python objects: what is there counts, what is missing does not."""
    pandas = pytest.importorskip("pandas")
    one_by_one = kind()
    for name in ("a", "ü", "a"):
        one_by_one.update(name)
    names = ["a", None, "ü", "a"]
    for array in (
        np.array([*names, float("nan")], dtype=object),
        np.array(names, dtype=object).reshape(2, 2),
        pandas.Series(names),
        pandas.Series(names, dtype="string"),
        pandas.Series(names, dtype="category"),
    ):
        together = kind()
        together.update(array)
        assert together.serialize() == one_by_one.serialize(), array
    with pytest.raises(TypeError, match="cannot count a list"):
        kind().update(np.array(["a", ["b"]], dtype=object))


def test_weights_of_text():
    names = np.array(["a", None, "b"], dtype=object)
    top = TopN()
    top.update(names, np.array([5, 6, 7], dtype=np.uint8))
    top.update(names, np.int64(2))
    top.update(np.array([1, 2]), np.int64(3))
    assert [row[:2] for row in top.rows(9)] == [("b", 9), ("a", 7), ("1", 3), ("2", 3)]
    for weights in (np.array([1, 2]), np.array([1, 2, -3]), np.ones(3), -1):
        with pytest.raises(ValueError, match="weight"):
            top.update(names, weights)
    assert top.total == 22


def test_nothing_heavy_is_imported():
    program = (
        "import sys, array; from netprobe.sketches import *\n"
        "for kind in (Cardinality, TopN, Quantiles, Histogram, Rate, Counter):\n"
        "    sketch = kind(); sketch.update(array.array('q', range(9))); repr(sketch); sketch.serialize()\n"
        "print(sorted({'numpy', 'datasketches', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
