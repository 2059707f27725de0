"""Whether a text is English, by its commonest words; one without any of these counts as English."""

import re

WORD = re.compile(r"[a-z]+")
IN_ENGLISH = """the a an of to and is are was in on for with how what why who when where do does did i you my your me it
this that can could should would will from by as at be have has not or if"""
IN_OTHERS = """der die das den dem des ein eine einen einem einer und ist sind wie wer wo warum wann ich du er sie es
wir ihr mir mich dir dich mein meine dein nicht kein keine zu von mit auf fuer im am zum zur bei nach aus ueber kann
kannst koennen soll sollte wird werden wurde hat haben alle bitte man oder wenn dass aber sich einige viele
le la les de des du un une et est que qui je tu il elle nous vous mon ma pour dans sur avec pas comment
el los las del y es una por para con como mi su no se lo al o uma um os em com nao il di che e per non
sono het een van ik niet met dat"""
ENGLISH = frozenset(IN_ENGLISH.split())
FOREIGN = frozenset(IN_OTHERS.split()) - ENGLISH


def is_english(folded: str) -> bool:
    """Whether a folded text has at least as many common English words as of other languages, and Latin letters."""
    words = WORD.findall(folded)
    if sum(map(len, words)) < 0.7 * sum(c.isalpha() for c in folded):
        return False
    return sum(w in ENGLISH for w in words) >= sum(w in FOREIGN for w in words)
