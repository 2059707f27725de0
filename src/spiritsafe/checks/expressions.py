"""Arithmetic and algebra as text, read without evaluating anything: numbers, names, `+ - * / **`, calls of functions.

A tree is what the text says; `rational` gives its exact value, `polynomial` its terms, `symbolic` a sympy
expression built node by node. Everything raises `ValueError` for what it does not know or what grows too large.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import Any

TOKEN = re.compile(r"\s*(?:(\d+(?:\.\d*)?|\.\d+)|([A-Za-z_]\w*)|(\*\*|[-+*/(),]))")
# Trees this large are read within Python's depth of recursion.
MOST_TOKENS = 500
DEEPEST = 60
# A power beyond this many bits is no answer to a task, and would take all time there is.
BITS = 20_000
CONSTANTS = ("pi", "E", "I", "oo")
FUNCTIONS = ("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "exp", "log", "sqrt", "Abs")
Terms = dict[tuple[tuple[str, int], ...], Fraction]


@dataclass(frozen=True)
class Node:
    """A number (`kind` "number", its digits in `name`), a name, a call, or an operator with its operands."""

    kind: str
    name: str = ""
    parts: tuple["Node", ...] = ()


def parse(text: str) -> Node:
    """The tree of a text."""
    tokens = list(islice(_tokens(text), MOST_TOKENS + 1))
    if len(tokens) > MOST_TOKENS:
        raise ValueError("is too long")
    reader = _Reader(tokens)
    tree = reader.sum(0)
    if reader.left:
        raise ValueError(f"'{reader.left[0]}' is not expected")
    return tree


def numbers(tree: Node) -> list[Fraction]:
    """Every number that a tree names, from left to right."""
    own = [Fraction(tree.name)] if tree.kind == "number" else []
    return own + [number for part in tree.parts for number in numbers(part)]


def rational(tree: Node) -> Fraction:
    """The exact value of a tree of numbers."""
    if tree.kind == "number":
        return Fraction(tree.name)
    values = [rational(part) for part in tree.parts]
    match tree.kind, values:
        case "+", [a, b]:
            return a + b
        case "*", [a, b]:
            return _bounded(a) * _bounded(b)
        case "/", [a, b] if b:
            return _bounded(a) / _bounded(b)
        case "-", [a]:
            return -a
        case "**", [a, b]:
            return _power(a, b)
    raise ValueError(f"'{tree.name or tree.kind}' has no value here")


def polynomial(tree: Node) -> Terms:
    """Coefficients by monomial, of a polynomial that is multiplied out: a product of sums is none."""
    if tree.kind == "number":
        return _terms({(): Fraction(tree.name)})
    if tree.kind == "name":
        return {((tree.name, 1),): Fraction(1)}
    parts = [polynomial(part) for part in tree.parts]
    match tree.kind, parts:
        case "+", [a, b]:
            return _terms({key: a.get(key, Fraction(0)) + b.get(key, Fraction(0)) for key in {**a, **b}})
        case "-", [a]:
            return {key: -value for key, value in a.items()}
        case "*", [a, b]:
            return _product(a, b)
        case "/", [a, b] if set(b) == {()}:
            return {key: value / b[()] for key, value in a.items()}
        case "**", [a, b] if len(a) <= 1 and set(b) <= {()}:
            return _monomial_power(a, b.get((), Fraction(0)))
    raise ValueError("is no polynomial that is multiplied out")


def symbolic(tree: Node) -> Any:
    """A sympy expression."""
    import sympy  # type: ignore[import-untyped]

    if tree.kind == "number":
        return sympy.Rational(*Fraction(tree.name).as_integer_ratio())
    if tree.kind == "name":
        return getattr(sympy, tree.name) if tree.name in CONSTANTS else sympy.Symbol(tree.name)
    parts = [symbolic(part) for part in tree.parts]
    match tree.kind, parts:
        case "call", [a]:
            return getattr(sympy, tree.name)(a)
        case "+", [a, b]:
            return sympy.Add(a, b)
        case "*", [a, b]:
            return sympy.Mul(a, b)
        case "/", [a, b]:
            return sympy.Mul(a, sympy.Pow(b, -1))
        case "-", [a]:
            return sympy.Mul(-1, a)
    a, b = parts
    if a.is_Rational and b.is_Rational and b.is_Integer:
        _power(Fraction(int(a.p), int(a.q)), Fraction(int(b)))  # raises before sympy multiplies it out
    return sympy.Pow(a, b)


def _tokens(text: str) -> Iterator[str]:
    place, text = 0, text.rstrip()
    while place < len(text):
        found = TOKEN.match(text, place)
        if not found:
            raise ValueError(f"'{text[place : place + 10]}' is not understood")
        place = found.end()
        yield found[0].strip()


class _Reader:
    """Recursive descent; powers bind to the right and before a sign, as in Python."""

    def __init__(self, tokens: list[str]) -> None:
        self.left = tokens

    def sum(self, depth: int) -> Node:
        if depth > DEEPEST:
            raise ValueError("is nested too deeply")
        tree = self._product(depth)
        while self._next() in ("+", "-"):
            sign = self.left.pop(0)
            right = self._product(depth)
            tree = Node("+", parts=(tree, right if sign == "+" else Node("-", parts=(right,))))
        return tree

    def _product(self, depth: int) -> Node:
        tree = self._signed(depth)
        while self._next() in ("*", "/"):
            tree = Node(self.left.pop(0), parts=(tree, self._signed(depth)))
        return tree

    def _signed(self, depth: int) -> Node:
        if depth > DEEPEST:
            raise ValueError("is nested too deeply")
        if self._next() in ("+", "-"):
            sign = self.left.pop(0)
            inner = self._signed(depth + 1)
            return inner if sign == "+" else Node("-", parts=(inner,))
        base = self._atom(depth)
        if self._next() != "**":
            return base
        self.left.pop(0)
        return Node("**", parts=(base, self._signed(depth + 1)))

    def _atom(self, depth: int) -> Node:
        token = self.left.pop(0) if self.left else ""
        if token == "(":
            return self._closed(depth)
        if token[:1].isdecimal() or token[:1] == ".":
            return Node("number", token)
        if token.isidentifier():
            if self._next() != "(":
                return Node("name", token)
            if token not in FUNCTIONS:
                raise ValueError(f"the function '{token}' is not known")
            self.left.pop(0)
            return Node("call", token, (self._closed(depth),))
        raise ValueError(f"'{token or 'the end'}' is not expected")

    def _closed(self, depth: int) -> Node:
        tree = self.sum(depth + 1)
        if self._next() != ")":
            raise ValueError("a bracket stays open")
        self.left.pop(0)
        return tree

    def _next(self) -> str:
        return self.left[0] if self.left else ""


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > BITS:
        raise ValueError("grows too large")
    return value


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1 or (base == 0 and exponent < 0):
        raise ValueError("has no exact value")
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if bits * abs(exponent.numerator) > BITS:
        raise ValueError("grows too large")
    return base**exponent.numerator


def _terms(terms: Terms) -> Terms:
    return {key: value for key, value in terms.items() if value}


def _product(a: Terms, b: Terms) -> Terms:
    """A product with a number, or of two single terms."""
    if (len(a) > 1 and len(b) > 1) or (len(a) > 1 and set(b) - {()}) or (len(b) > 1 and set(a) - {()}):
        raise ValueError("is not multiplied out")
    return {
        _joined(left, right): _bounded(value) * _bounded(other)
        for left, value in a.items()
        for right, other in b.items()
    }


def _joined(left: tuple[tuple[str, int], ...], right: tuple[tuple[str, int], ...]) -> tuple[tuple[str, int], ...]:
    powers = dict(left)
    for name, power in right:
        powers[name] = powers.get(name, 0) + power
    return tuple(sorted((name, power) for name, power in powers.items() if power))


def _monomial_power(terms: Terms, exponent: Fraction) -> Terms:
    if exponent.denominator != 1 or not 0 <= exponent <= BITS:
        raise ValueError("is no polynomial")
    if not terms and exponent:
        return {}
    ((names, value),) = terms.items() if terms else [((), Fraction(1))]
    powers = tuple((name, power * exponent.numerator) for name, power in names if exponent)
    return {powers: _power(value, exponent)}
