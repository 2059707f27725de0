"""One string for every model."""

import shutil
from pathlib import Path

import pytest

from spiritsafe.errors import ModelError, UsageError
from spiritsafe.models import open_model
from spiritsafe.models.address import parse_address


@pytest.mark.parametrize(
    ("text", "scheme", "rest"),
    [
        ("org/name", "hf", "org/name"),
        ("org/name@v1.0", "hf", "org/name@v1.0"),
        ("hf:org/name", "hf", "org/name"),
        ("./dir", "dir", "./dir"),
        ("../dir/x", "dir", "../dir/x"),
        ("/a/b:c", "dir", "/a/b:c"),
        ("~/models/x", "dir", "~/models/x"),
        ("./x.gguf", "gguf", "./x.gguf"),
        ("/a/x.gguf", "gguf", "/a/x.gguf"),
        ("x.GGUF", "gguf", "x.GGUF"),
        ("pypi:a==1/x.gguf", "pypi", "a==1/x.gguf"),
        ("openai:m@http://localhost:8/v1", "openai", "m@http://localhost:8/v1"),
        ("openai:org/m@http://localhost:8/v1", "openai", "org/m@http://localhost:8/v1"),
        ("guarded:default+fake:echo", "guarded", "default+fake:echo"),
        ("replay:a.jsonl", "replay", "a.jsonl"),
        ("fake:fixed=a:b", "fake", "fixed=a:b"),
        ("plugin:anything", "plugin", "anything"),
    ],
)
def test_an_address_is_a_scheme_and_the_rest(text: str, scheme: str, rest: str) -> None:
    parsed = parse_address(text)
    assert (parsed.scheme, parsed.rest) == (scheme, rest)


def test_a_directory_that_holds_a_model_wins_over_the_hub(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for place in ("made/student", "out/run/student", "student"):
        shutil.copytree(tiny_folder, place)
        assert parse_address(place).scheme == "dir"
        assert open_model(place).digest == open_model(str(tiny_folder)).digest
    (tmp_path / "org" / "name").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    assert parse_address("org/name").scheme == "hf"
    assert parse_address("hf:made/student").scheme == "hf"
    with pytest.raises(ModelError, match=r"a/b/c: holds no config\.json"):
        open_model("a/b/c")


def test_smollm2_is_a_file_in_a_wheel() -> None:
    assert parse_address("smollm2").scheme == "pypi"


@pytest.mark.parametrize("text", ["", "gpt", "fake:", "a/b/c", "org/", "a b:c", "dir/../x/y"])
def test_what_is_no_address_is_said_with_examples(text: str) -> None:
    with pytest.raises(UsageError, match=r"is not a model address; e\.g\. smollm2"):
        parse_address(text)


def test_a_scheme_without_a_plug_in_is_named() -> None:
    with pytest.raises(UsageError, match="no plug-in opens 'vllm:' addresses"):
        open_model("vllm:org/name")
