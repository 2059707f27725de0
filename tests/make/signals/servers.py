"""A server of log-probabilities with a real tiny model behind it, in the forms that servers have, and spoilt ones."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from spiritsafe.make.signals.token_map import token_bytes
from spiritsafe.models import Request
from spiritsafe.models.decoding.scoring import answer_logprobs
from spiritsafe.models.local import LocalModel
from spiritsafe.record import Message, Sampling

Json = dict[str, Any]


@dataclass
class LogprobServer:
    """Serves `model` as `m`.

    `names`: tokens are told by an `id` field and bytes (`llama.cpp`), by `token_id:N` (`vllm`), by bytes or by text.
    `most` candidates may be asked for. `given` is how it scores prompts. `tempered`: log-probabilities after
    temperature. `spoil` changes a chat choice; after `lives` requests it answers 503.
    """

    model: LocalModel
    names: str = "vllm"
    most: int = 20
    given: str = ""
    tempered: bool = False
    spoil: Callable[[Json], object] = lambda choice: None
    lives: int = 1 << 30
    asked: list[Json] = field(default_factory=list)
    _one: threading.Lock = field(default_factory=threading.Lock)

    def app(self) -> Starlette:
        """The routes."""
        return Starlette(
            routes=[
                Route("/v1/models", self._models),
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
                Route("/v1/completions", self._complete, methods=["POST"]),
            ]
        )

    async def _models(self, request: HttpRequest) -> Response:
        return JSONResponse({"data": [{"id": "m"}]})

    async def _chat(self, request: HttpRequest) -> Response:
        return await run_in_threadpool(self._locked, self.chat, await request.json())

    async def _complete(self, request: HttpRequest) -> Response:
        return await run_in_threadpool(self._locked, self.complete, await request.json())

    def _locked(self, work: Callable[[Json], Json | str], body: Json) -> Response:
        with self._one:
            if len(self.asked) >= self.lives:
                return JSONResponse({"error": {"message": "dead"}}, 503)
            self.asked.append(body)
            found = work(body)
            if isinstance(found, str):
                return JSONResponse({"error": {"message": found}}, 400)
            return Response(json.dumps(found), media_type="application/json")  # NaN too

    def chat(self, body: Json) -> Json | str:
        """A completion, or why not."""
        top = body.get("top_logprobs", 0)
        if top > self.most:
            return f"top_logprobs must be at most {self.most}"
        messages = tuple(Message(**m) for m in body["messages"])
        keys = ("temperature", "top_p", "max_tokens", "seed")
        [exchange] = self.model.generate([Request(messages, Sampling(**{k: body[k] for k in keys if k in body}))])
        prompt, answer = self.model.pair(exchange)
        rows = self._rows(prompt, answer, body["temperature"] if self.tempered else 1.0)
        content = [
            {**self._token(t, float(row[t])), "top_logprobs": self._tops(row, top)}
            for t, row in zip(answer, rows, strict=True)
        ]
        choice: Json = {
            "index": 0,
            "message": {"role": "assistant", "content": exchange.answer},
            "finish_reason": exchange.finish_reason,
            "logprobs": {"content": content},
        }
        self.spoil(choice)
        return {"choices": [choice], "usage": {"prompt_tokens": len(prompt), "completion_tokens": len(answer)}}

    def complete(self, body: Json) -> Json | str:
        """A completion of given token ids by one token, with what `given` says of the prompt's."""
        if not self.given:
            return "no such route"
        ids = tuple(body["prompt"])
        rows = self._rows(ids[:1], (*ids[1:], 0))
        drawn, choice = int(rows[-1].argmax()), {"index": 0, "text": "", "finish_reason": "length"}
        told = list(zip(ids[1:], rows, strict=False))
        if self.given == "prompt_logprobs" and "prompt_logprobs" in body:
            by_id = [self._by_id(t, row, body["prompt_logprobs"]) for t, row in told]
            choice["prompt_logprobs"] = [None, *by_id]
        elif self.given == "echo" and body.get("echo"):
            told.append((drawn, rows[-1]))
            tops = [
                {f"token_id:{i}": float(row[i]) for i in row.topk(body["logprobs"]).indices.tolist()} for _, row in told
            ]
            names = [f"token_id:{t}" for t in (*ids, drawn)]
            own = [None, *(float(row[t]) for t, row in told)]
            choice["logprobs"] = {"tokens": names, "token_logprobs": own, "top_logprobs": [None, *tops]}
        elif self.given == "prefixes" and "logprobs" in body:
            entry = {
                **self._token(drawn, float(rows[-1][drawn])),
                "top_logprobs": self._tops(rows[-1], body["logprobs"]),
            }
            choice["logprobs"] = {"content": [entry]}
        return {"choices": [choice]}

    def _rows(self, prompt: tuple[int, ...], answer: tuple[int, ...], temperature: float = 1.0) -> torch.Tensor:
        with torch.inference_mode():
            [rows] = answer_logprobs(self.model.model, [(prompt, answer)], pad_id=self.model.pad_id)
        return (rows / temperature).log_softmax(-1) if temperature else rows

    def _tops(self, row: torch.Tensor, top: int) -> list[Json]:
        return [self._token(i, float(row[i])) for i in row.topk(min(top, len(row))).indices.tolist()]

    def _by_id(self, token: int, row: torch.Tensor, top: int) -> Json:
        ids = dict.fromkeys([token, *row.topk(min(top, len(row))).indices.tolist()])
        return {str(i): {"logprob": float(row[i]), "decoded_token": self._raw(i).decode(errors="replace")} for i in ids}

    def _token(self, i: int, logprob: float) -> Json:
        if self.names == "vllm":
            name = f"token_id:{i}"
            return {"token": name, "logprob": logprob, "bytes": list(name.encode())}
        raw = b"" if i in self.model.tokenizer.all_special_ids else self._raw(i)
        text = raw.decode(errors="replace")
        if self.names == "text":
            return {"token": text, "logprob": logprob, "bytes": None}
        more = {"id": i} if self.names == "llama.cpp" else {}
        return {"token": text, "logprob": logprob, "bytes": list(raw), **more}

    def _raw(self, i: int) -> bytes:
        return token_bytes(self.model.tokenizer.convert_ids_to_tokens(i), byte_level=True)
