// Hashed n-grams of a folded text and the scores of linear heads over them; `ngrams.py` says what is computed.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

namespace {
constexpr uint64_t BASE = 0x9E3779B97F4A7C15ull, MIX = 0xD6E8FEB86659FD93ull, WHOLE = 0x5851F42D4C957F2Dull;
constexpr int SHORTEST = 3, LONGEST = 5, WORDS = 3, SHARED = 1 << 30;

typedef int16_t Lanes __attribute__((vector_size(8)));  // a bucket's weights by head
typedef int32_t Wide __attribute__((vector_size(16)));
constexpr int HEADS = 4;

// What words are about, as `concepts.py` lays it out.
constexpr int IDEAS = 128, BACK = 4;
struct Lexicon {
  const uint64_t* keys = nullptr;
  const int32_t *firsts = nullptr, *ideas = nullptr;
  int slots_bits = 0;
  const int32_t* of(uint64_t key) const {
    for (uint64_t slot = key * MIX >> (64 - slots_bits); keys[slot]; slot = (slot + 1) & ((1ull << slots_bits) - 1))
      if (keys[slot] == key) return ideas + firsts[slot];
    return nullptr;
  }
} lexicon;

struct Token { int begin, end; };  // in the canonical text, without the blanks around it

struct Scratch {
  std::vector<uint8_t> text;
  std::vector<Token> tokens;
  std::vector<uint8_t> seen;  // the epoch that saw a bucket last
  std::vector<int32_t> found;
  std::vector<int32_t> ideas[BACK + 1];  // of the token at hand, and of those before it that have any
  int epoch = 1;
};
thread_local Scratch scratch;
__attribute__((noinline)) Scratch& own_scratch() { return scratch; }

inline int kind(uint8_t c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c >= 0x80 ? 1 : c <= ' ' ? 0 : 2; }

// The tokens of a text, one blank between them, before the first and after the last.
void canonical(const uint8_t* raw, int64_t size, Scratch& s) {
  s.text.assign(1, ' ');
  s.tokens.clear();
  for (int64_t i = 0; i < size;) {
    int now = kind(raw[i]);
    if (now == 0) { ++i; continue; }
    int begin = (int)s.text.size();
    while (i < size && kind(raw[i]) == now) s.text.push_back(raw[i++]);
    s.tokens.push_back({begin, (int)s.text.size()});
    s.text.push_back(' ');
  }
}

inline void add(uint64_t hash, uint64_t salt, int bits, Scratch& s) {
  hash = (hash + salt) * MIX;
  hash ^= hash >> 32;
  hash *= MIX;
  int32_t bucket = (int32_t)(hash >> (64 - bits));
  __builtin_prefetch(&s.seen[bucket], 1);
  s.found.push_back(bucket);
}

// Word n-grams that begin at a token and end after `from`, none beyond `last` (excluded).
void words(int t, int from, int last, int bits, Scratch& s) {
  uint64_t hash = 0;
  int at = s.tokens[t].begin;
  for (int n = 1; n <= WORDS && t + n <= last; ++n) {
    for (; at < s.tokens[t + n - 1].end; ++at) hash = hash * BASE + s.text[at] + 1;
    if (t + n > from) add(hash, 16 + n, bits, s);
  }
}

// The ideas of a token, and each paired with those of the `BACK` tokens before it that have any.
void relate(Token token, int bits, Scratch& s) {
  std::vector<int32_t>& now = s.ideas[BACK];
  now.clear();
  uint64_t key = 0;
  auto note = [&](const int32_t* ideas) {
    for (; ideas && *ideas >= 0; ++ideas)
      if (!std::count(now.begin(), now.end(), *ideas)) now.push_back(*ideas);
  };
  for (int i = token.begin; i < token.end; ++i) {
    key = key * BASE + s.text[i] + 1;
    if (i > token.begin) note(lexicon.of(key));
  }
  note(lexicon.of(key ^ WHOLE));
  if (now.empty()) return;
  for (int32_t idea : now) {
    s.found.push_back((1 << bits) + idea * IDEAS + idea);
    for (int back = 0; back < BACK; ++back)
      for (int32_t other : s.ideas[back])
        if (other != idea) s.found.push_back((1 << bits) + std::min(idea, other) * IDEAS + std::max(idea, other));
  }
  std::rotate(s.ideas, s.ideas + 1, s.ideas + BACK + 1);
}

// The buckets of tokens first to last (excluded), some perhaps more than once. Ideas are paired within a step only.
void collect(int first, int last, int bits, int64_t step, Scratch& s) {
  s.found.clear();
  for (int t = first; t < last; ++t) {
    if (t % step == 0)
      for (auto& ideas : s.ideas) ideas.clear();
    relate(s.tokens[t], bits, s);
    int begin = s.tokens[t].begin - 1, end = s.tokens[t].end + 1;
    for (int i = begin; i < end; ++i) {
      uint64_t hash = 0;
      for (int n = 1; n <= LONGEST && i + n <= end; ++n) {
        hash = hash * BASE + s.text[i + n - 1] + 1;
        if (n >= SHORTEST) add(hash, n, bits, s);
      }
    }
    words(t, t, last, bits, s);
  }
}

// Keeps the first of each bucket of this epoch, marks it where the one before had it, and brings its weights near.
void distinct(Scratch& s, const Lanes* weights) {
  size_t kept = 0;
  for (int32_t bucket : s.found) {
    const int seen = std::exchange(s.seen[bucket], s.epoch);
    if (seen == s.epoch) continue;
    __builtin_prefetch(weights + bucket);
    s.found[kept++] = seen == s.epoch - 1 ? bucket | SHARED : bucket;
  }
  s.found.resize(kept);
}

// Begins an epoch; of those before, the last is told from older ones.
void begin(int bits, Scratch& s) {
  const size_t width = ((size_t)1 << bits) + IDEAS * IDEAS;
  if (s.seen.size() != width) s.seen.assign(width, 0), s.epoch = 1;
  if (s.epoch == 255) {
    for (uint8_t& seen : s.seen) seen = seen == 255;
    s.epoch = 1;
  }
  ++s.epoch;
}

// Weights of distinct buckets, by head, and their number.
struct Sum {
  Wide of = {};
  int num = 0;
  void add(Lanes weights) { of += __builtin_convertvector(weights, Wide), ++num; }
};

void largest(const Sum& last, const Sum& now, const Sum& both, const Sum& across, int heads, float* out) {
  const Wide of = last.of + now.of - both.of + across.of;
  const int num = last.num + now.num - both.num + across.num;
  for (int h = 0; h < heads; ++h) out[h] = std::max(out[h], num ? of[h] / std::sqrt((float)num) : 0.0f);
}
}  // namespace

extern "C" {
void ngrams_lexicon(const uint64_t* keys, const int32_t* firsts, const int32_t* ideas, int slots_bits) {
  lexicon.keys = keys, lexicon.firsts = firsts, lexicon.ideas = ideas, lexicon.slots_bits = slots_bits;
}

// Windows of `window` tokens, each beginning `step` after the last, until one reaches the end: their number.
int64_t ngrams_windows(int64_t tokens, int64_t window, int64_t step) {
  return tokens <= window ? 1 : 1 + (tokens - window + step - 1) / step;
}

// Distinct buckets of each window, one after the other; `ends` gets where each ends. Returns their number, or
// minus what `capacity` must be.
int64_t ngrams_buckets(const uint8_t* raw, int64_t size, int bits, int64_t window, int64_t step, int32_t* out,
                       int64_t capacity, int64_t* ends) {
  Scratch& s = own_scratch();
  canonical(raw, size, s);
  int64_t total = 0, tokens = (int64_t)s.tokens.size(), count = ngrams_windows(tokens, window, step);
  for (int64_t w = 0; w < count; ++w) {
    collect((int)(w * step), (int)std::min(tokens, w * step + window), bits, step, s);
    begin(bits, s);
    for (int32_t bucket : s.found) {
      if (std::exchange(s.seen[bucket], s.epoch) == s.epoch) continue;
      if (total < capacity) out[total] = bucket;
      ++total;
    }
    ends[w] = total;
  }
  return total <= capacity ? count : -total;
}

// For each text (up to its end, one after the other) and head the largest score of any window: the sum of weights
// (buckets, HEADS) over sqrt(distinct buckets). A window is two blocks of `step` tokens, each looked at once: what
// both hold counts once, and what lies across is added.
void ngrams_scores(const uint8_t* raw, const int64_t* ends, int64_t count, int bits, int64_t step,
                   const int16_t* weights, int heads, float* out) {
  Scratch& s = own_scratch();
  const Lanes* lanes = (const Lanes*)weights;
  for (int64_t n = 0, at = 0; n < count; at = ends[n++], out += heads) {
    canonical(raw + at, ends[n] - at, s);
    const int tokens = (int)s.tokens.size(), size = (int)step;
    std::fill(out, out + heads, -INFINITY);
    begin(bits, s);
    Sum last;
    for (int first = 0; first < std::max(tokens, 1); first += size) {
      const int end = std::min(tokens, first + size);
      Sum now, both, across;
      begin(bits, s);
      collect(first, end, bits, step, s);
      distinct(s, lanes);
      for (int32_t bucket : s.found) {
        now.add(lanes[bucket & ~SHARED]);
        if (first && bucket & SHARED) both.add(lanes[bucket & ~SHARED]);
      }
      s.found.clear();
      for (int t = std::max(0, first - WORDS + 1); t < first; ++t) words(t, first, end, bits, s);
      for (int32_t& bucket : s.found)
        if (s.seen[bucket] < s.epoch - 1 && !std::count(s.found.data(), &bucket, bucket)) across.add(lanes[bucket]);
      if (first || tokens <= size) largest(last, now, both, across, heads, out);
      last = now;
    }
  }
}
}
