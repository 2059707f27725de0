// The products of a head: logits of a tile of tokens, and the gradients from the gradient of those.
//
// A tile lies as [V x M] (M tokens side by side). V is cut into blocks of VB rows, shared out over threads;
// products are torch's own brgemm (AMX, AVX-512 or AVX2 by what the processor has), accumulated in float32. A
// processor without bf16 products has none there: inputs of bf16 are widened, block by block.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "../../vectors.h"
#include "parts.h"

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
constexpr int VB = 128;  // vocabulary rows of a block
#if defined(__AVX512BF16__) || defined(__AMX_BF16__)
constexpr bool HALF = true;  // products in bf16
#else
constexpr bool HALF = false;
#endif

inline void multiply(int64_t m, int64_t n, int64_t k, int64_t la, int64_t lb, int64_t lc, bool add, const float* a,
                     const float* b, float* c) {
  at::native::cpublas::brgemm(m, n, k, la, lb, lc, add, a, b, c, false);
}
inline void multiply(int64_t m, int64_t n, int64_t k, int64_t la, int64_t lb, int64_t lc, bool add, const bf16* a,
                     const bf16* b, float* c) {
  at::native::cpublas::brgemm(m, n, k, la, lb, lc, add, reinterpret_cast<const c10::BFloat16*>(a),
                              reinterpret_cast<const c10::BFloat16*>(b), c, true);
}

// hidden (M x D) -> its transpose as second factor: (D x M), in pairs for bf16.
inline void turned(const float* x, int64_t m, int64_t d, float* to) {
  for (int64_t c = 0; c < d; c++)
    for (int64_t i = 0; i < m; i++) to[c * m + i] = x[i * d + c];
}
inline float as_float(bf16 x) { return wide(x); }
inline void turned(const bf16* x, int64_t m, int64_t d, float* to) {
  for (int64_t c = 0; c < d; c++)
    for (int64_t i = 0; i < m; i++) to[c * m + i] = wide(x[i * d + c]);
}
inline void turned(const bf16* x, int64_t m, int64_t d, bf16* to) {
  for (int64_t c = 0; c < d; c += 2)
    for (int64_t i = 0; i < m; i++) {
      to[c * m + 2 * i] = x[i * d + c];
      to[c * m + 2 * i + 1] = x[i * d + c + 1];
    }
}

// As many vectors as each has lanes, turned in place: swaps halves, then quarters, and so on.
inline void turn(vi* r) {
  const vi lane = places();
  for (int step = kLanes / 2; step; step /= 2) {
    const vi lower = (lane & step) ? lane - step + kLanes : lane, upper = (lane & step) ? lane + kLanes : lane + step;
    for (int i = 0; i < kLanes; i++)
      if (!(i & step)) {
        const vi a = r[i], b = r[i + step];
        r[i] = __builtin_shuffle(a, b, lower);
        r[i + step] = __builtin_shuffle(a, b, upper);
      }
  }
}

// bf16 of two rows in one vector, the first in the lower halves.
inline vi couple(vf a, vf b) {
  const vu x = (vu)a, y = (vu)b;
  return (vi)((x + 0x7fff + ((x >> 16) & 1)) >> 16 | ((y + 0x7fff + ((y >> 16) & 1)) & 0xffff0000));
}

// VB rows of M floats -> M rows of VB, as T.
inline void turn(const float* x, int64_t m, float* to) {
  for (int64_t j = 0; j < m; j += kLanes)
    for (int64_t i = 0; i < VB; i += kLanes) {
      vi r[kLanes];
      for (int l = 0; l < kLanes; l++) r[l] = (vi)load(x + (i + l) * m + j);
      turn(r);
      for (int l = 0; l < kLanes; l++) store(to + (j + l) * VB + i, (vf)r[l]);
    }
}
inline void turn(const float* x, int64_t m, bf16* to) {
  for (int64_t j = 0; j < m; j += kLanes)
    for (int64_t i = 0; i < VB; i += 2 * kLanes) {
      vi r[kLanes];
      for (int l = 0; l < kLanes; l++)
        r[l] = couple(load(x + (i + 2 * l) * m + j), load(x + (i + 2 * l + 1) * m + j));
      turn(r);
      for (int l = 0; l < kLanes; l++) *reinterpret_cast<vi*>(to + (j + l) * VB + i) = r[l];
    }
}

// Rows of a block as first factor: where they lie, or widened.
inline const float* rows_of(const float* x, int64_t, int64_t, float*) { return x; }
inline const bf16* rows_of(const bf16* x, int64_t, int64_t, bf16*) { return x; }
inline const float* rows_of(const bf16* x, int64_t n, int64_t d, float* to) {
  std::transform(x, x + n * d, to, as_float);
  return to;
}

template <class T, class S>
void project(const S* hidden, const S* head, int64_t m, int64_t d, int64_t v, float* tile) {
  std::vector<T> factor(m * d);
  turned(hidden, m, d, factor.data());
#pragma omp parallel
  {
    std::vector<T> wide(sizeof(T) == sizeof(S) ? 0 : VB * d);
#pragma omp for schedule(static)
    for (int64_t at = 0; at < v; at += VB) {
      const int64_t n = std::min<int64_t>(VB, v - at);
      multiply(n, m, d, d, m, m, false, rows_of(head + at * d, n, d, wide.data()), factor.data(), tile + at * m);
    }
    at::native::cpublas::brgemm_release(true);
  }
}

// Rows of a matrix as second factor of a product: as they are for float32, in pairs of rows for bf16. `rows`
// null: the first n, an even number or beside a row that counts nothing.
inline void gather(const float* x, const int32_t* rows, int64_t n, int64_t d, float* to) {
  for (int64_t r = 0; r < n; r++) std::copy_n(x + (rows ? rows[r] : r) * d, d, to + r * d);
}
inline void gather(const bf16* x, const int32_t* rows, int64_t n, int64_t d, float* to) {
  for (int64_t r = 0; r < n; r++) {
    const bf16* row = x + (rows ? rows[r] : r) * d;
    std::transform(row, row + d, to + r * d, as_float);
  }
}
inline vi couple(const float* a, const float* b) { return couple(load(a), load(b)); }
inline vi couple(const bf16* a, const bf16* b) {
  const auto wide = [](const bf16* x) { return __builtin_convertvector(*reinterpret_cast<const vh*>(x), vi); };
  return wide(a) | wide(b) << 16;
}
inline uint32_t half_bits(float x) {
  bf16 bits;
  narrow(x, &bits);
  return bits;
}
inline uint32_t half_bits(bf16 x) { return x; }
template <class S>
void gather(const S* x, const int32_t* rows, int64_t n, int64_t d, bf16* to) {
  for (int64_t r = 0; r < n; r += 2) {
    const int64_t next = std::min(r + 1, n - 1);
    const S *a = x + (rows ? rows[r] : r) * d, *b = x + (rows ? rows[next] : next) * d;
    uint32_t* out = reinterpret_cast<uint32_t*>(to + r * d);
    int64_t c = 0;
    for (; c + kLanes <= d; c += kLanes) *reinterpret_cast<vi*>(out + c) = couple(a + c, b + c);
    for (; c < d; c++) out[c] = half_bits(a[c]) | half_bits(b[c]) << 16;
  }
}

// Rows of a tile by what they carry of the squared norm of its gradient: the largest need products in
// float32, the rest, `share` of the norm at most, in bf16 (an input of bf16 has all there). Rows of zeros need none.
struct Rows {
  std::vector<int32_t> whole, half;
  Rows(const float* squares, int64_t num, float share) {
    const auto bin = [](float x) {  // a sixteenth of an octave
      uint32_t bits;
      std::memcpy(&bits, &x, 4);
      return bits >> 19;
    };
    std::vector<double> sums(1 << 13, 0.0);
    double total = 0, below = 0;
    for (int64_t v = 0; v < num; v++) sums[bin(squares[v])] += squares[v], total += squares[v];
    uint32_t cut = 0;
    while (cut < sums.size() && below + sums[cut] <= total * share * share) below += sums[cut++];
    for (int64_t v = 0; v < num; v++)
      if (squares[v] != 0) (HALF && (share >= 1 || bin(squares[v]) < cut) ? half : whole).push_back(v);
  }
};

// dhead (V x D) += g (V x M) hidden and own (M x D, one a part) += g' head over the rows listed, in T. Rows
// of zeros fill the last block: a product is compiled for each shape.
template <class T, class S>
void products(const float* g, const std::vector<int32_t>& rows, const S* hidden, const S* head, int64_t m, int64_t d,
              float* dhead, std::vector<std::vector<float>>& each) {
  std::vector<T> factor(m * d);
  gather(hidden, nullptr, m, d, factor.data());
  const Parts parts(rows.size(), VB);
#pragma omp parallel
  {
    std::vector<float> part(VB * m), found(VB * d);
    std::vector<T> left(VB * m), block(VB * d);
#pragma omp for schedule(static)
    for (int64_t number = 0; number < parts.num; number++)
      for (int64_t at = parts.begin(number); at < parts.begin(number + 1); at += VB) {
        const int32_t* list = rows.data() + at;
        const int64_t n = std::min<int64_t>(VB, rows.size() - at);
        for (int64_t i = 0; i < n; i++) std::copy_n(g + list[i] * m, m, part.data() + i * m);
        std::fill(part.begin() + n * m, part.end(), 0.0f);
        if (dhead) {
          for (int64_t i = 0; i < VB * m; i += kLanes) narrow(load(part.data() + i), left.data() + i);
          multiply(VB, d, m, m, d, d, false, left.data(), factor.data(), found.data());
          for (int64_t i = 0; i < n; i++)
            for (int64_t c = 0; c < d; c++) dhead[list[i] * d + c] += found[i * d + c];
        }
        gather(head, list, n, d, block.data());
        turn(part.data(), m, left.data());
        multiply(m, d, VB, VB, d, d, true, left.data(), block.data(), each[number].data());
      }
    at::native::cpublas::brgemm_release(true);
  }
}

// Gradients of the head (added to) and of the hidden states from that of the logits, g (V x M).
template <class S>
void gradients(const float* g, const Rows& rows, const S* hidden, const S* head, int64_t m, int64_t d, float* dhead,
               float* dhidden) {
  const int64_t most = std::max(Parts(rows.half.size(), VB).num, Parts(rows.whole.size(), VB).num);
  std::vector<std::vector<float>> each(most, std::vector<float>(m * d, 0.0f));
  if (!rows.half.empty()) products<bf16>(g, rows.half, hidden, head, m, d, dhead, each);
  if (!rows.whole.empty()) products<float>(g, rows.whole, hidden, head, m, d, dhead, each);
  std::fill(dhidden, dhidden + m * d, 0.0f);
  for (const auto& own : each)  // in the parts' order: equal inputs give equal bits
    for (size_t i = 0; i < own.size(); i++) dhidden[i] += own[i];
}
}  // namespace

extern "C" {
void head_project(int half, const void* hidden, const void* head, int64_t m, int64_t d, int64_t v, float* tile) {
  using T = std::conditional_t<HALF, bf16, float>;
  if (half)
    project<T>((const bf16*)hidden, (const bf16*)head, m, d, v, tile);
  else
    project<float>((const float*)hidden, (const float*)head, m, d, v, tile);
}

void head_gradients(int half, const void* hidden, const void* head, int64_t m, int64_t d, int64_t v, const float* g,
                    const float* squares, float share, float* dhead, float* dhidden) {
  const Rows rows(squares, v, share);
  if (half)
    gradients(g, rows, (const bf16*)hidden, (const bf16*)head, m, d, dhead, dhidden);
  else
    gradients(g, rows, (const float*)hidden, (const float*)head, m, d, dhead, dhidden);
}
}
