// The loss of a tile of logits and its gradient by them; see tiles.py for how it is called.
//
// A tile lies as [V x M] (M tokens side by side), so that every pass over it is vertical: sums over the
// vocabulary need no horizontal step, and `kLanes` tokens share one vector. V is cut into blocks of VB rows, shared
// out over threads. `squares` (V) are the sums of squares of the gradient's rows.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "../../vectors.h"
#include "parts.h"

namespace {
constexpr int VB = 128;  // vocabulary rows of a block

// Natural logarithm of positive normal numbers, to about 1e-7.
inline vf log_of(vf x) {
  vi bits = (vi)x;
  const vi above = (bits & 0x7fffff) > 0x3504f3;  // mantissa above sqrt 2
  vi e = ((bits >> 23) - 127) - above;
  vf m = (vf)((bits & 0x7fffff) | 0x3f800000);
  m = above ? m * 0.5f : m;
  const vf f = m - 1.0f;
  vf p = all(7.0376836292e-2f);
  p = p * f - 1.1514610310e-1f;
  p = p * f + 1.1676998740e-1f;
  p = p * f - 1.2420140846e-1f;
  p = p * f + 1.4249322787e-1f;
  p = p * f - 1.6668057665e-1f;
  p = p * f + 2.0000714765e-1f;
  p = p * f - 2.4999993993e-1f;
  p = p * f + 3.3333331174e-1f;
  const vf z = f * f;
  const vf k = __builtin_convertvector(e, vf);
  return k * 0.693359375f + (f + (p * f * z - 0.5f * z + k * -2.12194440e-4f));
}

// Running log-sum-exp of M columns.
struct Sums {
  std::vector<float> top, sum;
  explicit Sums(int64_t m) : top(m, -1e30f), sum(m, 0.0f) {}
  void add(const float* block, int64_t rows, int64_t m, float scale) {
    for (int64_t j = 0; j < m; j += kLanes) {
      const vf old = load(&top[j]);
      vf most = old;
      for (int64_t v = 0; v < rows; v++) most = larger(most, load(block + v * m + j) * scale);
      vf total{};  // of the block first: adding small to large terms one by one rounds too often
      for (int64_t v = 0; v < rows; v++) total += exponential(load(block + v * m + j) * scale - most);
      store(&top[j], most);
      store(&sum[j], load(&sum[j]) * exponential(old - most) + total);
    }
  }
  void add(const Sums& other) {
    for (size_t j = 0; j < top.size(); j += kLanes) {
      const vf a = load(&top[j]), b = load(&other.top[j]), most = larger(a, b);
      store(&sum[j], load(&sum[j]) * exponential(a - most) + load(&other.sum[j]) * exponential(b - most));
      store(&top[j], most);
    }
  }
  void write(float* out) const {
    for (size_t j = 0; j < top.size(); j += kLanes) store(out + j, load(&top[j]) + log_of(load(&sum[j])));
  }
};

// The sum of squares of each row.
inline void measure(const float* g, int64_t rows, int64_t m, float* squares) {
  for (int64_t i = 0; i < rows; i++) {
    vf found{};
    for (int64_t j = 0; j < m; j += kLanes) found += load(g + i * m + j) * load(g + i * m + j);
    squares[i] = sum(found);
  }
}

enum Kind { FORWARD, REVERSE, JSD, SKEW, TV };

// What one part adds up for each token of the tile.
struct Totals {
  std::vector<float> loss, mean;
  explicit Totals(int64_t m) : loss(m, 0.0f), mean(m, 0.0f) {}
};

// Loss of M tokens and, in place of the teacher's logits, the derivative by the student's probabilities (by
// its scaled logits for forward KL).
template <int KIND>
void derive(const float* s, float* t, int64_t rows, int64_t m, float scale, float beta, const float* ls,
            const float* lt, Totals& to) {
  for (int64_t j = 0; j < m; j += kLanes) {
    const vf student_sum = load(ls + j), teacher_sum = load(lt + j);
    vf loss{}, mean{};
    for (int64_t v = 0; v < rows; v++) {
      const vf a = load(s + v * m + j) * scale - student_sum, b = load(t + v * m + j) * scale - teacher_sum;
      const vf q = exponential(a), p = exponential(b);
      vf g;
      if (KIND == FORWARD) {
        loss += p * (b - a);
        g = q - p;  // the gradient itself, no mean needed
      } else if (KIND == REVERSE) {
        g = a - b;
        loss += q * g;
      } else if (KIND == TV) {
        g = q > p ? all(0.5f) : all(-0.5f);
        loss += (q - p) * g;
      } else {
        const vf mix = p * beta + q * (1 - beta), lm = log_of(mix);
        if (KIND == JSD) {
          g = (a - lm) * (1 - beta);
          loss += p * (b - lm) * beta + q * g;
        } else {
          g = -(1 - beta) * p / mix;
          loss += p * (b - lm);
        }
      }
      mean += q * g;
      store(t + v * m + j, g);
    }
    store(&to.loss[j], load(&to.loss[j]) + loss);
    store(&to.mean[j], load(&to.mean[j]) + mean);
  }
}

void derive(int kind, const float* s, float* t, int64_t rows, int64_t m, float scale, float beta, const float* ls,
            const float* lt, Totals& to) {
  if (kind == FORWARD) derive<FORWARD>(s, t, rows, m, scale, beta, ls, lt, to);
  if (kind == REVERSE) derive<REVERSE>(s, t, rows, m, scale, beta, ls, lt, to);
  if (kind == JSD) derive<JSD>(s, t, rows, m, scale, beta, ls, lt, to);
  if (kind == SKEW) derive<SKEW>(s, t, rows, m, scale, beta, ls, lt, to);
  if (kind == TV) derive<TV>(s, t, rows, m, scale, beta, ls, lt, to);
}

void dense(int64_t m, int64_t v, int kind, float scale, float beta, const float* s, float* t, const float* ls,
           const float* lt, const float* ls1, const int64_t* tokens, const float* weight, float text, float* loss,
           float* squares) {
  std::fill(loss, loss + m, 0.0f);
  std::vector<float> mean(m, 0.0f);
  const Parts parts(v, VB);
  std::vector<Totals> each(parts.num, Totals(m));
  const bool forward = kind == FORWARD;
  const float share = (1 - text) * scale;
  const auto finish = [&](int64_t at, int64_t end) {  // the derivatives by the probabilities -> by the logits
    for (int64_t i = at; i < end; i++)
      for (int64_t j = 0; j < m; j += kLanes) {
        vf slope = load(t + i * m + j);
        const vf raw = load(s + i * m + j);
        if (!forward) slope = exponential(raw * scale - load(ls + j)) * (slope - load(&mean[j]));
        slope *= share;
        if (text > 0) slope += exponential(raw - load(ls1 + j)) * text;
        store(t + i * m + j, slope * load(weight + j));
      }
    for (int64_t j = 0; j < m; j++)
      if (text > 0 && tokens[j] >= at && tokens[j] < end) t[tokens[j] * m + j] -= text * weight[j];
    measure(t + at * m, end - at, m, squares + at);
  };
#pragma omp parallel for schedule(static)
  for (int64_t part = 0; part < parts.num; part++)
    for (int64_t at = parts.begin(part); at < parts.begin(part + 1); at += VB) {
      const int64_t end = std::min(v, at + VB);
      derive(kind, s + at * m, t + at * m, end - at, m, scale, beta, ls, lt, each[part]);
      if (forward) finish(at, end);
    }
  for (const auto& own : each)
    for (int64_t j = 0; j < m; j++) loss[j] += own.loss[j], mean[j] += own.mean[j];
  for (int64_t j = 0; j < m; j++)
    loss[j] = (1 - text) * loss[j] + (text > 0 ? text * (ls1[j] - s[tokens[j] * m + j]) : 0);
  if (!forward) {
#pragma omp parallel for schedule(static)
    for (int64_t at = 0; at < v; at += VB) finish(at, std::min(v, at + VB));
  }
}

// From the tail's mass times two temperatures' slopes, and the loss's own gradient at the K tokens of each
// column; the logits are overwritten.
void sparse(int64_t m, int64_t v, float scale, float* s, const float* tail, const float* tail1, const float* slope,
            const float* slope1, int64_t k, const int64_t* ids, const float* at_ids, float* squares) {
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < v; i++) {
    for (int64_t j = 0; j < m; j += kLanes) {
      const vf raw = load(s + i * m + j);
      vf x = exponential(raw * scale - load(tail + j)) * load(slope + j);
      if (slope1) x += exponential(raw - load(tail1 + j)) * load(slope1 + j);
      store(s + i * m + j, x);
    }
    measure(s + i * m, 1, m, squares + i);
  }
  std::vector<bool> seen(v);
  for (int64_t i = 0; i < m * k; i++)
    if (ids[i] >= 0) s[ids[i] * m + i / k] = at_ids[i], seen[ids[i]] = true;
  for (int64_t i = 0; i < v; i++)
    if (seen[i]) measure(s + i * m, 1, m, squares + i);
}
}  // namespace

extern "C" {
void head_sums(const float* tile, int64_t m, int64_t v, float scale, float* out) {
  Sums total(m);
  const Parts parts(v, VB);
  std::vector<Sums> each(parts.num, Sums(m));
#pragma omp parallel for schedule(static)
  for (int64_t part = 0; part < parts.num; part++)
    for (int64_t at = parts.begin(part); at < parts.begin(part + 1); at += VB)
      each[part].add(tile + at * m, std::min<int64_t>(VB, v - at), m, scale);
  for (const auto& own : each) total.add(own);
  total.write(out);
}

void head_dense(int64_t m, int64_t v, int kind, float scale, float beta, const float* s, float* t, const float* ls,
                const float* lt, const float* ls1, const int64_t* tokens, const float* weight, float text, float* loss,
                float* squares) {
  dense(m, v, kind, scale, beta, s, t, ls, lt, ls1, tokens, weight, text, loss, squares);
}

void head_sparse(int64_t m, int64_t v, float scale, float* s, const float* tail, const float* tail1, const float* slope,
                 const float* slope1, int64_t k, const int64_t* ids, const float* at_ids, float* squares) {
  sparse(m, v, scale, s, tail, tail1, slope, slope1, k, ids, at_ids, squares);
}
}
