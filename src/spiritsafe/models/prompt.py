"""A request's messages as a model's token ids: control tokens are what the template writes, never what people wrote.

Text without any control token is tokenised in one go with its template, as everywhere else. In other text a mark is
put into each control token before the template sees it; what the template then wrote between its own control tokens
is tokenised as text wherever it holds a mark. A base model has no template: it continues one user turn.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from threading import Lock
from typing import Any

from spiritsafe.errors import ModelError
from spiritsafe.models.base import Request, RequestError
from spiritsafe.models.template import ChatTemplate, TooMuch, first_line, one_line
from spiritsafe.record import Exchange

# Unicode's letters for private use, of which two that no text uses become marks.
PRIVATE = (range(0xE000, 0xF900), range(0xF0000, 0xFFFFE))
Turn = dict[str, str]


class Prompts:
    """Writes prompts for one model: `rows` token ids have an embedding, `context` tokens can be read (None: any).

    Threads may share it. Raises `ModelError` if the model's template is none, or writes tokens without rows.
    """

    def __init__(self, tokenizer: Any, address: str, *, rows: int, context: int | None) -> None:
        self.tokenizer, self.address, self.rows, self.context = tokenizer, address, rows, context
        self.template = _template(tokenizer, address)
        self._lock = Lock()  # of the tokenizer's switch that makes special tokens text
        source = self.template.source if self.template else ""
        added = {i: t for i, t in tokenizer.added_tokens_decoder.items() if t.content != tokenizer.unk_token}
        control = {i: t for i, t in added.items() if t.content.strip() and (t.special or t.content in source)}
        self._control_ids = frozenset(control)
        self._normalizer = _normalizer(tokenizer) if any(t.normalized for t in control.values()) else None
        self._control = _one_of({re.escape(f): f for t in control.values() for f in self._forms(t)})
        self._special = _one_of({re.escape(f): f for t in control.values() if t.special for f in self._forms(t)})
        self._borders = _one_of({_with_blanks(t): t.content for t in control.values()})
        self._beginning = () if self.template else _beginning(tokenizer)
        self._check_template()

    def ids(self, request: Request | Exchange) -> tuple[int, ...]:
        """Token ids of a prompt. Raises `RequestError` if the template refuses it, or the model cannot read it."""
        text, mark = self._written(request)
        ids = (*self._beginning, *self._tokens(text, mark))
        if not ids and self.template is None and self.tokenizer.bos_token_id is not None:
            ids = (self.tokenizer.bos_token_id,)  # a text that is still to be begun
        if not ids:
            raise RequestError(self.address, "prompt without tokens", "send some text")
        self.check_rows(ids, "prompt")
        if self.context is not None and len(ids) > self.context:
            what = f"prompt of {len(ids)} tokens, the model reads at most {self.context}"
            raise RequestError(self.address, what, "shorten it")
        return ids

    def answer(self, text: str) -> tuple[int, ...]:
        """Token ids of an answer's text; special tokens that it spells out are text."""
        mark, _ = self._marks([text])
        return tuple(self._tokens(self._marked(text, mark, self._special), mark))

    def check_rows(self, ids: Sequence[int], what: str) -> None:
        """Raises `RequestError` if a token has no row in the model's embedding."""
        if ids and (most := max(ids)) >= self.rows:
            token = one_line(str(self.tokenizer.convert_ids_to_tokens(most)))
            raise RequestError(self.address, f"{what} holds token {most} ({token}), and the model has {self.rows} rows")

    def _written(self, request: Request | Exchange) -> tuple[str, str]:
        """The prompt's text, and the mark within control tokens that are text."""
        mark, opening = self._marks([m.content for m in request.messages])
        turns = [self._turn(m.role, m.content, mark) for m in request.messages]
        if self.template is None:
            if [turn["role"] for turn in turns] not in ([], ["user"]):
                what = "has no chat template: it continues the text of one user turn"
                raise RequestError(self.address, what, "send that alone, or name a chat model")
            return "".join(turn["content"] for turn in turns), mark
        if request.open_turn == "user":
            turns = [*turns, {"role": "user", "content": opening}]
            text, opened, _ = self._rendered(turns, reply=False).partition(opening)
            if not opened:
                raise RequestError(self.address, "its chat template leaves out a turn of the role user")
            return text, mark
        text = self._rendered(turns, reply=True)
        self._check_whole(text, turns, opening)
        return text, mark

    def _turn(self, role: str, content: str, mark: str) -> Turn:
        """A turn as the template gets it. What models write as tokens, e.g. <think>, stays so in the assistant's."""
        knows = self.template is not None and "developer" in self.template.source
        written = self._marked(content, mark, self._special if role == "assistant" else self._control)
        return {"role": "system" if role == "developer" and not knows else role, "content": written}

    def _rendered(self, turns: Sequence[Turn], *, reply: bool) -> str:
        assert self.template is not None
        try:
            return self.template(turns, reply=reply)
        except Exception as error:  # a template raises what it likes, and what Python says of its mistakes
            what = f"its chat template refuses this conversation ({first_line(error)})"
            raise RequestError(self.address, what) from None

    def _check_whole(self, text: str, turns: Sequence[Turn], other: str) -> None:
        """Raises `RequestError` if a turn's words leave no trace. The assistant's may: templates cut old thoughts."""
        for place, turn in enumerate(turns):
            content = turn["content"].strip()
            if turn["role"] == "assistant" or content in text or json.dumps(content)[1:-1] in text:
                continue
            changed = [*turns[:place], {**turn, "content": other}, *turns[place + 1 :]]
            if self._rendered(changed, reply=True) == text:
                what = f"its chat template leaves out a turn of the role {turn['role']}"
                raise RequestError(self.address, what)

    def _marks(self, texts: Sequence[str]) -> tuple[str, str]:
        used = {*"".join(texts), *(self.template.source if self.template else "")}
        free = (chr(code) for code in chain(*PRIVATE) if chr(code) not in used)
        first, second = next(free, None), next(free, None)
        if first is None or second is None:
            raise RequestError(self.address, "prompt that uses every private letter of Unicode")
        return first, second

    def _marked(self, text: str, mark: str, tokens: re.Pattern[str] | None) -> str:
        """The text with a mark within each of the tokens; it is the normalised text if only that holds one."""
        if tokens is None:
            return text
        if not tokens.search(text):
            text, own = (self._normalizer.normalize_str(text) if self._normalizer else text), text
            if not tokens.search(text):
                return own
        while found := tokens.search(text):  # a token may hold another
            if len(found[0]) == 1:
                raise RequestError(
                    self.address, f"prompt with {found[0]!r}, which this model has as control token only"
                )
            text = tokens.sub(lambda m: f"{m[0][0]}{mark}{m[0][1:]}", text)
        return text

    def _tokens(self, text: str, mark: str) -> list[int]:
        with self._lock:
            try:
                return self._runs(text, mark)
            except (TypeError, ValueError, OverflowError) as error:  # tokenizers' words for half a character
                raise RequestError(self.address, f"prompt that is no text ({first_line(error)})") from None

    def _runs(self, text: str, mark: str) -> list[int]:
        """Ids of marked text: what stands between two control tokens as text if it holds a mark, the rest in one go."""
        ids: list[int] = []
        start = 0
        for begin, end in self._between(text) if mark in text else ():
            if mark in text[begin:end]:
                ids += self._plain(text[start:begin]) + self._as_text(text[begin:end], mark)
                start = end
        return ids + self._plain(text[start:])

    def _between(self, text: str) -> Iterator[tuple[int, int]]:
        begin = 0
        for border in self._borders.finditer(text) if self._borders else ():
            yield begin, border.start()
            begin = border.end()
        yield begin, len(text)

    def _plain(self, text: str, **how: bool) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, **how)["input_ids"]) if text else []

    def _as_text(self, text: str, mark: str) -> list[int]:
        """Ids without any control token: split by the tokenizer's own switch, else at the marks as well."""
        for pieces in ([text.replace(mark, "")], text.split(mark)):
            ids = [i for piece in pieces for i in self._plain(piece, split_special_tokens=True)]
            if self._control_ids.isdisjoint(ids):
                return ids
        raise RequestError(self.address, "prompt with a control token that this tokenizer cannot read as text")

    def _forms(self, token: Any) -> list[str]:
        normal = self._normalizer.normalize_str(token.content) if self._normalizer and token.normalized else ""
        return [form for form in (token.content, normal) if form.strip()]

    def _check_template(self) -> None:
        if self.template is None:
            return
        try:
            text = self.template([{"role": "user", "content": "a"}], reply=True)
        except TooMuch as error:
            raise ModelError(self.address, str(error), "mend it, or name another model") from None
        except Exception:  # it may want another conversation: each request is told for itself
            return
        self.check_rows(self._plain(text), "what its chat template writes")


def _template(tokenizer: Any, address: str) -> ChatTemplate | None:
    source = tokenizer.chat_template
    if isinstance(source, dict):
        if "default" not in source:
            names = one_line(", ".join(map(str, source)))
            raise ModelError(address, f"has the chat templates {names}, and none is 'default'", "name one of them so")
        source = source["default"]
    if source is None:
        return None
    if not isinstance(source, str):
        raise ModelError(address, "has a chat template that is no text", "mend it")
    return ChatTemplate(source, address, tokenizer.special_tokens_map)


def _normalizer(tokenizer: Any) -> Any:
    return tokenizer.backend_tokenizer.normalizer if tokenizer.is_fast else None


def _one_of(texts: Mapping[str, str]) -> re.Pattern[str] | None:
    """A pattern of any of the texts, by their patterns, the longest first."""
    patterns = sorted(texts, key=lambda pattern: len(texts[pattern]), reverse=True)
    return re.compile("|".join(patterns)) if patterns else None


def _with_blanks(token: Any) -> str:
    """The pattern of a token with the blanks that it takes away on its sides."""
    before = r"\s*" if token.lstrip else ""
    after = r"\s*" if token.rstrip else ""
    return f"{before}{re.escape(token.content)}{after}"


def _beginning(tokenizer: Any) -> tuple[int, ...]:
    """What a tokenizer puts before a text by itself, e.g. the token that every document begins with."""
    whole = tokenizer("a")["input_ids"]
    text = tokenizer("a", add_special_tokens=False)["input_ids"]
    places = [k for k in range(len(whole) - len(text) + 1) if whole[k : k + len(text)] == text]
    return tuple(whole[: places[0]]) if places else ()
