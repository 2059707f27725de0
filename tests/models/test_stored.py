"""A model whose answers are kept: nothing is asked twice, in this process or the next."""

from pathlib import Path

from spiritsafe.models import Request, ask, open_model, user
from spiritsafe.models.stored import Stored
from spiritsafe.record import Exchange, Sampling, read_jsonl


class Counting:
    """A fake model that counts what it is asked."""

    def __init__(self) -> None:
        self.inner, self.asked = open_model("fake:random"), list[Request]()
        self.address, self.digest, self.score = self.inner.address, self.inner.digest, self.inner.score

    def generate(self, requests, **told):  # type: ignore[no-untyped-def]
        """As the fake model."""
        self.asked += requests
        return self.inner.generate(requests, **told)


def test_an_equal_request_is_answered_from_the_file(tmp_path: Path) -> None:
    path, model = tmp_path / "judge.jsonl", Counting()
    requests = ask([user("one"), user("two"), user("one")], Sampling(seed=1))
    first = Stored(model, path).generate(requests)
    assert [e.messages for e in first] == [r.messages for r in requests]
    assert len(model.asked) == len(read_jsonl(path, Exchange)) == 2
    with path.open("a") as file:
        file.write('{"id": "ha')  # killed while it wrote
    seen: list[str] = []
    again = Stored(model, path).generate(
        [*requests, *ask([user("six")], Sampling())], on_exchange=lambda e: seen.append(e.id)
    )
    assert again[:3] == first
    assert seen == [e.id for e in again]
    assert len(model.asked) == len(read_jsonl(path, Exchange)) == 3
