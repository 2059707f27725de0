"""Settings reject what cannot be, and load without torch or numpy; a budget is never exceeded."""

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from spiritsafe.make.data.settings import Budget, DataSettings
from spiritsafe.models import Request, user
from spiritsafe.models.budget import Meter
from spiritsafe.record import Sampling


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"collect": {"budget": {"usd": 1}}}, "needs usd_per_million_in or usd_per_million_out"),
        ({"keep": {"pattern": "("}}, "is no regular expression"),
        ({"keep": {"pass_rate": [0.9, 0.1]}}, "least <= most"),
        ({"clean": {"short": 14}}, "short: is larger than ngram"),
        ({"keep": {"prefre": "short"}}, "Extra inputs are not permitted"),
    ],
)
def test_what_cannot_be_is_said(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        DataSettings.model_validate(settings)


def test_settings_load_without_torch_or_numpy() -> None:
    code = "import sys, spiritsafe.make.data.settings; print({'torch', 'numpy', 'ray'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@given(
    st.lists(st.tuples(st.integers(1, 50), st.floats(0, 1)), max_size=40),
    st.integers(0, 2000),
    st.integers(1, 5),
    st.sampled_from(["tokens", "usd"]),
)
def test_answers_within_their_bounds_never_exceed_a_budget(
    wanted: list[tuple[int, float]], most: int, at_once: int, kind: str
) -> None:
    prices = {"usd_per_million_in": 1e6, "usd_per_million_out": 1e6}
    meter, under_way = Meter(Budget.model_validate({kind: most, **prices})), []
    for max_tokens, share in wanted:
        request = Request(user("some prompt"), Sampling(max_tokens=max_tokens))
        if meter.admit(request):
            break
        under_way.append((request, share))
        if len(under_way) == at_once:
            meter.settle((ended := under_way.pop(0))[0])
            bound = meter.bound(ended[0].messages, ended[0].sampling)
            used = meter.price(round(ended[1] * bound.tokens_in), round(ended[1] * bound.tokens_out))
            meter.spent = meter.spent.plus(used)
        assert getattr(meter.spent, kind) <= most + 1e-9
