// Attention of the samples of a packed row, forward and backward.
//
// Axes: t tokens, d head dimension. A sample sees its own earlier tokens and those that it shares with another.
#pragma once

#include "operands.h"

#include <vector>

namespace {

struct Shape {
  long hidden, inner, heads, kv_heads, dim;
  double eps;
};

// A sample's own tokens lie from `begin` to `end`; before them it sees `shared` tokens of another's, from `prefix`.
struct Span {
  int64_t prefix, shared, begin, end;
  long at(long t) const { return t < shared ? prefix + t : begin + t - shared; }
  long size() const { return shared + end - begin; }
};

struct Row {
  long tokens, samples, families;
  const Span* spans;
  const int64_t* first;  // sample of each family, which is those that share tokens with their first one
  const float *cosines, *sines;  // tokens x dim / 2
};

template <class T>
struct Kept {  // what the backward pass needs of the forward pass
  const float* x;
  T* qkv;
  float* raw;  // queries and keys before their norms, where there are such
  T* mixed;
  float* mass;  // log-sum-exp of each head's scores
  float* middle;  // the residual stream between attention and the perceptron
  T* gate_up;
};

template <class T>
struct Back {  // the gradient of what attention gives, and where that of rotated queries, keys and values goes
  const T* dmixed;
  float* dqkv;
};

// By all threads of a team: `attend` and `attend_back`.
template <class T>
struct Attention {
  Shape s;
  long group, all, some, width;  // heads that share keys; values of all queries, of all keys, of a row of `qkv`

  explicit Attention(const Shape& shape) : s(shape) {
    group = s.heads / s.kv_heads, all = s.heads * s.dim, some = s.kv_heads * s.dim;
    width = (all + 2 * some + kPanel - 1) / kPanel * kPanel;
  }

  // One sample's queries against one head's keys and values.
  struct Heads {
    Operand<T> keys, values, keys_back, values_back, shares, slopes, queries, douts;
    std::vector<float> scores, dscores, dkeys, dvalues;
    std::vector<T> narrow_scores, narrow_dscores;
    static Heads& own() {
      static thread_local Heads heads;
      return heads;
    }
  };
  static constexpr long kBlock = 96;  // queries of a block in the backward pass, a whole number of tiles

  static long whole(long count, long of) { return (count + of - 1) / of * of; }

  void attend(const Row& row, const Kept<T>& kept) const {
#pragma omp for schedule(dynamic, 1)
    for (long task = 0; task < row.samples * s.kv_heads; ++task) {
      const long h = task % s.kv_heads;
      const Span span = row.spans[task / s.kv_heads];
      const long size = span.size(), wide = whole(size, kPanel);
      const T* keys = kept.qkv + all + h * s.dim;
      Heads& own = Heads::own();
      own.keys.make(s.dim, size), own.values.make(size, s.dim);
      for (long p = 0; p < own.keys.panels; ++p)
        turn_panel(own.keys, p, size, [&](long t) { return keys + span.at(t) * width; });
      for (long p = 0; p < own.values.panels; ++p)
        pack_panel(own.values, p, size, s.dim, [&](long t) { return keys + some + span.at(t) * width; });
      own.scores.resize(kTile * wide), own.narrow_scores.resize(kTile * wide);
      for (long head = h * group; head < (h + 1) * group; ++head)
        for (long first = span.shared; first < size; first += kTile)
          attend_tile(kept, own, span.at(first), first, std::min(kTile, size - first), wide, head);
    }
  }

  // `rows` queries from token `at` of the row on, the first of which sees `first` keys beside its own.
  void attend_tile(const Kept<T>& kept, Heads& own, long at, long first, long rows, long wide, long head) const {
    const long seen = whole(first + rows, kPanel);
    for (long p = 0; p < seen / kPanel; ++p)
      any_tile(rows, kept.qkv + at * width + head * s.dim, width, own.keys.panel(p), s.dim,
               own.scores.data() + p * kPanel, wide);
    float totals[kTile];
    for (long m = 0; m < rows; ++m) {
      float* scores = own.scores.data() + m * wide;
      const float most = soften(scores, first + m + 1, seen, totals[m]);
      kept.mass[(at + m) * s.heads + head] = most + std::log(totals[m]);
      for (long t = 0; t < seen; t += kLanes) narrow(widen(scores + t), own.narrow_scores.data() + m * wide + t);
    }
    for (long p = 0; p < own.values.panels; ++p) {
      float mixed[kTile * kPanel];
      any_tile(rows, own.narrow_scores.data(), wide, own.values.panel(p), std::min(seen, own.values.inner), mixed);
      for (long m = 0; m < rows; ++m)
        for (long d = p * kPanel; d < std::min(s.dim, (p + 1) * kPanel); ++d)
          narrow(mixed[m * kPanel + d - p * kPanel] / totals[m],
                 kept.mixed + (at + m) * all + head * s.dim + d);
    }
  }

  // Scores become their exponentials, 0 behind `length`; returns the largest scaled score.
  float soften(float* scores, long length, long seen, float& total) const {
    const float scale = 1.0f / std::sqrt((float)s.dim);
    std::fill(scores + length, scores + seen, -INFINITY);
    vf tops = widen(scores);
    for (long t = kLanes; t < seen; t += kLanes) tops = larger(tops, widen(scores + t));
    const float most = largest(tops) * scale;
    for (long t = 0; t < seen; t += kLanes) store(scores + t, exponential(widen(scores + t) * scale - most));
    std::fill(scores + length, scores + seen, 0.0f);
    vf sums = {};
    for (long t = 0; t < seen; t += kLanes) sums += widen(scores + t);
    total = sum(sums);
    return most;
  }

  // Gradients of rotated queries, keys and values into `back.dqkv`; a family is one task, since its samples add to
  // the gradients of the same keys.
  void attend_back(const Row& row, Back<T> back, const Kept<T>& kept) const {
#pragma omp for schedule(dynamic, 1)
    for (long task = 0; task < row.families * s.kv_heads; ++task) {
      const long family = task / s.kv_heads;
      for (long i = row.first[family]; i < row.first[family + 1]; ++i)
        sample_back(row.spans[i], task % s.kv_heads, back, kept);
    }
  }

  void sample_back(const Span& span, long h, Back<T> back, const Kept<T>& kept) const {
    const long size = span.size(), wide = whole(size, kPanel), out = whole(s.dim, kPanel);
    const auto key = [&](long t) { return kept.qkv + span.at(t) * width + all + h * s.dim; };
    Heads& own = Heads::own();
    own.keys.make(s.dim, size), own.values_back.make(s.dim, size), own.keys_back.make(size, s.dim);
    for (long p = 0; p < own.keys.panels; ++p) {
      turn_panel(own.keys, p, size, key);
      turn_panel(own.values_back, p, size, [&](long t) { return key(t) + some; });
    }
    for (long p = 0; p < own.keys_back.panels; ++p) pack_panel(own.keys_back, p, size, s.dim, key);
    own.scores.resize(kBlock * wide), own.narrow_scores.resize(kBlock * wide);
    own.dscores.resize(kBlock * wide), own.narrow_dscores.resize(kBlock * wide);
    own.dkeys.assign(wide * out, 0.0f), own.dvalues.assign(wide * out, 0.0f);
    for (long head = h * group; head < (h + 1) * group; ++head)
      for (long first = span.shared; first < size; first += kBlock)
        block_back(back, kept, own, span.at(first), first, std::min(kBlock, size - first), wide, head);
    for (long t = 0; t < size; ++t) {
      float* to = back.dqkv + span.at(t) * width + all + h * s.dim;
      for (long d = 0; d < s.dim; ++d) {
        to[d] = (t < span.shared ? to[d] : 0.0f) + own.dkeys[t * out + d];
        to[some + d] = (t < span.shared ? to[some + d] : 0.0f) + own.dvalues[t * out + d];
      }
    }
  }

  // As `attend_tile`, for a block of queries.
  void block_back(Back<T> back, const Kept<T>& kept, Heads& own, long begin, long first, long rows, long wide,
                  long head) const {
    const T* queries = kept.qkv + begin * width + head * s.dim;
    const T* douts = back.dmixed + begin * all + head * s.dim;
    const long seen = whole(first + rows, kPanel), out = whole(s.dim, kPanel);
    for (long m = 0; m < rows; m += kTile) {
      const long some_rows = std::min(kTile, rows - m), until = whole(first + m + some_rows, kPanel);
      for (long p = 0; p < until / kPanel; ++p) {
        const long at = m * wide + p * kPanel;
        any_tile(some_rows, queries + m * width, width, own.keys.panel(p), s.dim, own.scores.data() + at, wide);
        any_tile(some_rows, douts + m * all, all, own.values_back.panel(p), s.dim, own.dscores.data() + at, wide);
      }
      for (long i = m; i < m + some_rows; ++i)
        soften_back(kept, own, douts + i * all, begin + i, head, first + i + 1, seen, i * wide);
      for (long p = 0; p < own.keys_back.panels; ++p) {
        float values[kTile * kPanel];
        any_tile(some_rows, own.narrow_dscores.data() + m * wide, wide, own.keys_back.panel(p),
                 std::min(until, own.keys_back.inner), values);
        const long count = std::min(kPanel, s.dim - p * kPanel);
        for (long i = 0; i < some_rows; ++i)
          std::memcpy(back.dqkv + (begin + m + i) * width + head * s.dim + p * kPanel, values + i * kPanel,
                      count * sizeof(float));
      }
    }
    own.shares.make(rows, seen), own.slopes.make(rows, seen);
    own.queries.make(rows, s.dim), own.douts.make(rows, s.dim);
    for (long p = 0; p < own.queries.panels; ++p) {
      pack_panel(own.queries, p, rows, s.dim, [&](long i) { return queries + i * width; });
      pack_panel(own.douts, p, rows, s.dim, [&](long i) { return douts + i * all; });
    }
    for (long p = 0; p < seen / kPanel; ++p) {
      pack_panel(own.shares, p, rows, seen, [&](long i) { return own.narrow_scores.data() + i * wide; });
      pack_panel(own.slopes, p, rows, seen, [&](long i) { return own.narrow_dscores.data() + i * wide; });
      for (long q = 0; q < own.queries.panels; ++q) {
        const auto into = [&](std::vector<float>& sums) {
          return [&, q](long t, const float* values) {
            add_to(sums.data() + t * out + q * kPanel, values, kPanel);
          };
        };
        across(own.shares, p, own.douts, q, into(own.dvalues));
        across(own.slopes, p, own.queries, q, into(own.dkeys));
      }
    }
  }

  // A query's scores and their gradients' products -> shares of attention and slopes by the plain scores.
  void soften_back(const Kept<T>& kept, Heads& own, const T* dout, long t, long head, long length, long seen,
                   long at) const {
    const float scale = 1.0f / std::sqrt((float)s.dim), mass = kept.mass[t * s.heads + head];
    float *scores = own.scores.data() + at, *slopes = own.dscores.data() + at, mean = 0;
    for (long d = 0; d < s.dim; ++d) mean += ::wide(dout[d]) * ::wide(kept.mixed[t * all + head * s.dim + d]);
    std::fill(scores + length, scores + seen, -INFINITY), std::fill(slopes + length, slopes + seen, mean);
    for (long i = 0; i < seen; i += kLanes) {
      const vf share = exponential(widen(scores + i) * scale - mass);
      narrow(share, own.narrow_scores.data() + at + i);
      narrow(share * (widen(slopes + i) - mean) * scale, own.narrow_dscores.data() + at + i);
    }
    std::fill(own.narrow_scores.data() + at + length, own.narrow_scores.data() + at + seen, T{});
  }
};

}  // namespace
