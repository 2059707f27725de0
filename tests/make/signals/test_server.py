"""Signals from servers: what a probe finds out, what is captured, what is refused, and what a death leaves."""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

from spiritsafe.errors import DataError, EndpointError, RecipeError
from spiritsafe.guard.app import create_app
from spiritsafe.guard.keys import Keys
from spiritsafe.guard.server import serving
from spiritsafe.make.data.collect import stored
from spiritsafe.make.data.settings import CollectPart
from spiritsafe.make.signals.local import fill
from spiritsafe.make.signals.probe import probe
from spiritsafe.make.signals.reader import SignalCache
from spiritsafe.make.signals.sample import Keep
from spiritsafe.make.signals.server import ServerTeacher, ask_with_signals, fill_from_said, fill_given
from spiritsafe.make.signals.token_map import TokenMap
from spiritsafe.models import Request, ask, endpoint, open_model, user
from spiritsafe.models.endpoint import EndpointModel
from spiritsafe.models.local import LocalModel
from spiritsafe.record import Exchange, Sampling, read_jsonl
from tests.make.export.students import Student, tokenizer_of, write_student
from tests.make.signals.servers import LogprobServer
from tests.tiny import WORDS

Json = dict[str, Any]
Start = Callable[[LogprobServer], EndpointModel]
PART = CollectPart(tries=2, max_failed=0.2, concurrency=4)
REQUESTS = ask([user(" ".join(WORDS[i : i + 2])) for i in range(9)], Sampling(seed=5, max_tokens=8))


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start a server; its model, opened."""
    monkeypatch.setattr(endpoint, "pause_s", lambda *_: 0.0)
    with ExitStack() as stack:

        def opened(server: LogprobServer) -> EndpointModel:
            found = open_model(f"openai:m@{stack.enter_context(serving(server.app()))}/v1")
            assert isinstance(found, EndpointModel)
            return found

        yield opened


@pytest.fixture(scope="module")
def bytewise(tmp_path_factory: pytest.TempPathFactory) -> LocalModel:
    """A tiny random model over bytes and pieces of words."""
    kind = Student(config={"vocab_size": len(tokenizer_of("smollm"))})
    found = open_model(str(write_student(tmp_path_factory.mktemp("bytewise") / "m", kind)))
    assert isinstance(found, LocalModel)
    return found


def taught(model: EndpointModel, student: LocalModel, folder: Path, **options: Any) -> ServerTeacher:
    """The served model as the teacher of a student with this tokenizer."""
    return ServerTeacher(model, student.tokenizer, student.model.config.vocab_size, folder / "a.said", **options)


def captured(teacher: ServerTeacher, folder: Path, requests: list[Request] = REQUESTS) -> list[Exchange]:
    """Answers with their signals in `folder/cache`."""
    ask_with_signals(teacher, requests, folder / "a.jsonl", PART)
    answers = stored(folder / "a.jsonl", teacher.digest, requests)
    fill_from_said(teacher, answers, folder / "cache")
    return answers


def assert_like_local(
    folder: Path, model: LocalModel, answers: list[Exchange], num: int, *, least: float = 0.0
) -> None:
    """The cache of a server's signals says what the model itself says, to the codec's precision.

    Candidates of a probability up to `least` may be others: there two computations order them differently.
    """
    fill(model, answers, folder / "local", keep=Keep(num=num))
    local, served = SignalCache(folder / "local"), SignalCache(folder / "cache")
    for exchange in answers:
        assert served.tokens(exchange.id) == local.tokens(exchange.id)
        ours, theirs = local.signal(exchange.id), served.signal(exchange.id)
        for t in range(len(ours.tail_N)):
            known = dict(zip(theirs.ids_NK[t].tolist(), theirs.probs_NK[t].tolist(), strict=True))
            wanted = dict(zip(ours.ids_NK[t].tolist(), ours.probs_NK[t].tolist(), strict=True))
            assert {i for i, p in wanted.items() if p > least} <= known.keys()
            assert max(abs(known[i] - p) for i, p in wanted.items() if i in known) < 0.012
            more = {i for i, p in known.items() if p > least} - wanted.keys() - {-1}
            assert more <= {served.tokens(exchange.id)[t]}


def test_our_gateway_is_probed_and_its_signals_are_the_model_s_own(
    tiny: LocalModel, tmp_path: Path, start: Start
) -> None:
    keys = Keys(tmp_path / "keys.db")
    options: Json = {"keys": keys, "log": tmp_path / "log.jsonl", "name": "m", "logprobs": 20}
    with pytest.MonkeyPatch.context() as patch, serving(create_app(tiny, **options)) as url:
        patch.setenv("SPIRITSAFE_API_KEY", keys.create("alice"))
        model = open_model(f"openai:m@{url}/v1")
        assert isinstance(model, EndpointModel)
        teacher = taught(model, tiny, tmp_path)
        can = teacher.can
        assert (can.top, can.names, can.distribution, can.given, can.unmapped) == (20, "ids", "raw", "", 0.0)
        assert can.deterministic
        assert can.end
        assert 0.5 < can.sum <= 1.005
        answers = captured(teacher, tmp_path)
        with pytest.raises(EndpointError, match=r"tells log-probabilities of its own answers only; let it answer"):
            fill_given(teacher, answers, tiny.pair, tmp_path / "given")
    assert_like_local(tmp_path, tiny, answers, 20)
    assert SignalCache(tmp_path / "cache").manifest["source"] == {
        "kind": "server",
        "model": "m",
        "top": 20,
        "given": "",
    }


@pytest.mark.parametrize("names", ["llama.cpp", "vllm", "bytes"])
def test_tokens_are_known_by_id_or_bytes(bytewise: LocalModel, tmp_path: Path, start: Start, names: str) -> None:
    teacher = taught(start(LogprobServer(bytewise, names)), bytewise, tmp_path, max_unmapped=0.5)
    assert teacher.can.names == ("bytes" if names == "bytes" else "ids")
    answers = captured(teacher, tmp_path)
    assert len(answers) >= 0.8 * len(REQUESTS)
    if names != "bytes":  # special tokens have no bytes: their mass is the tail's
        assert_like_local(tmp_path, bytewise, answers, 20)


def test_half_characters_that_come_as_text_are_mass_of_no_token(
    bytewise: LocalModel, tmp_path: Path, start: Start
) -> None:
    said = r"\d+\.\d% of the mass it tells is on tokens that are none of the student's, more than 2\.0%; the student"
    with pytest.raises(EndpointError, match=said):
        taught(start(LogprobServer(bytewise, "text")), bytewise, tmp_path)


def test_a_student_of_another_tokenizer_is_refused(
    bytewise: LocalModel, tiny: LocalModel, tmp_path: Path, start: Start
) -> None:
    with pytest.raises(EndpointError, match="tokens that are none of the student's"):
        taught(start(LogprobServer(bytewise, "llama.cpp")), tiny, tmp_path)


@pytest.mark.parametrize("given", ["prompt_logprobs", "echo", "prefixes"])
@pytest.mark.parametrize("names", ["vllm", "llama.cpp"])
def test_given_answers_are_scored_by_any_way_a_server_has(
    bytewise: LocalModel, tmp_path: Path, start: Start, given: str, names: str
) -> None:
    answers = bytewise.generate(REQUESTS[:4])
    server = LogprobServer(bytewise, names, given=given)
    teacher = taught(start(server), bytewise, tmp_path)
    assert teacher.can.given == given
    heard = fill_given(teacher, answers, bytewise.pair, tmp_path / "cache")
    assert heard.tokens == sum(len(e.token_ids or ()) for e in answers)
    assert_like_local(tmp_path, bytewise, answers, 20)
    before = len(server.asked)
    fill_given(teacher, answers, bytewise.pair, tmp_path / "cache")
    assert len(server.asked) == before


def test_a_server_that_dies_while_it_scores_is_asked_for_the_rest_alone(
    tiny: LocalModel, answers: list[Exchange], tmp_path: Path, start: Start
) -> None:
    server = LogprobServer(tiny, given="prompt_logprobs")
    teacher = taught(start(server), tiny, tmp_path)
    probed = len(server.asked)
    server.lives = probed + 5
    with pytest.raises(EndpointError, match="answered 503: dead"):
        fill_given(teacher, answers, tiny.pair, tmp_path / "cache", concurrency=1)
    assert len(SignalCache(tmp_path / "cache").exchanges) == 5
    server.lives = 1 << 30
    fill_given(teacher, answers, tiny.pair, tmp_path / "cache")
    prompts = [tuple(body["prompt"]) for body in server.asked[probed:]]
    assert len(prompts) == len(answers)
    assert list(SignalCache(tmp_path / "cache").exchanges) == [e.id for e in answers]


def test_what_was_answered_before_a_death_is_not_asked_again_wherever_the_server_comes_back(
    tiny: LocalModel, tmp_path: Path, start: Start
) -> None:
    first, second = LogprobServer(tiny), LogprobServer(tiny)
    teacher = taught(start(first), tiny, tmp_path)
    first.lives = len(first.asked) + 4
    with pytest.raises(EndpointError, match=r"5 of 9 requests stayed unanswered, .* 503: dead"):
        ask_with_signals(teacher, REQUESTS, tmp_path / "a.jsonl", PART)
    again = taught(start(second), tiny, tmp_path)
    assert again.digest == teacher.digest
    probed = len(second.asked)
    with (tmp_path / "a.said").open("a") as file:
        file.write('{"id": "half')  # killed while it wrote
    answers = captured(again, tmp_path)
    assert len(second.asked) == probed + 5
    assert len(read_jsonl(tmp_path / "a.jsonl", Exchange)) == len(answers) == 9
    assert list(SignalCache(tmp_path / "cache").exchanges) == [e.id for e in answers]


def spoilt(change: Callable[[Json], object]) -> Callable[[Json], object]:
    """Spoil a chat choice's second position, or its last where it has one."""
    return lambda choice: change(choice["logprobs"]["content"][min(1, len(choice["logprobs"]["content"]) - 1)])


HOSTILE: list[tuple[Callable[[Json], object], str]] = [
    (spoilt(lambda p: p.update(logprob=math.nan)), r"said the log-probability nan of id \d+ at token"),
    (spoilt(lambda p: p["top_logprobs"][-1].update(logprob=0.5)), r"said the log-probability 0\.5 of id \d+ at token"),
    (spoilt(lambda p: p["top_logprobs"][-1].update(logprob=math.inf)), r"said the log-probability inf of"),
    (
        spoilt(lambda p: [t.update(logprob=-0.1) for t in (p, *p["top_logprobs"])]),
        r"whose probabilities sum to \d+\.\d+",
    ),
    (spoilt(lambda p: p.update(logprob="high")), r"in a form that cannot be read \(TypeError\(\"'high' is no number"),
    (spoilt(lambda p: p.update(logprob=None)), r"in a form that cannot be read"),
    (spoilt(lambda p: p.update(top_logprobs=7)), r"in a form that cannot be read"),
    (spoilt(lambda p: p.update(token="token_id:99999")), r"id 99999, is no single token of the student's; does the"),
    (lambda c: c["logprobs"]["content"].pop(0), r"of \d+ tokens that do not make up its answer; half a character"),
    (lambda c: c.update(logprobs=None), r"returned no log-probabilities; is that switched on"),
    (lambda c: c["logprobs"].update(content=[]), r"returned no log-probabilities"),
]


@pytest.mark.parametrize(("spoil", "said"), HOSTILE)
def test_what_cannot_be_true_is_not_learned_from_and_is_one_clear_line(
    tiny: LocalModel, tmp_path: Path, start: Start, spoil: Callable[[Json], object], said: str
) -> None:
    server = LogprobServer(tiny)
    teacher = taught(start(server), tiny, tmp_path)
    server.spoil = spoil
    with pytest.raises(EndpointError, match=said) as caught:
        captured(teacher, tmp_path)
    assert "\n" not in str(caught.value)
    assert len(read_jsonl(tmp_path / "a.jsonl", Exchange)) <= 2  # some say the same without their first token
    with pytest.raises(EndpointError) as probed:
        taught(start(LogprobServer(tiny, spoil=spoil)), tiny, tmp_path)
    assert "\n" not in str(probed.value)


def test_a_few_bad_answers_are_left_out(tiny: LocalModel, tmp_path: Path, start: Start) -> None:
    server = LogprobServer(tiny)
    teacher = taught(start(server), tiny, tmp_path)
    bad = len(server.asked) + 3
    server.spoil = lambda c: c.update(logprobs=None) if len(server.asked) == bad else None
    assert len(captured(teacher, tmp_path)) == 8
    assert len(SignalCache(tmp_path / "cache").exchanges) == 8


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ({"most": 1}, "tells the log-probability of one token alone at each place, of no other candidate; switch"),
        ({"spoil": lambda c: c.pop("logprobs")}, "returned no log-probabilities; switch log-probabilities on"),
    ],
)
def test_a_server_that_says_too_little_is_refused(
    tiny: LocalModel, tmp_path: Path, start: Start, server: Json, said: str
) -> None:
    with pytest.raises(EndpointError, match=said):
        taught(start(LogprobServer(tiny, **server)), tiny, tmp_path)


def test_a_server_of_five_candidates_serves_with_five(tiny: LocalModel, tmp_path: Path, start: Start) -> None:
    teacher = taught(start(LogprobServer(tiny, most=5)), tiny, tmp_path, num=50)
    assert (teacher.can.top, teacher.can.asked) == (5, 5)
    answers = captured(teacher, tmp_path)
    assert_like_local(tmp_path, tiny, answers, 5)
    with pytest.raises(RecipeError, match="a server tells no tail to draw tokens from; take 'head'"):
        fill_from_said(teacher, answers, tmp_path / "other", keep=Keep("unbiased", 5))


def test_log_probabilities_after_temperature_are_noticed_and_taken_at_temperature_1_alone(
    tiny: LocalModel, tmp_path: Path, start: Start
) -> None:
    teacher = taught(start(LogprobServer(tiny, tempered=True)), tiny, tmp_path)
    assert teacher.can.distribution == "tempered"
    cold = ask([user("one")], Sampling(temperature=0.5, max_tokens=4))
    with pytest.raises(
        EndpointError, match=r"after sampling's settings \(tempered\); sample at temperature 1 and top_p"
    ):
        ask_with_signals(teacher, cold, tmp_path / "cold.jsonl", PART)
    assert_like_local(tmp_path, tiny, captured(teacher, tmp_path), 20)


def test_a_wrong_key_is_said(tiny: LocalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = Keys(tmp_path / "keys.db")
    with serving(create_app(tiny, keys=keys, log=tmp_path / "log.jsonl", name="m", logprobs=5)) as url:
        monkeypatch.setenv("SPIRITSAFE_API_KEY", "wrong")
        with pytest.raises(EndpointError, match=r"refused the key \(401\): .*; set SPIRITSAFE_KEY_127_0_0_1"):
            open_model(f"openai:m@{url}/v1")


def test_a_cache_of_a_server_s_signals_is_refused_for_another_model_s(
    tiny: LocalModel, bytewise: LocalModel, tmp_path: Path, start: Start
) -> None:
    teacher = taught(start(LogprobServer(tiny)), tiny, tmp_path)
    answers = captured(teacher, tmp_path)
    with pytest.raises(DataError, match=r"source is \{'kind': 'server'.*\}, expected \{'kind': 'local'\}"):
        fill(tiny, answers, tmp_path / "cache", keep=Keep(num=20))
    other = start(LogprobServer(bytewise))
    assert probe(other).identity != teacher.digest


def test_every_token_of_a_byte_level_vocabulary_is_found_by_its_bytes(bytewise: LocalModel) -> None:
    tokens, tokenizer = TokenMap(bytewise.tokenizer, bytewise.model.config.vocab_size), bytewise.tokenizer
    text = "Größere Fässer 威士忌 😀 naïve"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    raw = b"".join(tokens._bytes[i] for i in ids)
    assert raw.decode() == text
    assert len(tokens._by_bytes) == len(tokenizer) - len(tokenizer.all_special_ids)


def test_signals_of_a_server_teach(tiny: LocalModel, tmp_path: Path, start: Start) -> None:
    from spiritsafe.make.loop import train
    from spiritsafe.make.methods import from_cache
    from spiritsafe.make.prune import prune
    from spiritsafe.make.samples import Sample
    from spiritsafe.recipe import TrainPart

    answers = captured(taught(start(LogprobServer(tiny)), tiny, tmp_path), tmp_path)
    cache = SignalCache(tmp_path / "cache")
    samples = [Sample(tiny.render(e), cache.tokens(e.id)) for e in answers]
    part = TrainPart(epochs=6, batch=4, learning_rate=3e-3, dtype="float32", train="all")
    losses: list[float] = []
    method = from_cache(cache, [e.id for e in answers], samples, part, seed=0)
    torch.manual_seed(0)
    train(prune(tiny.model, (0, 3)), method, part, seed=0, on_step=lambda m: losses.append(float(m["loss"])))
    assert losses[-1] < 0.7 * losses[0]
