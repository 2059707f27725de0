"""What an answer states: the answer proper without reasoning, markup and closing words, and its marked part.

A mark (`\\boxed{..}`, `#### ..`, `the answer is ..`) wins over whatever follows it.
"""

import re

from spiritsafe.measure.answered import split_thought

BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
HASHES = re.compile(r"^\s*####\s*(.+)$", re.MULTILINE)
ANSWER_TAG = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.DOTALL | re.IGNORECASE)
MARKUP = re.compile(r"\*+|__+|`+|(?<!\\)\$(?=[A-Za-z(\\])|(?<=[A-Za-z)])\$")
# "the answer is", "Answer:", and the same in the languages of MGSM that are measured here.
MARK = re.compile(
    r"(?:\b(?:answer|antwort|lösung|ergebnis|réponse|resultat|résultat|respuesta|resultado)\b"
    r"(?:\s+(?:is|are|would be|ist|lautet|beträgt|est|es))?(?:\s+(?:that|therefore|thus|also))*\s*[:：=]?"
    r"|答案\s*(?:是|为|：|:))\s*",
    re.IGNORECASE,
)
SAYS = re.compile(r"\b(?:is|are|be|ist|lautet|beträgt|est|es)\b|[:：=]|答案", re.IGNORECASE)
NEGATED = re.compile(r"\s*(?:not|nicht|kein|pas|no es)\b", re.IGNORECASE)
# Sentences with which an assistant closes; what they count is not the answer.
CLOSING = re.compile(
    r"(?:let me know|please let me|feel free|i hope|hope (?:this|that|it)|if you (?:have|need|want|would)|note:|"
    r"is there anything|would you like|lass mich wissen|ich hoffe|falls du|wenn sie|n'hésitez|j'espère|"
    r"si (?:vous|tu) avez|espero que|si (?:necesitas|tienes))",
    re.IGNORECASE,
)
SENTENCE = re.compile(r"(?<=[.!?。])\s+|\n+")


def proper(answer: str) -> str:
    """The answer without its reasoning; reasoning that never ends leaves no answer."""
    return split_thought(answer)[1].strip()


def boxed(text: str) -> str:
    """What stands in the last `\\boxed{..}`, braces balanced; "" if there is none."""
    marks = list(BOX.finditer(text))
    if not marks:
        return ""
    start = marks[-1].end()
    depth = 1
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if not depth:
            return text[start:place]
    return text[start:]


def marked(text: str) -> str:
    """The part of an answer proper that a mark names as the answer; "" if nothing is marked."""
    if box := boxed(text):
        return box
    if tags := ANSWER_TAG.findall(text):
        return str(tags[-1])
    if hashes := HASHES.findall(text):
        return str(hashes[-1])
    plain = MARKUP.sub("", text)
    for mark in reversed(list(MARK.finditer(plain))):
        rest = plain[mark.end() :]
        if SAYS.search(mark.group()) and rest.strip() and not NEGATED.match(rest):
            return SENTENCE.split(rest.strip())[0]
    return ""


def without_closing(text: str) -> str:
    """A text without the sentences at its end that offer more help."""
    sentences = SENTENCE.split(text.strip())
    while len(sentences) > 1 and CLOSING.match(sentences[-1].strip()):
        sentences.pop()
    return "\n".join(sentences)
