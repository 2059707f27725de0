"""Encodings undone in place: each stretch that says something is replaced by what it says.

    in_words     one layer off: ascii85, uuencode, ROT47, escapes and tags, base64, base32, hex, numbers, Morse, the
                 spelling alphabet
    is_sealed    whether a long run looks encoded and says nothing that can be read

A stretch that decodes to no text stays as it is. All takes time linear in the text.
"""

import base64
import binascii
import codecs
import html
import re
import string
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress

_TAG = re.compile(r"<!--.{0,500}?-->|</?[a-z][^<>]{0,200}>", re.IGNORECASE | re.DOTALL)
_PERCENT = re.compile(r"(?:%[0-9a-f]{2})+", re.IGNORECASE)
_PRINTABLE = re.compile(r"(?:=[0-9A-F]{2})+|(?:=[0-9a-f]{2}){3,}")
_ESCAPE_FORMS = r"u\{([0-9a-f]{1,6})\}|u([0-9a-f]{4})|U([0-9a-f]{8})|x([0-9a-f]{2})|([0-9a-f]{6})\s?|([0-7]{3})"
_ESCAPE = re.compile(rf"\\(?:{_ESCAPE_FORMS})", re.IGNORECASE)
_ESCAPES = re.compile(rf"(?:\\(?:{_ESCAPE_FORMS}))+", re.IGNORECASE)
_CHR = r"(?:chr|char|unichr)\(\s*(?:0x[0-9a-f]{1,6}|\d{1,7})\s*\)"
_CHRS = re.compile(rf"{_CHR}(?:\s*(?:\+|\.|,|&|\|\|)?\s*{_CHR})+", re.IGNORECASE)
_UU_LINE = re.compile(r"^[!-M][ -`]{4,60}$", re.MULTILINE)
_ROT47 = {code: 33 + (code - 33 + 47) % 94 for code in range(33, 127)}
_RUN = re.compile(r"[A-Za-z0-9+/_=-]{4,}(?:\s[A-Za-z0-9+/_=-]{4,})*")
_CODED = re.compile(r"[a-z][A-Z]|[0-9][A-Za-z]|[A-Za-z][0-9]|=$|^.{16}")
_SPACED = re.compile(r"(?<!\S)[A-Za-z0-9+/_=-](?: [A-Za-z0-9+/_=-]){11,}(?!\S)")  # a blank after each character
_ASCII85 = re.compile(r"<~([!-uz\s]+)~>|(?<!\S)([!-~]{10,})(?!\S)")
_NUMBER = r"(?:0x|0b|0o|U\+|&#x?)?[0-9A-Fa-f]{1,8}[;hH]?"
_NUMBERS = re.compile(rf"(?<![\w.]){_NUMBER}(?:[\s,;:_/|-]+{_NUMBER}){{3,}}+")
_BITS = re.compile(r"(?<!\w)(?:[01]{8}){2,}(?!\w)")
_MORSE_RUN = re.compile(r"(?<![^\s/|])[.\-_·•–—−]{1,6}(?:[\s/|]+[.\-_·•–—−]{1,6}){2,}+")
_DASHES = str.maketrans("_·•–—−", "-..---")
_MORSE_SIGNS = """.- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- .-- -..- -.--
--.. ----- .---- ..--- ...-- ....- ..... -.... --... ---.. ----."""
_MORSE = dict(zip(_MORSE_SIGNS.split(), string.ascii_lowercase + string.digits, strict=True))
_NAMES = """alfa alpha bravo charlie delta echo foxtrot golf hotel india juliett juliet kilo lima mike november oscar
papa quebec romeo sierra tango uniform victor whiskey whisky xray yankee zulu"""
NATO = _NAMES.split()
_NATO = re.compile(rf"\b(?:{'|'.join(NATO)}|x-ray)\b", re.IGNORECASE)
_NATO_RUN = re.compile(rf"{_NATO.pattern}(?:[\s,.]+{_NATO.pattern})*", re.IGNORECASE)
_SPEECH = re.compile(r"(?<!\S)(?:a|an|and|at|do|for|how|i|in|is|of|the|to|what|you|das|der|die|ich|und|wie)(?!\S)")
LEAST_GROUPS = 4  # of one size, to be one code in blocks
LEAST_ROT47 = 12
MOST_LETTERS_ROT47 = 0.8  # of what is not blank; of a plain sentence more are letters
ENOUGH_NAMES = 4  # of the spelling alphabet; fewer are hotels and places
MOST_INFLATED = 1 << 16
LONGEST_OPEN = 64  # characters of a run that decodes to no text: beyond hashes, keys' names and short tokens
_HASHES = (64, 80, 96, 128)  # of hex digits that are digests
_KNOWN_BYTES = (
    b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"%PDF", b"wOF", b"PK\x03\x04", b"BM", b"ID3", b"OggS", b"\x00asm",
    b"\x00\x00\x00\x07ssh-", b"\x00\x00\x00\x0bssh-", b"\x00\x00\x00\x13ecdsa", b"0\x82", b"0\x81", b"0Y0",
    b"0*0", b"openssh-key",
)  # fmt: skip


def in_words(text: str) -> str:
    """The text with one layer of encoding taken off wherever it says something."""
    for step in (_ascii85, _uuencoded, _rot47, _unescaped, _spaced, _runs, _numbers, _morse, _spelled_by_names):
        text = step(text)
    return text


def is_sealed(text: str) -> bool:
    """Whether a run of `LONGEST_OPEN` characters or more looks encoded, is of no known kind, and says nothing."""
    return any(_is_sealed(text, found) for found in re.finditer(rf"[A-Za-z0-9+/_=-]{{{LONGEST_OPEN},}}", text))


def _is_sealed(text: str, found: re.Match[str]) -> bool:
    run = found.group()
    if (found.start() and text[found.start() - 1] in ".$") or run.startswith(("sha256-", "sha384-", "sha512-")):
        return False  # a signature beside its token, a hash beside its salt
    is_hex = re.fullmatch(r"[0-9a-fA-F]+", run) is not None
    if is_hex and (len(run) in _HASHES or len(set(run)) < 8):
        return False
    cases = len(re.findall(r"[a-z][A-Z]|[A-Z][a-z]|[0-9][A-Za-z]|[A-Za-z][0-9]", run))
    if cases < 0.2 * len(run):  # paths, long names, rulers: letters and digits change far more often in what is encoded
        return False
    data = bytes.fromhex(run[: len(run) // 2 * 2]) if is_hex else _bytes64(run[: len(run) // 4 * 4])
    return data is None or not data.startswith(_KNOWN_BYTES)


def _unescaped(text: str) -> str:
    if "<" in text:
        text = _TAG.sub("", text)
    if "&" in text:
        text = html.unescape(text)
    if "%" in text:
        text = _PERCENT.sub(lambda found: _utf8(bytes.fromhex(found.group().replace("%", "")), found.group()), text)
    if "(" in text:
        text = _CHRS.sub(lambda found: _by_chr(found.group()), text)
    if "\\" in text:
        text = _ESCAPES.sub(lambda found: _escaped(found.group()), text)
    if text.count("=") >= 3:
        text = _PRINTABLE.sub(lambda found: _utf8(bytes.fromhex(found.group().replace("=", "")), found.group()), text)
    return text


def _escaped(run: str) -> str:
    said = ""
    for found in _ESCAPE.finditer(run):
        brace, four, eight, two, six, octal = found.groups()
        code = int(octal, 8) if octal else int(brace or four or eight or two or six, 16)
        said += chr(code) if code < 0x110000 else found.group()
    return said.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _by_chr(run: str) -> str:
    """A sum of `chr(72)`, as programs spell words."""
    codes = [int(number, 16 if "x" in number.lower() else 10) for number in re.findall(r"\(\s*(\w+)", run)]
    return "".join(chr(code) for code in codes) if all(code < 0xD800 for code in codes) else run


def _utf8(data: bytes, otherwise: str) -> str:
    with suppress(UnicodeDecodeError):
        return data.decode("utf-8")
    return otherwise


def _runs(text: str) -> str:
    return _RUN.sub(lambda found: _said_by_runs(found.group()), text)


def _spaced(text: str) -> str:
    """A code whose characters stand apart, if together they say something."""

    def said(found: re.Match[str]) -> str:
        return _said(found.group().replace(" ", "")) or found.group()

    return _SPACED.sub(said, text)


def _said_by_runs(runs: str) -> str:
    """Neighbouring runs decoded together, as lines of one code are, or each by itself."""
    parts = re.split(r"(\s)", runs)
    if (grouped := _grouped(parts[::2])) is not None:
        return grouped
    said: list[str] = []
    pending: list[str] = []
    for part in [*parts[::2], ""]:
        if part and _CODED.search(part):
            pending.append(part)
            continue
        if pending:
            is_one = len(pending) > 1 and not any(run.endswith("=") for run in pending[:-1])
            whole = _said("".join(pending)) if is_one else None
            least = 1 if len(pending) > 2 else 3
            said += [whole] if whole else [_said(run, least) or run for run in pending]
            pending = []
        if part:
            said.append(part)
    return " ".join(said)


def _grouped(runs: Sequence[str]) -> str | None:
    """Runs with what stands in groups of one size decoded together, as base64 printed in blocks is. None without."""
    start = 0
    while start < len(runs):
        end = start
        while end < len(runs) and len(runs[end]) == len(runs[start]):
            end += 1
        if end - start >= LEAST_GROUPS and (whole := _of_groups(runs, start, end)):
            said, first, last = whole
            return " ".join([*runs[:first], said, *runs[last:]])
        start = max(end, start + 1)
    return None


def _of_groups(runs: Sequence[str], start: int, end: int) -> tuple[str, int, int] | None:
    """What groups say, and where they begin and end: words as long as they may stand before them and after."""
    coded = [i for i in range(start, end) if _CODED.search(runs[i])]
    if 2 * len(coded) < end - start:
        return None
    tail = end < len(runs) and len(runs[end]) < len(runs[start])
    for last in (*((end + 1,) if tail else ()), end, coded[-1] + 1):
        if said := _said("".join(runs[coded[0] : last])):
            return said, coded[0], last
    return None


def _said(run: str, least: int = 3) -> str | None:
    """What one run says in `least` letters or more, by the first code in which it says anything."""
    for data in _bytes_of(run):
        if data and (text := _text_of(data, least)):
            return text
    return None


def _bytes_of(run: str) -> list[bytes | None]:
    found: list[bytes | None] = []
    digits = run[2:] if run[:2] in ("0x", "0X") else run
    if len(digits) >= 6 and len(digits) % 2 == 0 and re.fullmatch(r"[0-9a-fA-F]+", digits):
        found.append(bytes.fromhex(digits))
    if len(run) >= 8 and re.fullmatch(r"(?:[A-Z2-7]+|[a-z2-7]+)=*", run):
        found.append(_bytes32(run.upper()))
    if run.startswith("+"):
        found.append(_bytes64(run.strip("+-")))  # UTF-7 marks what it encodes by these
    return [*found, _bytes64(run), _bytes64(codecs.encode(run, "rot13")), _bytes64(run.rstrip("=")[::-1])]


def _bytes32(run: str) -> bytes | None:
    bare = run.rstrip("=")
    with suppress(binascii.Error):
        return base64.b32decode(bare + "=" * (-len(bare) % 8))
    return None


def _bytes64(run: str) -> bytes | None:
    bare = run.strip("=").replace("-", "+").replace("_", "/")
    if len(bare) % 4 == 1:
        return None
    with suppress(binascii.Error):
        return base64.b64decode(bare + "=" * (-len(bare) % 4))
    return None


def _text_of(data: bytes, least: int = 3) -> str | None:
    """Bytes as text, if they are any: UTF-8, UTF-16, or packed by zlib."""
    if data[:2] in (b"\x1f\x8b", b"\x78\x9c", b"\x78\x01", b"\x78\xda"):
        with suppress(zlib.error):
            data = zlib.decompressobj(47).decompress(data, MOST_INFLATED)  # 47: zlib's or gzip's header
    encodings = ["utf-8"]
    if data.count(0) * 3 > len(data):
        encodings = ["utf-16-le", "utf-16-be"] if data[1:2] == b"\0" else ["utf-16-be", "utf-16-le"]
    for encoding in encodings:
        with suppress(UnicodeDecodeError):
            text = data.decode(encoding).lstrip("\ufeff")
            if _reads(text, least):
                return text
    return None


def _reads(text: str, least: int = 3) -> bool:
    """Whether decoded text can be one: printable, and letters and digits above all; short, in ASCII alone."""
    kept = text.strip()
    letters = sum(c.isalnum() or c in " =+/" for c in kept)
    if len(kept) < least or not all(c.isprintable() or c.isspace() for c in kept):
        return False
    return letters >= 0.6 * len(kept) and (kept.isascii() or len(kept) >= 8)


def _ascii85(text: str) -> str:
    def said(found: re.Match[str]) -> str:
        run = found[1] or found[2]
        if found[1] is None and len(re.findall(r"[^A-Za-z0-9]", run)) < 3:
            return found.group()
        for decode in (base64.a85decode, base64.b85decode):
            with suppress(ValueError):
                if (text := _text_of(decode("".join(run.split())))) and text.isascii():
                    return text
        return found.group()

    return _ASCII85.sub(said, text)


def _uuencoded(text: str) -> str:
    def said(found: re.Match[str]) -> str:
        with suppress(binascii.Error, ValueError):
            if decoded := _text_of(binascii.a2b_uu(found.group())):
                return decoded
        return found.group()

    return _UU_LINE.sub(said, text)


def _rot47(text: str) -> str:
    """A text turned by 47 places of ASCII, if signs stand amid its letters and the turned one has next to none."""
    shown = text.replace(" ", "")
    letters = sum(map(str.isalpha, shown))
    if len(shown) < LEAST_ROT47 or letters > MOST_LETTERS_ROT47 * len(shown):
        return text
    turned = text.translate(_ROT47)
    is_speech = len(set(_SPEECH.findall(turned.lower()))) > 1 and sum(map(str.isalpha, turned)) > letters
    return turned if is_speech else text


def _numbers(text: str) -> str:
    bits = _BITS.sub(lambda found: _of_bits(found.group()) or found.group(), text)
    return _NUMBERS.sub(lambda found: _of_numbers(found.group()) or found.group(), bits)


def _of_bits(run: str) -> str | None:
    return _text_of(bytes(int(run[i : i + 8], 2) for i in range(0, len(run), 8)))


def _of_numbers(run: str) -> str | None:
    """Numbers as letters: binary, decimal, octal or hexadecimal codes, or places in the alphabet."""
    parts = [re.sub(r"^(?:0[xbo]|U\+|&#x?)", "", part).rstrip(";hH") for part in re.split(r"[\s,;:_/|-]+", run)]
    ways: list[tuple[str, Callable[[str], int], range]] = [
        (r"[01]{7,8}", lambda part: int(part, 2), range(32, 127)),
        (r"\d{2,3}", int, range(32, 127)),
        (r"[0-7]{2,3}", lambda part: int(part, 8), range(32, 127)),
        (r"[0-9a-fA-F]{2}|00[0-9a-fA-F]{2}", lambda part: int(part, 16), range(32, 127)),
    ]
    for form, number, codes in ways:
        if all(re.fullmatch(form, part) for part in parts):
            said = [number(part) for part in parts]
            if all(code in codes for code in said) and _reads(text := "".join(map(chr, said))) and _has_letters(text):
                return text
    return _by_places(run, parts)


def _has_letters(text: str) -> bool:
    return sum(c.isalpha() or c == " " for c in text) >= 0.8 * len(text)


def _by_places(run: str, parts: Sequence[str]) -> str | None:
    """1 is a, 26 is z; hyphens within words and blanks between, or the other way round."""
    if len(parts) < 6 or not all(part.isdecimal() and 1 <= int(part) <= 26 for part in parts) or "-" not in run:
        return None
    return re.sub(r"\d+", lambda found: chr(96 + int(found.group())), run).replace("-", "")


def _morse(text: str) -> str:
    def said(found: re.Match[str]) -> str:
        words = re.split(r"\s*[/|\n]\s*|\s{2,}", found.group().translate(_DASHES))
        letters = [[_MORSE.get(code, "") for code in word.split()] for word in words]
        return " ".join("".join(word) for word in letters) if all(all(word) for word in letters) else found.group()

    return _MORSE_RUN.sub(said, text)


def _spelled_by_names(text: str) -> str:
    if len(_NATO.findall(text)) < ENOUGH_NAMES:
        return text
    return _NATO_RUN.sub(lambda found: "".join(name[0] for name in _NATO.findall(found.group())), text)
