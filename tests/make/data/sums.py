"""A teacher that adds numbers, rightly most of the time: small, and its mistakes follow from the seed."""

import random
import time
from collections.abc import Sequence

from spiritsafe.models.base import OnExchange, OnText, Request, Scores, identity, told, user
from spiritsafe.prompts import Prompt
from spiritsafe.record import Exchange, Usage, digest_of, prompt_digest


def problem(a: int, b: int) -> Prompt:
    """A sum to find."""
    messages = user(f"Tom has {a} marbles and finds {b} more. How many has he now?")
    options = {"answer": str(a + b)}
    return Prompt(digest=prompt_digest(messages), messages=messages, split="train", source="sums", options=options)


class Sums:
    """Right with probability `skill`; sums above 100 are always wrong, those with 0 always right."""

    def __init__(self, *, skill: float = 0.6, pause_s: float = 0.0) -> None:
        self.address, self.skill, self.pause_s, self.batch = f"sums:{skill}", skill, pause_s, 4
        self.digest = digest_of(self.address)

    def generate(
        self, requests: Sequence[Request], *, on_exchange: OnExchange | None = None, on_text: OnText | None = None
    ) -> list[Exchange]:
        """Answer every request, in order."""
        return told(map(self._answer, requests), on_exchange, on_text)

    def score(self, exchanges: Sequence[Exchange], *, top_k: int = 0) -> list[Scores]:
        """Not used."""
        raise NotImplementedError

    def _answer(self, request: Request) -> Exchange:
        time.sleep(self.pause_s)
        words = request.messages[0].content.split()
        a, b = int(words[2]), int(words[6])
        draw = random.Random(request.sampling.seed)
        right = a * b == 0 or (a + b <= 100 and draw.random() < self.skill)
        filler = " ".join(draw.choices(["well", "so", "then", "we", "count", "slowly", "marbles"], k=draw.randrange(9)))
        text = f"{filler} {a} plus {b} makes \\boxed{{{a + b if right else a + b + 1}}}"
        usage = Usage(prompt_tokens=12, completion_tokens=10)
        return Exchange(**identity(self.address, self.digest, request), answer=text, usage=usage)
