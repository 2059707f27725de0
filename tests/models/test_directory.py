"""A directory is the model that its files make: each of them counts, none runs, and what lacks is said in a line."""

import io
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from spiritsafe.errors import ModelError
from spiritsafe.models import Request, open_model, user
from spiritsafe.models.base import RequestError
from spiritsafe.models.local import LocalModel, context_of, directory_digest
from spiritsafe.record import Message, Sampling
from tests.models.chats import STRICT, tokenizer, write_chat
from tests.tiny import TEMPLATE, write_tiny

GREEDY = Sampling(temperature=0.0, max_tokens=6)


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """The tiny model, to be changed."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "copy"))


def rewrite(file: Path, **changes: Any) -> None:
    """Change keys of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def pickled(folder: Path) -> None:
    """Weights as a pickle alone."""
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def other_pickle(folder: Path) -> None:
    """Other weights, as a pickle alone."""
    pickled(folder)
    weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    torch.save({name: weight * 2 for name, weight in weights.items()}, folder / "pytorch_model.bin")


def sharded(folder: Path) -> None:
    """Weights in two files and an index."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    parts = {"a.safetensors": names[:9], "b.safetensors": names[9:]}
    for file, part in parts.items():
        save_file({name: weights[name] for name in part}, folder / file, metadata={"format": "pt"})
    places = {name: file for file, part in parts.items() for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def template_in_settings(template: str) -> Callable[[Path], None]:
    """The chat template as older models have it."""

    def change(folder: Path) -> None:
        (folder / "chat_template.jinja").unlink()
        rewrite(folder / "tokenizer_config.json", chat_template=template)

    return change


def writes(name: str, text: str) -> Callable[[Path], None]:
    """A file that is new or replaced."""

    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)

    return change


CHANGES: dict[str, Callable[[Path], None]] = {
    "as it was": lambda folder: None,
    "pickle": pickled,
    "another pickle": other_pickle,
    "shards": sharded,
    "template in the tokenizer's settings": template_in_settings(TEMPLATE),
    "another template there": template_in_settings(TEMPLATE + " "),
    "another template": writes("chat_template.jinja", "x"),
    "a named template": writes("additional_chat_templates/rag.jinja", "x"),
    "other ends": lambda folder: rewrite(folder / "generation_config.json", eos_token_id=[1, 7]),
    "a vocabulary": writes("vocab.json", "{}"),
    "merges": writes("merges.txt", ""),
    "pieces": writes("tokenizer.model", ""),
    "special tokens": writes("special_tokens_map.json", "{}"),
    "another config": lambda folder: rewrite(folder / "config.json", rms_norm_eps=1e-3),
}


def test_every_file_that_has_a_say_has_a_part_in_the_digest(tiny_folder: Path, tmp_path: Path) -> None:
    digests = {}
    for number, (name, change) in enumerate(CHANGES.items()):
        made = Path(shutil.copytree(tiny_folder, tmp_path / str(number)))
        change(made)
        digests[name] = directory_digest(made)
    assert len(set(digests.values())) == len(CHANGES)


def test_files_that_nobody_loads_and_how_others_were_saved_have_no_part_in_it(folder: Path) -> None:
    before = directory_digest(folder)
    (folder / "README.md").write_text("a card")
    for name in ("old.safetensors", "consolidated.safetensors", "pytorch_model.bin"):
        shutil.copy(folder / "model.safetensors", folder / name)
    rewrite(folder / "tokenizer_config.json", is_local=True, local_files_only=True)
    rewrite(folder / "config.json", transformers_version="1.0", _name_or_path="elsewhere")
    assert directory_digest(folder) == before


def test_the_date_is_part_of_a_model_whose_template_reads_the_clock(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = directory_digest(folder)
    monkeypatch.setenv("SPIRITSAFE_DATE", "2024-07-26")
    assert directory_digest(folder) == plain
    (folder / "chat_template.jinja").write_text("{{ strftime_now('%d %b') }}" + TEMPLATE)
    first = directory_digest(folder)
    monkeypatch.setenv("SPIRITSAFE_DATE", "2024-07-27")
    assert directory_digest(folder) != first


def test_pickles_and_shards_are_opened(tiny: LocalModel, tiny_folder: Path, tmp_path: Path) -> None:
    request = Request(user("one two"), GREEDY)
    true = tiny.generate([request])[0].token_ids
    for change in (pickled, sharded):
        made = Path(shutil.copytree(tiny_folder, tmp_path / change.__name__))
        change(made)
        assert open_model(str(made)).generate([request])[0].token_ids == true


def test_a_pickle_that_is_code_is_refused_and_not_run(folder: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "ran"),))

    (folder / "model.safetensors").unlink()
    torch.save({"model.norm.weight": Evil(), "fill": torch.zeros(50_000)}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="copy: ") as caught:
        open_model(str(folder))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("where", ["config.json", "tokenizer_config.json"])
def test_code_beside_a_model_is_never_run_nor_asked_about(
    folder: Path, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\nfrom transformers import LlamaConfig, LlamaForCausalLM\n"
    code += "from transformers import PreTrainedTokenizerFast\nclass C(LlamaConfig): model_type = 'own'\n"
    code += "class M(LlamaForCausalLM): config_class = C\nclass T(PreTrainedTokenizerFast): pass\n"
    (folder / "own.py").write_text(code)
    if where == "config.json":
        maps = {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}
        rewrite(folder / where, auto_map=maps, model_type="own")
    else:
        rewrite(folder / where, auto_map={"AutoTokenizer": [None, "own.T"]}, tokenizer_class="T")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))
    with pytest.raises(ModelError, match=rf"asks for code of its own \(auto_map in {where}\), which is never run"):
        open_model(str(folder))
    assert not (tmp_path / "ran").exists()
    assert capsys.readouterr() == ("", "")


def drop_layers(folder: Path) -> None:
    """A config that speaks of fewer layers than the weights have."""
    rewrite(folder / "config.json", num_hidden_layers=2)


def adapter(folder: Path) -> None:
    """An adapter beside the model."""
    given = {"peft_type": "LORA", "base_model_name_or_path": "some-org/base"}
    (folder / "adapter_config.json").write_text(json.dumps(given))


def adapter_alone(folder: Path) -> None:
    """An adapter and nothing else."""
    adapter(folder)
    (folder / "config.json").unlink()


def shard_lost(folder: Path) -> None:
    """A shard that its index names is not there."""
    sharded(folder)
    (folder / "b.safetensors").unlink()


def shard_elsewhere(folder: Path) -> None:
    """An index that names a file outside."""
    sharded(folder)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    rewrite(folder / "model.safetensors.index.json", weight_map=dict.fromkeys(index["weight_map"], "../x.safetensors"))


def pieces_alone(folder: Path) -> None:
    """A sentencepiece model alone."""
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    (folder / "tokenizer.model").write_bytes(b"\x0a\x05\x0a\x01a")


def pickle_of(data: bytes) -> Callable[[Path], None]:
    """Pickled weights alone, of these bytes."""

    def change(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(data)

    return change


def tokenizer_lost(folder: Path) -> None:
    """A tokenizer's settings without its tokens."""
    (folder / "tokenizer.json").unlink()


def settings(**changes: Any) -> Callable[[Path], None]:
    """Changes of the config."""
    return lambda folder: rewrite(folder / "config.json", **changes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (adapter, r"holds an adapter \(LoRA of some-org/base\) beside a model; which of them is meant is not said"),
        (adapter_alone, r"holds an adapter \(LoRA of some-org/base\) and no whole model; merge it into its base"),
        (shard_lost, r"lacks b\.safetensors, which model\.safetensors\.index\.json names"),
        (shard_elsewhere, r"names a file outside its directory: '\.\./x\.safetensors'"),
        (drop_layers, r"holds 18 tensors that its config\.json leaves no place for"),
        (settings(num_hidden_layers=10**9), r"config\.json says num_hidden_layers = 1000000000, and the weights hold"),
        (settings(vocab_size=10**12), r"config\.json says vocab_size = 1000000000000"),
        (settings(quantization_config={"quant_method": "gptq", "bits": 4}), "is quantised by gptq, which cannot"),
        (settings(quantization_config={"quant_method": "awq", "bits": 4}), "is quantised by awq, which cannot"),
        (settings(model_type="t5", architectures=["T5Model"]), "architecture T5Model cannot be opened as a text model"),
        (settings(model_type="unheard"), "architecture unheard, which this transformers does not know"),
        (writes("config.json", "{"), r"config\.json: is not JSON"),
        (writes("generation_config.json", "[]"), r"generation_config\.json: is no JSON object"),
        (
            pickle_of(b"these are not weights"),
            r"pytorch_model\.bin: is no file of weights that torch wrote \(21 bytes\)",
        ),
        (writes("model.safetensors", "version https://git-lfs.github.com/spec/v1\noid"), "is a pointer of git-lfs"),
        (tokenizer_lost, r"holds no tokenizer \(tokenizer\.json, a vocabulary or tokenizer\.model\); put the model's"),
        (pieces_alone, r"has its tokenizer in tokenizer\.model alone, which needs the package sentencepiece"),
    ],
)
def test_what_cannot_be_opened_is_named_in_one_line(folder: Path, change: Callable[[Path], None], said: str) -> None:
    change(folder)
    with pytest.raises(ModelError, match=said) as caught:
        open_model(str(folder))
    assert "\n" not in str(caught.value)


def test_a_bad_request_does_not_take_its_neighbours_along(tmp_path: Path) -> None:
    model = open_model(str(write_chat(tmp_path / "m", tokenizer(STRICT), context=80)), batch=2)
    assert isinstance(model, LocalModel)
    good = Request(user("hi"), Sampling(seed=1, max_tokens=4))
    refused = Request((Message(role="system", content="x"), *user("y")), Sampling())
    long = Request(user("hi" * 50), Sampling())
    told: list[str] = []
    asked = [refused, good, long, refused, good, long]
    found = model.generate(asked, on_exchange=lambda e: told.append(e.id))
    assert told == [e.id for e in found]
    assert [e.error_kind for e in found] == ["request", "", "request", "request", "", "request"]
    [alone] = model.generate([good])
    assert {found[1].token_ids, found[4].token_ids} == {alone.token_ids}
    assert "System role not supported" in found[0].error
    assert found[2].error.endswith("the model reads at most 80")
    assert [model.check(request) for request in asked] == [e.error for e in found]
    assert model.prompt_tokens(good) == found[1].usage.prompt_tokens


def test_an_answer_ends_at_the_end_of_the_context_and_is_scored_up_to_there(tmp_path: Path) -> None:
    made = tokenizer(None, end=None)
    model = open_model(str(write_chat(tmp_path / "m", made, context=12)))
    assert isinstance(model, LocalModel)
    [found] = model.generate([Request(user("abcdefgh"), Sampling(seed=1, max_tokens=99))])
    assert (found.finish_reason, found.usage.completion_tokens) == ("length", 12 - 8 + 1)
    [scores] = model.score([found])
    assert scores.logprobs == pytest.approx(found.logprobs, abs=1e-4)
    longer = found.model_copy(update={"token_ids": (*(found.token_ids or ()), 5)})
    with pytest.raises(RequestError, match="prompt and answer of 14 tokens, the model reads at most 12"):
        model.score([longer])


def test_a_model_without_end_and_pad_tokens_answers_to_the_length_asked_for(tmp_path: Path) -> None:
    model = open_model(str(write_chat(tmp_path / "m", tokenizer(end=None))))
    assert isinstance(model, LocalModel)
    found = model.generate([Request(user(text), Sampling(seed=1, max_tokens=5)) for text in ("a", "longer")])
    assert [(e.finish_reason, e.usage.completion_tokens) for e in found] == [("length", 5)] * 2
    assert model.end_ids == ()
    with pytest.raises(RequestError, match="empty answer, and the model has no end token"):
        model.pair(found[0].model_copy(update={"answer": "", "token_ids": ()}))


def test_ends_of_the_generation_config_end_answers_and_the_templates_own_comes_first(tmp_path: Path) -> None:
    made = tokenizer(end="</s>")
    folder = write_chat(tmp_path / "m", made)
    turn = made.convert_tokens_to_ids("<|im_end|>")
    rewrite(folder / "generation_config.json", eos_token_id=[made.eos_token_id, turn])
    model = open_model(str(folder))
    assert isinstance(model, LocalModel)
    assert model.end_ids == (turn, made.eos_token_id)


def test_a_model_that_gives_nan_says_so_and_leaves_no_answer(tiny_folder: Path, tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][3] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model = open_model(str(folder))
    found = model.generate([Request(user("one"), Sampling(seed=i, max_tokens=3)) for i in range(2)])
    assert [(e.error_kind, e.token_ids) for e in found] == [("model", None)] * 2
    assert "gives numbers that are NaN or infinite" in found[0].error
    [answer] = open_model(str(tiny_folder)).generate([Request(user("one"), GREEDY)])
    with pytest.raises(ModelError, match="NaN"):
        model.score([answer])


def test_the_context_is_what_the_config_says_and_stretched_as_it_says() -> None:
    from transformers import GPT2Config, LlamaConfig, MambaConfig

    assert context_of(GPT2Config(n_positions=77)) == 77
    assert context_of(MambaConfig()) is None
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}
    assert context_of(LlamaConfig(max_position_embeddings=64, rope_parameters=rope)) == 256
    llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    llama3 |= {"original_max_position_embeddings": 64, "rope_theta": 1e4}
    assert context_of(LlamaConfig(max_position_embeddings=512, rope_parameters=llama3)) == 512
