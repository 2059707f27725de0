"""llama.cpp as an independent reader of GGUF files, by the wheel `xllamacpp`: log-probabilities and token ids.

Its server runs inside this process, on one thread, its keys and values in float32.
"""

import json
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xllamacpp

Floats = np.ndarray[Any, np.dtype[np.float64]]


class LlamaCpp:
    """One GGUF file, opened by llama.cpp."""

    def __init__(self, path: Path, *, num_tokens: int, context: int = 256) -> None:
        settings = xllamacpp.CommonParams()
        settings.model.path = str(path)
        settings.n_ctx, settings.n_parallel, settings.n_gpu_layers, settings.port = context, 1, 0, 0
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
        settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        settings.warmup, settings.verbosity = False, -1
        self._server, self._num_tokens = xllamacpp.Server(settings), num_tokens
        self._plain = self.tokens("a")[-1]

    def logprobs(self, ids: Sequence[int], *, start: int = 1) -> Floats:
        """Log-probabilities (T, V) in nats of the token after each prefix of at least `start` tokens."""
        return np.stack([self._next(ids[:end]) for end in range(start, len(ids) + 1)])

    def tokens(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids of a text; `special` is what the model puts around a text by itself."""
        body = json.dumps({"content": text, "parse_special": True, "add_special": special}).encode()
        asked = urllib.request.Request(
            f"{self._server.listening_address}/tokenize", body, {"content-type": "application/json"}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(asked) as answer:
            found: list[int] = json.load(answer)["tokens"]
        return found

    def _next(self, prefix: Sequence[int]) -> Floats:
        asked = {"prompt": list(prefix), "n_predict": 1, "n_probs": self._num_tokens, "seed": 0}
        # An end token or half a character would come without log-probabilities, which are those before the bias.
        answer = self._server.handle_completions(asked | {"logit_bias": [[self._plain, 1e6]]})
        found = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        row = np.full(self._num_tokens, -np.inf)
        row[[each["id"] for each in found]] = [each["logprob"] for each in found]
        row -= np.log(np.exp(row).sum())  # its own sum is 1 to about 2e-4
        return row
