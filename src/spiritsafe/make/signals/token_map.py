"""What a server calls a token -> the student's token id, where that is certain.

Servers name tokens by id, by bytes or by text. Bytes and texts that no id or several ids stand for, and ids
whose bytes differ from ours, are not mapped. Covered: byte-level BPE, byte-fallback (sentencepiece) and
whole-word tokenizers.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

AS_ID = "token_id:"
UNKNOWN = "\ufffd"


@dataclass(frozen=True)
class Named:
    """A token as a server names it; `bytes_` and `id_` are None where it does not say."""

    text: str
    bytes_: bytes | None = None
    id_: int | None = None

    @property
    def certain(self) -> bool:
        """Whether no other token has this name."""
        return self.id_ is not None or self.bytes_ is not None or UNKNOWN not in self.text


class TokenMap:
    """Maps to the ids of one tokenizer, of which there are `vocab`."""

    def __init__(self, tokenizer: Any, vocab: int) -> None:
        self.tokenizer, self.vocab = tokenizer, vocab

    def id_of(self, named: Named) -> int | None:
        """The token's id; None where it is none of ours, or not certain."""
        if named.id_ is not None:
            return named.id_ if self._agrees(named) else None
        raw = named.bytes_
        if raw is None and named.certain:
            raw = named.text.encode()
        return self._by_bytes.get(raw) if raw else None

    def text_of(self, ids: Sequence[int]) -> str:
        """What a reader sees of these tokens."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def _agrees(self, named: Named) -> bool:
        """Whether the server's id has our bytes, as far as it tells them; special tokens are often named by nothing."""
        if named.id_ is None or not 0 <= named.id_ < self.vocab:
            return False
        ours = self._bytes.get(named.id_)
        if ours is None or named.id_ in self._special:
            return True
        if named.bytes_:
            return named.bytes_ == ours
        return not named.text or UNKNOWN in named.text or named.text.strip() == ours.decode(errors="replace").strip()

    @cached_property
    def _special(self) -> frozenset[int]:
        return frozenset(self.tokenizer.all_special_ids)

    @cached_property
    def _bytes(self) -> dict[int, bytes]:
        byte_level = "ByteLevel" in _parts(self.tokenizer)
        return {i: token_bytes(token, byte_level=byte_level) for token, i in self.tokenizer.get_vocab().items()}

    @cached_property
    def _by_bytes(self) -> dict[bytes, int]:
        plain = {i: raw for i, raw in self._bytes.items() if i not in self._special}
        times = Counter(plain.values())
        return {raw: i for i, raw in plain.items() if times[raw] == 1}


def named(entry: dict[str, Any]) -> Named:
    """A token of OpenAI's log-probability format. vLLM's `token_id:N` comes with the bytes of that very string."""
    text = str(entry.get("token", ""))
    if text.startswith(AS_ID) and text[len(AS_ID) :].isdigit():
        return Named("", None, int(text[len(AS_ID) :]))
    raw, id_ = entry.get("bytes"), entry.get("id")
    known = isinstance(raw, list) and all(isinstance(b, int) and 0 <= b < 256 for b in raw)
    # Some servers make the bytes from text in which half a character is lost already.
    kept = bytes(raw) if known and isinstance(raw, list) and UNKNOWN.encode() not in bytes(raw) else None
    return Named(text, kept, id_ if isinstance(id_, int) else None)


def token_bytes(token: str, *, byte_level: bool) -> bytes:
    """The bytes that a vocabulary's entry stands for."""
    if byte_level:
        found = [_BYTES.get(c) for c in token]
        return token.encode() if None in found else bytes(b for b in found if b is not None)
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return bytes([int(token[3:5], 16)])
    return token.replace("\u2581", " ").encode()


def _parts(tokenizer: Any) -> set[str]:
    """The types of a fast tokenizer's decoder and pre-tokenizer."""
    core = json.loads(tokenizer.backend_tokenizer.to_str())
    found: set[str] = set()
    left = [core.get("decoder"), core.get("pre_tokenizer")]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            found.add(str(part.get("type")))
            left += [*part.get("decoders", []), *part.get("pretokenizers", [])]
    return found


def _byte_letters() -> dict[str, int]:
    """GPT-2's letters for bytes: printable ones stand for themselves, the others follow from 256 on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + n): b for n, b in enumerate(others)}


_BYTES = _byte_letters()
