"""Whether a student can be made of a teacher, asked of both before prompts, answers or signals are paid for."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from spiritsafe.errors import ModelError, RecipeError, UsageError
from spiritsafe.make.depth import cuts, why_no_layers, why_not_without
from spiritsafe.make.loop.lora import check_lora
from spiritsafe.make.loop.trunk import PROBE, hidden_states, product_of
from spiritsafe.make.packing import packed
from spiritsafe.make.prune import first_changed
from spiritsafe.make.verb import start
from spiritsafe.make.verb.settings import WHITE_BOX, LearnPart, MakeSettings, Student, parse_student
from spiritsafe.models import Model
from spiritsafe.models.local import LocalModel
from spiritsafe.models.logits import logit_form, num_rows

OTHERS = "name a student of another architecture, e.g. config:FILE"
# What transformers' models raise where they are asked for something that their architecture does not have.
AMISS = (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError)


def check_fits(settings: MakeSettings, teacher: Model) -> None:
    """Raises `UsageError` with the reason where the student that is wanted cannot be made of this teacher.

    Its architecture, its layers, its vocabulary and how it is to be trained are tried out on a few tokens.
    """
    student, named = parse_student(settings.student), f"--student {settings.student}"
    if isinstance(teacher, LocalModel):
        with _as_refusal(f"teacher {settings.teacher.model}", "name another teacher"):
            logit_form(teacher.model)
            check_rows(teacher.tokenizer, num_rows(teacher.model))
    if student.kind == "pruned":
        assert isinstance(teacher, LocalModel), "checked before"
        with _as_refusal(named, "name a student's address or config:FILE"):
            _check_pruned(teacher.model, student.layers, settings.make)
        return
    with _as_refusal(named, OTHERS):
        model, tokenizer, ends = _student(student, teacher)
        check_rows(tokenizer, num_rows(model))
        if not ends:
            what = "has no end token: its answers would never end"
            raise ModelError(named, what, "name eos_token_id in its generation_config.json")
        logit_form(model)
        _check_trained(model, settings.make, first=0)
    if isinstance(teacher, LocalModel) and settings.method in WHITE_BOX:
        start.check_vocabulary(teacher, tokenizer, num_rows(model))


def check_rows(tokenizer: Any, rows: int) -> None:
    """Raises `ModelError` where the tokenizer writes tokens that the model has no row for."""
    last = max(tokenizer.get_vocab().values(), default=0)
    if last >= rows:
        raise ModelError("tokenizer", f"the tokenizer has id {last}, the model {rows} rows", "resize its embeddings")


def _student(student: Student, teacher: Model) -> tuple[Any, Any, tuple[int, ...]]:
    """A student that is no part of its teacher, its tokenizer, and the tokens that end its answers."""
    if student.kind == "model":
        found = start.opened(student.source)
        return found.model, found.tokenizer, found.end_ids
    tokenizer = start.tokenizer_for(student, teacher)
    model = start.random_model(student.source, tokenizer, seed=0)
    ends = [tokenizer.eos_token_id, getattr(model.generation_config, "eos_token_id", None)]
    return model, tokenizer, tuple(i for i in ends if i is not None)


def _check_pruned(model: Any, layers: int, part: LearnPart) -> None:
    """Raises where the teacher has no such part, or its config cannot say it."""
    if reason := why_no_layers(model):
        raise ModelError("", f"cannot be cut into layers: {reason}")
    depth = model.config.num_hidden_layers
    if not 2 <= layers < depth:
        raise ModelError("", f"is no part of a teacher of {depth} layers", f"pruned:2 to pruned:{depth - 1}")
    if part.drop == "measured":
        starts, reason = cuts(model, layers)
        reason = "" if starts else reason
        first = min(starts, default=0)
    else:
        keep = start.kept_by(part.drop, depth, layers)
        reason, first = why_not_without(model, keep), first_changed(keep)
    if reason:
        raise ModelError("", f"cannot be saved: {reason}", "leave out other layers, or another number of them")
    _check_trained(model, part, first=first)


def _check_trained(model: Any, part: LearnPart, *, first: int) -> None:
    """Raises where the loop could not train the model as it is asked to."""
    if part.lora is None and part.train == "above-cut" and (reason := why_no_layers(model)):
        raise ModelError("", f"cannot be trained above a cut: {reason}", "take make.train=all")
    if part.lora is not None:
        check_lora(model, part.lora)
    with torch.no_grad():
        product_of(model, hidden_states(model, packed(PROBE)), logit_form(model))
    if first:
        _check_begun(model)


def _check_begun(model: Any) -> None:
    """Raises where the layers above a cut could not go on from states that were kept."""
    row = packed(PROBE)
    with torch.no_grad():
        states_TD = model.get_input_embeddings()(row.ids_T)
        hidden_states(model, row, states_TD=states_TD)


@contextmanager
def _as_refusal(where: str, hint: str) -> Iterator[None]:
    """What a model raises is a reason in one line; recipes' errors say more of themselves."""
    try:
        yield
    except RecipeError:
        raise
    except ModelError as error:
        raise UsageError(where, error.what, error.hint or hint) from None
    except AMISS as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UsageError(where, f"its architecture cannot be used here ({first})", hint) from None
