"""Chat templates: jinja, in a sandbox, with a budget, and with a clock that stands still.

The environment is that of transformers (`trim_blocks`, `raise_exception`, `strftime_now`, `tojson`,
`{% generation %}`), so that a template writes what it writes there. A template comes with its model and is
hostile input: loops and calls are counted, and sizes are bounded. A rendering is a function of the messages:
`strftime_now` gives the day `DATE`, or that of SPIRITSAFE_DATE, which is part of such a model's digest.
"""

import functools
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, nodes, pass_context
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from spiritsafe.errors import ModelError, printable

DATE = "2026-01-01"
CLOCK = "strftime_now"
# Loop turns of one rendering, and five for each call or filter; real templates take some 100 for a message.
MOST_STEPS = 500_000
CALL = 5
# Characters or items of one value, and the largest whole number that is an argument.
MOST_SIZE = 16_000_000
# Characters that all loops, calls and filters of one rendering handle together; an item counts for as many as sorting
# takes. A second or two.
MOST_HANDLED = 300_000_000
ITEM = 256
MOST_BITS = 256
# A width in a format string, e.g. '%999999999d', writes that many characters.
WIDE = re.compile(r"\d{6}")
WORDS = "its chat template does not end, or writes without end"


class TooMuch(TemplateError):
    """A template that does not end, or writes without end."""

    def __init__(self) -> None:
        super().__init__(WORDS)


def frozen_date() -> datetime:
    """The day on which every template is rendered. Raises `ModelError` if SPIRITSAFE_DATE is no date."""
    given = os.environ.get("SPIRITSAFE_DATE") or DATE
    try:
        return datetime.strptime(given, "%Y-%m-%d")
    except ValueError:
        raise ModelError("SPIRITSAFE_DATE", f"is no date: {given!r}", "write it as 2026-01-31") from None


class ChatTemplate:
    """A compiled template; `given` is what it knows beside the messages, e.g. `bos_token`. Threads may share it.

    Raises `ModelError` naming `where` if it is no jinja.
    """

    def __init__(self, source: str, where: str, given: Mapping[str, Any]) -> None:
        self.source = source
        self._given = dict(given)
        environment = _Environment(frozen_date())
        try:
            if len(source) > MOST_SIZE:
                raise TooMuch
            self._template = environment.from_string(source)
        except Exception as error:  # jinja passes on whatever Python's compiler says of what it wrote
            raise ModelError(where, f"has a broken chat template ({first_line(error)})", "mend it") from None

    def __call__(self, messages: Sequence[Mapping[str, str]], *, reply: bool) -> str:
        """The conversation as text, with the assistant's turn begun if `reply`. Raises what the template raises."""
        given = {**self._given, "tools": None, "documents": None, "add_generation_prompt": reply}
        token = _budget.set(_Budget())
        try:
            return self._template.render(messages=[dict(m) for m in messages], **given)
        finally:
            _budget.reset(token)


def one_line(text: str) -> str:
    """What a file says, in one line, with hidden characters spelled out."""
    return " ".join(printable(text).split())


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its name."""
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return one_line(said[:300])


@dataclass
class _Budget:
    steps: int = 0
    handled: int = 0

    def spend(self, steps: int, handled: int) -> None:
        self.steps += steps
        self.handled += handled
        if self.steps > MOST_STEPS or self.handled > MOST_HANDLED:
            raise TooMuch


_budget: ContextVar[_Budget] = ContextVar("_budget")


class _Counting(NodeTransformer):
    """Sends what a loop goes over, and each `~`, through a filter that counts."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        text = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        node.iter = _through("_turns", node.iter, nodes.Const(text))
        return self.generic_visit(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        return _through("_counted", self.generic_visit(node))


def _through(name: str, node: nodes.Node, *words: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(words), [], None, None, lineno=node.lineno)


class _Generation(Extension):
    """`{% generation %}` marks what the assistant wrote, for training; here its content alone."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self, date: datetime) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, LoopControlExtension])
        self.filters = {name: _counting(found) for name, found in self.filters.items()}
        self.filters |= {"tojson": _counting(_to_json), "_counted": pass_context(_counted), "_turns": _turns}
        self.globals |= {"raise_exception": _raise, CLOCK: date.strftime}
        del self.globals["lipsum"]  # writes as much as it is asked to

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Counting().visit(super()._parse(source, name, filename))
        return tree

    def call(self, context: Any, called: Any, /, *words: Any, **named: Any) -> Any:
        _check((getattr(called, "__self__", None), *words), named.values())
        return _charged(super().call(context, called, *words, **named))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if isinstance(left, str) and operator == "%" and WIDE.search(left):
            raise TooMuch
        wholes = [abs(x) for x in (left, right) if isinstance(x, int)]
        if operator == "*" and max(_size(left), _size(right)) * max(wholes, default=0) > MOST_SIZE:
            raise TooMuch
        bits = [x.bit_length() for x in wholes]
        if len(bits) == 2 and {"*": sum(bits), "**": bits[0] * wholes[1]}.get(operator, 0) > MOST_BITS:
            raise TooMuch
        return _charged(super().call_binop(context, operator, left, right))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        if isinstance(text := getattr(value, "__self__", None), str) and WIDE.search(text):
            return _too_wide
        return super().wrap_str_format(value)


def _counting(found: Callable[..., Any]) -> Callable[..., Any]:
    """A filter whose arguments and result are bounded; how jinja passes its context stays as it is."""

    @functools.wraps(found)
    def counted(*words: Any, **named: Any) -> Any:
        _check(words, named.values())
        return _charged(found(*words, **named))

    return counted


def _check(words: Iterable[Any], named: Iterable[Any]) -> None:
    """Whole numbers that ask for too much, and texts that multiply, e.g. in `replace` or `join`."""
    sizes = [1, 1]
    for word in (*words, *named):
        if isinstance(word, int) and abs(word) > MOST_SIZE:
            raise TooMuch
        sizes.append(_size(word))
    first, second = sorted(sizes)[-2:]
    if first * second > 16 * MOST_SIZE:
        raise TooMuch


def _size(value: Any) -> int:
    return len(value) if isinstance(value, str | bytes | list | tuple | dict | set | range) else 0


def _charged(value: Any) -> Any:
    size = _size(value)
    if size > MOST_SIZE:
        raise TooMuch
    if budget := _budget.get(None):  # none while a template is compiled: jinja works out what is constant
        budget.spend(CALL, size if isinstance(value, str) else ITEM * size)
    return value


def _counted(_: Any, value: Any) -> Any:
    return _charged(value)


@pass_context
def _turns(_: Any, values: Any, text: int) -> list[Any]:
    """All that a loop goes over; `text` is how many characters stand in its body."""
    turns: list[Any] = list(values)
    _budget.get().spend(len(turns), len(turns) * text)
    return turns


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: Any = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> None:
    raise TemplateError(message)


def _too_wide(*_: Any, **__: Any) -> str:
    raise TooMuch
