"""Draw a student's answers off a vLLM server that takes the student's weights from disk after each change.

The server must see the same file system. A LoRA student goes through `/v1/load_lora_adapter` (start it with
`--enable-lora` and `VLLM_ALLOW_RUNTIME_LORA_UPDATING=True`), a whole one through `/collective_rpc`
`reload_weights` (`VLLM_SERVER_DEV_MODE=1`, which lets anyone who reaches the port run its methods: keep it
on loopback). Tested against a server of the same wire format; never run against vLLM or a GPU. Not covered:
weights over NCCL, other servers (`return_token_ids` is vLLM's).
"""

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from spiritsafe.errors import EndpointError
from spiritsafe.make.rollout.engine import Drawn
from spiritsafe.models.endpoint import patiently
from spiritsafe.models.refused import NoRoute
from spiritsafe.models.served import Server

# A group's answers of thousands of tokens, or a model that is read from disk.
TIMEOUT_S = 600.0
Ids = tuple[int, ...]


class ServedRollout:
    """The same as `Rollout` where the student runs in a server: `url` ends with `/v1`, `name` is its model there.

    `folder` is where the student is saved at each `refresh()`; only the newest is kept.
    """

    def __init__(self, model: Any, url: str, name: str, *, folder: Path, concurrency: int = 64) -> None:
        self.model, self.url, self.name, self.folder = model, url.rstrip("/"), name, folder
        self.concurrency, self.served = concurrency, name
        self._refreshed = 0
        self._server = Server(self.url)

    def refresh(self) -> None:
        """Save the student and have the server load it. Raises `EndpointError` with what the server said."""
        self._refreshed += 1
        target = (self.folder / str(self._refreshed)).absolute()
        shutil.rmtree(target, ignore_errors=True)
        self.model.save_pretrained(target)
        if hasattr(self.model, "peft_config"):
            self._load_adapter(target)
        else:
            self._post(
                f"{self._root()}/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": str(target)}}
            )
            self._post(f"{self._root()}/reset_prefix_cache", {})
        shutil.rmtree(self.folder / str(self._refreshed - 1), ignore_errors=True)

    def draw(
        self,
        prompts: Sequence[Ids],
        *,
        seeds: Sequence[int],
        max_tokens: int,
        temperature: float = 1.0,
        top_p: float = 1.0,
        group: int = 1,
    ) -> list[Drawn]:
        """As `Rollout.draw`; the draws are the server's own, so its seeds and batches decide which."""
        wanted = [(prompt, seed) for prompt, seed in zip(_repeated(prompts, group), seeds, strict=True)]
        settings = {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p}
        with ThreadPoolExecutor(self.concurrency) as pool:
            return list(pool.map(lambda one: self._ask(one[0], {**settings, "seed": one[1]}), wanted))

    def _ask(self, prompt: Ids, settings: dict[str, Any]) -> Drawn:
        body = {"model": self.served, "prompt": list(prompt), "logprobs": 1, "return_token_ids": True, **settings}
        where = f"{self.url}/completions"
        answer = self._post(where, body)
        try:
            choice = answer["choices"][0]
            ids, logprobs = choice["token_ids"], choice["logprobs"]["token_logprobs"]
            if not ids or len(ids) != len(logprobs):
                raise ValueError(f"{len(ids)} tokens with {len(logprobs)} log-probabilities")
            numbers = tuple(map(int, ids)), tuple(map(float, logprobs))
            return Drawn(prompt, *numbers, None, "length" if choice["finish_reason"] == "length" else "stop")
        except (KeyError, IndexError, TypeError, ValueError) as error:
            what = f"answered without token ids and their log-probabilities ({error})"
            raise EndpointError(where, what, "is it a vLLM that knows return_token_ids?") from None

    def _load_adapter(self, target: Path) -> None:
        # A new name each time: a name that is loaded already is refused, and cached prefixes are by name.
        before, self.served = self.served, f"{self.name}-student-{self._refreshed}"
        self._post(f"{self.url}/load_lora_adapter", {"lora_name": self.served, "lora_path": str(target)})
        if before != self.name:
            self._post(f"{self.url}/unload_lora_adapter", {"lora_name": before})

    def _root(self) -> str:
        return self.url.removesuffix("/v1")

    def _post(self, where: str, body: dict[str, Any]) -> Any:
        return patiently(partial(self._send, where, body))

    def _send(self, where: str, body: dict[str, Any]) -> Any:
        try:
            return self._server.ask("POST", where, body, TIMEOUT_S, wants_json=False)
        except NoRoute as error:
            hint = "start vLLM with VLLM_SERVER_DEV_MODE=1 or, for LoRA, VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
            raise NoRoute(error.where, error.what, hint) from None


def _repeated(prompts: Sequence[Ids], group: int) -> list[Ids]:
    return [tuple(prompt) for prompt in prompts for _ in range(group)]
