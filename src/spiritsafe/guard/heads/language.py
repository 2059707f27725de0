"""Which tongue a text is in, by its commonest words: English, German, or another; one without any counts as English."""

import re
from typing import Literal

Tongue = Literal["english", "german", "other"]
WORD = re.compile(r"[a-z]+")
IN_ENGLISH = """the a an of to and is are was in on for with how what why who when where do does did i you your my me it
this that can could should would will from by as at be have has not or if"""
IN_GERMAN = """der die das den dem des ein eine einen einem einer und ist sind wie wer wo warum wann ich du er sie es
wir ihr mir mich dir dich mein meine dein nicht kein keine zu von mit auf fuer im am zum zur bei nach aus ueber kann
kannst koennen soll sollte wird werden wurde hat haben alle bitte man oder wenn dass aber sich einige viele"""
IN_OTHERS = """le la les de des du un une et est que qui je tu il elle nous vous mon ma pour dans sur avec pas comment
el los las del y es una por para con como mi su no se lo al o uma um os em com nao il di che e per non
sono het een van ik niet met dat"""
ENGLISH = frozenset(IN_ENGLISH.split())
GERMAN = frozenset(IN_GERMAN.split()) - ENGLISH
OTHERS = frozenset(IN_OTHERS.split()) - ENGLISH


def tongue_of(folded: str) -> Tongue:
    """English where a folded text is in Latin letters and has as many common English words as of the other tongues."""
    words = WORD.findall(folded)
    if sum(map(len, words)) < 0.7 * sum(c.isalpha() for c in folded):
        return "other"
    if sum(w in ENGLISH for w in words) >= sum(w in GERMAN or w in OTHERS for w in words):
        return "english"
    return "german" if sum(w in GERMAN for w in words) >= sum(w in OTHERS for w in words) else "other"
