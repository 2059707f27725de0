"""The real model, exported for real: llama.cpp says what it says, and splits text as it does."""

import pytest

from bench import gguf

pytestmark = pytest.mark.slow


def test_llama_cpp_and_transformers_agree_with_the_exported_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf, "NUM_TOKENS", 4)
    found = {(row.case, row.metric): row.ours for row in gguf.measure(0)}
    for kind, kl, most in (("gguf-f16", 1e-5, 0.2), ("gguf-q8_0", 2e-2, 4.0)):
        assert found[kind, "split_otherwise"] == 0
        for reader in ("llama.cpp", "transformers"):
            assert found[f"{kind} by {reader}", "kl_nats"] < kl
            assert found[f"{kind} by {reader}", "max_logprob"] < most
    assert found["gguf-q8_0", "bytes"] < 0.55 * found["gguf-f16", "bytes"]
