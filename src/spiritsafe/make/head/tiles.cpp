// The head and its loss, one tile of tokens at a time; see native.py for how it is called.
//
// A tile of logits lies as [V x M] (M tokens side by side), so that every pass over it is vertical: sums
// over the vocabulary need no horizontal step, and 16 tokens share one vector. V is cut into blocks of VB
// rows, shared out over threads; matrix products are torch's own brgemm (AMX, AVX-512 or AVX2 by what the
// processor has), accumulated in float32.
#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace c10 {
struct BFloat16;
}
namespace at::native::cpublas {
void brgemm(int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, bool, const c10::BFloat16*, const c10::BFloat16*,
            float*, bool);
void brgemm(int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, bool, const float*, const float*, float*, bool);
void brgemm_release(bool);
}  // namespace at::native::cpublas

namespace {
constexpr int L = 16;     // tokens of a vector
constexpr int VB = 128;   // vocabulary rows of a block
typedef float vf __attribute__((vector_size(4 * L), aligned(4)));
typedef int32_t vi __attribute__((vector_size(4 * L), aligned(4)));
typedef uint16_t bf16;

inline vf all(float x) { return vf{} + x; }
inline vf load(const float* p) { return *reinterpret_cast<const vf*>(p); }
inline void store(float* p, vf x) { *reinterpret_cast<vf*>(p) = x; }
inline vf larger(vf a, vf b) { return a > b ? a : b; }

// exp to about 1e-7 relative; arguments below -87 give the smallest normal number, never 0.
inline vf exp_of(vf x) {
  x = larger(x, all(-87.0f));
  x = x < 88.0f ? x : all(88.0f);
  const vf shift = all(12582912.0f);
  const vf n = (x * 1.44269504f + shift) - shift;
  const vf r = (x - n * 0.693145752f) - n * 1.42860677e-6f;
  vf p = all(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const vi e = (__builtin_convertvector(n, vi) + 127) << 23;
  return p * (vf)e;
}

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

inline bf16 narrow(float x) {
  uint32_t b;
  std::memcpy(&b, &x, 4);
  return (b + 0x7fff + ((b >> 16) & 1)) >> 16;
}
inline void put(float* to, vf x) { store(to, x); }
inline void put(bf16* to, vf x) {
  typedef uint32_t vu __attribute__((vector_size(4 * L)));
  typedef uint16_t vh __attribute__((vector_size(2 * L), aligned(2)));
  vu b = (vu)x;
  b = (b + 0x7fff + ((b >> 16) & 1)) >> 16;
  *reinterpret_cast<vh*>(to) = __builtin_convertvector(b, vh);
}

inline void multiply(int64_t m, int64_t n, int64_t k, int64_t la, int64_t lb, int64_t lc, bool add, const float* a,
                     const float* b, float* c) {
  at::native::cpublas::brgemm(m, n, k, la, lb, lc, add, a, b, c, false);
}
inline void multiply(int64_t m, int64_t n, int64_t k, int64_t la, int64_t lb, int64_t lc, bool add, const bf16* a,
                     const bf16* b, float* c) {
  at::native::cpublas::brgemm(m, n, k, la, lb, lc, add, reinterpret_cast<const c10::BFloat16*>(a),
                              reinterpret_cast<const c10::BFloat16*>(b), c, true);
}

// The second factor of a product: as it is for float32, rows in pairs for bf16.
inline const float* paired(const float* x, int64_t, int64_t, float*) { return x; }
inline const bf16* paired(const bf16* x, int64_t rows, int64_t columns, bf16* to) {
  for (int64_t r = 0; r < rows; r += 2) {
    const bf16 *a = x + r * columns, *b = a + columns;
    bf16* out = to + r * columns;
    for (int64_t c = 0; c < columns; c++) {
      out[2 * c] = a[c];
      out[2 * c + 1] = b[c];
    }
  }
  return to;
}

template <class T>
void turn(const T* x, int64_t rows, int64_t columns, T* to) {  // (rows x columns) -> (columns x rows)
  for (int64_t r = 0; r < rows; r += 16)
    for (int64_t c = 0; c < columns; c++)
      for (int64_t i = r; i < std::min(r + 16, rows); i++) to[c * rows + i] = x[i * columns + c];
}

// hidden (M x D) -> its transpose as second factor: (D x M), in pairs for bf16.
inline void turned(const float* x, int64_t m, int64_t d, float* to) { turn(x, m, d, to); }
inline void turned(const bf16* x, int64_t m, int64_t d, bf16* to) {
  for (int64_t c = 0; c < d; c += 2)
    for (int64_t i = 0; i < m; i++) {
      to[c * m + 2 * i] = x[i * d + c];
      to[c * m + 2 * i + 1] = x[i * d + c + 1];
    }
}

// Running log-sum-exp of M columns.
struct Sums {
  std::vector<float> top, sum;
  explicit Sums(int64_t m) : top(m, -1e30f), sum(m, 0.0f) {}
  void add(const float* block, int64_t rows, int64_t m, float scale) {
    for (int64_t j = 0; j < m; j += L) {
      const vf old = load(&top[j]);
      vf most = old;
      for (int64_t v = 0; v < rows; v++) most = larger(most, load(block + v * m + j) * scale);
      vf total = load(&sum[j]) * exp_of(old - most);
      for (int64_t v = 0; v < rows; v++) total += exp_of(load(block + v * m + j) * scale - most);
      store(&top[j], most);
      store(&sum[j], total);
    }
  }
  void add(const Sums& other) {
    for (size_t j = 0; j < top.size(); j += L) {
      const vf a = load(&top[j]), b = load(&other.top[j]), most = larger(a, b);
      store(&sum[j], load(&sum[j]) * exp_of(a - most) + load(&other.sum[j]) * exp_of(b - most));
      store(&top[j], most);
    }
  }
  void write(float* out) const {
    for (size_t j = 0; j < top.size(); j += L) store(out + j, load(&top[j]) + log_of(load(&sum[j])));
  }
};

template <class T>
void project(const T* hidden, const T* head, int64_t m, int64_t d, int64_t v, float* tile) {
  std::vector<T> factor(m * d);
  turned(hidden, m, d, factor.data());
#pragma omp parallel
  {
#pragma omp for schedule(static)
    for (int64_t at = 0; at < v; at += VB)
      multiply(std::min<int64_t>(VB, v - at), m, d, d, m, m, false, head + at * d, factor.data(), tile + at * m);
    at::native::cpublas::brgemm_release(true);
  }
}

// Gradient of the head and of the hidden states from a gradient of logits that `fill(v0, rows, g)` writes
// block by block as (rows x M); dhead (V x D) is added to, dhidden (M x D) is written.
template <class T, class Fill>
void products(const T* hidden, const T* head, int64_t m, int64_t d, int64_t v, float* dhead, float* dhidden,
              Fill fill) {
  std::vector<T> pairs(sizeof(T) == 2 ? m * d : 0);
  const T* factor = paired(hidden, m, d, pairs.data());
  std::vector<std::vector<float>> each(omp_get_max_threads());
#pragma omp parallel
  {
    auto& own = each[omp_get_thread_num()];
    own.assign(m * d, 0.0f);
    std::vector<T> g(VB * m), gt(VB * m), rows_paired(sizeof(T) == 2 ? VB * d : 0);
#pragma omp for schedule(static)
    for (int64_t at = 0; at < v; at += VB) {
      const int64_t rows = std::min<int64_t>(VB, v - at), even = sizeof(T) == 2 ? (rows + 1) / 2 * 2 : rows;
      fill(at, rows, g.data());
      if (dhead) multiply(rows, d, m, m, d, d, true, g.data(), factor, dhead + at * d);
      std::vector<T> last;
      const T* block = head + at * d;
      if (even != rows) {  // an odd last block: a row of zeros makes the pair
        last.assign(even * d, T(0));
        std::copy(block, block + rows * d, last.begin());
        block = last.data();
        std::fill(g.data() + rows * m, g.data() + even * m, T(0));
      }
      turn(g.data(), even, m, gt.data());
      multiply(m, d, even, even, d, d, true, gt.data(), paired(block, even, d, rows_paired.data()), own.data());
    }
    at::native::cpublas::brgemm_release(true);
  }
  std::fill(dhidden, dhidden + m * d, 0.0f);
  for (const auto& own : each)  // in the threads' order: equal runs give equal bits
    for (size_t i = 0; i < own.size(); i++) dhidden[i] += own[i];
}

enum Kind { FORWARD, REVERSE, JSD, SKEW, TV };

// What one thread adds up for each token of the tile.
struct Totals {
  std::vector<float> loss, mean;
  explicit Totals(int64_t m) : loss(m, 0.0f), mean(m, 0.0f) {}
};

// Loss of M tokens and, in place of the teacher's logits, the derivative by the student's probabilities.
template <int KIND>
void derive(const float* s, float* t, int64_t rows, int64_t m, float scale, float beta, const float* ls,
            const float* lt, Totals& to) {
  for (int64_t j = 0; j < m; j += L) {
    const vf student_sum = load(ls + j), teacher_sum = load(lt + j);
    vf loss{}, mean{};
    for (int64_t v = 0; v < rows; v++) {
      const vf a = load(s + v * m + j) * scale - student_sum, b = load(t + v * m + j) * scale - teacher_sum;
      const vf q = exp_of(a), p = exp_of(b);
      vf g;
      if (KIND == FORWARD) {
        loss += p * (b - a);
        g = p;  // the gradient is q - p, no mean needed
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

template <class T>
void dense(const T* hidden, const T* head, int64_t m, int64_t d, int64_t v, int kind, float scale, float beta,
           const float* s, float* t, const float* ls, const float* lt, const float* ls1, const int64_t* tokens,
           const float* weight, float text, float* loss, float* dhead, float* dhidden) {
  std::fill(loss, loss + m, 0.0f);
  std::vector<float> mean(m, 0.0f);
  std::vector<Totals> each(omp_get_max_threads(), Totals(m));
#pragma omp parallel for schedule(static)
  for (int64_t at = 0; at < v; at += VB)
    derive(kind, s + at * m, t + at * m, std::min<int64_t>(VB, v - at), m, scale, beta, ls, lt,
           each[omp_get_thread_num()]);
  for (const auto& own : each)
    for (int64_t j = 0; j < m; j++) loss[j] += own.loss[j], mean[j] += own.mean[j];
  for (int64_t j = 0; j < m; j++)
    loss[j] = (1 - text) * loss[j] + (text > 0 ? text * (ls1[j] - s[tokens[j] * m + j]) : 0);
  const bool forward = kind == FORWARD;
  const float share = (1 - text) * scale;
  products(hidden, head, m, d, v, dhead, dhidden, [&](int64_t at, int64_t rows, T* g) {
    for (int64_t i = 0; i < rows; i++)
      for (int64_t j = 0; j < m; j += L) {
        const vf raw = load(s + (at + i) * m + j), from = load(t + (at + i) * m + j), w = load(weight + j);
        const vf q = exp_of(raw * scale - load(ls + j));
        vf slope = (forward ? q - from : q * (from - load(&mean[j]))) * share;
        if (text > 0) slope += exp_of(raw - load(ls1 + j)) * text;
        put(g + i * m + j, slope * w);
      }
    if (text > 0)
      for (int64_t j = 0; j < m; j++)
        if (tokens[j] >= at && tokens[j] < at + rows) {
          const int64_t i = tokens[j] - at;
          const float raw = s[tokens[j] * m + j];
          const vf q = exp_of(all(raw * scale - ls[j])), q1 = exp_of(all(raw - ls1[j]));
          const float from = t[tokens[j] * m + j];
          const float slope = (forward ? q[0] - from : q[0] * (from - mean[j])) * share + (q1[0] - 1) * text;
          if constexpr (sizeof(T) == 2)
            g[i * m + j] = narrow(slope * weight[j]);
          else
            g[i * m + j] = slope * weight[j];
        }
  });
}

// Tail mass times two temperatures' slopes, and the head's own gradient at the K tokens of each column.
template <class T>
void sparse(const T* hidden, const T* head, int64_t m, int64_t d, int64_t v, float scale, const float* s,
            const float* tail, const float* tail1, const float* slope, const float* slope1, int64_t k,
            const int64_t* ids, const float* at_ids, float* dhead, float* dhidden) {
  const int64_t blocks = (v + VB - 1) / VB;
  std::vector<int32_t> first(blocks + 1, 0), places(m * k);
  for (int64_t i = 0; i < m * k; i++)
    if (ids[i] >= 0) first[ids[i] / VB + 1]++;
  for (int64_t b = 0; b < blocks; b++) first[b + 1] += first[b];
  std::vector<int32_t> next(first.begin(), first.end() - 1);
  for (int64_t i = 0; i < m * k; i++)
    if (ids[i] >= 0) places[next[ids[i] / VB]++] = i;
  products(hidden, head, m, d, v, dhead, dhidden, [&](int64_t at, int64_t rows, T* g) {
    for (int64_t i = 0; i < rows; i++)
      for (int64_t j = 0; j < m; j += L) {
        const vf raw = load(s + (at + i) * m + j);
        vf x = exp_of(raw * scale - load(tail + j)) * load(slope + j);
        if (slope1) x += exp_of(raw - load(tail1 + j)) * load(slope1 + j);
        put(g + i * m + j, x);
      }
    for (int32_t p = first[at / VB]; p < first[at / VB + 1]; p++) {
      const int64_t i = ids[places[p]] - at, j = places[p] / k;
      if constexpr (sizeof(T) == 2)
        g[i * m + j] = narrow(at_ids[places[p]]);
      else
        g[i * m + j] = at_ids[places[p]];
    }
  });
}
}  // namespace

extern "C" {
void head_project(int half, const void* hidden, const void* head, int64_t m, int64_t d, int64_t v, float* tile) {
  if (half)
    project((const bf16*)hidden, (const bf16*)head, m, d, v, tile);
  else
    project((const float*)hidden, (const float*)head, m, d, v, tile);
}

void head_sums(const float* tile, int64_t m, int64_t v, float scale, float* out) {
  Sums total(m);
  std::vector<Sums> each(omp_get_max_threads(), Sums(m));
#pragma omp parallel for schedule(static)
  for (int64_t at = 0; at < v; at += VB)
    each[omp_get_thread_num()].add(tile + at * m, std::min<int64_t>(VB, v - at), m, scale);
  for (const auto& own : each) total.add(own);
  total.write(out);
}

void head_dense(int half, const void* hidden, const void* head, int64_t m, int64_t d, int64_t v, int kind, float scale,
                float beta, const float* s, float* t, const float* ls, const float* lt, const float* ls1,
                const int64_t* tokens, const float* weight, float text, float* loss, float* dhead, float* dhidden) {
  if (half)
    dense((const bf16*)hidden, (const bf16*)head, m, d, v, kind, scale, beta, s, t, ls, lt, ls1, tokens, weight, text,
          loss, dhead, dhidden);
  else
    dense((const float*)hidden, (const float*)head, m, d, v, kind, scale, beta, s, t, ls, lt, ls1, tokens, weight,
          text, loss, dhead, dhidden);
}

void head_sparse(int half, const void* hidden, const void* head, int64_t m, int64_t d, int64_t v, float scale,
                 const float* s, const float* tail, const float* tail1, const float* slope, const float* slope1,
                 int64_t k, const int64_t* ids, const float* at_ids, float* dhead, float* dhidden) {
  if (half)
    sparse((const bf16*)hidden, (const bf16*)head, m, d, v, scale, s, tail, tail1, slope, slope1, k, ids, at_ids, dhead,
           dhidden);
  else
    sparse((const float*)hidden, (const float*)head, m, d, v, scale, s, tail, tail1, slope, slope1, k, ids, at_ids,
           dhead, dhidden);
}
}
