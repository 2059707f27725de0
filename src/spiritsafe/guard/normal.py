"""One spelling for what looks the same.

    normalise   one form of a text: NFKC, nothing invisible, Latin letters for their look-alikes, single blanks
    fold        lower case in ASCII: 'Gefährlich' and 'gefaehrlich' become one; other scripts stay as they are

Both take time linear in the text; most texts are folded in one pass of C++ instead (`folding.py`). What is removed
here and could carry words of its own (tag characters, runs of what nobody sees) is read in `unseen.py`.
"""

import re
import unicodedata

# Letters of other scripts that look like Latin ones (a subset of Unicode's confusables, UTS 39): Cyrillic, Greek,
# Armenian, Lisu, Cherokee, Canadian syllables, small capitals.
_LIKE_LATIN = str.maketrans(
    "авеёзіїјкмнопрсѕтуүхһԁԛԝɡьАВЕІЈКМНОРСЅТУХαβγεηικνορστυχωΑΒΕΖΗΙΚΜΝΟΡΤΥΧօսոıᴀʙᴄᴅᴇɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢꜰ"
    "ꓐꓑꓒꓓꓔꓖꓗꓙꓚꓜꓝꓟꓠꓡꓢꓣꓦꓧꓪꓫꓬꓮꓰꓲꓳꓴ"
    "ᎠᎡᎢᎥᎪᎫᎬᎳᎷᎻᎽᎾᏀᏃᏎᏏᏒᏔᏕᏙᏚᏞᏟᏢᏦᏧᏮᏳᏴᏆᏫᏂ"
    "ᗩᗅᗷᗞᗪᗴᖴᕼᒍᒪᗰᑎᑭᖇᔕᑌᐯᗯᑕᘜ",
    "abee3iijkmhonpcstyyxhdqwgbABEIJKMHOPCSTYXabyenikvopotuxwABEZHIKMNOPTYXounıabcdeghijklmnoprstuvwyzf".replace(
        "ı", "i"
    )
    + "BPdDTGKJCZFMNLSRVHWXYAEIOU"
    + "DRTiAJEWMHYoGZ4bRWSVSLCPKdbGBIoh"
    + "AABDDEFHJLMNPRSUVWCG",
)
_CHEROKEE = {code: latin for code, latin in _LIKE_LATIN.items() if 0x13A0 <= code <= 0x13F5}
_LIKE_LATIN |= {  # its small letters lie in two other places
    code + (8 if code >= 0x13F0 else 0x97D0): ord(chr(latin).lower()) for code, latin in _CHEROKEE.items()
}
# Letters in circles and squares that NFKC leaves, letters of flags, and Braille's alphabet.
_SIGNS: dict[int, int | None] = {start + i: 65 + i for start in (0x1F150, 0x1F170, 0x1F1E6) for i in range(26)}
_BRAILLE = "⠁⠃⠉⠙⠑⠋⠛⠓⠊⠚⠅⠇⠍⠝⠕⠏⠟⠗⠎⠞⠥⠧⠺⠭⠽⠵"
_SIGNS |= {ord(sign): 97 + i for i, sign in enumerate(_BRAILLE)} | {0x2820: None, 0x283C: None}
_SIGN = re.compile("[\U0001f150-\U0001f189\U0001f1e6-\U0001f1ff\u2801-\u283f]")
STRANGE = re.compile(
    r"[\u0370-\u058f\u13a0-\u167f\ua4d0-\ua4ff\uab70-\uabbf\u0131\u0250-\u02af\u1d00-\u1d7f\ua730\ua731]"
)
_LETTERS = re.compile(r"[^\W\d_]+")
_MARKS = re.compile(
    "[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe00-\ufe0f\ufe20-\ufe2f\U000e0100-\U000e01ef]+"
)
_CONTROL = dict.fromkeys(code for code in (*range(32), 127) if not chr(code).isspace())
_BLANK = re.compile("[\u115f\u1160\u3164\uffa0\u2800]")
_GERMAN = str.maketrans(
    {"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "æ": "ae", "œ": "oe"}
    # Latin letters with a stroke or a hook, which no decomposition takes off.
    | dict(zip("øłđƀƃɓƈɖƌɗɇƒǥɠħɨƙƚɱƞŋɲƥɍɽŧƭʉʋƴɏƶɀȿȼⱥⱦ", "oldbbbcdddefgghiklmnnnprrttuvyyzzscat", strict=True))
)


def normalise(text: str) -> str:
    """One form of a text, for people and encoders: case, umlauts and other scripts are kept. Idempotent."""
    if text.isascii():
        return " ".join((text if text.isprintable() else text.translate(_CONTROL)).split())
    seen = _BLANK.sub(" ", text)
    seen = seen.translate(_SIGNS) if _SIGN.search(seen) else seen
    plain = " ".join(unicodedata.normalize("NFKC", seen).split())
    kept = _kept(plain)
    return plain if kept == plain else _shown(_shown(kept))  # what composes anew may bring another letter to light


def fold(text: str) -> str:
    """A normalised text in lower case without accents: umlauts as ae, oe, ue, sharp s as ss."""
    low = text.lower()
    if low.isascii():
        return low
    spelled = unicodedata.normalize("NFKD", low.casefold().translate(_GERMAN))
    plain = " ".join(_MARKS.sub("", spelled).translate(_GERMAN).split())  # below an accent may lie another of these
    return _latin(plain).lower() if STRANGE.search(plain) else plain  # or a look-alike


def _shown(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", _kept(unicodedata.normalize("NFKC", text))).split())


def _kept(text: str) -> str:
    """What is seen of a composed text, in the letters that it is seen as."""
    kept = text if text.isascii() else _MARKS.sub("", text)
    if not kept.isprintable():
        kept = "".join(c for c in kept if c.isprintable() or c.isspace())
    return _latin(kept) if not kept.isascii() and STRANGE.search(kept) else kept


def _latin(text: str) -> str:
    """Words of look-alikes in Latin letters: those that mix scripts; all, where no word is truly of another script."""
    words = {word: word.translate(_LIKE_LATIN) for word in set(_LETTERS.findall(text)) if STRANGE.search(word)}
    disguised = {word: latin for word, latin in words.items() if not STRANGE.search(latin)}
    if len(disguised) < len(words):
        disguised = {word: latin for word, latin in disguised.items() if re.search(r"[A-Za-z]", word)}
    if not disguised:
        return text
    return _LETTERS.sub(lambda found: disguised.get(found.group(), found.group()), text)
