"""A real server of another make: llama.cpp's, on a GGUF file that we wrote, tells what the local model says."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import xllamacpp

from spiritsafe.cli import main
from spiritsafe.make.data.collect import stored
from spiritsafe.make.data.settings import CollectPart
from spiritsafe.make.export import export
from spiritsafe.make.signals.server import ServerTeacher, ask_with_signals, fill_from_said, fill_given
from spiritsafe.make.student import save_student
from spiritsafe.models import ask, open_model, user
from spiritsafe.models.endpoint import EndpointModel
from spiritsafe.models.local import LocalModel
from spiritsafe.record import Sampling
from tests.make.signals.test_server import assert_like_local

pytestmark = pytest.mark.slow

PROMPTS = ("What is a cask?", "Name three rivers.", "Why is the sky blue?", "Say hello in French.", "Count to five.")
PART = CollectPart(tries=2, concurrency=2, max_failed=0.5)


@pytest.fixture(scope="module")
def smollm2() -> LocalModel:
    """The real model."""
    found = open_model("smollm2")
    assert isinstance(found, LocalModel)
    return found


@pytest.fixture(scope="module")
def served(smollm2: LocalModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointModel]:
    """The same model as a GGUF file of f16, behind llama.cpp's server in this process."""
    folder = tmp_path_factory.mktemp("llama")
    save_student(smollm2.model, smollm2.tokenizer, folder / "m")
    path = export(folder / "m", folder / "m.gguf", "gguf-f16")
    settings = xllamacpp.CommonParams()
    settings.model.path, settings.model_alias = str(path), {"m"}
    settings.n_ctx, settings.n_parallel, settings.n_gpu_layers, settings.port = 1024, 2, 0, 0
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
    settings.warmup, settings.verbosity = False, -1
    server = xllamacpp.Server(settings)
    found = open_model(f"openai:m@{server.listening_address}/v1")
    assert isinstance(found, EndpointModel)
    yield found
    del server


def test_llama_cpp_s_server_tells_what_the_local_model_says(
    smollm2: LocalModel, served: EndpointModel, tmp_path: Path
) -> None:
    vocab = smollm2.model.config.vocab_size
    teacher = ServerTeacher(served, smollm2.tokenizer, vocab, tmp_path / "a.said", num=50)
    can: Any = teacher.can
    assert (can.top, can.names, can.distribution, can.given) == (50, "ids", "raw", "prefixes")
    assert can.deterministic
    assert can.end
    assert can.unmapped == 0
    requests = ask([user(p) for p in PROMPTS], Sampling(seed=3, max_tokens=12))
    asked = ask_with_signals(teacher, requests, tmp_path / "a.jsonl", PART)
    answers = stored(tmp_path / "a.jsonl", teacher.digest, requests)
    assert len(answers) == asked.answered >= 3
    fill_from_said(teacher, answers, tmp_path / "cache")
    assert_like_local(tmp_path, smollm2, answers, 50, least=0.01)


def test_llama_cpp_s_server_scores_given_answers_token_by_token(
    smollm2: LocalModel, served: EndpointModel, tmp_path: Path
) -> None:
    vocab = smollm2.model.config.vocab_size
    teacher = ServerTeacher(served, smollm2.tokenizer, vocab, tmp_path / "a.said", num=50)
    answers = smollm2.generate(ask([user(p) for p in PROMPTS[:3]], Sampling(seed=9, max_tokens=10)))
    heard = fill_given(teacher, answers, smollm2.pair, tmp_path / "cache", concurrency=2)
    assert heard.tokens == sum(len(a.token_ids or ()) for a in answers)
    assert_like_local(tmp_path, smollm2, answers, 50, least=0.01)


def test_the_command_line_s_probe_says_what_llama_cpp_s_server_allows(
    served: EndpointModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    monkeypatch.setattr(
        sys, "argv", ["spiritsafe", "make", served.address, "--student", "smollm2", "--probe", "--json"]
    )
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert (end.value.code, said.err) == (0, "")
    assert (found["gives"], found["told"]["top"], found["told"]["distribution"]) == ("server", 20, "raw")
    assert (found["told"]["given"], found["told"]["unmapped"]) == ("prefixes", 0.0)
    assert [name for name, why in found["methods"].items() if not why] == ["text", "cached", "judged"]
