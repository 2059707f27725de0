"""What a server tells of its model's distribution, found out by asking it small questions.

Nothing is believed because of a server's name or version: whether there are log-probabilities, how many
candidates, by what names, of which distribution, of given texts too, the same twice.
"""

import math
from typing import Any, Literal

from spiritsafe.errors import EndpointError
from spiritsafe.make.signals.token_map import TokenMap
from spiritsafe.make.signals.wire import Position, chat_positions, checked_mass, prompt_positions
from spiritsafe.models.base import Request, user
from spiritsafe.models.endpoint import EndpointModel, patiently
from spiritsafe.models.refused import Busy
from spiritsafe.record import Record, Sampling, digest_of

QUESTIONS = ("What is the capital of France?", "Count from one to ten.", "Write a sentence about rain.")
GIVEN = "The rain in Spain stays mainly in the plain."
MOST = 20
AS_IDS = {"return_tokens_as_token_ids": True}
SWITCHED_OFF = "switch log-probabilities on at the server, or learn from its text"

Json = dict[str, Any]
Given = Literal["prompt_logprobs", "echo", "prefixes", ""]


class Capabilities(Record):
    """What a server can say of its model.

    `top` candidates a token are told where `asked` are asked for; `as_ids`: it takes vLLM's wish to be told ids
    (`return_tokens_as_token_ids`); `names` how tokens are told; `distribution` whether log-probabilities are the
    model's own (`raw`) or those after temperature (`tempered`); `sum` the largest of all sums seen; `end`
    whether the token that ends an answer is told; `given` by which way given texts are scored ("": not at
    all); `unmapped` the share of the mass seen that is on tokens that are none of the student's (None: no
    student was named). `identity` is a digest of the model's name and, where it answers the same twice, its
    answers: not of its address. `refusal` says why it cannot serve as a teacher of distributions; "": it can.
    """

    model: str
    top: int = 0
    asked: int = 0
    as_ids: bool = False
    names: Literal["ids", "bytes", "text", ""] = ""
    distribution: Literal["raw", "tempered", "unclear", ""] = ""
    sum: float = 0.0
    end: bool = False
    given: Given = ""
    deterministic: bool = False
    unmapped: float | None = None
    identity: str = ""
    requests: int = 0
    refusal: str = ""


def probe(
    model: EndpointModel, tokens: TokenMap | None = None, *, wanted: int = MOST, max_unmapped: float = 0.02
) -> Capabilities:
    """Ask up to about 20 small questions; `tokens` are the student's, who wants `wanted` candidates.

    Raises `EndpointError` where the server is out of reach or refuses the key.
    """
    asker = _Asker(model)
    extra, refusal = asker.extra(wanted)
    if refusal:
        return Capabilities(model=model.name, requests=asker.requests, refusal=refusal)
    seen, same = asker.answers(extra)
    positions = [p for _, part in seen for p in part]
    texts = [text for text, _ in seen]
    return _judged(
        Capabilities(
            model=model.name,
            top=min(extra["top_logprobs"], max(len(p.candidates) for p in positions)),
            asked=extra["top_logprobs"],
            as_ids=len(extra) > 2,
            names=_names(positions),
            distribution=asker.distribution(extra),
            sum=max(math.fsum(math.exp(x) for _, x in p.candidates if x < 1) for p in positions),
            end=tokens is not None and any(_ends(part, tokens) for _, part in seen),
            given=asker.given(tokens, extra),
            deterministic=same,
            unmapped=None if tokens is None else _unmapped(positions, tokens),
            identity=digest_of(["server", model.name, texts if same else []]),
            requests=asker.requests,
        ),
        positions,
        model.address,
        max_unmapped,
    )


def fields_of(can: Capabilities) -> Json:
    """The fields of a chat completion that bring the most log-probabilities."""
    return {"logprobs": True, "top_logprobs": can.asked} | (AS_IDS if can.as_ids else {})


class _Asker:
    """The questions, counted."""

    def __init__(self, model: EndpointModel) -> None:
        self.model, self.requests = model, 0

    def extra(self, wanted: int) -> tuple[Json, str]:
        """The fields that bring the most log-probabilities, or why none do. Servers refuse fields they do not know."""
        said = ""
        for top in dict.fromkeys((wanted, MOST, 5, 1)):
            for more in (AS_IDS, {}):
                extra: Json = {"logprobs": True, "top_logprobs": top, **more}
                try:
                    _, positions = self.answer(QUESTIONS[0], extra, Sampling(temperature=0, max_tokens=2, seed=1))
                except Busy:
                    raise
                except EndpointError as error:
                    said = said or error.what
                    continue
                if max(len(p.candidates) for p in positions) > 1:
                    return extra, ""
                said = "tells the log-probability of one token alone at each place, of no other candidate"
        return {}, f"{said}; {SWITCHED_OFF}"

    def answer(self, question: str, extra: Json, sampling: Sampling) -> tuple[str, list[Position]]:
        """One answer and its positions."""
        self.requests += 1
        request = Request(user(question), sampling)
        exchange, choice = patiently(lambda: self.model.answer_with(request, extra))
        return exchange.answer, chat_positions(choice, self.model.address)

    def answers(self, extra: Json) -> tuple[list[tuple[str, list[Position]]], bool]:
        """Greedy answers to all questions, and whether they are the same when asked again."""
        greedy = Sampling(temperature=0, max_tokens=12, seed=1)
        first, second = ([self.answer(q, extra, greedy) for q in QUESTIONS] for _ in range(2))
        return first, [text for text, _ in first] == [text for text, _ in second]

    def distribution(self, extra: Json) -> Literal["raw", "tempered", "unclear"]:
        """Whether the first token's log-probabilities stay as they are when the temperature changes."""
        told = [self.answer(QUESTIONS[2], extra, Sampling(temperature=t, max_tokens=1, seed=1))[1][0] for t in (1, 0.5)]
        warm, cold = (dict(p.candidates) for p in told)
        shared = [t for t in warm if t in cold and warm[t] > -20]
        if len(shared) < 2:
            return "unclear"
        if max(abs(warm[t] - cold[t]) for t in shared) < 0.05:
            return "raw"
        first = shared[0]
        apart = [abs((cold[t] - cold[first]) - 2 * (warm[t] - warm[first])) for t in shared]
        return "tempered" if max(apart) < 0.1 else "unclear"

    def given(self, tokens: TokenMap | None, extra: Json) -> Given:
        """How the server scores a given text. A way it does not know it refuses or leaves out of its answer."""
        prompt = GIVEN if tokens is None else tokens.tokenizer(GIVEN, add_special_tokens=False)["input_ids"]
        ways: dict[Given, Json] = {"prompt_logprobs": {"prompt_logprobs": 2}, "echo": {"echo": True, "logprobs": 2}}
        for way, fields in ways.items():
            data = self._complete(prompt, fields)
            told = (data.get("choices") or [{}])[0]
            num = len(prompt) if tokens else _told(told, data)
            if num > 1 and prompt_positions(told, data, num, self.model.address):
                return way
        if tokens and _next_position(self._complete(prompt[:4], {"logprobs": 2, "temperature": 1.0})):
            return "prefixes"
        return ""

    def _complete(self, prompt: Any, fields: Json) -> Json:
        self.requests += 1
        body = {"model": self.model.name, "prompt": prompt, "max_tokens": 1, "seed": 1, **fields}
        try:
            return patiently(lambda: self.model.post("/completions", body))
        except EndpointError as error:
            if isinstance(error, Busy) and error.status is None:
                raise
            return {}


def _told(choice: Json, data: Json) -> int:
    """How many tokens of a prompt a server speaks of."""
    found = choice.get("prompt_logprobs", data.get("prompt_logprobs"))
    return len(found) if isinstance(found, list) else len((choice.get("logprobs") or {}).get("tokens") or [])


def _next_position(data: Json) -> bool:
    """Whether a completion of given token ids tells its next token's candidates, in OpenAI's chat form."""
    told = ((data.get("choices") or [{}])[0].get("logprobs") or {}).get("content")
    return isinstance(told, list) and len(told) > 0 and len(told[0].get("top_logprobs") or []) > 1


def _names(positions: list[Position]) -> Literal["ids", "bytes", "text"]:
    every = [t for p in positions for t, _ in p.candidates]
    if all(t.id_ is not None for t in every):
        return "ids"
    return "bytes" if any(t.bytes_ is not None for t in every) else "text"


def _ends(positions: list[Position], tokens: TokenMap) -> bool:
    last = tokens.id_of(positions[-1].token)
    return last is not None and last in tokens.tokenizer.all_special_ids


def _unmapped(positions: list[Position], tokens: TokenMap) -> float:
    every = [(t, math.exp(min(0.0, x))) for p in positions for t, x in p.candidates]
    return math.fsum(m for t, m in every if tokens.id_of(t) is None) / max(math.fsum(m for _, m in every), 1e-30)


def _judged(found: Capabilities, positions: list[Position], where: str, max_unmapped: float) -> Capabilities:
    """The capabilities with what stands against the server as a teacher."""
    refusal = ""
    try:
        for number, position in enumerate(positions):
            checked_mass(position, number, where)
    except EndpointError as error:
        refusal = error.what
    if not refusal and found.unmapped is not None and found.unmapped > max_unmapped:
        share = f"{found.unmapped:.1%} of the mass it tells is on tokens that are none of the student's"
        refusal = f"{share}, more than {max_unmapped:.1%}; the student needs the teacher's tokenizer"
    return found.model_copy(update={"refusal": refusal})
