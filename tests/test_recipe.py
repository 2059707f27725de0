"""Recipes: a mistyped key is never ignored, and what cannot work is refused with the reason."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spiritsafe.errors import RecipeError
from spiritsafe.recipe import MakePart, differing_keys, load_recipe, override, parse_any, parse_recipe, read_recipe
from spiritsafe.recipe_matched import MatchedRecipe

Keys = tuple[str | int, ...]


def every_key(value: Any, at: Keys = ()) -> Iterator[Keys]:
    """The place of each key of a recipe; `options` is handed on as it is and has none."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*at, key)
            yield from () if key == "options" else every_key(inner, (*at, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value[:1]):
            yield from every_key(inner, (*at, number))


def typos(key: str) -> Iterator[str]:
    """The four slips of a hand: a letter left out, doubled, swapped with the next, or wrong."""
    middle = len(key) // 2
    yield key[:middle] + key[middle + 1 :]
    yield key[:middle] + key[middle] + key[middle:]
    yield key[: middle - 1] + key[middle] + key[middle - 1] + key[middle + 1 :]
    yield key[:middle] + ("x" if key[middle] != "x" else "y") + key[middle + 1 :]


def renamed(recipe: dict[str, Any], place: Keys, name: str) -> dict[str, Any]:
    """The recipe with the key at `place` renamed."""
    *parents, last = place
    section: Any = recipe
    for parent in parents:
        section = section[parent]
    section[name] = section.pop(last)
    return recipe


def refused(recipe: dict[str, Any]) -> str:
    """The message with which a recipe is refused."""
    with pytest.raises(RecipeError) as caught:
        parse_recipe(recipe)
    assert caught.value.exit_code == 2
    return str(caught.value)


def write(path: Path, recipe: str) -> Path:
    """Write a recipe file and return its path."""
    path.write_text(recipe)
    return path


MINIMAL = """
run = { name = "small" }
teacher = { model = "fake:teacher" }
prompts = { num_train = 4, num_heldout = 2 }
make = { num_layers = 1 }
[[guard.accounts]]
name = "drawer"
role = "draws"
exchanges = 4
[[guard.accounts]]
name = "others"
role = "calibration"
num = 19
exchanges = [1, 2]
"""


def test_a_resolved_recipe_is_a_recipe_and_stays_the_same(small_recipe: dict[str, Any]) -> None:
    assert parse_recipe(small_recipe).model_dump(mode="json") == small_recipe


@pytest.mark.parametrize(
    ("place", "name", "message"),
    [
        (("make",), "mkae", "mkae: unknown key, did you mean 'make'?"),
        (("make", "epochs"), "epoch", "make.epoch: unknown key, did you mean 'epochs'?"),
        (("prompts", "tasks", 0, "family"), "famly", "prompts.tasks.0.famly: unknown key, did you mean 'family'?"),
        (
            ("guard", "accounts", 0, "sampling", "top_p"),
            "topp",
            "guard.accounts.0.sampling.topp: unknown key, did you mean 'top_p'?",
        ),
    ],
)
def test_an_unknown_key_is_an_error_at_every_depth(
    small_recipe: dict[str, Any], place: Keys, name: str, message: str
) -> None:
    assert message in refused(renamed(small_recipe, place, name))


def test_a_typo_in_any_key_is_caught_and_the_right_key_suggested(small_recipe: dict[str, Any]) -> None:
    places = list(every_key(small_recipe))
    assert len(places) >= 50
    for place in places:
        for typo in set(typos(str(place[-1]))) - {str(place[-1])}:
            message = refused(renamed(parse_recipe(small_recipe).model_dump(mode="json"), place, typo))
            dotted = ".".join(str(part) for part in (*place[:-1], typo))
            assert f"{dotted}: unknown key" in message, message
            assert f"did you mean '{place[-1]}'?" in message or len(str(place[-1])) < 4, message


def test_a_key_like_no_other_gets_no_suggestion(small_recipe: dict[str, Any]) -> None:
    small_recipe["make"]["zzzzqqqq"] = 1
    assert refused(small_recipe) == "recipe: make.zzzzqqqq: unknown key"


def test_a_missing_key_is_named(small_recipe: dict[str, Any]) -> None:
    del small_recipe["teacher"]["model"]
    assert refused(small_recipe) == "recipe: teacher.model: is missing"


def test_overrides_are_toml_values_and_bare_words_are_text(tmp_path: Path) -> None:
    path = write(tmp_path / "small.toml", MINIMAL)
    recipe = load_recipe(path, ["make.epochs=3", "watch.feature=distinct_prompts", "make.drop=[1, 2]", "run.seed=7"])
    assert (recipe.make.epochs, recipe.watch.feature, recipe.make.drop, recipe.run.seed) == (
        3,
        "distinct_prompts",
        (1, 2),
        7,
    )
    assert load_recipe(path).make.epochs == MakePart(num_layers=1).epochs


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("make.epoch=3", "make.epoch: unknown key, did you mean 'epochs'?"),
        ("make.epochs", "make.epochs: is not KEY=VALUE"),
        ("=3", "=3: is not KEY=VALUE"),
        ("run.name.x=1", "run.name.x: 'name' is a value and has no keys below it"),
        ("make.epochs=many", "make.epochs: Input should be a valid integer"),
        ("make.epochs=0", "make.epochs: Input should be greater than or equal to 1"),
        ("run.name=a/b", "run.name: String should match pattern"),
    ],
)
def test_a_wrong_override_is_named(tmp_path: Path, override: str, message: str) -> None:
    path = write(tmp_path / "small.toml", MINIMAL)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, [override])
    assert message in str(caught.value)


def test_two_accounts_may_not_share_a_name(small_recipe: dict[str, Any]) -> None:
    small_recipe["guard"]["accounts"][1]["name"] = "drawer"
    assert refused(small_recipe) == "recipe: guard: accounts: each needs a name of its own"


@pytest.mark.parametrize("role", ["draws", "ordinary"])
def test_exactly_one_account_draws(small_recipe: dict[str, Any], role: str) -> None:
    small_recipe["guard"]["accounts"][0 if role == "ordinary" else 1]["role"] = role
    assert "exactly one account has role 'draws'" in refused(small_recipe)


def test_an_alarm_rate_below_what_calibration_can_show_is_refused(small_recipe: dict[str, Any]) -> None:
    small_recipe["guard"]["accounts"][2]["num"] = 18
    message = refused(small_recipe)
    assert "the smallest honest p-value is 1/19" in message
    assert "use at least 19 or a larger alpha" in message
    small_recipe["guard"]["accounts"][2]["num"] = 19
    assert parse_recipe(small_recipe).watch.alpha == 0.05


def test_a_recipe_that_is_not_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"small\.toml: is not TOML: .*line 1"):
        load_recipe(write(tmp_path / "small.toml", "run = 1 2"))


def test_a_shipped_recipe_is_found_by_name_from_any_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_recipe("quickstart") == load_recipe("quickstart.toml") == load_recipe("recipes/quickstart.toml")
    with pytest.raises(RecipeError, match=r"quikstart: no such recipe, did you mean 'quickstart'\?"):
        load_recipe("quikstart")
    with pytest.raises(RecipeError, match="no such recipe"):
        load_recipe("elsewhere/quickstart.toml")


def test_differing_keys_names_only_what_differs(small_recipe: dict[str, Any]) -> None:
    other = parse_recipe(small_recipe).model_dump(mode="json")
    assert differing_keys(small_recipe, other) == []
    other["make"]["epochs"] += 1
    del other["watch"]
    assert differing_keys(small_recipe, other) == ["make.epochs", "watch"]


def test_an_unknown_kind_of_recipe_is_refused_with_the_known_ones(small_recipe: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="kind: 'lop' is not known, did you mean 'loop'"):
        parse_recipe(small_recipe | {"kind": "lop"})
    assert parse_recipe(small_recipe | {"kind": "loop"}) == parse_recipe(small_recipe)


MATCHED = """
kind = "matched"
run = { name = "small" }
teacher = { model = "fake:teacher" }
prompts = { num_train = 4, num_heldout = 2 }
make = { num_layers = 1 }
matched = { budget_tokens = 100 }
"""


def test_a_comparison_is_a_recipe_of_its_own_kind_and_stays_the_same(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path / "small.toml", MATCHED), ["matched.num_seeds=2"])
    assert isinstance(recipe, MatchedRecipe)
    assert recipe.matched.num_seeds == 2
    assert parse_any(recipe.model_dump(mode="json")) == recipe


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("matched.budget_token=1", "matched.budget_token: unknown key, did you mean 'budget_tokens'?"),
        ("guard.policy=default", "guard: unknown key"),
        ("matched.methods=['text']", "matched: methods: two different ones at least, each once"),
        ("matched.methods=['text', 'onlin']", "matched.methods.1: Input should be 'text', 'cached', 'online'"),
        ("matched.shares=[0.5]", "matched: shares: must rise from above 0 to 1"),
        ("matched.shares=[0.5, 0.5, 1.0]", "matched: shares: must rise from above 0 to 1"),
        ("make.average=0.9", "make.average: students are looked at on the way"),
        ("kind=machted", "kind: 'machted' is not known, did you mean 'matched'?"),
    ],
)
def test_a_comparison_is_validated_like_the_loop(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read_recipe(write(tmp_path / "small.toml", MATCHED), [override])
    assert message in str(caught.value)


def test_where_the_whole_loop_is_needed_a_comparison_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="is of kind 'matched'; this needs a recipe of the whole loop"):
        load_recipe(write(tmp_path / "small.toml", MATCHED))


def test_a_photocopy_recipe_has_its_own_keys_and_suggestions(root: Path) -> None:
    text = (root / "tests" / "e2e" / "photocopy.toml").read_text()
    data = tomllib.loads(text)
    assert parse_any(data).kind == "photocopy"
    for change, message in (
        ({"copies": {"generations": 1}}, "copies.generations"),
        ({"copies": {"real_shar": 0.5}}, "did you mean 'real_share'"),
        ({"measure": {"margins": {"kl_nat": 1}}}, "did you mean 'kl_nats'"),
        ({"guard": {}}, "guard: unknown key"),
    ):
        with pytest.raises(RecipeError, match=message):
            parse_any(data | change)
    with pytest.raises(RecipeError, match="is of kind 'photocopy'"):
        load_recipe(root / "tests" / "e2e" / "photocopy.toml")


def test_a_recipe_of_windows_is_read_and_one_nested_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bom.toml").write_text(MATCHED, encoding="utf-8-sig")
    assert read_recipe(tmp_path / "bom.toml").run.name == "small"
    (tmp_path / "deep.toml").write_text("a = " + "[" * 100_000)
    with pytest.raises(RecipeError, match=r"deep\.toml: is nested too deeply"):
        read_recipe(tmp_path / "deep.toml")
    with pytest.raises(RecipeError, match=r"a: is nested too deeply"):
        override({}, ["a=" + "[" * 100_000])
