"""The error tree; each class names the boundary that was crossed.

    SpiritsafeError            exit 1
    +-- UsageError             exit 2: the command or the recipe is wrong
    |   +-- RecipeError
    +-- DataError              a file or a record
    +-- ModelError             a model, its weights or its tokenizer
    |   +-- EndpointError      a model behind HTTP
    +-- RunError               the run directory
    +-- MissingExtra           an optional dependency
    +-- GateError              exit 3: a gate was not met

A message says where, what, and what to do next. A bad sample is data, not an error.
"""

import errno
import os
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

BROKEN = "is not installed, though something here needs it"
FOR_US = ("dev", "docs")  # extras that hold what others bring too
AGAIN = "python -m pip install --force-reinstall spiritsafe"


class SpiritsafeError(Exception):
    """Base of all errors that a user can act on; printed as one line, without a traceback."""

    exit_code = 1

    def __init__(self, where: str, what: str, hint: str = "") -> None:
        self.where, self.what, self.hint = where, what, hint
        super().__init__(f"{where}: {what}" + (f"; {hint}" if hint else ""))


class UsageError(SpiritsafeError):
    """The command line or a recipe asks for something that does not exist or fit."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe key is unknown, missing or impossible."""


class DataError(SpiritsafeError):
    """A file or record is missing, broken or not of the stated form."""


class ModelError(SpiritsafeError):
    """A model's weights, tokenizer or address cannot be used."""


class EndpointError(ModelError):
    """An OpenAI-compatible server is out of reach or refused."""


class RunError(SpiritsafeError):
    """The run directory cannot be created, resumed or written."""


class MissingExtra(SpiritsafeError):
    """An optional dependency is not installed."""

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(module, "is not installed", f"pip install 'spiritsafe[{extra}]'")


def missing_module(error: ModuleNotFoundError) -> SpiritsafeError:
    """What to install for an import that failed: the extra that brings the module, or the package itself."""
    module = (error.name or str(error)).partition(".")[0]
    if module == "spiritsafe":
        return SpiritsafeError(str(error.name), "is no part of this installation", "install spiritsafe again")
    for needed in metadata.requires("spiritsafe") or ():
        name = re.split(r"[^\w.-]", needed, maxsplit=1)[0]
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", needed)
        if extra and extra[1] in FOR_US:
            continue
        if name.replace("-", "_").lower() == module.lower():
            return MissingExtra(module, extra[1]) if extra else SpiritsafeError(module, BROKEN, AGAIN)
    return SpiritsafeError(module, BROKEN, f"python -m pip install {module.replace('_', '-')}")


class GateError(SpiritsafeError):
    """A figure missed the gate that the user set."""

    exit_code = 3


HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def printable(text: str) -> str:
    """A text with every hidden character (controls, escapes, bidirectional marks, zero widths) spelled out.

    Line ends and tabs stay. Names, answers and servers' words go through it before a terminal, a table or an XML
    file sees them: an escape in them would steer the terminal.
    """
    if text.isprintable():
        return text
    return "".join(_spelled(character) for character in text)


def _spelled(character: str) -> str:
    if character in "\n\t" or unicodedata.category(character) not in HIDDEN:
        return character
    return f"⟨U+{ord(character):04X}⟩"


@contextmanager
def writing(path: Path, *, option: str = "--runs DIR") -> Iterator[None]:
    """Turn the operating system's refusal to write `path` into a `RunError` that says what to do.

    `option` is what chooses another place on the command line.
    """
    try:
        yield
    except Exception as error:
        number = _os_error(error)
        if number is None:
            raise
        hints = {
            errno.ENOSPC: "free some disk space and run the same command again",
            errno.EDQUOT: "free some of your quota and run the same command again",
            errno.EACCES: f"choose a directory you may write, e.g. {option}",
            errno.EROFS: f"choose a directory you may write, e.g. {option}",
        }
        raise RunError(str(path), os.strerror(number) if number else str(error), hints.get(number, "")) from error


def _os_error(error: Exception) -> int | None:
    """The operating system's number; safetensors and tokenizers, written in Rust, name it in the message only."""
    if isinstance(error, OSError):
        return error.errno or 0
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None
