"""A row of a data set as a prompt: the forms in which people write questions, instructions and conversations.

    prompt, question, instruction, query, problem, text     a text; `prompt` also as a list of turns
    input, context                  belong to an `instruction`, `context` also to a `question`
    system, history                 turns before it
    messages, conversations         turns: role and content, or from and value (ShareGPT); `input` if it is a list
                                    (with `ideal`), the `body` of a batch request, "Human: ... Assistant: ..."
    answer                          what a right answer is: a text, a number, or a list of alternatives
    output, response, completion    a given answer, kept beside the prompt; so is the last turn of a conversation if
                                    it is the assistant's
    Frage, Eingabe, Question Text, Prompt Text, Antwort     what spreadsheets call a question, a prompt and an answer

Turns are of system, developer, user and assistant. Calls of tools and their results are refused by name.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from spiritsafe.record import Message

TEXTS = ("prompt", "question", "instruction", "query", "problem", "text")
CONVERSATIONS = ("messages", "conversations", "conversation")
COMPANIONS = {"instruction": ("input", "context"), "question": ("context",)}
BEFORE = ("system", "system_prompt", "history")
GIVEN = ("output", "response", "completion", "chosen")
ROLES = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
}
TOOL_ROLES = ("tool", "function", "function_call", "observation", "ipython")
# What spreadsheets call them, in small letters and with blanks; a column of the known name comes first.
HEADERS = {
    "frage": "question",
    "question text": "question",
    "eingabe": "prompt",
    "prompt text": "prompt",
    "antwort": "answer",
}
CHOICES = ("choices", "options")
RIGHT = ("answer", "ideal")
# A column `text` may hold a whole conversation in some model's template: as a prompt it would teach its marks.
TEMPLATE = re.compile(
    r"<\|(?:im_start|user|system|start_header_id|prompter)\|>|\[/?INST\]|<start_of_turn>|"
    r"^\s*#{2,4} ?(?:Instruction|Human|User|Assistant|Response)\s*:|"
    r"^\s*(?:Human|USER|User)\s*:.*^\s*(?:Assistant|ASSISTANT|AI)\s*:",
    re.MULTILINE | re.DOTALL,
)
SPOKEN = re.compile(r"\n\n(Human|Assistant): ?")
TEXT_PARTS = ("text", "input_text", "output_text")


@dataclass(frozen=True)
class Asked:
    """What a row asks: its turns, right answers, the answer that it gives, and the columns that say so."""

    messages: tuple[Message, ...]
    right: tuple[str, ...] = ()
    given: str | None = None
    columns: tuple[str, ...] = ()


def asked(row: Mapping[str, Any]) -> Asked:
    """Raises `ValueError` that says, after "line N", why a row is none of the forms."""
    plain, used = _plain(row)
    found = _asked(plain)
    return replace(found, columns=used or tuple(_named(row, column) for column in found.columns))


def _named(row: Mapping[str, Any], column: str) -> str:
    """What a row calls a column."""
    return column if column in row else next((name for name in row if _known_as(name) == column), column)


def _known_as(name: str) -> str:
    """A column's name as it is known, however a spreadsheet writes it."""
    small = " ".join(name.lower().replace("_", " ").split())
    return HEADERS.get(small, name.strip().lower())


def _asked(row: Mapping[str, Any]) -> Asked:
    for name in CHOICES:
        if row.get(name) and not isinstance(row[name], str):
            raise ValueError(f"has {name} to choose from, which no prompt is made of here; write them into its text")
    found = _conversation(row) or _text(row)
    if found is None:
        empty = next((name for name in (*CONVERSATIONS, *TEXTS) if name in row), "")
        if empty:
            raise ValueError(f"has no prompt: its {empty} is {'null' if row[empty] is None else 'empty'}")
        held = ", ".join([*list(row)[:8], *(["..."] if len(row) > 8 else [])])
        raise ValueError(f"has no prompt; it has {held or 'nothing'}; name it {', '.join(TEXTS)} or messages")
    for text in (*(m.content for m in found.messages), *found.right, found.given or ""):
        _whole(text)
    return found


def _plain(row: Mapping[str, Any]) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """A row with its columns named as they are known; a batch's request, spoken turns, with the column they are in."""
    body = row.get("body")
    if isinstance(body, Mapping) and "messages" in body:
        return body, ("body",)
    row = _renamed(row)
    spoken = row.get("chosen")
    if not any(name in row for name in (*TEXTS, *CONVERSATIONS)) and isinstance(spoken, str) and SPOKEN.match(spoken):
        parts = SPOKEN.split(spoken)[1:]
        turns = [{"role": who.lower(), "content": said} for who, said in zip(parts[::2], parts[1::2], strict=True)]
        return {"messages": turns}, ("chosen",)
    if isinstance(row.get("role"), str) and ("parent_id" in row or "message_id" in row):
        raise ValueError("is one message of a tree; join each conversation into a row with messages")
    return row, ()


def _renamed(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row with its columns named as they are known; beside a prompt's own column only those of right answers."""
    has_prompt = any(name in row for name in (*TEXTS, *CONVERSATIONS))
    renamed: dict[str, Any] = {}
    for name, held in row.items():
        known = _known_as(name)
        is_taken = known != name and known in row
        renamed.setdefault(known if not is_taken and (known in RIGHT or not has_prompt) else name, held)
    return renamed


def _conversation(row: Mapping[str, Any]) -> Asked | None:
    name = next((n for n in CONVERSATIONS if row.get(n) is not None), None)
    if name is None:
        name = "prompt" if isinstance(row.get("prompt"), list) else None
    turns = row.get("input")
    if (
        name is None
        and "instruction" not in row
        and isinstance(turns, list)
        and all(isinstance(t, Mapping) for t in turns)
    ):
        name = "input"
    if name is None:
        return None
    if not isinstance(row[name], list) or not row[name]:
        raise ValueError(f"is broken: its {name} is no list of turns")
    turns = [_turn(number, turn) for number, turn in enumerate(row[name], 1)]
    columns = [name]
    if isinstance(row.get("system"), str) and row["system"].strip() and turns[0].role != "system":
        turns.insert(0, Message(role="system", content=row["system"]))
        columns.append("system")
    last = None
    while turns and turns[-1].role == "assistant":
        last = turns.pop().content
    given = _given(row, columns)
    if not turns or turns[-1].role != "user":
        raise ValueError(f"is broken: its {name} have no user's turn at the end to answer")
    return Asked(tuple(turns), _right(row, columns), given if last is None else last, tuple(columns))


def _text(row: Mapping[str, Any]) -> Asked | None:
    name = next((n for n in TEXTS if isinstance(row.get(n), str) and row[n].strip()), None)
    if name is None:
        odd = next((n for n in TEXTS if n in row), None)
        if odd is not None and row[odd] is not None and not isinstance(row[odd], str):
            raise ValueError(f"has no prompt: its {odd} is {_kind(row[odd])}")
        return None
    text, columns = row[name], [name]
    if name == "text" and TEMPLATE.search(text):
        raise ValueError("has a whole conversation in its text, with the marks of a template; write it as messages")
    for companion in COMPANIONS.get(name, ()):
        beside = row.get(companion)
        if beside is None or beside == "":
            continue
        if not isinstance(beside, str):
            raise ValueError(f"is broken: its {companion} beside {name} is {_kind(beside)}")
        if beside.strip():
            text = f"{text}\n\n{beside}"
            columns.append(companion)
    before = _before(row, columns)
    messages = (*before, Message(role="user", content=text))
    return Asked(messages, _right(row, columns), _given(row, columns), tuple(columns))


def _before(row: Mapping[str, Any], columns: list[str]) -> list[Message]:
    turns = []
    for name in ("system", "system_prompt"):
        if isinstance(row.get(name), str) and row[name].strip():
            turns.append(Message(role="system", content=row[name]))
            columns.append(name)
            break
    history = row.get("history") or []
    pairs = isinstance(history, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair) for pair in history
    )
    if history and not pairs:
        raise ValueError("is broken: its history is no list of pairs of question and answer")
    for question, answer in history:
        turns += [Message(role="user", content=question), Message(role="assistant", content=answer)]
    if history:
        columns.append("history")
    return turns


def _turn(number: int, turn: Any) -> Message:
    if not isinstance(turn, Mapping):
        raise ValueError(f"is broken: its turn {number} is {_kind(turn)}")
    said = turn.get("role", turn.get("from"))
    if turn.get("tool_calls") or turn.get("function_call") or said in TOOL_ROLES:
        raise ValueError(f"calls a tool in its turn {number}, which cannot be learnt from here")
    if said not in ROLES:
        raise ValueError(f"is broken: its turn {number} has the role {said!r}, known are {', '.join(ROLES)}")
    held = next((turn[key] for key in ("content", "value", "text") if key in turn), None)
    return Message(role=ROLES[said], content=_content(number, held))  # type: ignore[arg-type]


def _content(number: int, held: Any) -> str:
    if isinstance(held, str):
        return held
    if not isinstance(held, list):
        raise ValueError(f"is broken: the content of its turn {number} is {_kind(held)}")
    texts = []
    for part in held:
        kind = part.get("type", "text") if isinstance(part, Mapping) else "text"
        text = part.get("text") if isinstance(part, Mapping) else part
        if kind not in TEXT_PARTS or not isinstance(text, str):
            raise ValueError(f"is broken: its turn {number} holds {kind!r}, and only text is read")
        texts.append(text)
    return "\n".join(texts)


def _right(row: Mapping[str, Any], columns: list[str]) -> tuple[str, ...]:
    """Right answers; of one like GSM8K's, what follows `####`. Null is none, and so is a table's NaN."""
    name = next((n for n in RIGHT if row.get(n) is not None), RIGHT[0])
    held = row.get(name)
    several = held if isinstance(held, list) else [] if held is None else [held]
    several = [one for one in several if not (isinstance(one, float) and not math.isfinite(one))]
    for one in several:
        if not isinstance(one, str | int | float):
            raise ValueError(f"is broken: its answer is {_kind(one)}, which no answer can be compared with")
    found = tuple(text for one in several if (text := str(one).rpartition("####")[2].strip()))
    if found:
        columns.append(name)
    return found


def _given(row: Mapping[str, Any], columns: list[str]) -> str | None:
    """An answer that the row gives, as text or as an assistant's only turn."""
    for name in GIVEN:
        held = row.get(name)
        if isinstance(held, list) and held and isinstance(held[-1], Mapping):
            held = held[-1].get("content", held[-1].get("value"))
        if isinstance(held, str) and held.strip():
            columns.append(name)
            return held
    return None


def _whole(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("holds half a character (a lone surrogate), which is no text") from None


def _kind(held: Any) -> str:
    if held is None:
        return "null"
    kinds = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return kinds.get(type(held), type(held).__name__)
