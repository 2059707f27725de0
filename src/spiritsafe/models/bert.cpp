// A BERT encoder's layers on 8-bit weights, one text at a time, one thread; `bert.py` says what it computes.
//
// Each token's activations are rounded to 256 steps from its lowest to its highest, as unsigned bytes, which `vpdpbusd`
// multiplies by signed ones; the lowest times the sum of an output's weights is added at the end. Weights lie in panels
// of 64 outputs: panel, four inputs, output, the four. Everything else is float32. Without VNNI, `bert_able` says no.
#include <algorithm>
#include <cstdint>
#include <vector>

#ifdef __AVX512VNNI__
#include <immintrin.h>

namespace {
typedef float v16 __attribute__((vector_size(64), aligned(4)));
typedef std::vector<float> Floats;
constexpr int64_t PANEL = 64, LANES = 16, ROWS = 6, SIZE = 32, QUERIES = 8;  // SIZE: numbers of a head

struct Product {
  const int8_t* weights;
  const float *sums, *scales, *bias;
  int64_t ins, outs;
};
struct Norm {
  const float *weight, *bias;
};
struct Layer {
  Product qkv, out, up, down;
  Norm after_attention, after_mlp;
};
struct Rounded {  // rows of bytes; of each row what one unit is worth, and what 0 stands for
  std::vector<uint8_t> bytes;
  Floats units, lows;
};

inline v16 load(const float* from) { return (v16)_mm512_loadu_ps(from); }
inline void store(float* to, v16 value) { _mm512_storeu_ps(to, (__m512)value); }
inline v16 all(float value) { return (v16)_mm512_set1_ps(value); }
inline float sum(v16 value) { return _mm512_reduce_add_ps((__m512)value); }
inline v16 larger(v16 a, v16 b) { return (v16)_mm512_max_ps((__m512)a, (__m512)b); }
inline v16 magnitude(v16 a) { return (v16)_mm512_abs_ps((__m512)a); }

// Within 2e-7 of e^x, relative, for x from -87 to 0; below, it is e^-87.
inline v16 exp_of(v16 x) {
  x = larger(x, all(-87));
  const v16 rounded = (v16)_mm512_roundscale_ps((__m512)(x * all(1.44269504f)), 0);
  const v16 rest = x - rounded * all(0.693359375f) - rounded * all(-2.12194440e-4f);
  v16 series = all(1.f / 720);
  for (float term : {1.f / 120, 1.f / 24, 1.f / 6, 0.5f, 1.f, 1.f}) series = series * rest + all(term);
  return (v16)_mm512_scalef_ps((__m512)series, (__m512)rounded);
}

// x times the normal distribution's share below x; erf after Abramowitz and Stegun 7.1.26, error 1.5e-7.
inline v16 gelu(v16 x) {
  const v16 z = magnitude(x) * all(0.707106781f), t = all(1) / (all(1) + all(0.3275911f) * z);
  v16 series = all(1.061405429f);
  for (float term : {-1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f}) series = series * t + all(term);
  const v16 tail = series * t * exp_of(-z * z) * all(0.5f);  // beyond |x| on one side
  const __mmask16 below = _mm512_cmp_ps_mask((__m512)x, _mm512_setzero_ps(), _CMP_LT_OQ);
  return x * (v16)_mm512_mask_blend_ps(below, (__m512)(all(1) - tail), (__m512)tail);
}

// In assembly since GCC 12 copies the sum before each `_mm512_dpbusd_epi32`, and spills.
inline void add_products(__m512i& sum, __m512i bytes, __m512i weights) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(bytes), "v"(weights));
}

void round_rows(const float* rows, int64_t num, int64_t width, Rounded& out) {
  out.bytes.resize(num * width);
  out.units.resize(num);
  out.lows.resize(num);
  for (int64_t t = 0; t < num; ++t) {
    const float* row = rows + t * width;
    v16 least = load(row), most = least;
    for (int64_t i = LANES; i < width; i += LANES) {
      least = (v16)_mm512_min_ps((__m512)least, (__m512)load(row + i));
      most = larger(most, load(row + i));
    }
    const float low = _mm512_reduce_min_ps((__m512)least), high = _mm512_reduce_max_ps((__m512)most);
    out.lows[t] = low;
    out.units[t] = std::max(high - low, 1e-12f) / 255;
    const v16 factor = all(1 / out.units[t]);
    for (int64_t i = 0; i < width; i += LANES) {
      const __m512i whole = _mm512_cvtps_epi32((__m512)((load(row + i) - all(low)) * factor));
      _mm_storeu_si128((__m128i*)(out.bytes.data() + t * width + i), _mm512_cvtusepi32_epi8(whole));
    }
  }
}

template <int64_t R>
void tile(const Rounded& rows, int64_t first, const Product& p, int64_t panel, float* out) {
  __m512i acc[R][4];
#pragma GCC unroll 8
  for (int64_t r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int64_t j = 0; j < 4; ++j) acc[r][j] = _mm512_setzero_si512();
  const int8_t* weights = p.weights + panel * PANEL * p.ins;
  const uint8_t* bytes = rows.bytes.data() + first * p.ins;
  for (int64_t i = 0; i < p.ins; i += 4, weights += 4 * PANEL) {
    __m512i four[4];
#pragma GCC unroll 4
    for (int64_t j = 0; j < 4; ++j) four[j] = _mm512_loadu_si512(weights + j * 64);
#pragma GCC unroll 8
    for (int64_t r = 0; r < R; ++r) {
      const __m512i one = _mm512_set1_epi32(*(const int32_t*)(bytes + r * p.ins + i));
#pragma GCC unroll 4
      for (int64_t j = 0; j < 4; ++j) add_products(acc[r][j], one, four[j]);
    }
  }
#pragma GCC unroll 8
  for (int64_t r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int64_t j = 0; j < 4; ++j) {
      const int64_t o = panel * PANEL + j * LANES;
      const v16 whole = (v16)_mm512_cvtepi32_ps(acc[r][j]) * all(rows.units[first + r]);
      const v16 found = whole + load(p.sums + o) * all(rows.lows[first + r]);
      store(out + (first + r) * p.outs + o, found * load(p.scales + o) + load(p.bias + o));
    }
}

void multiply(const Rounded& rows, const Product& p, Floats& out) {
  static constexpr decltype(&tile<1>) rest[ROWS] = {nullptr, tile<1>, tile<2>, tile<3>, tile<4>, tile<5>};
  const int64_t num = rows.units.size(), whole = num / ROWS * ROWS;
  out.resize(num * p.outs);
  for (int64_t panel = 0; panel < p.outs / PANEL; ++panel) {
    for (int64_t t = 0; t < whole; t += ROWS) tile<ROWS>(rows, t, p, panel, out.data());
    if (whole < num) rest[num - whole](rows, whole, p, panel, out.data());
  }
}

// rows = normed(rows + more), each over its width.
void add_and_norm(float* rows, const float* more, int64_t num, int64_t width, const Norm& norm, float eps) {
  for (int64_t t = 0; t < num; ++t) {
    float* row = rows + t * width;
    v16 total = all(0), squares = all(0);
    for (int64_t i = 0; i < width; i += LANES) {
      const v16 value = more ? load(row + i) + load(more + t * width + i) : load(row + i);
      store(row + i, value);
      total += value;
    }
    const v16 mean = all(sum(total) / width);
    for (int64_t i = 0; i < width; i += LANES) {
      const v16 off = load(row + i) - mean;
      squares += off * off;
    }
    const v16 factor = all(1 / __builtin_sqrtf(sum(squares) / width + eps));
    for (int64_t i = 0; i < width; i += LANES)
      store(row + i, (load(row + i) - mean) * factor * load(norm.weight + i) + load(norm.bias + i));
  }
}

// Q queries from the `first` on, of one head of SIZE numbers: `keys` (SIZE, padded) stand transposed.
template <int64_t Q>
void attend_some(const float* qkv, int64_t first, int64_t num, int64_t width, const Floats& keys,
                 const Floats& values, Floats& odds, float* out) {
  const int64_t padded = keys.size() / SIZE, stride = 3 * width;
  const float scale = 1 / __builtin_sqrtf(float(SIZE));
  v16 most[Q], total[Q], found[Q][SIZE / LANES];
  for (int64_t q = 0; q < Q; ++q) most[q] = all(-1e30f), total[q] = all(0);
  for (int64_t s = 0; s < padded; s += LANES) {
    v16 scores[Q];
    for (int64_t q = 0; q < Q; ++q) scores[q] = all(0);
    for (int64_t e = 0; e < SIZE; ++e) {
      const v16 key = load(&keys[e * padded + s]);
      for (int64_t q = 0; q < Q; ++q) scores[q] += all(qkv[(first + q) * stride + e]) * key;
    }
    const __mmask16 beyond = s + LANES > num ? _cvtu32_mask16(0xffffu << (num - s)) : _cvtu32_mask16(0);
    for (int64_t q = 0; q < Q; ++q) {
      scores[q] = (v16)_mm512_mask_blend_ps(beyond, (__m512)(scores[q] * all(scale)), (__m512)all(-1e30f));
      store(&odds[q * padded + s], scores[q]);
      most[q] = larger(most[q], scores[q]);
    }
  }
  for (int64_t q = 0; q < Q; ++q) {
    const v16 top = all(_mm512_reduce_max_ps((__m512)most[q]));
    for (int64_t s = q * padded; s < (q + 1) * padded; s += LANES) {
      const v16 weight = exp_of(load(&odds[s]) - top);
      store(&odds[s], weight);
      total[q] += weight;
    }
    for (auto& part : found[q]) part = all(0);
  }
  for (int64_t s = 0; s < num; ++s)
    for (int64_t e = 0; e < SIZE / LANES; ++e) {
      const v16 value = load(&values[s * SIZE + e * LANES]);
      for (int64_t q = 0; q < Q; ++q) found[q][e] += all(odds[q * padded + s]) * value;
    }
  for (int64_t q = 0; q < Q; ++q) {
    const v16 share = all(1 / sum(total[q]));
    for (int64_t e = 0; e < SIZE / LANES; ++e) store(out + (first + q) * width + e * LANES, found[q][e] * share);
  }
}

void attend(const float* qkv, int64_t num, int64_t width, Floats& keys, Floats& values, Floats& odds,
            float* out) {
  const int64_t padded = (num + LANES - 1) / LANES * LANES;
  keys.assign(SIZE * padded, 0);
  odds.resize(QUERIES * padded);
  values.resize(num * SIZE);
  for (int64_t s = 0; s < num; ++s) {
    const float* key = qkv + (3 * s + 1) * width;
    for (int64_t e = 0; e < SIZE; ++e) keys[e * padded + s] = key[e];
    std::copy(key + width, key + width + SIZE, &values[s * SIZE]);
  }
  int64_t t = 0;
  for (; t + QUERIES <= num; t += QUERIES) attend_some<QUERIES>(qkv, t, num, width, keys, values, odds, out);
  for (; t < num; ++t) attend_some<1>(qkv, t, num, width, keys, values, odds, out);
}
}  // namespace

extern "C" int bert_able() { return 1; }

// `rows` (num, width) are embedded tokens, not yet normed, and are overwritten by the last layer's states.
extern "C" void bert_states(float* rows, int64_t num, int64_t width, const Norm* first, const Layer* layers,
                            int64_t depth, float eps) {
  thread_local Rounded rounded;
  thread_local Floats wide, seen, keys, values, odds;
  add_and_norm(rows, nullptr, num, width, *first, eps);
  for (const Layer* layer = layers; layer < layers + depth; ++layer) {
    round_rows(rows, num, width, rounded);
    multiply(rounded, layer->qkv, wide);
    seen.resize(num * width);
    for (int64_t h = 0; h < width; h += SIZE) attend(wide.data() + h, num, width, keys, values, odds, seen.data() + h);
    round_rows(seen.data(), num, width, rounded);
    multiply(rounded, layer->out, seen);
    add_and_norm(rows, seen.data(), num, width, layer->after_attention, eps);
    round_rows(rows, num, width, rounded);
    multiply(rounded, layer->up, wide);
    for (int64_t i = 0; i < num * layer->up.outs; i += LANES) store(&wide[i], gelu(load(&wide[i])));
    round_rows(wide.data(), num, layer->up.outs, rounded);
    multiply(rounded, layer->down, seen);
    add_and_norm(rows, seen.data(), num, width, layer->after_mlp, eps);
  }
}
#else
extern "C" int bert_able() { return 0; }
extern "C" void bert_states(float*, int64_t, int64_t, const void*, const void*, int64_t, float) {}
#endif
