"""The words of a measurement's page in English and German, and German for what a measurement says in English.

What has no German here (a judge's name, a data set's note) stays English and is marked as such in the page.
"""

import re
from typing import Literal

from spiritsafe.record import Verdict

Language = Literal["en", "de"]
WORDS: dict[str, dict[str, str]] = {
    "en": {
        "title": "Measured", "table": "Models and tasks", "task": "task", "changes": "What differs",
        "others": "Corrected, pooled and mean shares", "model": "model",
        "stages": "What the risk control did", "cases": "Single prompts, masked", "saturated": "tells nothing apart",
        "note": "95 % intervals; the stronger the colour, the worse. A task on which every model reaches 95 % tells "
        "nothing apart and is in no mean.",
        "differ": "Every model beside the first, every setting of the control beside the same model without it, "
        "jailbroken prompts beside the same ones as they were: on the same prompts, Holm over all rows.",
        "masked": "Category and hash; behind a click, the beginning with its words masked, and what each model did.",
        "value": "value", "interval": "95 % interval", "p": "p, Holm", "says": "says", "setting": "setting",
        "settled": "settled", "time": "stages p50 / p99, ms", "reviews": "reviews",
        "least": "least difference that would be found", "limits": "Limits",
        "more": "not shown", "partial": "This measurement is not whole; its budget ended it:",
        "shown": "No difference could be shown", "tokens": "tokens",
    },
    "de": {
        "title": "Messung", "table": "Modelle und Aufgaben", "task": "Aufgabe", "changes": "Was sich unterscheidet",
        "others": "Korrigierte, zusammengefasste und mittlere Anteile", "model": "Modell",
        "stages": "Was die Risikokontrolle tat", "cases": "Einzelne Eingaben, verdeckt",
        "saturated": "unterscheidet nichts",
        "note": "95-%-Intervalle; je kräftiger die Farbe, desto schlechter. Eine Aufgabe, bei der jedes Modell 95 % "
        "erreicht, unterscheidet nichts und geht in keinen Mittelwert ein.",
        "differ": "Jedes Modell neben dem ersten, jede Einstellung der Kontrolle neben demselben Modell ohne sie, "
        "Jailbreaks neben denselben Fragen im Original: jeweils mit denselben Eingaben, Holm-Korrektur über alle "
        "Zeilen.",
        "masked": "Kategorie und Prüfsumme; nach einem Klick der Anfang mit verdeckten Wörtern und was jedes Modell "
        "daraus machte.",
        "value": "Wert", "interval": "95-%-Intervall", "p": "p (Holm)", "says": "Aussage", "setting": "Einstellung",
        "settled": "entschieden", "time": "Stufen p50 / p99, ms", "reviews": "Prüfungen",
        "least": "kleinster Unterschied, der gefunden würde", "limits": "Grenzen",
        "more": "weitere nicht gezeigt", "partial": "Diese Messung ist unvollständig, ihr Budget war erschöpft:",
        "shown": "Kein Unterschied nachgewiesen", "tokens": "Tokens",
    },
}  # fmt: skip
METRICS = {
    "unsafe": "unsicher",
    "unsafe with reasoning": "unsicher, Gedankengang mitgezählt",
    "rejected": "abgelehnt",
    "filtered": "vom Filter des Anbieters gestoppt",
    "over refusal": "Harmloses abgelehnt",
    "accuracy": "richtig",
    "truth share": "Anteil der Wahrheit",
    "semantic entropy": "semantische Entropie",
    "inconsistency": "Uneinigkeit der Antworten",
    "stereotyped": "stereotyp",
    "counter stereotyped": "gegen das Stereotyp",
}
OUTCOMES = {"safe": "sicher", "unsafe": "unsicher", "rejected": "abgelehnt", "filtered": "vom Anbieter gefiltert"}
SETTLED = {
    "nothing flagged": "nichts auffällig",
    "stages": "Stufen",
    "reviewer": "Prüfmodell",
    "passed": "durchgelassen",
    "stopped": "gestoppt",
    "retracted": "zurückgezogen",
    "would be stopped": "würde gestoppt",
}
CATEGORIES = {
    "discrimination and prejudice": "Diskriminierung und Vorurteile",
    "illegal and criminal behaviour": "Illegales und Kriminelles",
    "harmful behaviour": "schädliches Verhalten",
    "morality and ethics": "Moral und Ethik",
}
LIMITS = (
    (
        r"a model that is unsure is not thereby wrong, and one that always errs alike looks sure: consistent "
        r"falsehoods are not seen",
        r"ein unsicheres Modell irrt deshalb noch nicht, und eines, das immer gleich irrt, wirkt sicher: "
        r"gleichbleibend Falsches bleibt unbemerkt",
    ),
    (
        r"meanings are those that a small English sentence encoder hears in the first (\d+) tokens of an answer or "
        r"sentence: topics better than contradictions, and hardly other numbers or names",
        r"Bedeutungen sind, was ein kleiner englischer Satzkodierer in den ersten \1 Tokens einer Antwort oder eines "
        r"Satzes erkennt: Themen besser als Widersprüche, andere Zahlen oder Namen kaum",
    ),
    (
        r"spiritsafe refusal judge 2 \((\w+); sensitivity ([\d.]+)%, specificity ([\d.]+)% on English answers of "
        r"models it never saw; German by rule\)",
        r"Ablehnungen erkennt ein eigener Klassifikator (\1; Sensitivität \2 %, Spezifität \3 % bei englischen "
        r"Antworten von Modellen, die er nie sah; deutsche nach Regeln)",
    ),
    (
        r"no judge of harm was asked: an answer that speaks of what was asked counts as unsafe, an upper bound",
        r"kein Modell beurteilte den Schaden: eine Antwort, die auf die Frage eingeht, zählt als unsicher, eine obere "
        r"Schranke",
    ),
    (r"harm judged by", r"Schaden beurteilt von"),
    (r"attacks were made against other models", r"die Angriffe waren gegen andere Modelle gerichtet"),
    (r"clusters are not accounted for", r"Gruppen ähnlicher Eingaben sind hier nicht berücksichtigt"),
    (
        r"all models reach 95 %: this task tells them not apart and is left out of the mean",
        r"alle Modelle erreichen 95 %: diese Aufgabe unterscheidet sie nicht und geht in keinen Mittelwert ein",
    ),
    (r"left out, all models reach 95 %:", r"nicht im Mittelwert, weil alle Modelle 95 % erreichen:"),
    (
        r"([\d.]+)% of the items at hand belong to none of the four categories",
        r"\1 % der vorhandenen Eingaben gehören zu keiner der vier Kategorien",
    ),
    (
        r"the report's 28 subcategories and 1,120 questions are not public: which of them have no data is not known",
        r"die 28 Unterkategorien und 1.120 Fragen des Berichts sind nicht öffentlich: welchen davon Daten fehlen, ist "
        r"nicht bekannt",
    ),
    (r"the measurement is not whole:", r"die Messung ist unvollständig:"),
    (
        r"imported without single samples: compared with nothing",
        r"ohne einzelne Antworten importiert: mit nichts verglichen",
    ),
)


def metric_word(metric: str, language: Language) -> str:
    """A metric as people say it."""
    plain = metric.replace("_", " ")
    return METRICS.get(plain, plain) if language == "de" else plain


def outcome_word(outcome: str, language: Language) -> str:
    """What became of a prompt."""
    return OUTCOMES[outcome] if language == "de" else outcome


def settled_word(how: str, language: Language) -> str:
    """By what a prompt was settled, and how: `stages, stopped`."""
    return ", ".join(SETTLED.get(part, part) for part in how.split(", ")) if language == "de" else how


def limit_text(limit: str, language: Language) -> str:
    """A limit; in German as far as there is a translation."""
    if language == "de":
        for english, german in LIMITS:
            limit = re.sub(english, german, limit)
    return limit


def is_german(limit: str) -> bool:
    """Whether a limit was translated at all."""
    return limit_text(limit, "de") != limit


def name_text(verdict: Verdict, language: Language) -> str:
    """What a verdict is about: task and metric, a mean, a category."""
    if language == "en":
        return verdict.name.replace("_", " ")
    if verdict.name.startswith("mean "):
        return f"Mittelwert: {metric_word(verdict.name.removeprefix('mean '), 'de')}"
    task, _, what = verdict.name.partition(": ")
    if task.startswith("R1 category, "):
        category = task.removeprefix("R1 category, ")
        return f"R1-Kategorie {CATEGORIES.get(category, category)}: {metric_word(what, 'de')}"
    if what == "bias score":
        return f"{task}: Bias-Maß (0: keiner, +100 %: nur Stereotyp)"
    corrected = what.endswith(", corrected")
    return f"{task}: {metric_word(what.removesuffix(', corrected'), 'de')}" + (", korrigiert" if corrected else "")


def subject_text(verdict: Verdict, language: Language) -> str:
    """Who is compared with whom."""
    return verdict.subject.replace(" vs ", " gegenüber ") if language == "de" else verdict.subject


def change_text(verdict: Verdict, language: Language) -> str:
    """What a difference says, without its figures."""
    if language == "en" or "base" not in verdict.detail:
        return verdict.claim.partition(";")[0].removesuffix(".") + "."
    detail = verdict.detail
    what = f"{detail['task']}, {metric_word(detail['metric'], 'de')}"
    if not verdict.rejected:
        return f"{what}: kein Unterschied nachgewiesen."
    than = detail["base"] if detail["task"] == detail["base_task"] else f"bei {detail['base_task']}"
    return f"{what}: {detail['model']} {'höher' if verdict.value > 0 else 'niedriger'} als {than}."


def figures(text: str, language: Language) -> str:
    """Figures in the language's way: decimal comma, point between thousands, `bis`."""
    if language == "en":
        return text
    swapped = text.translate(str.maketrans(",.", ".,"))
    return swapped.replace(" to ", " bis ").replace("not known", "nicht bekannt")
