"""What a server is sent: parameters left out, renamed or added by its host, by the address, and as it refuses them.

An address may end in `?drop=seed,top_p&rename=max_tokens:max_completion_tokens&add=reasoning_effort:low`; `add` may
stand several times, its value is JSON where it can be read as such. What was not sent stands in an exchange's flags
(`unsent:temperature`). Seeds are sent as their last 31 bits: many servers read no more.
"""

import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from spiritsafe.errors import UsageError
from spiritsafe.models.base import Request

# A signed 32-bit number, and none below zero: what llama.cpp, Gemini and JavaScript servers read.
SEED_BITS = 2**31 - 1
# These change how an answer is drawn, and an exchange says that they were not sent. `stop` and the length bound what
# an answer is: a server that does not take them is not asked without.
MAY_GO = ("top_p", "seed", "temperature")
LENGTHS = ("max_tokens", "max_completion_tokens")
REFUSES = re.compile(
    r"unsupported|not (be )?(supported|allowed|permitted)|(does|do) not (support|accept|exist)|unknown|unrecogni[sz]ed|"
    r"cannot both|unexpected|extra (inputs|fields)|invalid|deprecated|only the default|use '",
    re.IGNORECASE,
)

RANGE = re.compile(r"must be|less than|greater than|between|out of range|too (large|small|high|low)", re.IGNORECASE)


@dataclass(frozen=True)
class Options:
    """Parameters left out, renamed and added; `text` is how the address wrote them."""

    drop: frozenset[str] = frozenset()
    rename: Mapping[str, str] = field(default_factory=dict)
    add: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""


def read_options(address: str, query: str) -> Options:
    """The options that follow an address's URL. Raises `UsageError` for one that is not known."""
    drop: set[str] = set()
    rename: dict[str, str] = {}
    add: dict[str, Any] = {}
    for part in filter(None, query.split("&")):
        name, _, value = part.partition("=")
        value = unquote(value)
        old, _, new = value.partition(":")
        if name == "drop" and value:
            drop |= set(value.split(","))
        elif name == "rename" and all(":" in pair for pair in value.split(",")):
            rename |= dict(pair.split(":", 1) for pair in value.split(","))
        elif name == "add" and old and new:
            add[old] = _value(new)
        else:
            hint = "drop=NAME,NAME, rename=OLD:NEW or add=NAME:VALUE; a key never stands in an address"
            raise UsageError(address.partition("?")[0], f"'{name}' is no option of an address", hint)
    if {"model", "messages", "stream", "n"} & {*drop, *rename, *rename.values(), *add}:
        raise UsageError(address.partition("?")[0], "an option names model, messages, stream or n", "leave it out")
    return Options(frozenset(drop), rename, add, query)


def options_of(host: str, name: str, own: Options) -> Options:
    """The address's options on top of what its host is known to want."""
    known = _known(host, name)
    return Options(known.drop | own.drop, {**known.rename, **own.rename}, own.add, own.text)


class Parameters:
    """The parameters of one server: its options, and what it was seen to refuse, once and for all requests."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._lock = threading.Lock()

    def body(self, name: str, request: Request) -> tuple[dict[str, Any], tuple[str, ...]]:
        """The body of a chat completion, and flags for what of the sampling it lacks."""
        options, wanted = self.options, sampling_of(request)
        kept = {options.rename.get(key, key): value for key, value in wanted.items() if key not in options.drop}
        messages = [m.model_dump() for m in request.messages]
        # A top_p of 1 changes nothing, sent or not.
        unsent = tuple(f"unsent:{k}" for k, v in wanted.items() if k in options.drop and (k, v) != ("top_p", 1.0))
        return {"model": name, "messages": messages, **kept, **options.add}, unsent

    def learn(self, sent: Mapping[str, Any], said: str, param: str) -> str:
        """Leave out or rename what a refusal names; what was done in words, "" if it names nothing that can go.

        A change that another thread made since is no news, but the request is worth asking again.
        """
        if not REFUSES.search(said) or RANGE.search(said):
            return ""
        with self._lock:
            for old, new in (LENGTHS, LENGTHS[::-1]):
                if _names(old, said, param) and old in sent and _names(new, said, ""):
                    if self.options.rename.get("max_tokens", "max_tokens") == new:
                        return "as before"
                    return self._change(f"takes '{new}' for '{old}'", rename={"max_tokens": new})
            for key in MAY_GO:
                sent_as = self.options.rename.get(key, key)
                if (key in sent or sent_as in sent) and (_names(key, said, param) or _names(sent_as, said, param)):
                    if key in self.options.drop:
                        return "as before"
                    return self._change(f"does not take '{key}': it is left out from here on", drop=key)
        return ""

    def _change(self, done: str, *, drop: str = "", rename: Mapping[str, str] | None = None) -> str:
        old = self.options
        dropped = old.drop | {drop} if drop else old.drop
        self.options = Options(dropped, {**old.rename, **(rename or {})}, old.add, old.text)
        return done


def sampling_of(request: Request) -> dict[str, Any]:
    """A request's sampling in OpenAI's names. A `top_p` of 1 is left out if greedy: some refuse it there."""
    sampling = request.sampling
    wanted: dict[str, Any] = {"temperature": sampling.temperature}
    # Otherwise it is sent: vLLM would fall back to the model's own generation config, which may say 0.8.
    if sampling.top_p != 1.0 or sampling.temperature > 0:
        wanted["top_p"] = sampling.top_p
    wanted["max_tokens"] = sampling.max_tokens
    if sampling.seed is not None:
        wanted["seed"] = sampling.seed & SEED_BITS
    if sampling.stop:
        wanted["stop"] = list(sampling.stop)
    return wanted


def _known(host: str, name: str) -> Options:
    """What hosts document of their own."""
    if host == "api.openai.com" or host.endswith(".api.openai.com"):
        thinks = re.match(r"o\d|gpt-5(?!.*chat)(-|$)", name)
        drop = frozenset(("temperature", "top_p")) if thinks else frozenset[str]()
        return Options(drop, {"max_tokens": "max_completion_tokens"})
    if host == "api.mistral.ai":
        return Options(rename={"seed": "random_seed"})
    if host == "api.anthropic.com":  # its newer models refuse both at once, and it knows no seed
        return Options(frozenset(("top_p", "seed")))
    return Options()


def _names(key: str, said: str, param: str) -> bool:
    return param == key or re.search(rf"(?<![\w]){re.escape(key)}(?![\w])", said) is not None


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
