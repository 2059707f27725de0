// Operands of matrix products laid out in panels, and products over them by a team of threads.
#pragma once

#include "../products.h"

namespace {

constexpr long kNear = 1 << 18, kTokens = 512;  // bytes of rows, tokens of a sum, that stay near a core

template <class X>
struct Room {  // memory that only grows
  Array<X> at;
  long size = 0;
  void make(long count) {
    if (count > size) at.make(size = count);
  }
  X* operator+(long i) const { return at + i; }
  X& operator[](long i) const { return at[i]; }
};

// An operand (inner x columns) of a product, in panels of 32 columns, rows in pairs for bf16.
template <class T>
struct Operand {
  long inner = 0, panels = 0;
  Room<T> at;
  void shape(long inner_, long columns) {
    inner = (inner_ + kPair<T> - 1) / kPair<T> * kPair<T>, panels = (columns + kPanel - 1) / kPanel;
  }
  void make(long inner_, long columns) {
    shape(inner_, columns);
    at.make(inner * panels * kPanel);
  }
  T* panel(long p) const { return at + p * inner * kPanel; }
};

// `row(k)` is the k-th inner row, null where there is none.
template <class T, class Row>
void pack_panel(Operand<T>& to, long p, long inner, long columns, Row row) {
  constexpr long pair = kPair<T>;
  static const T zeros[kPanel] = {};
  const long first = p * kPanel, count = std::min(kPanel, columns - first);
  T* out = to.panel(p);
  for (long k = 0; k < inner; k += pair, out += kPanel * pair) {
    const T* parts[2] = {zeros, zeros};
    T copied[2][kPanel] = {};
    for (long i = 0; i < pair; ++i)
      if (const T* from = k + i < inner ? row(k + i) : nullptr) {
        parts[i] = from + first;
        if (count < kPanel) parts[i] = (const T*)std::memcpy(copied[i], from + first, count * sizeof(T));
      }
    if constexpr (pair == 1) {
      std::memcpy(out, parts[0], kPanel * sizeof(T));
    } else {
      for (long j = 0; j < kPanel; j += kLanes)
        *(vu*)(out + 2 * j) = (vu)widen(parts[0] + j) >> 16 | (vu)widen(parts[1] + j);
    }
  }
}

// `row(n)` is the n-th column's values along the inner axis, null where there is none.
template <class T, class Row>
void turn_panel(Operand<T>& to, long p, long columns, Row row) {
  constexpr long block = 32;
  const long words = to.inner / kPair<T>;
  uint32_t* out = (uint32_t*)to.panel(p);
  for (long w = 0; w < words; w += block)
    for (long j = 0; j < kPanel; ++j) {
      const T* from = p * kPanel + j < columns ? row(p * kPanel + j) : nullptr;
      for (long i = w; i < std::min(words, w + block); ++i) {
        if (from) std::memcpy(out + i * kPanel + j, from + i * kPair<T>, 4);
        else out[i * kPanel + j] = 0;
      }
    }
}

// The same by all threads of a team.
template <class T, class Row>
void pack(Operand<T>& to, long inner, long columns, Row row) {
#pragma omp single
  to.shape(inner, columns);
#pragma omp for schedule(static)
  for (long p = 0; p < to.panels; ++p) pack_panel(to, p, inner, columns, row);
}

// Columns become rows of `length` values, zeros at the end; by all threads of a team.
template <class T>
void turn(T* to, long length, const T* from, long rows, long columns) {
  constexpr long block = 16;
#pragma omp for schedule(static)
  for (long n = 0; n < columns; n += block)
    for (long t = 0; t < length; t += block)
      for (long j = n; j < std::min(n + block, columns); ++j)
        for (long i = t; i < std::min(t + block, length); ++i)
          to[j * length + i] = i < rows ? from[i * columns + j] : T{};
}

// `done(row, panel, values)` gets each row's 32 outputs of a panel; by all threads of a team. A task's rows fit
// the second-level cache, where they stay while the panels pass by.
template <class T, class Done>
void multiply(const T* a, long stride, long rows, const Operand<T>& b, Done done) {
  const long most = std::max(1L, kNear / (b.inner * (long)sizeof(T)) / kTile) * kTile;
  const long chunks = (rows + most - 1) / most;
#pragma omp for schedule(dynamic, 4)
  for (long task = 0; task < b.panels * chunks; ++task) {
    const long p = task % b.panels, chunk = task / b.panels;
    const long begin = rows * chunk / chunks, end = rows * (chunk + 1) / chunks;
    const long blocks = (end - begin + kTile - 1) / kTile;
    alignas(64) float out[kTile * kPanel];
    for (long block = 0; block < blocks; ++block) {
      const long first = begin + (end - begin) * block / blocks, last = begin + (end - begin) * (block + 1) / blocks;
      any_tile(last - first, a + first * stride, stride, b.panel(p), b.inner, out, kPanel,
               following(b.panel((p + 1) % b.panels), b.inner, block, blocks));
      for (long m = first; m < last; ++m) done(m, p, out + (m - first) * kPanel);
    }
  }
}

// The sum over the inner rows of both operands, for some columns of `a` against one panel of `b`.
template <class T, class Done>
void across(const Operand<T>& a, long pa, const Operand<T>& b, long pb, Done done) {
  constexpr long tiles = (kPanel + kTile - 1) / kTile, most = (kPanel + tiles - 1) / tiles;
  for (long first = 0; first < kPanel; first += most) {
    const long count = std::min(most, kPanel - first);
    alignas(64) float out[most * kPanel];
    any_tile<T, true>(count, a.panel(pa) + first * kPair<T>, 0, b.panel(pb), a.inner, out);
    for (long m = 0; m < count; ++m) done(pa * kPanel + first + m, out + m * kPanel);
  }
}

inline void add_to(float* sums, const float* values, long count) {
  if (count == kPanel)
    for (long j = 0; j < kPanel; j += kLanes) store(sums + j, load(sums + j) + load(values + j));
  else
    for (long j = 0; j < count; ++j) sums[j] += values[j];
}

}  // namespace
