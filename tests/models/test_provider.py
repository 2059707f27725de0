"""What is sent to whom: by host, by the address, and as a server refuses it."""

import pytest

from spiritsafe.errors import UsageError
from spiritsafe.models import Request, user
from spiritsafe.models.provider import Options, Parameters, options_of, read_options
from spiritsafe.record import Sampling, seed_of

REQUEST = Request(user("hi"), Sampling(temperature=0.0, max_tokens=9, seed=seed_of("x")))


def body(host: str, name: str, query: str = "", request: Request = REQUEST) -> dict[str, object]:
    """What is sent, but the model and the messages."""
    found, _ = Parameters(options_of(host, name, read_options("openai:a", query))).body(name, request)
    return {key: value for key, value in found.items() if key not in ("model", "messages")}


def test_a_seed_has_31_bits_and_is_the_same_each_time() -> None:
    seed = body("h", "m")["seed"]
    assert seed == seed_of("x") & (2**31 - 1) == body("h", "m")["seed"]


def test_top_p_of_one_is_not_sent_beside_a_greedy_temperature_but_beside_another() -> None:
    assert body("h", "m") == {"temperature": 0.0, "max_tokens": 9, "seed": body("h", "m")["seed"]}
    warm = Request(user("hi"), Sampling(temperature=1.0, max_tokens=9))
    assert body("h", "m", request=warm) == {"temperature": 1.0, "top_p": 1.0, "max_tokens": 9}


@pytest.mark.parametrize("name", ["o3", "o4-mini", "gpt-5", "gpt-5-mini"])
def test_a_reasoning_model_of_openai_is_sent_no_temperature(name: str) -> None:
    found = body("api.openai.com", name)
    assert sorted(found) == ["max_completion_tokens", "seed"]


def test_other_models_and_hosts_get_what_they_know() -> None:
    assert sorted(body("api.openai.com", "gpt-4o")) == ["max_completion_tokens", "seed", "temperature"]
    assert sorted(body("api.openai.com", "gpt-5-chat-latest")) == ["max_completion_tokens", "seed", "temperature"]
    assert sorted(body("api.mistral.ai", "m")) == ["max_tokens", "random_seed", "temperature"]
    assert sorted(body("api.anthropic.com", "claude")) == ["max_tokens", "temperature"]


def test_an_address_leaves_out_renames_and_adds() -> None:
    query = 'drop=seed,temperature&rename=max_tokens:max_new&add=reasoning_effort:low&add=kw:{"a": [1, 2]}&add=n1:%26'
    assert body("h", "m", query) == {"max_new": 9, "reasoning_effort": "low", "kw": {"a": [1, 2]}, "n1": "&"}


@pytest.mark.parametrize(
    "query", ["drop", "drop=", "rename=x", "add=x", "key=sk-secret", "add=model:other", "drop=messages"]
)
def test_an_option_that_cannot_be_is_refused_without_its_value(query: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_options(f"openai:m@http://h/v1?{query}", query)
    assert "secret" not in str(caught.value)


def test_what_was_not_sent_is_told_but_not_what_changes_nothing() -> None:
    warm = Request(user("hi"), Sampling(temperature=1.0, max_tokens=9, seed=1))
    _, unsent = Parameters(Options(drop=frozenset({"top_p", "seed"}))).body("m", warm)
    assert unsent == ("unsent:seed",)
    _, unsent = Parameters(Options(drop=frozenset({"temperature"}))).body("m", REQUEST)
    assert unsent == ("unsent:temperature",)


def test_a_refused_parameter_is_left_out_from_then_on() -> None:
    parameters = Parameters(Options())
    warm = Request(user("hi"), Sampling(temperature=0.7, max_tokens=9, seed=1))
    sent, _ = parameters.body("m", warm)
    assert parameters.learn(sent, "`temperature` and `top_p` cannot both be specified for this model.", "")
    assert "top_p" not in parameters.body("m", warm)[0]
    said = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    assert parameters.learn(sent, said, "max_tokens") == "takes 'max_completion_tokens' for 'max_tokens'"
    assert parameters.learn(sent, said, "max_tokens") == "as before"
    assert parameters.body("m", warm)[0]["max_completion_tokens"] == 9
    assert parameters.learn(sent, "Unsupported value: 'temperature' does not support 0 with this model.", "temperature")
    assert sorted(parameters.body("m", warm)[0]) == ["max_completion_tokens", "messages", "model", "seed"]


@pytest.mark.parametrize(
    "said",
    ["temperature must be between 0 and 1", "invalid stop", "messages: unexpected role", "unsupported: top_k", ""],
)
def test_a_wrong_value_or_another_parameter_is_not_left_out(said: str) -> None:
    parameters = Parameters(Options())
    assert parameters.learn(parameters.body("m", REQUEST)[0], said, "") == ""
