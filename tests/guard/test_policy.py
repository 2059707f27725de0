"""Policies as files."""

from pathlib import Path

import pytest

from spiritsafe.errors import UsageError
from spiritsafe.guard.policy import load_policy, shipped_policies
from spiritsafe.models.encoder import missing

RULE = 'phrases = ["x"]'
MINIMAL = 'name = "mine"\ndecide = "stages"\nrefusal = "No."\n'


def written(tmp_path: Path, text: str) -> str:
    """The path of a policy file."""
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return str(path)


def test_every_shipped_policy_is_valid_and_named_as_its_file() -> None:
    assert {"default", "heads", "strict"} <= set(shipped_policies())
    able = [name for name in shipped_policies() if name != "encoder" or not missing()]
    assert [load_policy(name).name for name in able] == able


def test_strict_is_the_default_without_a_second_opinion() -> None:
    default, strict = load_policy("default"), load_policy("strict")
    assert (strict.decide, strict.reviewer) == ("stages", "")
    assert strict.rules == default.rules


def test_a_policy_may_extend_a_shipped_one(tmp_path: Path) -> None:
    text = 'extends = "strict"\nname = "mine"\n[rules.cheese]\nphrases = ["brie"]\n'
    policy = load_policy(written(tmp_path, text))
    assert set(policy.rules) == {*load_policy("strict").rules, "cheese"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('refusel = "x"\n[rules.a]', "refusel: unknown key, did you mean 'refusal'"),
        ('[rules.a]\npatern = ["x"]', "rules.a.patern: unknown key, did you mean 'patterns'"),
        ('[rules.a]\npatterns = ["a(?=b)"]', "rules.a.patterns: .*looks around, which no automaton can"),
        ('[rules.a]\naction = "bark"', "rules.a.action: Input should be 'note', 'flag' or 'stop'"),
        (f"version = 2\n[rules.a]\n{RULE}", "version: Input should be 1"),
        ('[rules.a]\npatterns = ["("]', "rules.a.patterns: '\\('"),
        ("[rules]", "has neither"),
        ("", "has neither"),
        ("[heads.harmfull]", "heads.harmfull: no such head, did you mean 'harmful'"),
        ("[heads.harmful]\nlimt = 1", "heads.harmful.limt: unknown key, did you mean 'limit'"),
        ('heads_sha256 = "00"\n[heads.harmful]', "heads_sha256: the weights of 'shipped' have"),
        (f'reviewer = "fake:echo"\n[rules.a]\n{RULE}', "asks no reviewer"),
        (f'[review]\nprompt = "x"\nsafe = ["a"]\nunsafe = ["b"]\n[rules.a]\n{RULE}', "review: prompt: holds neither"),
        (
            f'[review]\nprompt = "{{query}}"\nsafe = ["a"]\nunsafe = ["A"]\n[rules.a]\n{RULE}',
            "'a' is both safe and unsafe",
        ),
        ("[rules", "is not TOML"),
        ("[rules.a]", "rules.a: has neither phrases nor patterns"),
        (f'check = "both"\n[rules.a]\n{RULE}', "check='both', but no rule or head reads the output"),
        (f'check = "output"\n[rules.a]\n{RULE}', "no rule or head reads the output"),
        (f'[rules.a]\n{RULE}\nrefusal = {{ german = "Nein." }}', "rules.a: refusal: has no 'english' text"),
    ],
)
def test_a_key_at_fault_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_policy(written(tmp_path, MINIMAL + text))


def test_a_reviewer_needs_a_question(tmp_path: Path) -> None:
    text = MINIMAL.replace("stages", "reviewer") + f"[rules.a]\n{RULE}"
    with pytest.raises(UsageError, match=r"needs a \[review\] table"):
        load_policy(written(tmp_path, text))


def test_an_unknown_policy_is_met_with_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"did you mean 'default'.*shipped are default,.* heads, strict"):
        load_policy("defualt")
    with pytest.raises(UsageError, match="extends: no shipped policy 'strickt', did you mean 'strict'"):
        load_policy(written(tmp_path, 'extends = "strickt"\n'))


def test_a_byte_order_mark_is_no_part_of_a_policy(tmp_path: Path) -> None:
    text = MINIMAL + f"[rules.a]\n{RULE}"
    (tmp_path / "marked.toml").write_text(text, encoding="utf-8-sig")
    assert load_policy(str(tmp_path / "marked.toml")) == load_policy(written(tmp_path, text))


def test_a_policy_nested_without_end_is_refused_in_a_line(tmp_path: Path) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    with pytest.raises(UsageError, match="is nested too deeply; a policy needs three levels"):
        load_policy(written(tmp_path, f"{MINIMAL}deep = {deep}\n"))
