// Texts folded character by character, where no character's reading depends on its neighbours; `folding.py` says more.
#include <cstdint>
#include <initializer_list>

namespace {
constexpr int64_t CONTEXT = -1, UNKNOWN = -2;
enum { LEET = 1, SPELLED = 2, CIPHER = 4, RUN = 8, MARKED = 16, CODED = 32, NUMBERS = 64, MORSE = 128, PIECES = 256,
       JOINED = 512, NAMES = 1024, TURNED = 2048, MASKED = 4096 };
enum Kind : uint8_t { OTHER, LETTER, SIGN, MIDDLE };  // SIGN stands for a letter anywhere, MIDDLE between two
constexpr int MOST_UNSEEN = 8;  // as in unseen.py: a run of them is looked into
constexpr uint64_t CIPHERS = (1 << 27) - 1, NAME = 1 << 27, KEY = 1 << 28, DOUBLED = 1 << 29, HIDDEN_KEY = 1 << 30, STARTS = 1ull << 31;
constexpr uint64_t OFFSET = 0xCBF29CE484222325u, PRIME = 0x100000001B3u;  // FNV-1a
constexpr int ENOUGH_LETTERS = 6, ENOUGH_NAMES = 4, MOST_PIECES = 4, WIDEST_GAP = 6;

struct Kinds {
  uint8_t of[256] = {};
  bool in_run[256] = {}, leet[64] = {};  // three kinds, two bits each, that make a word leetspeak
  bool joins[256] = {}, hex[256] = {}, dot[256] = {}, blank[256] = {};
  Kinds() {
    for (int c = 'a'; c <= 'z'; ++c) of[c] = LETTER, in_run[c] = true;
    for (int c = '0'; c <= '9'; ++c) in_run[c] = true, hex[c] = true;
    for (int c = 'a'; c <= 'f'; ++c) hex[c] = true;
    for (char c : {'0', '1', '3', '4', '5', '6', '7', '8', '9', '@', '$'}) of[(uint8_t)c] = SIGN;
    for (char c : {'!', '|'}) of[(uint8_t)c] = MIDDLE;
    for (char c : {'+', '/', '_', '-'}) in_run[(uint8_t)c] = true;
    for (char c : {'.', '-', '_', '*', '/', '|', ',', '~', '+', ':', ';'}) joins[(uint8_t)c] = true;
    for (char c : {'.', '-', '_'}) dot[(uint8_t)c] = true;
    for (char c : {' ', ',', ';', ':', '/', '|', '-', '_'}) blank[(uint8_t)c] = true;
    for (int mix : {LETTER << 4 | SIGN << 2 | LETTER, LETTER << 4 | MIDDLE << 2 | LETTER,
                    LETTER << 4 | LETTER << 2 | SIGN, SIGN << 4 | LETTER << 2 | LETTER,
                    SIGN << 4 | LETTER << 2 | SIGN, SIGN << 4 | LETTER << 2 | MIDDLE,
                    LETTER << 4 | MIDDLE << 2 | SIGN})
      leet[mix] = true;
  }
};
const Kinds KINDS;

// What a word may be, by its hash: pairs of hash and bits, open addressing; `ciphers.py` says which bits.
struct Table {
  const uint64_t* slots;
  int64_t size;
  uint64_t operator[](uint64_t code) const {
    for (int64_t at = code & (size - 1);; at = (at + 1) & (size - 1)) {
      if (!slots[2 * at + 1]) return 0;
      if (slots[2 * at] == code) return slots[2 * at + 1];
    }
  }
};

inline uint32_t next(const uint8_t*& at) {
  uint32_t c = *at++;
  if (c < 0x80) return c;
  int more = c < 0xE0 ? 1 : c < 0xF0 ? 2 : 3;
  c &= 0x3F >> more;
  for (; more; --more) c = c << 6 | (*at++ & 0x3F);
  return c;
}

// The folded text's length, or why there is none. `has_case` gets whether a capital follows a small letter.
int64_t fold(const uint8_t* at, const uint8_t* end, const uint64_t* table, uint8_t* out, bool& has_case) {
  uint8_t* const begin = out;
  uint8_t before = 0;
  int unseen = 0;
  while (at < end) {
    const uint8_t raw = *at;
    const uint64_t ascii = raw < 0x80 ? table[raw] : 0;
    if (ascii >> 56 == 2 && (uint8_t)ascii != ' ') {
      has_case |= (uint8_t)(raw - 'A') < 26 && (uint8_t)(before - 'a') < 26;
      before = raw, unseen = 0;
      *out++ = (uint8_t)ascii, ++at;
      continue;
    }
    const uint64_t entry = table[next(at)];
    const int code = (int)(entry >> 56);
    if (code == 0) return UNKNOWN;
    if (code == 0xFF) return CONTEXT;
    if (code == 1 && ++unseen == MOST_UNSEEN) return CONTEXT;
    if (code > 1) unseen = 0, before = 0;
    for (int i = 0; i < code - 1; ++i) {
      const uint8_t c = (uint8_t)(entry >> 8 * i);
      if (c != ' ' || (out > begin && out[-1] != ' ')) *out++ = c;
    }
  }
  if (out > begin && out[-1] == ' ') --out;
  return out - begin;
}

// Whether three single letters end here, with one sign between each and the next.
bool is_spelled(const uint8_t* s, int64_t end) {
  if (end < 5) return false;
  const uint8_t* last = s + end - 1;
  const uint8_t by = last[-1];
  return (by == ' ' || KINDS.joins[by]) && last[-3] == by && KINDS.of[last[0]] == LETTER && KINDS.of[last[-2]] == LETTER &&
         KINDS.of[last[-4]] == LETTER && (end == 5 || KINDS.of[last[-5]] != LETTER);
}

// Words of a folded text, one letter after the other: ciphers, the spelling alphabet, words in pieces.
struct Words {
  Table table;
  uint64_t code[MOST_PIECES] = {}, single = OFFSET;  // of the word, of it after the one before it, ...
  int pieces = 0, length = 0, gap = 0, names = 0, letters[27] = {}, hits[27] = {};
  uint8_t last = 0;
  int found = 0;
  bool starts = false;  // whether the last word is one that questions start with

  void letter(uint8_t c) {
    if (length == 0) {
      pieces = gap > WIDEST_GAP ? 0 : pieces;
      for (int k = pieces < MOST_PIECES - 1 ? pieces : MOST_PIECES - 1; k > 0; --k) code[k] = code[k - 1];
      code[0] = OFFSET, single = OFFSET, last = 0;
      pieces = pieces < MOST_PIECES ? pieces + 1 : MOST_PIECES;
    }
    ++length, gap = 0;
    for (int k = 0; k < pieces; ++k) code[k] = (code[k] ^ c) * PRIME;
    if (c != last) single = (single ^ c) * PRIME;
    last = c;
  }

  void other() {
    if (length) end();
    ++gap;
  }

  void end() {
    const uint64_t bits = table[code[0]];
    for (int cipher = 0; bits & CIPHERS && cipher < 27; ++cipher)
      if (bits >> cipher & 1 && ++hits[cipher] > 1 && letters[cipher] + length >= ENOUGH_LETTERS) found |= CIPHER;
    for (int cipher = 0; bits & CIPHERS && cipher < 27; ++cipher) letters[cipher] += bits >> cipher & 1 ? length : 0;
    if (bits & HIDDEN_KEY) found |= CIPHER;
    starts = bits & STARTS;
    if (bits & NAME && ++names == ENOUGH_NAMES) found |= NAMES;
    if (!(bits & KEY) && table[single] & DOUBLED) found |= PIECES;
    for (int k = 1; k < pieces; ++k)
      if (table[code[k]] & KEY) found |= PIECES;
    length = 0;
  }
};

// What may hide in a folded text: rather too much than too little.
int hidden(const uint8_t* s, int64_t size, Table table) {
  int found = 0, run = 0, three = 0, joins = 0, numbers = 0, dots = 0, token = 0, is_hex = 1, is_dots = 1, digits = 0;
  Words words{table};
  for (int64_t i = 0; i <= size; ++i) {
    const uint8_t c = i < size ? s[i] : ' ', kind = KINDS.of[c], before = i ? s[i - 1] : ' ';
    three = (three << 2 | kind) & 63;
    if (KINDS.leet[three]) found |= LEET;
    run = KINDS.in_run[c] ? run + 1 : 0;
    if (run == 16) found |= RUN;
    const bool digit = (uint8_t)(c - '0') < 10, was_digit = (uint8_t)(before - '0') < 10;
    if ((digit && KINDS.of[before] == LETTER) || (kind == LETTER && was_digit) || (c == '=' && KINDS.in_run[before]))
      found |= CODED;
    if (((before == '%' || before == '=') && KINDS.hex[c]) || (before == '&' && (c == '#' || kind == LETTER)) ||
        (before == '<' && (kind == LETTER || c == '/' || c == '!')) || (before == '\\' && (kind == LETTER || digit)))
      found |= MARKED;
    if (kind != LETTER && is_spelled(s, i)) found |= SPELLED;
    if (c == '(' && before == 'r' && i > 2 && s[i - 2] == (s[i - 3] == 'h' ? 'a' : 'h') && (s[i - 3] == 'h' || s[i - 3] == 'c'))
      found |= MARKED;  // chr( and char(
    if ((c == '_' && !KINDS.in_run[before]) || (before == '_' && !KINDS.in_run[c])) found |= JOINED;  // a blank or stress
    if (before == '*' && kind == LETTER && i > 2 && (KINDS.of[s[i - 2]] == LETTER || (s[i - 2] == '*' && KINDS.of[s[i - 3]] == LETTER)))
      found |= MASKED;
    if (c == ' ') joins = 0;
    else if (kind == LETTER && KINDS.joins[before] && i > 1 && ++joins == 2) found |= JOINED;
    if (KINDS.blank[c]) {  // numbers one after the other; signs of Morse
      if (token && is_hex && (digits || token == 2)) { if (++numbers == 4) found |= NUMBERS; }
      else if (token) numbers = 0;
      token = 0, is_hex = 1, digits = 0;
    } else {
      ++token, digits += digit;
      if (!KINDS.hex[c] && c != 'x' && c != 'u' && c != 'o' && c != '&' && c != '#' && c != '\\') is_hex = 0;
    }
    if (c == ' ' || c == '/' || c == '|') {
      if (i && before != ' ' && before != '/' && before != '|') { if (is_dots) { if (++dots == 3) found |= MORSE; } else dots = 0; }
      is_dots = 1;
    } else if (!KINDS.dot[c] && c < 0x80) is_dots = 0;
    if (kind == LETTER) words.letter(c); else words.other();
  }
  return found | words.found | (words.starts ? TURNED : 0);
}
}  // namespace

extern "C" {
// Texts one after the other, each up to its end; so are what they fold to. `hides` gets what may hide, or why not folded.
void fold_texts(const uint8_t* raw, const int64_t* ends, int64_t count, const uint64_t* table, const uint64_t* words,
                int64_t num_words, uint8_t* out, int64_t* out_ends, int64_t* hides) {
  const uint8_t* at = raw;
  uint8_t* to = out;
  for (int64_t n = 0; n < count; ++n) {
    bool has_case = false;
    const int64_t size = fold(at, raw + ends[n], table, to, has_case);
    hides[n] = size < 0 ? size : hidden(to, size, {words, num_words}) | (has_case ? CODED : 0);
    at = raw + ends[n];
    to += size < 0 ? 0 : size;
    out_ends[n] = to - out;
  }
}
}
