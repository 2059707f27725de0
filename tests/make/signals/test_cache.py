"""The cache of a teacher's signals: what it holds, what it refuses, and what a kill leaves of it."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from spiritsafe.errors import DataError
from spiritsafe.make.signals.coder import Rows
from spiritsafe.make.signals.local import expected_of, fill, open_cache
from spiritsafe.make.signals.manifest import manifest_of, tokenizer_digest
from spiritsafe.make.signals.reader import SignalCache
from spiritsafe.make.signals.sample import Keep, choose
from spiritsafe.make.signals.shard import RECORD, shards
from spiritsafe.make.signals.writer import Writer
from spiritsafe.models.decoding.scoring import answer_logprobs
from spiritsafe.models.local import LocalModel
from spiritsafe.record import Exchange, Message

KEEP = Keep(num=8)


@pytest.fixture
def folder(teacher: LocalModel, answers: list[Exchange], tmp_path: Path) -> Path:
    """A cache of the answers in several shards."""
    fill(teacher, answers, tmp_path / "cache", keep=KEEP, shard_tokens=40)
    return tmp_path / "cache"


def opened(folder: Path, teacher: LocalModel, answers: list[Exchange], **changed: str) -> SignalCache:
    """The cache, checked against its teacher and answers, or what is `changed`."""
    digests = {"teacher_digest": teacher.digest, "tokenizer_digest": tokenizer_digest(teacher.tokenizer), **changed}
    return open_cache(folder, exchanges=answers, **digests)


def contents(folder: Path) -> list[tuple[str, bytes]]:
    """All shards' bytes."""
    return [(path.name, path.read_bytes()) for path in shards(folder)]


def test_what_is_stored_is_near_what_the_teacher_says(
    teacher: LocalModel, answers: list[Exchange], folder: Path
) -> None:
    cache = opened(folder, teacher, answers)
    assert len(shards(folder)) > 1
    for exchange in reversed(answers):
        pair = teacher.pair(exchange)
        with torch.inference_mode():
            (logprobs_TV,) = answer_logprobs(teacher.model, [pair], pad_id=teacher.pad_id)
        found = cache.signal(exchange.id)
        assert cache.tokens(exchange.id) == pair[1]
        assert {frozenset(r) for r in found.ids_NK.tolist()} == {
            frozenset(r) for r in logprobs_TV.topk(8).indices.tolist()
        }
        torch.testing.assert_close(found.probs_NK.sum(-1) + found.tail_N, torch.ones(len(pair[1])))
        head = logprobs_TV.exp().gather(1, found.ids_NK)
        apart = (head - found.probs_NK).abs().sum(-1) + (1 - head.sum(-1) - found.tail_N).abs()
        assert apart.max() / 2 < 0.03


def test_a_cache_of_another_teacher_tokenizer_or_keeping_names_both_sides(
    teacher: LocalModel, answers: list[Exchange], folder: Path
) -> None:
    with pytest.raises(DataError, match=f"teacher is {teacher.digest}, expected another; delete"):
        opened(folder, teacher, answers, teacher_digest="another")
    with pytest.raises(DataError, match=r"tokenizer is \w{64}, expected another; delete"):
        opened(folder, teacher, answers, tokenizer_digest="another")
    with pytest.raises(DataError, match=r"keep is .*8.*, expected .*9"):
        fill(teacher, answers, folder, keep=replace(KEEP, num=9))
    with pytest.raises(DataError, match=r"seed is 0, expected 1"):
        fill(teacher, answers, folder, keep=KEEP, seed=1)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("prompts", {"messages": (Message(role="user", content="now"),)}),
        ("sampling", {"sampling": {"temperature": 0.5}}),
        ("answers", {"token_ids": (5, 6, 1)}),
        ("answers", {"token_ids": None, "answer": "one two"}),
        ("exchanges", {"id": "0" * 32}),
    ],
)
def test_a_cache_of_other_exchanges_names_the_first_thing_that_differs_and_both_sides(
    teacher: LocalModel, answers: list[Exchange], folder: Path, name: str, change: dict[str, object]
) -> None:
    others = [Exchange.model_validate({**answers[0].model_dump(), **change}), *answers[1:]]
    with pytest.raises(DataError, match=rf"cache\.json: {name} is \w{{64}}, expected \w{{64}}"):
        opened(folder, teacher, others)
    with pytest.raises(DataError, match=rf"cache\.json: {name} is \w{{64}}, expected \w{{64}}"):
        fill(teacher, others, folder, keep=KEEP)


def test_a_missing_or_foreign_manifest_is_one_line(teacher: LocalModel, answers: list[Exchange], folder: Path) -> None:
    for text, said in (
        ("", r"cannot be read \("),
        ("[]", r"format is \[\]"),
        ('{"format": 0}', "format is 0, expected"),
    ):
        (folder / "cache.json").write_text(text)
        with pytest.raises(DataError, match=rf"cache\.json: {said}.*; delete the cache and run again$"):
            opened(folder, teacher, answers)
    with pytest.raises(DataError, match=r"cache\.json: cannot be read \(.*No such file"):
        opened(folder / "none", teacher, answers)


@pytest.mark.parametrize("vocab", [1, 27, 49152, 151_936, 262_144, 1 << 20])
def test_a_cache_takes_any_vocabulary(answers: list[Exchange], tmp_path: Path, vocab: int) -> None:
    width, num = min(6, vocab), 40
    draw = np.random.default_rng(vocab)
    ids = np.stack([vocab - 1 - draw.choice(min(vocab, 1 << 30), width, replace=False) for _ in range(num)])
    ids[0, 0] = vocab - 1 if vocab - 1 not in ids[0] else ids[0, 0]
    full = [np.full(num, width), ids, draw.integers(0, 255, ids.shape), draw.integers(0, 255, num), ids[:, -1]]
    kinds = (np.int32, np.int32, np.uint8, np.uint8, np.int32)
    rows = Rows(*(part.astype(kind) for part, kind in zip(full, kinds, strict=True)))
    Writer(tmp_path, manifest_of("t", "k", vocab, answers, KEEP, seed=0)).add("some", rows)
    cache = SignalCache(tmp_path)
    assert cache.tokens("some") == tuple(ids[:, -1])
    found = cache.signal("some")
    assert [set(r) for r in found.ids_NK.tolist()] == [set(r) for r in ids.tolist()]
    torch.testing.assert_close(found.probs_NK.sum(-1) + found.tail_N, torch.ones(num))


def test_shards_of_another_cache_are_refused(teacher: LocalModel, answers: list[Exchange], folder: Path) -> None:
    fill(teacher, answers[:3], folder.parent / "other", keep=KEEP)
    shards(folder)[0].write_bytes(shards(folder.parent / "other")[0].read_bytes())
    with pytest.raises(DataError, match=r"00000\.signals: belongs to manifest \w+, expected \w+"):
        SignalCache(folder)


def test_a_torn_tail_is_repaired_wherever_it_is_torn(
    teacher: LocalModel, answers: list[Exchange], folder: Path
) -> None:
    whole, last = contents(folder), shards(folder)[-1]
    for cut in (1, 3, 20, 30, len(whole[-1][1]) - 1, len(whole[-1][1])):
        last.write_bytes(whole[-1][1][:-cut])
        SignalCache(folder)
        fill(teacher, answers, folder, keep=KEEP, shard_tokens=40)
        assert contents(folder) == whole


def test_a_changed_byte_or_a_missing_end_names_file_and_exchange(
    teacher: LocalModel, answers: list[Exchange], folder: Path
) -> None:
    first = shards(folder)[0]
    data = bytearray(first.read_bytes())
    data[24 + RECORD.size + 40] ^= 4
    first.write_bytes(data)
    with pytest.raises(DataError, match=rf"00000\.signals: exchange {answers[0].id} is damaged"):
        SignalCache(folder).signal(answers[0].id)
    first.write_bytes(data[:-3])
    with pytest.raises(DataError, match=r"00000\.signals: ends within a record, after exchange \w{32}"):
        SignalCache(folder)
    shards(folder)[-1].unlink()
    first.write_bytes(b"")
    with pytest.raises(DataError, match=f"holds no signals of exchange {answers[0].id}"):
        opened(folder, teacher, answers)


def test_a_cache_is_read_while_it_is_written(teacher: LocalModel, answers: list[Exchange], tmp_path: Path) -> None:
    seen: list[int] = []
    held: list[SignalCache] = []

    def look() -> None:
        cache = SignalCache(tmp_path)
        held.append(cache)
        seen.append(len(cache.exchanges))
        held[0].refresh()
        for each in (cache, held[0]):
            assert len(each.signal(answers[seen[-1] - 1].id).tail_N)

    fill(teacher, answers, tmp_path, keep=KEEP, shard_tokens=40, tick=look)
    assert seen == list(range(1, len(answers) + 1))


CHILD = """
import sys, time
from pathlib import Path
from spiritsafe.make.signals.local import fill
from spiritsafe.make.signals.sample import Keep
from spiritsafe.models import open_model
from spiritsafe.record import Exchange
folder, answers = Path(sys.argv[2]), Path(sys.argv[3]).read_text().splitlines()
def tick():
    print("kept", flush=True)
    time.sleep(0.05)
fill(open_model(sys.argv[1]), [Exchange.model_validate_json(a) for a in answers], folder, keep=Keep(num=8),
     shard_tokens=40, tick=tick)
"""


@pytest.mark.slow
def test_a_killed_capture_continues_to_the_same_bytes(
    teacher: LocalModel, answers: list[Exchange], folder: Path, teacher_folder: Path, tmp_path: Path
) -> None:
    stored = tmp_path / "answers.jsonl"
    stored.write_text("\n".join(a.model_dump_json() for a in answers))
    command = [sys.executable, "-c", CHILD, str(teacher_folder), str(tmp_path / "killed"), str(stored)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"}) as child:
        assert child.stdout
        for _ in range(5):
            assert child.stdout.readline() == b"kept\n"
        time.sleep(0.02)
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    assert 5 <= len(SignalCache(tmp_path / "killed").exchanges) < len(answers)
    fill(teacher, answers, tmp_path / "killed", keep=KEEP, shard_tokens=40)
    assert contents(tmp_path / "killed") == contents(folder)


def test_only_decoded_shards_within_the_memory_allowed_are_kept(
    teacher: LocalModel, answers: list[Exchange], folder: Path
) -> None:
    small, large = SignalCache(folder, memory_bytes=1), SignalCache(folder)
    for exchange in (*answers, *answers):
        assert torch.equal(small.signal(exchange.id).probs_NK, large.signal(exchange.id).probs_NK)
    assert len(small._decoded) == 1
    assert len(large._decoded) == len(shards(folder))


@pytest.mark.parametrize("num", [1, 4, 12])
def test_the_expected_unbiased_target_is_the_teacher_s_distribution(num: int) -> None:
    logprobs_TV = (2 * torch.randn(3, 60, generator=torch.Generator().manual_seed(num))).log_softmax(-1)
    draws, total_TV = 1000, torch.zeros(3, 60, dtype=torch.float64)
    for seed in range(draws):
        kept = choose(logprobs_TV, Keep("unbiased", num), seed=seed)
        shares_T = kept.tails_T.exp() / kept.sampled_TK.sum(-1)
        weights_TK = torch.where(kept.sampled_TK, shares_T[:, None], kept.logprobs_TK.double().exp())
        assert all(len(set(row)) == num for row in kept.ids_TK.tolist())
        torch.testing.assert_close(weights_TK.sum(-1), torch.ones(3, dtype=torch.float64))
        total_TV.scatter_add_(1, kept.ids_TK, weights_TK)
    wanted_TV = logprobs_TV.double().exp()
    spread_TV = (wanted_TV * (1 / num) / draws).sqrt()
    assert ((total_TV / draws - wanted_TV).abs() <= 5 * spread_TV + 1e-6).all()


@pytest.mark.parametrize("scale", [1.0, 10.0, 40.0, 300.0])
@pytest.mark.parametrize("num", [1, 8, 24])
def test_no_token_is_drawn_twice_however_peaked_the_teacher_is(scale: float, num: int) -> None:
    source = torch.Generator().manual_seed(0)
    logits_TV = scale * torch.randn(400, 2000, generator=source)
    logits_TV[::7, 30:] = -torch.inf
    kept = choose(logits_TV.log_softmax(-1), Keep("unbiased", num), seed=1)
    assert all(len(set(ids)) == num for ids in kept.ids_TK.tolist())
    assert kept.tails_T.isfinite().all()


def test_an_unbiased_cache_leaves_no_tail(teacher: LocalModel, answers: list[Exchange], tmp_path: Path) -> None:
    keep = Keep("unbiased", 6)
    fill(teacher, answers, tmp_path, keep=keep)
    assert SignalCache(tmp_path, expected_of(teacher, answers, keep)).manifest["keep"]["mode"] == "unbiased"
    for exchange in answers:
        found = SignalCache(tmp_path).signal(exchange.id)
        assert found.ids_NK.shape[1] == 6
        assert not found.tail_N.any()
        torch.testing.assert_close(found.probs_NK.sum(-1), torch.ones(len(found.tail_N)))
