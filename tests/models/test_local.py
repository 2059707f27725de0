"""A real model, tiny: samples do not depend on their batch, and scores are what generation said."""

import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from spiritsafe.errors import ModelError
from spiritsafe.models import Model, Request, ask, open_model, user
from spiritsafe.models.decoding.padded import Row, decode
from spiritsafe.models.decoding.scoring import score_pairs
from spiritsafe.models.local import LocalModel, cut_at, spans
from spiritsafe.record import Message, Sampling
from tests.tiny import WORDS, write_tiny

PROMPTS = [user(" ".join(WORDS[i : i + 1 + i % 5])) for i in range(16)]
SAMPLING = Sampling(seed=1, max_tokens=20)


def mixed() -> list[Request]:
    """Different prompts, lengths and settings."""
    requests = ask(PROMPTS, SAMPLING)
    settings: list[dict[str, float]] = [
        {},
        {"temperature": 0.0},
        {"top_p": 0.7},
        {"max_tokens": 3},
        {"temperature": 2.0},
    ]
    return [
        Request(r.messages, r.sampling.model_copy(update=settings[i % len(settings)])) for i, r in enumerate(requests)
    ]


def test_a_local_model_is_a_model(tiny: LocalModel) -> None:
    assert isinstance(tiny, Model)


def test_a_sample_does_not_depend_on_its_batch(tiny: LocalModel) -> None:
    requests = mixed()
    together = tiny.generate(requests)
    alone = [tiny.generate([r])[0] for r in requests]
    turned = tiny.generate(requests[::-1])[::-1]
    assert [e.token_ids for e in together] == [e.token_ids for e in alone] == [e.token_ids for e in turned]
    assert [e.id for e in together] == [e.id for e in alone]
    assert len({len(e.token_ids or ()) for e in together}) > 3
    for a, b in zip(together, alone, strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)


@pytest.mark.parametrize("compact", [0.0, 1.0])
def test_rows_that_leave_the_batch_do_not_change_the_others(tiny: LocalModel, compact: float) -> None:
    rows = [Row(tiny.render(r), r.sampling) for r in mixed()]
    with torch.inference_mode():
        decode(
            tiny.model,
            rows,
            pad_id=tiny.pad_id,
            finished=lambda _, row: row.drawn[-1] in tiny.end_ids or len(row.drawn) >= row.sampling.max_tokens,
            compact=compact,
        )
    assert [tuple(row.drawn) for row in rows] == [e.token_ids for e in tiny.generate(mixed())]


def test_more_requests_than_a_batch_are_answered_in_order(tiny_folder: Path, tiny: LocalModel) -> None:
    small, pieces = open_model(str(tiny_folder), batch=3), [""] * len(PROMPTS)

    def said(i: int, piece: str) -> None:
        pieces[i] += piece

    found = small.generate(mixed(), on_text=said)
    assert [e.token_ids for e in found] == [e.token_ids for e in tiny.generate(mixed())]
    assert pieces == [e.answer for e in found]


def test_batches_are_bounded_in_rows_and_in_padded_tokens() -> None:
    lengths = [1, 1, 1, 50, 1, 200, 3, 3]
    found = list(spans(lengths, most_rows=3, most_tokens=100))
    assert [i for span in found for i in span] == list(range(len(lengths)))
    assert [len(span) for span in found] == [3, 2, 1, 2]
    assert all(len(s) == 1 or len(s) * max(lengths[i] for i in s) <= 100 for s in found)
    assert list(spans([], most_rows=3, most_tokens=100)) == []


def test_equal_requests_give_equal_answers_and_other_seeds_others(tiny: LocalModel) -> None:
    first, again = tiny.generate(ask(PROMPTS[:1], SAMPLING) * 2)
    assert first.answer == again.answer
    assert len({e.answer for e in tiny.generate(ask(PROMPTS[:1], SAMPLING, n=10))}) > 5


def test_temperature_0_is_the_likeliest_token_at_every_step(tiny: LocalModel) -> None:
    [found] = tiny.generate([Request(PROMPTS[3], Sampling(temperature=0.0, max_tokens=12))])
    [scores] = tiny.score([found], top_k=1)
    assert found.token_ids == tuple(ids[0] for ids in scores.top_ids)


def test_an_answer_ends_with_the_end_token_or_at_max_tokens(tiny: LocalModel) -> None:
    for found in tiny.generate(mixed()):
        ids = found.token_ids or ()
        assert found.usage.completion_tokens == len(ids) == len(found.logprobs or ())
        if found.finish_reason == "stop":
            assert ids[-1] in tiny.end_ids
            assert not set(ids[:-1]) & set(tiny.end_ids)
        else:
            assert len(ids) == found.sampling.max_tokens


def answer_of(tiny: LocalModel, **settings: object) -> str:
    """The greedy answer to the first prompt."""
    sampling = Sampling(temperature=0.8, seed=5, max_tokens=30).model_copy(update=settings)
    return tiny.generate([Request(PROMPTS[0], sampling)])[0].answer


def test_an_answer_is_cut_before_its_first_stop_string(tiny: LocalModel) -> None:
    whole = answer_of(tiny)
    words = whole.split()
    for stop in (words[3], f"{words[4]} {words[5]}", words[2][1:]):
        [found] = tiny.generate([Request(PROMPTS[0], Sampling(temperature=0.8, seed=5, max_tokens=30, stop=(stop,)))])
        assert found.answer == whole[: whole.find(stop)]
        assert found.finish_reason == "stop"


def test_what_is_streamed_is_the_answer_also_where_a_stop_string_spans_tokens(tiny: LocalModel) -> None:
    words = answer_of(tiny).split()
    for stop in (f"{words[4]} {words[5]} {words[6]}", f"{words[2]} {words[3]} zebra", words[1]):
        pieces: list[str] = []
        sampling = Sampling(temperature=0.8, seed=5, max_tokens=30, stop=(stop,))

        def said(_: int, piece: str, pieces: list[str] = pieces) -> None:
            pieces.append(piece)

        [found] = tiny.generate([Request(PROMPTS[0], sampling)], on_text=said)
        assert "".join(pieces) == found.answer
        assert len(pieces) > 1 or not found.answer or len(found.answer.split()) <= 2


def test_every_exchange_is_told_of_once_in_order(tiny: LocalModel) -> None:
    told: list[str] = []
    found = tiny.generate(mixed(), on_exchange=lambda e: told.append(e.id))
    assert told == [e.id for e in found]


def test_the_cut_is_before_the_first_stop_of_several() -> None:
    assert cut_at("a b c", ("c", "b")) == ("a ", True)
    assert cut_at("a b c", ("d",)) == ("a b c", False)


def test_scores_are_the_log_probabilities_of_generation(tiny: LocalModel) -> None:
    found = tiny.generate(mixed())
    for exchange, scores in zip(found, tiny.score(found), strict=True):
        assert scores.token_ids == exchange.token_ids
        assert scores.logprobs == pytest.approx(exchange.logprobs, abs=1e-4)


def test_scoring_in_company_is_scoring_alone_also_with_shared_prompts(tiny: LocalModel) -> None:
    found = tiny.generate([*ask(PROMPTS[:4], SAMPLING, n=3), *mixed()])
    together = tiny.score(found, top_k=3)
    for exchange, scores in zip(found, together, strict=True):
        [alone] = tiny.score([exchange], top_k=3)
        assert scores.logprobs == pytest.approx(alone.logprobs, abs=1e-4)
        assert scores.top_ids == alone.top_ids


def test_the_top_tokens_are_sorted_and_all_of_them_sum_to_one(tiny: LocalModel) -> None:
    found = tiny.generate(ask(PROMPTS[:3], SAMPLING))
    size = tiny.model.config.vocab_size
    for scores in tiny.score(found, top_k=size):
        for token, logprob, ids, row in zip(
            scores.token_ids, scores.logprobs, scores.top_ids, scores.top_logprobs, strict=True
        ):
            assert list(row) == sorted(row, reverse=True)
            assert math.isclose(sum(map(math.exp, row)), 1, abs_tol=1e-5)
            assert sorted(ids) == list(range(size))
            assert row[ids.index(token)] == logprob


def test_scores_are_those_of_the_plain_model_without_cache_or_padding(tiny: LocalModel) -> None:
    for exchange, scores in zip(found := tiny.generate(mixed()[:4]), tiny.score(found), strict=True):
        prompt, answer = tiny.pair(exchange)
        with torch.inference_mode():
            logits = tiny.model(torch.tensor([prompt + answer])).logits[0]
        plain = logits[len(prompt) - 1 : -1].log_softmax(-1).gather(-1, torch.tensor(answer)[:, None])[:, 0]
        assert scores.logprobs == pytest.approx(plain.tolist(), abs=1e-4)


def test_one_token_answers_are_scored(tiny: LocalModel) -> None:
    pairs = [((5, 6), (7,)), ((5,), (8,)), ((5, 6), (9, 1))]
    with torch.inference_mode():
        alone = [score_pairs(tiny.model, [p], pad_id=1, top_k=0, batch=4)[0] for p in pairs]
        for batch in (1, 2, 3):
            together = score_pairs(tiny.model, pairs, pad_id=1, top_k=0, batch=batch)
            for a, b in zip(together, alone, strict=True):
                assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)
    assert tiny.score([]) == []


def test_text_alone_is_scored_as_its_tokens_and_its_end(tiny: LocalModel) -> None:
    found = tiny.generate(ask(PROMPTS, SAMPLING, n=3))
    found = [e for e in found if e.finish_reason == "stop" and min((e.token_ids or ())[:-1], default=9) > 4]
    assert found
    for exchange, scores in zip(found, tiny.score(found), strict=True):
        [text] = tiny.score([exchange.model_copy(update={"token_ids": None, "logprobs": None})])
        assert text.token_ids == scores.token_ids
        assert text.logprobs == pytest.approx(scores.logprobs, abs=1e-4)


def test_token_ids_of_another_tokenizer_are_not_taken_for_one_s_own(tiny: LocalModel) -> None:
    words = {
        word: number for number, word in enumerate(("<unk>", "<end>", "<user>", "<assistant>", "<system>", *WORDS))
    }
    own = tiny.generate(ask(PROMPTS[:8], SAMPLING))
    for exchange in own:
        known = exchange.model_copy(update={"model_digest": "another with this tokenizer"})
        assert tiny.pair(known) == tiny.pair(exchange)
        ids = exchange.token_ids or ()
        for foreign in (tuple(i + 1 for i in ids), tuple(i + 10_000 for i in ids), ids[:-1]):
            found = tiny.pair(known.model_copy(update={"token_ids": foreign}))[1]
            text = [words[word] for word in exchange.answer.split()]
            assert found == ((*text, 1) if exchange.finish_reason == "stop" else tuple(text))
    [fake] = open_model("fake:random").generate([Request(PROMPTS[0], SAMPLING)])
    assert fake.token_ids
    assert tiny.pair(fake) == tiny.pair(fake.model_copy(update={"token_ids": None}))


def test_token_ids_behind_a_stop_string_are_still_one_s_own(tiny: LocalModel) -> None:
    stop = answer_of(tiny).split()[4]
    [found] = tiny.generate([Request(PROMPTS[0], Sampling(temperature=0.8, seed=5, max_tokens=30, stop=(stop,)))])
    copied = found.model_copy(update={"model_digest": "another with this tokenizer"})
    assert tiny.pair(copied)[1] == found.token_ids


def test_an_empty_answer_is_its_end_token(tiny: LocalModel) -> None:
    [found] = tiny.generate(ask(PROMPTS[:1], SAMPLING))
    empty = found.model_copy(update={"answer": "", "token_ids": (), "finish_reason": "content_filter"})
    assert tiny.pair(empty)[1] == tiny.end_ids[:1]


def test_a_prompt_goes_through_the_template_and_an_open_turn_stays_open(tiny: LocalModel) -> None:
    turns = (Message(role="system", content="one"), *user("two"))
    decoded = tiny.tokenizer.decode(tiny.render(Request(turns, SAMPLING)))
    assert decoded == "<system> one <end> <user> two <end> <assistant>"
    opened = tiny.tokenizer.decode(tiny.render(Request(turns[:1], SAMPLING, open_turn="user")))
    assert opened == "<system> one <end> <user>"


def test_the_digest_is_over_weights_and_tokenizer_wherever_they_lie(
    tiny: LocalModel, tiny_folder: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(tiny_folder, tmp_path / "copy"))
    (copy / "README.md").write_text("a card")
    assert open_model(str(copy)).digest == tiny.digest
    assert open_model(str(write_tiny(tmp_path / "other", seed=9))).digest != tiny.digest


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_directory_without_one_of_its_files_is_one_line(tiny_folder: Path, tmp_path: Path, missing: str) -> None:
    copy = Path(shutil.copytree(tiny_folder, tmp_path / "copy"))
    (copy / missing).unlink()
    if missing == "tokenizer.json":
        (copy / "tokenizer_config.json").unlink()
    with pytest.raises(ModelError, match=str(copy)) as caught:
        open_model(str(copy))
    assert "\n" not in str(caught.value)


def test_no_directory_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such directory; name a Hugging Face model directory"):
        open_model(str(tmp_path / "none"))


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_weights_are_one_line(tiny_folder: Path, tmp_path: Path, share: float) -> None:
    copy = Path(shutil.copytree(tiny_folder, tmp_path / "copy"))
    data = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(data[: int(share * len(data))])
    with pytest.raises(ModelError, match="truncated or broken") as caught:
        open_model(str(copy))
    assert "\n" not in str(caught.value)


def test_weights_that_lack_a_tensor_are_not_made_up(tiny_folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_folder, tmp_path / "copy"))
    weights = load_file(copy / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 of its tensors, e\.g\. model\.layers\.1\.mlp\.up_proj\.weight"):
        open_model(str(copy))


def test_a_model_that_is_nowhere_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="nobody/nothing: is not in the local cache and cannot be fetched") as caught:
        open_model("nobody/nothing")
    assert "\n" not in str(caught.value)
