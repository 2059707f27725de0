"""Tiny random students of every architecture and tokenizer that GGUF is written for."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spiritsafe.models.gguf_form import PRE_TOKENIZERS

TEXTS = (
    "The cask sleeps in the cellar; it doesn't hurry, and 12345 litres won't either.",
    "Größere Fässer brauchen länger – dafür schmeckt's süß, sagt Käthe (geb. Weiß) 1987.",
    "威士忌在橡木桶里睡了十二年。你好，世界！今天天气很好。",
    "😀 👩‍👩‍👧 🇩🇪 naïve ½ ² \u00a0 ｆｕｌｌ",
    "def f(x: int) -> int:\n\treturn x**2  # it's ok\n\n\n    if x >= 10:  \r\n        pass\n",
    "  two  spaces   three\n \n\ttab's I'LL WE'RE 3.14 1e-5 v2.0.1 __init__ a_b",
    "<user>hello<end> and <end><assistant>Grüße",
)
SPECIAL = ("<end>", "<begin>", "<user>", "<assistant>")
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 8192, "rope_theta": 500000.0}


@dataclass(frozen=True)
class Student:
    """What a student is made of; `config` are further keys of its configuration."""

    architecture: str = "llama"
    pre: str = "smollm"
    tied: bool = True
    config: dict[str, Any] = field(default_factory=dict)


STUDENTS = {
    "llama": Student(),
    "llama3": Student(pre="llama-bpe", tied=False, config={"rope_parameters": LLAMA3}),
    "llama-linear": Student(
        pre="gpt-2", config={"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}}
    ),
    "llama-yarn": Student(
        config={
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1e4,
                "factor": 4.0,
                "original_max_position_embeddings": 32,
            }
        }
    ),
    "qwen2": Student("qwen2", "qwen2"),
    "qwen2-untied": Student("qwen2", "qwen2", tied=False),
    "qwen3": Student("qwen3", "qwen2", config={"head_dim": 128}),
}


def write_student(folder: Path, student: Student) -> Path:
    """Write a student as a Hugging Face directory; its weights are large enough for peaked answers."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = tokenizer_of(student.pre)
    given: dict[str, Any] = {
        "vocab_size": len(tokenizer) + 2,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "initializer_range": 0.2,
        "tie_word_embeddings": student.tied,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(student.architecture, **given | student.config))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                weight.normal_(0, 0.5)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tokenizer_of(pre: str) -> Any:
    """A byte-level BPE tokenizer, trained on `TEXTS`, that splits text as `pre` does."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    from spiritsafe.models.gguf import splitting

    core = Tokenizer(models.BPE(ignore_merges=PRE_TOKENIZERS[pre].whole))
    core.pre_tokenizer = splitting(PRE_TOKENIZERS[pre].steps)
    core.decoder = decoders.ByteLevel()
    if pre == "qwen2":
        core.normalizer = normalizers.NFC()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=letters, show_progress=False)
    core.train_from_iterator(TEXTS * 3, trainer)
    core.add_special_tokens(list(SPECIAL))
    if pre == "llama-bpe":
        begin = core.token_to_id("<begin>")
        core.post_processor = processors.TemplateProcessing(single="<begin> $A", special_tokens=[("<begin>", begin)])
    named = {"bos_token": "<begin>"} if pre != "qwen2" else {}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>", pad_token="<end>", **named)
    tokenizer.chat_template = TEMPLATE
    return tokenizer
