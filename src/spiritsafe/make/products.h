// Matrix products on panels of 32 columns, for bfloat16 or float values with sums in float.
//
// Included by the C++ files of `rollout` and `loop`. A sum runs over its inner axis in one order, whatever
// the other rows or columns are. Axes: M rows, K inner, N columns.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif
#ifdef __linux__
#include <sys/mman.h>
#endif

namespace {

typedef float v16 __attribute__((vector_size(64), aligned(4)));
typedef int32_t i16 __attribute__((vector_size(64), aligned(4)));
typedef uint32_t u16 __attribute__((vector_size(64), aligned(4)));
typedef uint16_t h16 __attribute__((vector_size(32), aligned(2)));
using bf16 = uint16_t;

constexpr long kPanel = 32, kTile = 12, kLine = 64;  // columns, rows, bytes of a cache line
template <class T>
constexpr long kPair = sizeof(T) == 2 ? 2 : 1;  // inner steps in a word of 4 bytes

inline void narrow(float x, float* out) { *out = x; }
inline void narrow(float x, bf16* out) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  *out = (bf16)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}
inline void narrow(v16 x, float* out) { *(v16*)out = x; }
inline void narrow(v16 x, bf16* out) {
  const u16 bits = (u16)x;
  *(h16*)out = __builtin_convertvector((bits + 0x7FFF + (bits >> 16 & 1)) >> 16, h16);
}
inline float wide(float x) { return x; }
inline float wide(bf16 x) {
  const uint32_t bits = (uint32_t)x << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline v16 widen(const float* x) { return *(const v16*)x; }
inline v16 widen(const bf16* x) { return (v16)(__builtin_convertvector(*(const h16*)x, u16) << 16); }

// acc + (two inner steps of bf16) or (one of float): weights of 16 outputs times one row's value.
inline v16 fma(v16 acc, const float* a, v16 weights) { return acc + *a * weights; }
inline v16 fma(v16 acc, const bf16* a, v16 weights) {
  uint32_t pair;
  std::memcpy(&pair, a, 4);
#ifdef __AVX512BF16__
  return (v16)_mm512_dpbf16_ps((__m512)acc, (__m512bh)_mm512_set1_epi32((int)pair), (__m512bh)weights);
#else
  const u16 both = (u16)weights, twice = u16{} + pair;
  acc += (v16)(both << 16) * (v16)(twice << 16);
  return acc + (v16)(both & 0xFFFF0000u) * (v16)(twice & 0xFFFF0000u);
#endif
}

inline v16 exponential(v16 x) {
  x = x < -87.0f ? v16{} - 87.0f : x;
  x = x > 87.0f ? v16{} + 87.0f : x;
  const v16 shifted = x * 1.44269504f + 12582912.0f, n = shifted - 12582912.0f;
  const v16 r = (x - n * 0.693145752f) - n * 1.42860677e-6f;
  v16 p = r * 1.98756915e-4f + 1.39819995e-3f;
  p = p * r + 8.33345198e-3f, p = p * r + 4.16657962e-2f, p = p * r + 1.66666657e-1f, p = p * r + 0.5f;
  p = p * r * r + r + 1.0f;
  return (v16)((i16)p + ((i16)shifted << 23));
}

inline float sum(v16 x) {
  float total = 0;
  for (int i = 0; i < 16; ++i) total += x[i];
  return total;
}

template <class X>
struct Array {  // zeroed, at cache lines; huge pages where the system has them
  std::unique_ptr<X, decltype(&std::free)> at{nullptr, &std::free};
  void make(long count) {
    const size_t bytes = ((size_t)count * sizeof(X) + (2 << 20) - 1) >> 21 << 21;
    at.reset((X*)std::aligned_alloc(2 << 20, bytes));
    if (!at) throw std::bad_alloc();
#ifdef __linux__
    madvise(at.get(), bytes, MADV_HUGEPAGE);
#endif
    std::memset((void*)at.get(), 0, bytes);
  }
  X* operator+(long i) const { return at.get() + i; }
  X& operator[](long i) const { return at.get()[i]; }
};

// What a product reads ahead: two lines at `at`, which moves by `step` bytes with each inner step (or pair of them).
struct Ahead {
  const char* at = nullptr;
  long step = 0;
};

// The panel that follows, to be read from memory while `blocks` tiles of rows are multiplied by this one; a single
// tile reads ahead in its own.
template <class T>
Ahead following(const T* panel, long inner, long block, long blocks) {
  if (blocks == 1) return {};
  return {(const char*)panel + inner / kPair<T> * 2 * kLine * block / blocks, 2 * kLine / blocks};
}

// M rows times a panel of 32 columns. Rows lie one behind the other at `stride`; with `ACROSS` they are M
// columns of another panel, so that the product sums over both operands' rows.
template <class T, int M, bool ACROSS>
void tile(const T* a, long stride, const T* panel, long inner, float* out, long out_stride, Ahead ahead) {
  constexpr long pair = kPair<T>, line = 16 * pair;
  const long row = ACROSS ? pair : stride;
  constexpr long step = ACROSS ? kPanel * pair : pair;
  v16 acc[M][2] = {};
  for (long k = 0; k < inner; k += pair, panel += 2 * line, a += step, ahead.at += ahead.step) {
    __builtin_prefetch(ahead.at);
    __builtin_prefetch(ahead.at + kLine);
    const v16 left = *(const v16*)panel, right = *(const v16*)(panel + line);
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) {
      acc[m][0] = fma(acc[m][0], a + m * row, left);
      acc[m][1] = fma(acc[m][1], a + m * row, right);
    }
  }
  for (int m = 0; m < M; ++m) {
    *(v16*)(out + m * out_stride) = acc[m][0];
    *(v16*)(out + m * out_stride + 16) = acc[m][1];
  }
}

template <class T, bool ACROSS = false>
void any_tile(long rows, const T* a, long stride, const T* panel, long inner, float* out, long out_stride = kPanel,
              Ahead ahead = {}) {
  using Tile = void (*)(const T*, long, const T*, long, float*, long, Ahead);
  static constexpr Tile tiles[] = {tile<T, 1, ACROSS>, tile<T, 2, ACROSS>,  tile<T, 3, ACROSS>,  tile<T, 4, ACROSS>,
                                   tile<T, 5, ACROSS>, tile<T, 6, ACROSS>,  tile<T, 7, ACROSS>,  tile<T, 8, ACROSS>,
                                   tile<T, 9, ACROSS>, tile<T, 10, ACROSS>, tile<T, 11, ACROSS>, tile<T, 12, ACROSS>};
  if (!ahead.at) ahead = {(const char*)panel + 128 * kLine, 2 * kLine};  // the same panel
  tiles[rows - 1](a, stride, panel, inner, out, out_stride, ahead);
}

}  // namespace
