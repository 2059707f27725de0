"""Exported GGUF files against the student they were written from, read by llama.cpp.

`kl_nats`: mean KL divergence per token from the student (float32) to the file, over `PROMPTS`. `max_logprob`:
the largest difference of a log-probability over all tokens and positions. Both as llama.cpp reads the file,
which also rounds activations, and as transformers does, which does not. `bytes`: of the file; `seconds`: of
the export, once. `split_otherwise`: texts of `TEXTS` that llama.cpp tokenises otherwise. No peers yet.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from bench import _schema
from bench._llama_cpp import Floats, LlamaCpp
from bench._schema import Row, note
from spiritsafe.make.export import Kind, export
from spiritsafe.make.student import save_student
from spiritsafe.models import Request, open_model, user
from spiritsafe.models.local import LocalModel
from spiritsafe.record import Sampling

PROMPTS = ("What is the capital of France?", "Wie reift Whisky im Fass?", "Write a Python loop.")
NUM_TOKENS = 12
TEXTS = (
    "The cask sleeps in the cellar; it doesn't hurry, and 12345 litres won't either.",
    "Größere Fässer brauchen länger – dafür schmeckt's süß, sagt Käthe (geb. Weiß) 1987.",
    "威士忌在橡木桶里睡了十二年。你好，世界！今天天气很好。",
    "ウイスキーは樽の中で眠る。 위스키는 통 속에서 잠잔다. الويسكي ينام في البرميل",
    "😀 👩‍👩‍👧 🇩🇪 naïve ½ ² \u00a0 ｆｕｌｌ e\u0301",
    "def f(x: int) -> int:\n\treturn x**2  # it's ok\n\n\n    if x >= 10:  \r\n        pass\n",
    "  two  spaces   three\n \n\ttab's I'LL WE'RE 3.14 1e-5 v2.0.1 __init__ a_b",
    "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\nGrüße",
)


@dataclass(frozen=True)
class Compared:
    """How far a file is from its student: mean KL in nats, the largest difference of a log-probability."""

    kl_nats: float
    max_logprob: float


def measure(seed: int) -> list[Row]:
    """Both precisions of the embedded model; greedy answers, so `seed` changes nothing."""
    del seed
    model = open_model("smollm2")
    assert isinstance(model, LocalModel)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "student"
        save_student(model.model, model.tokenizer, folder)
        kinds: tuple[Kind, ...] = ("gguf-f16", "gguf-q8_0")
        for kind in kinds:
            note(kind)
            rows += of_kind(model, folder, kind)
    return rows


def of_kind(model: LocalModel, folder: Path, kind: Kind) -> list[Row]:
    """Export a student, and read it by llama.cpp and by transformers."""
    started = time.perf_counter()
    path = export(folder, folder.parent / f"{kind}.gguf", kind)
    seconds = time.perf_counter() - started
    answers = answers_of(model)
    reader = LlamaCpp(path, num_tokens=model.model.config.vocab_size)
    theirs = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    true = [plain_logprobs(model.model, ids, start) for ids, start in answers]
    read = {
        "llama.cpp": compared(true, [reader.logprobs(ids, start=start) for ids, start in answers]),
        "transformers": compared(true, [plain_logprobs(theirs, ids, start) for ids, start in answers]),
    }
    num, split = sum(map(len, true)), sum(reader.tokens(t) != model.tokenizer(t)["input_ids"] for t in TEXTS)
    return [
        *(Row(f"{kind} by {name}", "kl_nats", found.kl_nats, n=num) for name, found in read.items()),
        *(Row(f"{kind} by {name}", "max_logprob", found.max_logprob, n=num) for name, found in read.items()),
        Row(kind, "split_otherwise", split, n=len(TEXTS)),
        Row(kind, "bytes", path.stat().st_size),
        Row(kind, "seconds", seconds),
    ]


def answers_of(model: LocalModel) -> list[tuple[list[int], int]]:
    """Greedy answers to `PROMPTS`: prompt and answer ids, and how many of them are the prompt."""
    requests = [Request(user(text), Sampling(temperature=0.0, max_tokens=NUM_TOKENS)) for text in PROMPTS]
    pairs = [model.pair(exchange) for exchange in model.generate(requests)]
    return [([*prompt, *answer], len(prompt)) for prompt, answer in pairs]


def plain_logprobs(model: Any, ids: Sequence[int], start: int) -> Floats:
    """Log-probabilities (T, V) after each prefix of at least `start` tokens, by transformers."""
    with torch.inference_mode():
        logits_TV = model(torch.tensor([list(ids)])).logits[0, start - 1 :]
    found: Floats = logits_TV.double().log_softmax(-1).numpy()
    return found


def compared(true: Sequence[Floats], found: Sequence[Floats]) -> Compared:
    """Divergence of log-probabilities (T, V) of several answers."""
    p, q = np.concatenate(list(true)), np.concatenate(list(found))
    return Compared(float((np.exp(p) * (p - q)).sum(-1).mean()), float(np.abs(p - q).max()))


if __name__ == "__main__":
    _schema.main("gguf", measure)
