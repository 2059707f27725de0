// Vectors of floats as wide as the processor's registers: 16 with AVX-512, else 8 (wider ones would live in memory);
// bfloat16 beside them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace {

#ifdef __AVX512F__
constexpr long kLanes = 16;
#else
constexpr long kLanes = 8;
#endif
typedef float vf __attribute__((vector_size(4 * kLanes), aligned(4)));
typedef int32_t vi __attribute__((vector_size(4 * kLanes), aligned(4)));
typedef uint32_t vu __attribute__((vector_size(4 * kLanes), aligned(4)));
typedef uint16_t vh __attribute__((vector_size(2 * kLanes), aligned(2)));

inline vf all(float x) { return vf{} + x; }
inline vf load(const float* from) { return *(const vf*)from; }
inline void store(float* to, vf x) { *(vf*)to = x; }
inline vf larger(vf a, vf b) { return a > b ? a : b; }
inline vf smaller(vf a, vf b) { return a < b ? a : b; }

inline vi places() {
  vi found;
  for (int i = 0; i < kLanes; ++i) found[i] = i;
  return found;
}

using bf16 = uint16_t;

inline void narrow(float x, float* out) { *out = x; }
inline void narrow(float x, bf16* out) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  *out = (bf16)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}
inline void narrow(vf x, float* out) { store(out, x); }
inline void narrow(vf x, bf16* out) {
  const vu bits = (vu)x;
  *(vh*)out = __builtin_convertvector((bits + 0x7FFF + (bits >> 16 & 1)) >> 16, vh);
}
inline float wide(float x) { return x; }
inline float wide(bf16 x) {
  const uint32_t bits = (uint32_t)x << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline vf widen(const float* x) { return load(x); }
inline vf widen(const bf16* x) { return (vf)(__builtin_convertvector(*(const vh*)x, vu) << 16); }

// The lanes as one number, halves by halves.
template <class Two>
inline float folded(vf x, Two two) {
  float lane[kLanes];
  store(lane, x);
  for (long half = kLanes / 2; half; half /= 2)
    for (long i = 0; i < half; ++i) lane[i] = two(lane[i], lane[i + half]);
  return lane[0];
}
inline float sum(vf x) {
  return folded(x, [](float a, float b) { return a + b; });
}
inline float largest(vf x) {
  return folded(x, [](float a, float b) { return std::max(a, b); });
}
inline float smallest(vf x) {
  return folded(x, [](float a, float b) { return std::min(a, b); });
}

// e^x within 2 units in the last place; beyond -87 and 87 it stays as it is there, so it is never 0.
inline vf exponential(vf x) {
  x = smaller(larger(x, all(-87)), all(87));
  const vf shifted = x * 1.44269504f + 12582912.0f, n = shifted - 12582912.0f;
  const vf r = (x - n * 0.693145752f) - n * 1.42860677e-6f;
  vf p = r * 1.98756915e-4f + 1.39819995e-3f;
  p = p * r + 8.33345198e-3f, p = p * r + 4.16657962e-2f, p = p * r + 1.66666657e-1f, p = p * r + 0.5f;
  p = p * r * r + r + 1.0f;
  return (vf)((vi)p + ((vi)shifted << 23));
}

}  // namespace
