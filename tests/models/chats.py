"""Small tokenizers with control tokens, for tests of prompts: byte-level BPE without merges, a token a byte."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

CONTROL = ("<|im_start|>", "<|im_end|>", "<s>", "</s>")
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
STRICT = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}"
    "{{ '<|im_start|>' + m.role + '\n' + m.content | trim + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def tokenizer(
    template: Any = CHATML,
    *,
    plain: Sequence[str] = (),
    begins: bool = False,
    end: str | None = "<|im_end|>",
    strips: str = "",
) -> Any:
    """A tokenizer whose control tokens are `CONTROL`; `plain` are added tokens that are not special.

    `begins` puts <s> before every text; `strips` is the side on which control tokens take blanks away.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_tokens(
        [
            AddedToken(token, special=True, normalized=False, lstrip=strips == "left", rstrip=strips == "right")
            for token in CONTROL
        ]
    )
    core.add_tokens([AddedToken(token, special=False, normalized=False) for token in plain])
    if begins:
        core.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>",
            pair="<s> $A </s> $B",
            special_tokens=[(t, core.token_to_id(t)) for t in ("<s>", "</s>")],
        )
    made = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token=end, pad_token=end)
    made.chat_template = template
    return made


def write_chat(folder: Path, made: Any, *, rows: int = 0, context: int = 256, seed: int = 0) -> Path:
    """A random 2-layer Llama for a tokenizer, as a directory; `rows` of its embedding, 0 for one each token."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=rows or len(made),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=made.eos_token_id,
        pad_token_id=made.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    made.save_pretrained(folder)
    return folder
