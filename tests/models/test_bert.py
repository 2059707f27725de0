"""The encoders of our own: the same bits whatever computes them, near to plain floats and to the packages' runtimes."""

import ctypes
import hashlib
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spiritsafe.errors import DataError, ModelError
from spiritsafe.models import bert, encoder, packaged
from spiritsafe.models.bert import Bert, Floats, Layer, Norm, Product
from spiritsafe.native import EXACT, FLAGS, processor_flags
from tests.weights import at_hand

SENTENCES = [
    "How do I bake rye bread with a sourdough starter?",
    "Wie backe ich ein Sauerteigbrot mit Roggenmehl?",
    "¿Cómo puedo aprender a tocar la guitarra   en casa?",
    "猫が窓辺で眠っている。",
    "Ⅷ ﬁnally, ½ of it — naïve façade\u00a0\u200bʼ",
    "x",
    "",
    "A long sentence about the harbour, its ships and the people who unload them at night. " * 5,
]
fetched = pytest.mark.skipif(not at_hand(), reason="needs the encoders' weights: python -m spiritsafe.models.encoder")


def norms(draw: np.random.Generator, width: int) -> Norm:
    """Weights near 1 and small offsets."""
    return Norm(
        (1 + 0.1 * draw.normal(size=width)).astype(np.float32), (0.1 * draw.normal(size=width)).astype(np.float32)
    )


def product(draw: np.random.Generator, ins: int, outs: int) -> Product:
    """A layer whose outputs are about as large as its inputs."""
    scales = (ins**-0.5 / 60 * draw.uniform(0.5, 1.5, outs)).astype(np.float32)
    return Product(draw.integers(-127, 128, (ins, outs), np.int8), scales, draw.normal(size=outs).astype(np.float32))


def small(width: int = 64, depth: int = 2, heads: int = 2) -> Bert:
    """An encoder with drawn weights; ids pick rows of a drawn table."""
    draw = np.random.default_rng(0)
    words = draw.normal(size=(50, width)).astype(np.float32)
    layers = []
    for _ in range(depth):
        shapes = ((width, 3 * width), (width, width), (width, 128), (128, width))
        qkv, out, up, down = (product(draw, *shape) for shape in shapes)
        layers.append(Layer(qkv, out, up, down, norms(draw, width), norms(draw, width)))
    return Bert(lambda ids: words[list(ids)], norms(draw, width), tuple(layers), heads, 1e-5)


def plainly(model: Bert, ids: list[int], monkeypatch: pytest.MonkeyPatch) -> Floats:
    """The states by numpy."""
    with monkeypatch.context() as patch:
        patch.setattr(bert, "_library", lambda: None)
        return model.states(ids)


LENGTHS = [1, 2, 5, 6, 7, 8, 9, 15, 16, 17, 33, 130]
X86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="names processors of the kind x86-64")
V4 = {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
# What to compile for, and what a processor must have to run it.
PATHS = {
    "native": (("-march=native",), set()),
    "plain": (("-march=x86-64", "-Wno-psabi"), set()),
    "avx2": (("-march=x86-64-v3",), {"avx2", "fma", "bmi2"}),
    "avx512": (("-march=x86-64-v4",), V4),
    "vnni, emulated": (("-march=x86-64-v4", "-DSPIRITSAFE_EMULATE_VNNI"), V4),
    "vnni": (("-march=cascadelake",), V4 | {"avx512_vnni"}),
    "amx": (("-march=sapphirerapids",), V4 | {"avx512_vnni", "amx_int8"}),
}


def compiled(flags: tuple[str, ...], out: Path, *more: str) -> Path:
    """`bert.cpp` as it is compiled, but for another processor."""
    command = [
        "g++",
        *(f for f in FLAGS if f != "-march=native"),
        EXACT,
        *flags,
        *more,
        str(bert.SOURCE),
        "-o",
        str(out),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


@X86
@pytest.mark.parametrize(
    "path",
    # What is compiled on this machine, on the oldest and, emulated, on new ones; the others in all tests.
    [
        path if path in ("native", "plain", "vnni, emulated") else pytest.param(path, marks=pytest.mark.slow)
        for path in PATHS
    ],
)
def test_every_processor_gives_the_bits_of_numpy(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags, needed = PATHS[path]
    if lacking := needed - processor_flags():
        pytest.skip(f"this processor has no {', '.join(sorted(lacking))}")
    library = bert.typed(ctypes.CDLL(str(compiled(flags, tmp_path / "bert.so"))))
    for length in LENGTHS:
        ids = [(7 * i) % 50 for i in range(length)]
        expected = plainly(small(), ids, monkeypatch)
        with monkeypatch.context() as patch:
            patch.setattr(bert, "_library", lambda: library)
            ours = small().states(ids)
        assert ours.tobytes() == expected.tobytes(), f"{length} tokens"


@X86
@pytest.mark.parametrize(
    "processor",
    [
        *("x86-64-v3", "sapphirerapids"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("x86-64-v4", "cascadelake", "icelake-server")),
    ],
)
def test_no_product_and_sum_are_rounded_as_one(processor: str, tmp_path: Path) -> None:
    code = compiled((f"-march={processor}",), tmp_path / "bert.s", "-S").read_text()
    assert not re.findall(r"\bvf(?:n?madd|n?msub|maddsub|msubadd)\w+", code)
    assert ("vpdpbusd" in code) == (not processor.startswith("x86-64"))


def test_tiny_numbers_are_not_lost_where_torch_sets_them_to_zero() -> None:
    torch = pytest.importorskip("torch")
    ids = list(range(40))
    expected = small().states(ids)
    torch.set_flush_denormal(True)
    try:
        assert small().states(ids).tobytes() == expected.tobytes()
    finally:
        torch.set_flush_denormal(False)


def test_the_exponential_is_near_the_true_one_and_never_zero() -> None:
    x = np.linspace(-87, 5, 10_001, dtype=np.float32)
    np.testing.assert_allclose(bert._exponential(x), np.exp(x.astype(float)), rtol=3e-7)
    assert bert._exponential(np.array([-1e30], np.float32))[0] > 0


@pytest.mark.parametrize("length", LENGTHS)
def test_rounded_activations_stay_near_floats(length: int) -> None:
    model, ids = small(), [(7 * i) % 50 for i in range(length)]
    ours, plain = model.states(ids), in_floats(model, ids)
    assert ours.shape == (length, 64)
    assert np.abs(ours - plain).max() < 0.12
    assert np.sqrt(((ours - plain) ** 2).mean()) < 0.03


def test_other_sizes_go_by_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small(width=48, heads=4)
    assert np.array_equal(model.states([1, 2, 3]), plainly(model, [1, 2, 3], monkeypatch))


def in_floats(model: Bert, ids: list[int]) -> Floats:
    """The states by torch, without rounding."""
    torch = pytest.importorskip("torch")

    def linear(rows: Any, part: Product) -> Any:
        return torch.nn.functional.linear(rows, torch.tensor(part.weights * part.scales).T, torch.tensor(part.bias))

    def normed(rows: Any, norm: Norm) -> Any:
        weights = (torch.tensor(norm.weight), torch.tensor(norm.bias))
        return torch.nn.functional.layer_norm(rows, rows.shape[-1:], *weights, model.eps)

    rows = normed(torch.tensor(model.embedded(ids)), model.norm)
    for layer in model.layers:
        heads = linear(rows, layer.qkv).view(len(ids), 3, model.heads, -1).permute(1, 2, 0, 3)
        attended = torch.nn.functional.scaled_dot_product_attention(*heads).transpose(0, 1).reshape(rows.shape)
        rows = normed(rows + linear(attended, layer.out), layer.after_attention)
        rows = normed(rows + linear(torch.nn.functional.gelu(linear(rows, layer.up)), layer.down), layer.after_mlp)
    found: Floats = rows.numpy()
    return found


@fetched
def test_a_text_does_not_depend_on_its_neighbours() -> None:
    for vectors in (encoder.multilingual, lambda texts: encoder.english(texts, max_tokens=64)):
        together = vectors(SENTENCES)
        assert np.array_equal(together, np.concatenate([vectors([text]) for text in SENTENCES]))
        np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)


@fetched
def test_characters_that_stand_for_many_are_cut() -> None:
    for text in ("\ufdfa" * 5000, "猫" * 5000, "a " * 5000):
        for vectors in (encoder.multilingual([text]), encoder.english([text], max_tokens=128)):
            np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1)


@fetched
def test_english_is_what_onnxruntime_computes() -> None:
    runtime = pytest.importorskip("onnxruntime")
    path = encoder.weights(encoder.MINILM)
    session, (model, tokenizer) = runtime.InferenceSession(str(path)), encoder._minilm(64)
    for text in SENTENCES:
        ids = tokenizer.encode(text).ids
        batch = np.array([ids])
        feed = {"input_ids": batch, "attention_mask": np.ones_like(batch), "token_type_ids": np.zeros_like(batch)}
        theirs = session.run(None, feed)[0][0]
        np.testing.assert_allclose(in_floats(model, ids), theirs, atol=1e-4)
        mean = theirs.mean(0)
        assert model.mean(ids) @ mean > 0.99 * np.linalg.norm(mean)


@fetched
def test_the_bits_are_the_same_on_every_machine() -> None:
    parts = [encoder.english(SENTENCES, max_tokens=64), encoder.multilingual(SENTENCES)]
    assert [hashlib.sha256(part.tobytes()).hexdigest()[:16] for part in parts] == [
        "1bfa078302d20443",
        "0227a215df2090f5",
    ]


@fetched
def test_what_means_the_same_in_other_languages_is_near() -> None:
    english, german, spanish, other = encoder.multilingual([SENTENCES[0], SENTENCES[1], SENTENCES[2], "x"])
    assert english @ german > 0.8
    assert english @ german > max(english @ spanish, english @ other) + 0.05


@fetched
@pytest.mark.parametrize("file", encoder.SHA256)
def test_other_weights_are_not_loaded(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(encoder.SHA256, file, "0" * 64)
    with pytest.raises(DataError, match=r"sha256 is \w{64}, expected 0{64}"):
        encoder.weights(file)


@pytest.mark.parametrize("read", [packaged.minilm, packaged.e5])
def test_another_file_is_named(read: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    for content in (b"E5S1 and nothing else", b"not a model at all" * 20):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"model\.onnx: is no such encoder"):
            read(path)
