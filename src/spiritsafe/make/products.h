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
#include <utility>

#include "../vectors.h"

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif
#ifdef __linux__
#include <sys/mman.h>
#endif

namespace {

constexpr long kPanel = 32, kSide = kPanel / 2;  // columns; gates of a panel, which as many ups follow
constexpr long kTile = kLanes == 16 ? 12 : 6;    // rows whose sums the registers hold
constexpr long kLine = 64;                       // bytes of a cache line
template <class T>
constexpr long kPair = sizeof(T) == 2 ? 2 : 1;  // inner steps in a word of 4 bytes

// acc + (two inner steps of bf16) or (one of float): weights of a vector of outputs times one row's value.
inline vf fma(vf acc, const float* a, vf weights) { return acc + *a * weights; }
inline vf fma(vf acc, const bf16* a, vf weights) {
  uint32_t pair;
  std::memcpy(&pair, a, 4);
#ifdef __AVX512BF16__
  return (vf)_mm512_dpbf16_ps((__m512)acc, (__m512bh)_mm512_set1_epi32((int)pair), (__m512bh)weights);
#else
  const vu both = (vu)weights, twice = vu{} + pair;
  acc += (vf)(both << 16) * (vf)(twice << 16);
  return acc + (vf)(both & 0xFFFF0000u) * (vf)(twice & 0xFFFF0000u);
#endif
}

inline float rms_scale(const float* x, long count, double eps) {
  vf squares = {};
  float rest = 0;
  long i = 0;
  for (; i + kLanes <= count; i += kLanes) squares += widen(x + i) * widen(x + i);
  for (; i < count; ++i) rest += x[i] * x[i];
  return 1.0f / std::sqrt((sum(squares) + rest) / (float)count + (float)eps);
}

template <class X>
struct Array {  // at cache lines; huge pages where the system has them
  static constexpr size_t kHuge = 2 << 20;
  std::unique_ptr<X, decltype(&std::free)> at{nullptr, &std::free};
  void make(long count) {  // zeroed
    const size_t bytes = rounded(count, kHuge);
    take(bytes, kHuge);
    std::memset((void*)at.get(), 0, bytes);
  }
  // As it comes: pages take memory when they are first written. A small one has no huge page to itself.
  void reserve(long count) {
    const size_t unit = (size_t)count * sizeof(X) < kHuge ? kLine : kHuge;
    take(rounded(count, unit), unit);
  }
  static size_t rounded(long count, size_t unit) { return ((size_t)count * sizeof(X) + unit - 1) / unit * unit; }
  void take(size_t bytes, size_t unit) {
    at.reset((X*)std::aligned_alloc(unit, bytes));
    if (!at) throw std::bad_alloc();
#ifdef __linux__
    if (unit == kHuge) madvise(at.get(), bytes, MADV_HUGEPAGE);
#endif
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
// columns of another panel, so that the product sums over both operands' rows. Where the registers do not hold the
// sums of all columns, half the panel comes after the other.
template <class T, int M, bool ACROSS>
void tile(const T* a, long stride, const T* panel, long inner, float* out, long out_stride, Ahead ahead) {
  constexpr long pair = kPair<T>, line = kLanes * pair, vectors = kLanes == 16 || M > 2 ? 2 : kPanel / kLanes;
  const long row = ACROSS ? pair : stride;
  constexpr long step = ACROSS ? kPanel * pair : pair;
  for (long n = 0; n < kPanel; n += vectors * kLanes, out += vectors * kLanes, panel += vectors * line) {
    const T *left = a, *right = panel;
    const char* next = ahead.at + n * 4;
    vf acc[M][vectors] = {};
    for (long k = 0; k < inner; k += pair, left += step, right += kPanel * pair, next += ahead.step) {
      for (long byte = 0; byte < vectors * 4 * kLanes; byte += kLine) __builtin_prefetch(next + byte);
      vf weights[vectors];
#pragma GCC unroll 4
      for (long i = 0; i < vectors; ++i) weights[i] = *(const vf*)(right + i * line);
#pragma GCC unroll 12
      for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
        for (long i = 0; i < vectors; ++i) acc[m][i] = fma(acc[m][i], left + m * row, weights[i]);
    }
    for (int m = 0; m < M; ++m)
      for (long i = 0; i < vectors; ++i) store(out + m * out_stride + i * kLanes, acc[m][i]);
  }
}

template <class T>
using Tile = void (*)(const T*, long, const T*, long, float*, long, Ahead);
template <class T, bool ACROSS, int... M>
Tile<T> tile_of(long rows, std::integer_sequence<int, M...>) {
  static constexpr Tile<T> tiles[] = {tile<T, M + 1, ACROSS>...};
  return tiles[rows - 1];
}

template <class T, bool ACROSS = false>
void any_tile(long rows, const T* a, long stride, const T* panel, long inner, float* out, long out_stride = kPanel,
              Ahead ahead = {}) {
  if (!ahead.at) ahead = {(const char*)panel + 128 * kLine, 2 * kLine};  // the same panel
  tile_of<T, ACROSS>(rows, std::make_integer_sequence<int, kTile>{})(a, stride, panel, inner, out, out_stride, ahead);
}

}  // namespace
