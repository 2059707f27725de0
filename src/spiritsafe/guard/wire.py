"""OpenAI's wire format of chat completions: what comes in, what goes out. No behaviour.

A field that would change the answer and is not obeyed is refused by its name; other unknown fields are ignored.
Tools, images and audio are not served; tool calls and their results in a history are read as text.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from spiritsafe.guard.waiting import Answered
from spiritsafe.record import Exchange, Message, Sampling

Json = dict[str, Any]
Stop = Annotated[str, Field(min_length=1)]
# As OpenAI's API has them: "5", 5.0 and true are no whole numbers, "1" and true no numbers, "yes" and 1 not true.
Whole = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True)]  # a whole number too
Truth = Annotated[bool, Field(strict=True)]
# Turns, parts and tool calls of one request: OpenAI's own bound for messages. Each costs some 0.05 ms of one
# interpreter, which all requests share, whatever it says; what is said is bounded by the body's bytes.
MOST_MESSAGES = 2048


def _unless(*neutral: Any) -> Callable[[Any], Any]:
    """Accepts only values under which a field changes nothing: what is not obeyed is not taken either."""

    def check(value: Any) -> Any:
        if not any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in neutral):
            raise ValueError("is not served here; leave it out")
        return value

    return check


Nothing = Annotated[Any, AfterValidator(_unless(None))]


@dataclass(frozen=True)
class Head:
    """What all parts of one completion share; `created_at_s` in seconds since the epoch."""

    name: str
    identity: str
    created_at_s: float


class Wire(BaseModel):
    """Base of what clients send."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Part(Wire):
    """A part of a message's content; only text is served, of which a refusal is the assistant's."""

    type: Literal["text", "refusal"]
    text: str = ""
    refusal: str = ""


class CalledFunction(Wire):
    """What a tool call in a history names."""

    name: str
    arguments: str = ""


class ToolCall(Wire):
    """A tool call in a history; it is passed on as text."""

    function: CalledFunction


def _served(value: Any) -> Any:
    """A message's content if it is text; what is not served is refused by its name."""
    if value is not None and not isinstance(value, str | list):
        raise ValueError("is neither text nor a list of parts")
    for part in value if isinstance(value, list) else ():
        kind = str(part.get("type", "")) if isinstance(part, dict) else ""
        named = next((many for word, many in KINDS.items() if word in kind), "")
        if named:
            raise ValueError(f"{named} are not served, only text")
        if kind not in ("text", "refusal") or not isinstance(part.get(kind), str):
            raise ValueError("holds a part that is no text")
    return value


def _counted(value: Any) -> Any:
    """Messages, if they are not too many: counted before anything is made of them."""
    num = len(value) if isinstance(value, list) else 0
    if num <= MOST_MESSAGES:
        lists = [held for turn in value for held in _lists_of(turn)] if num else []
        num += sum(map(len, lists))
    if num > MOST_MESSAGES:
        raise ValueError(f"holds more than {MOST_MESSAGES} turns, parts and tool calls")
    return value


def _lists_of(turn: Any) -> list[list[Any]]:
    held = (turn.get("content"), turn.get("tool_calls")) if isinstance(turn, dict) else ()
    return [each for each in held if isinstance(each, list)]


KINDS = {"image": "images", "audio": "audio parts", "file": "files", "video": "videos"}


class WireMessage(Wire):
    """One turn; `developer` is OpenAI's newer word for `system`. An assistant's may be without text."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[str | list[Part] | None, BeforeValidator(_served)] = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    audio: Nothing = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.content is None and self.role != "assistant":
            raise ValueError(f"content: a turn of role {self.role} needs text")
        refuses = isinstance(self.content, list) and any(part.type == "refusal" for part in self.content)
        if refuses and self.role != "assistant":
            raise ValueError(f"content: a turn of role {self.role} holds a refusal, which is the assistant's")
        return self


class StreamOptions(Wire):
    """What a stream tells at its end."""

    include_usage: Truth = False


def _seed(value: Any) -> Any:
    return None if value == -1 else value  # what several clients send for any seed


def _stops(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class ChatBody(Wire):
    """The body of `POST /v1/chat/completions`. `None` stands for the default everywhere."""

    model: str
    messages: Annotated[Annotated[list[WireMessage], Field(min_length=1)], BeforeValidator(_counted)]
    temperature: Number | None = Field(default=None, ge=0, le=2)
    top_p: Number | None = Field(default=None, gt=0, le=1)
    max_tokens: Whole | None = Field(default=None, ge=1, le=32768)
    max_completion_tokens: Whole | None = Field(default=None, ge=1, le=32768)
    stop: Annotated[Annotated[list[Stop], Field(max_length=4)] | None, BeforeValidator(_stops)] = None
    seed: Annotated[Annotated[Whole, Field(ge=0, lt=2**63)] | None, BeforeValidator(_seed)] = None
    stream: Truth | None = None
    stream_options: StreamOptions | None = None
    n: Whole | None = Field(default=None, ge=1, le=64)
    logprobs: Truth | None = None
    top_logprobs: Whole | None = Field(default=None, ge=0, le=254)
    tools: Annotated[Any, AfterValidator(_unless(None, []))] = None
    tool_choice: Annotated[Any, AfterValidator(_unless(None, "none", "auto"))] = None
    functions: Annotated[Any, AfterValidator(_unless(None, []))] = None
    function_call: Annotated[Any, AfterValidator(_unless(None, "none", "auto"))] = None
    response_format: Annotated[Any, AfterValidator(_unless(None, {"type": "text"}))] = None
    modalities: Annotated[Any, AfterValidator(_unless(None, [], ["text"]))] = None
    audio: Nothing = None
    web_search_options: Nothing = None
    logit_bias: Annotated[Any, AfterValidator(_unless(None, {}))] = None
    frequency_penalty: Annotated[Any, AfterValidator(_unless(None, 0))] = None
    presence_penalty: Annotated[Any, AfterValidator(_unless(None, 0))] = None
    repetition_penalty: Annotated[Any, AfterValidator(_unless(None, 1))] = None
    top_k: Annotated[Any, AfterValidator(_unless(None, 0, -1))] = None
    min_p: Annotated[Any, AfterValidator(_unless(None, 0))] = None
    min_tokens: Annotated[Any, AfterValidator(_unless(None, 0))] = None
    reasoning_effort: Annotated[Any, AfterValidator(_unless(None, "none"))] = None
    verbosity: Annotated[Any, AfterValidator(_unless(None, "medium"))] = None
    thinking: Annotated[Any, AfterValidator(_unless(None, {"type": "disabled"}))] = None
    chat_template_kwargs: Annotated[Any, AfterValidator(_unless(None, {}))] = None
    structured_outputs: Nothing = None
    guided_json: Nothing = None
    guided_regex: Nothing = None
    guided_choice: Nothing = None
    guided_grammar: Nothing = None
    ignore_eos: Annotated[Any, AfterValidator(_unless(None, False))] = None

    @model_validator(mode="after")
    def _has_one_bound(self) -> Self:
        newer, older = self.max_completion_tokens, self.max_tokens
        if newer is not None and older is not None and newer != older:
            raise ValueError(f"max_completion_tokens: is {newer} and max_tokens {older}; send one of them")
        return self


def messages_of(body: ChatBody) -> tuple[Message, ...]:
    """The prompt as records."""
    return tuple(Message(role=_role(message.role), content=_said(message)) for message in body.messages)


def sampling_of(body: ChatBody, *, max_tokens: int, seed: int) -> Sampling:
    """The settings with every default made explicit."""
    return Sampling(
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        max_tokens=body.max_completion_tokens or body.max_tokens or max_tokens,
        stop=tuple(body.stop or ()),
        seed=seed,
    )


def completion(head: Head, answered: Sequence[Answered], body: ChatBody) -> Json:
    """A `chat.completion` of one choice for each answer."""
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": one.exchange.answer, "refusal": None},
            "logprobs": logprobs_of(one, body),
            "finish_reason": one.exchange.finish_reason,
        }
        for index, one in enumerate(answered)
    ]
    return {
        **_head(head, "chat.completion"),
        "choices": choices,
        "usage": usage_of([one.exchange for one in answered]),
    }


def chunk(head: Head, index: int, delta: Json, finish: str | None = None, logprobs: Any = None) -> Json:
    """A `chat.completion.chunk` with a piece of one choice."""
    choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
    return {**_head(head, "chat.completion.chunk"), "choices": [choice]}


def usage_chunk(head: Head, exchanges: Sequence[Exchange]) -> Json:
    """The last chunk of a stream whose client asked for `include_usage`."""
    return {**_head(head, "chat.completion.chunk"), "choices": [], "usage": usage_of(exchanges)}


def usage_of(exchanges: Sequence[Exchange]) -> Json:
    """Tokens read and written; a prompt that several choices share counts once."""
    read = exchanges[0].usage.prompt_tokens
    written = sum(exchange.usage.completion_tokens for exchange in exchanges)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def logprobs_of(answered: Answered, body: ChatBody) -> Json | None:
    """What the client wants of the log-probabilities at temperature 1, in nats; None where it wants or there is none.

    A token is named by its id, as in vLLM's `return_tokens_as_token_ids`.
    """
    exchange, scores, top = answered.exchange, answered.scores, body.top_logprobs or 0
    if not body.logprobs or exchange.token_ids is None or exchange.logprobs is None:
        return None
    tops: list[list[Json]] = [[] for _ in exchange.token_ids]
    if scores:
        rows = zip(scores.top_ids, scores.top_logprobs, strict=True)
        tops = [[_token(i, p) for i, p in zip(ids[:top], found[:top], strict=True)] for ids, found in rows]
    own = zip(exchange.token_ids, exchange.logprobs, tops, strict=True)
    return {"content": [_token(i, p) | {"top_logprobs": row} for i, p, row in own], "refusal": None}


def error_body(message: str, kind: str, *, param: str | None = None, code: str | None = None) -> Json:
    """OpenAI's error JSON."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def model_list(name: str, created_at_s: float) -> Json:
    """The body of `/v1/models`."""
    entry = {"id": name, "object": "model", "created": int(created_at_s), "owned_by": "spiritsafe"}
    return {"object": "list", "data": [entry]}


def explain(error: Mapping[str, Any]) -> tuple[str, str]:
    """A pydantic error as (message, param)."""
    param = ".".join(str(part) for part in error["loc"])
    said = str(error["msg"]).removeprefix("Value error, ")
    field, colon, rest = said.partition(": ")
    if error["type"] == "value_error" and colon and field.isidentifier():  # found by a look at several fields
        param = f"{param}.{field}" if param else field
        said = rest
    return f"{param or 'body'}: {said}", param


def _token(id_: int, logprob: float) -> Json:
    # OpenAI's own word for a token that cannot be; JSON has no infinity.
    return {"token": f"token_id:{id_}", "logprob": max(logprob, -9999.0), "bytes": None}


def _head(head: Head, kind: str) -> Json:
    return {"id": head.identity, "object": kind, "created": int(head.created_at_s), "model": head.name}


def _role(role: str) -> Any:
    return "system" if role == "developer" else role


def _said(message: WireMessage) -> str:
    """All text of a turn: its content, its refusal, and tools that it called as `NAME(ARGUMENTS)`."""
    held = message.content
    parts = () if isinstance(held, str) else held or ()
    content = held if isinstance(held, str) else "".join(getattr(part, part.type) for part in parts)
    called = [f"{call.function.name}({call.function.arguments})" for call in message.tool_calls or ()]
    return "\n".join(part for part in (content, message.refusal, *called) if part)
