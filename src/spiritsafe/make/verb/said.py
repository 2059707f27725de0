"""What a making says of its answers and verdicts: how many came, what became of them, why nothing is claimed."""

from collections.abc import Mapping

from spiritsafe.make.data.prepare import Report
from spiritsafe.make.verb.settings import MakeSettings

HINTS = {
    "wrong": "compare a few with the file's `answer` (dropped.jsonl has their ids), or give the questions without it",
    "empty": "the teacher ends at once: see its chat template, or raise data.collect.sampling.max_tokens if it thinks",
    "failed": "see the reasons in exchanges/all.failures",
    "unfinished": "raise data.collect.sampling.max_tokens, or take cut answers too (data.keep.finished=false)",
    "error": "the checks failed over them: see dropped.jsonl",
    "stopped": "their checks took too long: raise data.keep.limit_s",
    "contaminated": "they repeat an evaluation set: see data.clean",
}
LOOSER = "loosen data.keep"


def answers_said(report: Report) -> str:
    """In a line: how many answers were wanted, came and are learnt from, and what became of the others."""
    got = report.collected
    dropped = ", ".join(f"{why} {num}" for why, num in sorted(report.answers.items()) if why != "kept")
    parts = [
        f"answers: {got.wanted} wanted, {got.answered} collected, {report.kept} kept",
        f"dropped: {dropped}" if dropped else "none dropped",
        f"{got.failed} without an answer ({_failures(report)})" if got.failed else "",
        f"ended by the budget: {got.stopped}" if got.stopped else "",
    ]
    return "; ".join(part for part in parts if part)


def nothing_kept(report: Report) -> tuple[str, str]:
    """What to say if no answer is left to learn from, and what to do about the reason that most of them have."""
    why = ", ".join(f"{reason} {num}" for reason, num in report.answers.items())
    if not report.collected.answered:
        why = _failures(report) or report.collected.stopped
    what = f"no answer was kept of {report.collected.answered} ({why})"
    if not report.answers:
        return what, HINTS["failed"] if report.collected.failed else "raise data.collect.budget"
    most = max(report.answers, key=lambda reason: report.answers[reason])
    return what, HINTS.get(most, LOOSER)


def no_verdict(settings: MakeSettings, *, local: bool, heldout: int, notes: Mapping[str, str]) -> str:
    """Why a making without verdicts has none."""
    if "no_verdict" in notes:
        return notes["no_verdict"]
    if not local and settings.method != "judged":
        return "a teacher without weights here says nothing of the student's distribution to compare it by"
    if settings.heldout.share == 0:
        return "no prompt was held out to compare on (heldout.share=0)"
    if not heldout:
        share = f"{settings.heldout.share:.0%}"
        return f"none of the prompts fell into the {share} held out: give more, or raise heldout.share"
    return "there was too little to compare"


def _failures(report: Report) -> str:
    shown = [f"{text}: {num}" if num > 1 else text for text, num in report.collected.errors.items()][:3]
    named = [f"'{failure['prompt']}'" for failure in report.unanswered][:3]
    return "; ".join(shown) + (f"; of {', '.join(named)}" if named else "")
