// Texts folded character by character, where no character's reading depends on its neighbours; `folding.py` says more.
#include <cstdint>
#include <initializer_list>

namespace {
constexpr int64_t CONTEXT = -1, UNKNOWN = -2;
enum { LEET = 1, SPELLED = 2, ROT13 = 4, RUN = 8 };
enum Kind : uint8_t { OTHER, LETTER, SIGN, MIDDLE };  // SIGN stands for a letter anywhere, MIDDLE between two

struct Kinds {
  uint8_t of[256] = {};
  bool in_run[256] = {}, leet[64] = {};  // three kinds, two bits each, that make a word leetspeak
  Kinds() {
    for (int c = 'a'; c <= 'z'; ++c) of[c] = LETTER, in_run[c] = true;
    for (int c = '0'; c <= '9'; ++c) in_run[c] = true;
    for (char c : {'0', '1', '3', '4', '5', '7', '@', '$'}) of[(uint8_t)c] = SIGN;
    for (char c : {'!', '|'}) of[(uint8_t)c] = MIDDLE;
    for (char c : {'+', '/', '_', '-'}) in_run[(uint8_t)c] = true;
    for (int mix : {LETTER << 4 | SIGN << 2 | LETTER, LETTER << 4 | MIDDLE << 2 | LETTER,
                    LETTER << 4 | LETTER << 2 | SIGN, SIGN << 4 | LETTER << 2 | LETTER})
      leet[mix] = true;
  }
};
const Kinds KINDS;

inline uint32_t next(const uint8_t*& at) {
  uint32_t c = *at++;
  if (c < 0x80) return c;
  int more = c < 0xE0 ? 1 : c < 0xF0 ? 2 : 3;
  c &= 0x3F >> more;
  for (; more; --more) c = c << 6 | (*at++ & 0x3F);
  return c;
}

// The folded text's length, or why there is none.
int64_t fold(const uint8_t* at, const uint8_t* end, const uint64_t* table, uint8_t* out) {
  uint8_t* const begin = out;
  while (at < end) {
    const uint64_t ascii = *at < 0x80 ? table[*at] : 0;
    if (ascii >> 56 == 2 && (uint8_t)ascii != ' ') { *out++ = (uint8_t)ascii, ++at; continue; }
    const uint64_t entry = table[next(at)];
    const int code = (int)(entry >> 56);
    if (code == 0) return UNKNOWN;
    if (code == 0xFF) return CONTEXT;
    for (int i = 0; i < code - 1; ++i) {
      const uint8_t c = (uint8_t)(entry >> 8 * i);
      if (c != ' ' || (out > begin && out[-1] != ' ')) *out++ = c;
    }
  }
  if (out > begin && out[-1] == ' ') --out;
  return out - begin;
}

// Whether four letters end here with one sign between each and the next.
bool is_spelled(const uint8_t* end) {
  const uint8_t by = end[-1];
  if (by != ' ' && by != '.' && by != '-' && by != '_' && by != '*') return false;
  for (int i = 0; i < 7; i += 2)
    if (KINDS.of[end[-i]] != LETTER || (i && end[1 - i] != by)) return false;
  return true;
}

// What may hide in a folded text: rather too much than too little.
int hidden(const uint8_t* s, int64_t size, const uint64_t* common, int64_t num_common) {
  int found = 0, words = 0, run = 0, length = 0, three = 0;
  uint64_t word = 0;
  for (int64_t i = 0; i <= size; ++i) {
    const uint8_t c = i < size ? s[i] : 0, kind = KINDS.of[c];
    three = (three << 2 | kind) & 63;
    if (KINDS.leet[three]) found |= LEET;
    run = KINDS.in_run[c] ? run + 1 : 0;
    if (run == 16) found |= RUN;
    if (kind == LETTER) {
      if (length == 0 && i >= 6 && is_spelled(s + i)) found |= SPELLED;
      word |= (uint64_t)c << (8 * length & 63);
      ++length;
    } else if (length) {
      for (int64_t k = 0; length > 2 && length <= 5 && k < num_common; ++k) words += common[k] == word;
      word = 0, length = 0;
    }
  }
  return words > 1 ? found | ROT13 : found;
}
}  // namespace

extern "C" {
// Texts one after the other, each up to its end; so are what they fold to. `hides` gets what may hide, or why not folded.
void fold_texts(const uint8_t* raw, const int64_t* ends, int64_t count, const uint64_t* table, const uint64_t* common,
                int64_t num_common, uint8_t* out, int64_t* out_ends, int64_t* hides) {
  const uint8_t* at = raw;
  uint8_t* to = out;
  for (int64_t n = 0; n < count; ++n) {
    const int64_t size = fold(at, raw + ends[n], table, to);
    hides[n] = size < 0 ? size : hidden(to, size, common, num_common);
    at = raw + ends[n];
    to += size < 0 ? 0 : size;
    out_ends[n] = to - out;
  }
}
}
