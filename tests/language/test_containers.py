"""Variables inside of containers, as pandas, numpy and printers show them: a short text that never blocks. Their use as text is refused."""

from __future__ import annotations

import pprint

import numpy as np
import pandas as pd
import pytest

import parrot_nb as P


@pytest.fixture
def waiting(host) -> P.SemanticVariable:
    return P.SemanticFunction("{{input:x}}{{output:y}}", name="echo")("a")


@pytest.fixture(params=["waiting", "there"])
def variable(request, waiting):
    return waiting if request.param == "waiting" else P.variable("y", value="a text")


SHOWN = {
    "repr": lambda v: repr(pd.DataFrame({"code": [v, v]})),
    "html": lambda v: pd.DataFrame({"code": [v]})._repr_html_().replace("&lt;", "<").replace("&gt;", ">"),
    "csv": lambda v: pd.DataFrame({"code": [v]}).to_csv(),
    "column": lambda v: repr(pd.DataFrame({"task": ["a", "b"]}).task.map(lambda _: v)),
    "series": lambda v: repr(pd.Series([v])),
    "one": lambda v: repr(pd.Series(v, index=[0, 1])),
    "array": lambda v: str(np.array([v, v])),
    "list": lambda v: str([v]),
    "pretty": lambda v: pprint.pformat({"a": v}),
    "print": str,
    "percent": lambda v: "%s" % v,  # noqa: UP031 - as logging does
}


@pytest.mark.parametrize("show", SHOWN.values(), ids=SHOWN)
def test_in_a_container_a_variable_is_a_short_text(variable, show, host):
    shown = show(variable)
    assert "<variable y" in shown
    assert ("pending" if variable.state == "pending" else "a text") in shown
    assert not host.reads, "showing reads nothing"


def test_a_column_of_variables_is_a_column_of_objects(variable):
    frame = pd.DataFrame({"task": ["a", "b"]})
    frame["code"] = variable
    frame.loc[0, "code"] = variable
    assert list(frame.code) == [variable, variable]
    assert np.array([variable, variable]).shape == (2,)


def test_a_list_of_variables_in_a_container(variable):
    assert "<2 variables" in str(P.VariableList([variable, variable]))
    assert "<variable y" in repr(pd.Series(P.VariableList([variable, variable])))


def test_what_a_variable_shows_is_one_line(host):
    assert "\n" not in repr(P.native_function(lambda: pd.DataFrame({"a": [1, 2]}), name="frame")())
    several = P.variable("y")
    several.node.resolve(pd.DataFrame({"a": [1, 2]}), spans=None)
    assert "\n" not in repr(several)


@pytest.mark.parametrize(
    "use",
    [
        lambda v: f"{v}",
        "{}".format,
        lambda v: f"{v:>9}",
        list,
        bool,
        lambda v: v[0],
        lambda v: "a" in v,
        lambda v: [*v],
    ],
)
def test_its_use_as_text_is_refused(variable, use):
    with pytest.raises(P.UsageError, match=r"its get\(\)"):
        use(variable)
