// Hashed n-grams of a folded text and the scores of linear heads over them; `ngrams.py` says what is computed.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace {
constexpr uint64_t BASE = 0x9E3779B97F4A7C15ull, MIX = 0xD6E8FEB86659FD93ull;
constexpr int SHORTEST = 3, LONGEST = 5, WORDS = 3;

struct Token { int begin, end; };  // in the canonical text, without the blanks around it

struct Scratch {
  std::vector<uint8_t> text;
  std::vector<Token> tokens;
  std::vector<uint32_t> seen;
  std::vector<int32_t> found;
  uint32_t epoch = 0;
};
thread_local Scratch scratch;

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

// Keeps the first of each bucket; with weights, brings them near.
void distinct(Scratch& s, const float* weights, int heads) {
  size_t kept = 0;
  for (int32_t bucket : s.found) {
    if (s.seen[bucket] == s.epoch) continue;
    s.seen[bucket] = s.epoch;
    if (weights) __builtin_prefetch(weights + (int64_t)bucket * heads);
    s.found[kept++] = bucket;
  }
  s.found.resize(kept);
}

// The distinct buckets of tokens first to last (excluded).
void collect(int first, int last, int bits, Scratch& s, const float* weights = nullptr, int heads = 0) {
  if (s.seen.size() != (size_t)1 << bits || ++s.epoch == 0) s.seen.assign((size_t)1 << bits, 0), s.epoch = 1;
  s.found.clear();
  for (int t = first; t < last; ++t) {
    int begin = s.tokens[t].begin - 1, end = s.tokens[t].end + 1;
    for (int i = begin; i < end; ++i) {
      uint64_t hash = 0;
      for (int n = 1; n <= LONGEST && i + n <= end; ++n) {
        hash = hash * BASE + s.text[i + n - 1] + 1;
        if (n >= SHORTEST) add(hash, n, bits, s);
      }
    }
    uint64_t hash = 0;
    int at = s.tokens[t].begin;
    for (int n = 1; n <= WORDS && t + n <= last; ++n) {
      for (; at < s.tokens[t + n - 1].end; ++at) hash = hash * BASE + s.text[at] + 1;
      add(hash, 16 + n, bits, s);
    }
  }
  distinct(s, weights, heads);
}
}  // namespace

extern "C" {
// Windows of `window` tokens, each beginning `step` after the last, until one reaches the end: their number.
int64_t ngrams_windows(int64_t tokens, int64_t window, int64_t step) {
  return tokens <= window ? 1 : 1 + (tokens - window + step - 1) / step;
}

// Distinct buckets of each window, one after the other; `ends` gets where each ends. Returns their number, or
// minus what `capacity` must be.
int64_t ngrams_buckets(const uint8_t* raw, int64_t size, int bits, int64_t window, int64_t step, int32_t* out,
                       int64_t capacity, int64_t* ends) {
  Scratch& s = scratch;
  canonical(raw, size, s);
  int64_t total = 0, tokens = (int64_t)s.tokens.size(), count = ngrams_windows(tokens, window, step);
  for (int64_t w = 0; w < count; ++w) {
    collect((int)(w * step), (int)std::min(tokens, w * step + window), bits, s);
    for (int32_t bucket : s.found) {
      if (total < capacity) out[total] = bucket;
      ++total;
    }
    ends[w] = total;
  }
  return total <= capacity ? count : -total;
}

// The largest score of any window for each head: the sum of weights (buckets, heads) over sqrt(distinct buckets).
void ngrams_score(const uint8_t* raw, int64_t size, int bits, int64_t window, int64_t step, const float* weights,
                  int heads, float* out) {
  Scratch& s = scratch;
  canonical(raw, size, s);
  int64_t tokens = (int64_t)s.tokens.size(), count = ngrams_windows(tokens, window, step);
  std::vector<float> sums(heads);
  for (int h = 0; h < heads; ++h) out[h] = -INFINITY;
  for (int64_t w = 0; w < count; ++w) {
    collect((int)(w * step), (int)std::min(tokens, w * step + window), bits, s, weights, heads);
    std::fill(sums.begin(), sums.end(), 0.0f);
    for (int32_t bucket : s.found)
      for (int h = 0; h < heads; ++h) sums[h] += weights[(int64_t)bucket * heads + h];
    float scale = s.found.empty() ? 0.0f : 1.0f / std::sqrt((float)s.found.size());
    for (int h = 0; h < heads; ++h) out[h] = std::max(out[h], sums[h] * scale);
  }
}
}
