// A BERT encoder's layers on 8-bit weights, one text at a time, one thread; `bert.py` says what it computes.
//
// Each token's activations are rounded to 256 steps from its lowest to its highest, and multiplied by weights of 8 bits
// in whole numbers; the lowest times the sum of an output's weights is added at the end. With VNNI the steps are bytes,
// which `vpdpbusd` multiplies four at a time; with AVX2 both are widened to 16 bits for `vpmaddwd`, else one by one, with
// the same sums. Weights lie in panels of `PANEL` outputs: panel, four inputs, output, the four. The rest is float32.
//
// Every processor gives the same bits, those of numpy in `bert.py`: whole sums are exact, and floats are added in one
// order, over LANES lanes that are then folded by halves. Compile with -ffp-contract=off: a product and a sum that are
// rounded once would give others.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "../vectors.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(__AVX512VNNI__) || defined(SPIRITSAFE_EMULATE_VNNI)
#define BYTES
#endif

namespace {
typedef std::vector<float> Floats;
constexpr int64_t LANES = 16, PARTS = LANES / kLanes;
constexpr int64_t ROWS = 6, SIZE = 32, QUERIES = kLanes == 16 ? 8 : 6;  // SIZE: numbers of a head
constexpr int64_t NEAR = 1 << 14;  // bytes

#ifdef BYTES
typedef uint8_t Step;
typedef __m512i Sums, Weights, Four;
constexpr int64_t PANEL = 64, WIDTH = 4, OUTS = 16;  // outputs side by side, in so many vectors of sums; of one vector
typedef int32_t Whole __attribute__((vector_size(4 * OUTS)));
inline Weights weights_at(const int8_t* from) { return _mm512_loadu_si512(from); }
inline Four four(const Step* from) { return _mm512_set1_epi32(*(const int32_t*)from); }
inline void add_products(Sums& sums, Four steps, Weights weights) {
#ifdef SPIRITSAFE_EMULATE_VNNI  // for tests on a processor that has only AVX-512: even and odd bytes apart
  const __m512i even = _mm512_and_si512(steps, _mm512_set1_epi16(255)), odd = _mm512_srli_epi16(steps, 8);
  const __m512i left = _mm512_srai_epi16(_mm512_slli_epi16(weights, 8), 8), right = _mm512_srai_epi16(weights, 8);
  sums = _mm512_add_epi32(sums, _mm512_add_epi32(_mm512_madd_epi16(even, left), _mm512_madd_epi16(odd, right)));
#else  // in assembly since GCC 12 copies the sum before each `_mm512_dpbusd_epi32`, and spills
  asm("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(steps), "v"(weights));
#endif
}
inline Whole whole(const Sums* sums, int64_t j) { return (Whole)sums[j]; }
#elif defined(__AVX2__)
typedef int16_t Step;
typedef __m256i Sums, Weights, Four;  // sums: two of each of 4 outputs
constexpr int64_t PANEL = 8, WIDTH = 2, OUTS = 8;
typedef int32_t Whole __attribute__((vector_size(4 * OUTS)));
inline Weights weights_at(const int8_t* from) { return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)from)); }
inline Four four(const Step* from) { return _mm256_set1_epi64x(*(const int64_t*)from); }
// In assembly since GCC 12 loads the steps of all rows first, and spills the sums.
inline void add_products(Sums& sums, Four steps, Weights weights) {
  Sums both;
  asm("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sums), "=&x"(both) : "x"(steps), "x"(weights));
}
inline Whole whole(const Sums* sums, int64_t) {
  const __m256i both = _mm256_hadd_epi32(sums[0], sums[1]);  // outputs 0 1 4 5 2 3 6 7
  return (Whole)_mm256_permute4x64_epi64(both, 0xD8);
}
#else
typedef int16_t Step;
struct Sums {
  int32_t of[4];
};
typedef const int8_t* Weights;
typedef const Step* Four;
constexpr int64_t PANEL = 8, WIDTH = 2, OUTS = 8;
typedef int32_t Whole __attribute__((vector_size(4 * OUTS)));
inline Weights weights_at(const int8_t* from) { return from; }
inline Four four(const Step* from) { return from; }
inline void add_products(Sums& sums, Four steps, Weights weights) {
  for (int o = 0; o < 4; ++o)
    for (int k = 0; k < 4; ++k) sums.of[o] += steps[k] * weights[4 * o + k];
}
inline Whole whole(const Sums* sums, int64_t) {
  Whole found;
  for (int o = 0; o < 8; ++o) found[o] = sums[o / 4].of[o % 4];
  return found;
}
#endif
typedef float Outs __attribute__((vector_size(4 * OUTS), aligned(4)));
inline Outs outs(const float* from) { return *(const Outs*)from; }

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
struct Rounded {  // rows of steps; of each row what one is worth, and what 0 stands for
  std::vector<Step> steps;
  Floats units, lows;
};

// Numbers added in the one order.
struct Total {
  vf part[PARTS];
  Total() {
    for (auto& each : part) each = all(0);
  }
  float folded() const { return sum(PARTS == 2 ? part[0] + part[PARTS - 1] : part[0]); }
};

// x times the normal distribution's share below x; erf after Abramowitz and Stegun 7.1.26, error 1.5e-7.
inline vf gelu(vf x) {
  const vf z = larger(x, -x) * 0.707106781f, t = 1 / (1 + 0.3275911f * z);
  vf series = all(1.061405429f);
  for (float term : {-1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f}) series = series * t + term;
  const vf tail = series * t * exponential(-z * z) * 0.5f;  // beyond |x| on one side
  return x * (x < 0 ? tail : 1 - tail);
}

void round_rows(const float* rows, int64_t num, int64_t width, Rounded& out) {
  typedef Step vs __attribute__((vector_size(sizeof(Step) * kLanes), aligned(sizeof(Step))));
  out.steps.resize(num * width);
  out.units.resize(num);
  out.lows.resize(num);
  for (int64_t t = 0; t < num; ++t) {
    const float* row = rows + t * width;
    vf least = load(row), most = least;
    for (int64_t i = kLanes; i < width; i += kLanes) {
      least = smaller(least, load(row + i));
      most = larger(most, load(row + i));
    }
    const float low = smallest(least) + 0.0f, high = largest(most);  // never -0, which depends on the order
    out.lows[t] = low;
    out.units[t] = std::max(high - low, 1e-12f) / 255;
    const float factor = 1 / out.units[t];
    for (int64_t i = 0; i < width; i += kLanes) {
      const vf shifted = (load(row + i) - low) * factor + 12582912.0f;  // the nearest whole number is in its last bits
      *(vs*)(out.steps.data() + t * width + i) = __builtin_convertvector((vi)shifted & 0xFFFF, vs);
    }
  }
}

template <int64_t R>
void tile(const Rounded& rows, int64_t first, const Product& p, int64_t panel, float* out) {
  Sums sums[R][WIDTH];
#pragma GCC unroll 8
  for (int64_t r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int64_t j = 0; j < WIDTH; ++j) sums[r][j] = Sums{};
  const int8_t* from = p.weights + panel * PANEL * p.ins;
  const Step* steps = rows.steps.data() + first * p.ins;
  for (int64_t i = 0; i < p.ins; i += 4, from += 4 * PANEL) {
    Weights weights[WIDTH];
#pragma GCC unroll 4
    for (int64_t j = 0; j < WIDTH; ++j) weights[j] = weights_at(from + j * 4 * PANEL / WIDTH);
#pragma GCC unroll 8
    for (int64_t r = 0; r < R; ++r) {
      const Four one = four(steps + r * p.ins + i);
#pragma GCC unroll 4
      for (int64_t j = 0; j < WIDTH; ++j) add_products(sums[r][j], one, weights[j]);
    }
  }
#pragma GCC unroll 8
  for (int64_t r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int64_t j = 0; j < PANEL / OUTS; ++j) {
      const int64_t o = panel * PANEL + j * OUTS;
      const Outs found = __builtin_convertvector(whole(sums[r], j), Outs) * rows.units[first + r];
      *(Outs*)(out + (first + r) * p.outs + o) =
          (found + outs(p.sums + o) * rows.lows[first + r]) * outs(p.scales + o) + outs(p.bias + o);
    }
}

// A few panels of weights stay near while the rows pass by.
void multiply(const Rounded& rows, const Product& p, Floats& out) {
  static constexpr decltype(&tile<1>) rest[ROWS] = {nullptr, tile<1>, tile<2>, tile<3>, tile<4>, tile<5>};
  const int64_t num = rows.units.size(), whole = num / ROWS * ROWS, panels = p.outs / PANEL;
  const int64_t some = std::max<int64_t>(1, NEAR / (PANEL * p.ins));
  out.resize(num * p.outs);
  for (int64_t first = 0; first < panels; first += some) {
    const int64_t end = std::min(panels, first + some);
    for (int64_t t = 0; t < whole; t += ROWS)
      for (int64_t panel = first; panel < end; ++panel) tile<ROWS>(rows, t, p, panel, out.data());
    for (int64_t panel = first; panel < end && whole < num; ++panel)
      rest[num - whole](rows, whole, p, panel, out.data());
  }
}

// rows = normed(rows + more), each over its width.
void add_and_norm(float* rows, const float* more, int64_t num, int64_t width, const Norm& norm, float eps) {
  for (int64_t t = 0; t < num; ++t) {
    float* row = rows + t * width;
    Total total, squares;
    for (int64_t i = 0; i < width; i += LANES)
      for (int64_t p = 0, at = i; p < PARTS; ++p, at += kLanes) {
        const vf value = more ? load(row + at) + load(more + t * width + at) : load(row + at);
        store(row + at, value);
        total.part[p] += value;
      }
    const float mean = total.folded() / width;
    for (int64_t i = 0; i < width; i += LANES)
      for (int64_t p = 0; p < PARTS; ++p) {
        const vf off = load(row + i + p * kLanes) - mean;
        squares.part[p] += off * off;
      }
    const float factor = 1 / __builtin_sqrtf(squares.folded() / width + eps);
    for (int64_t i = 0; i < width; i += kLanes)
      store(row + i, (load(row + i) - mean) * factor * load(norm.weight + i) + load(norm.bias + i));
  }
}

// Q queries from the `first` on, of one head of SIZE numbers: `keys` (SIZE, padded) stand transposed.
template <int64_t Q>
void attend_some(const float* qkv, int64_t first, int64_t num, int64_t width, const Floats& keys,
                 const Floats& values, Floats& odds, float* out) {
  const int64_t padded = keys.size() / SIZE, stride = 3 * width;
  const float scale = 1 / __builtin_sqrtf(float(SIZE));
  vf most[Q];
  float share[Q];
  for (int64_t q = 0; q < Q; ++q) most[q] = all(-1e30f);
  for (int64_t s = 0; s < padded; s += kLanes) {
    vf scores[Q];
    for (int64_t q = 0; q < Q; ++q) scores[q] = all(0);
    for (int64_t e = 0; e < SIZE; ++e) {
      const vf key = load(&keys[e * padded + s]);
      for (int64_t q = 0; q < Q; ++q) scores[q] += qkv[(first + q) * stride + e] * key;
    }
    for (int64_t q = 0; q < Q; ++q) {
      scores[q] = places() + (int32_t)s < (int32_t)num ? scores[q] * scale : all(-1e30f);
      store(&odds[q * padded + s], scores[q]);
      most[q] = larger(most[q], scores[q]);
    }
  }
  for (int64_t q = 0; q < Q; ++q) {
    const float top = largest(most[q]);
    Total total;
    for (int64_t s = q * padded; s < (q + 1) * padded; s += LANES)
      for (int64_t p = 0, at = s; p < PARTS; ++p, at += kLanes) {
        const vf weight = exponential(load(&odds[at]) - top);
        store(&odds[at], weight);
        total.part[p] += weight;
      }
    share[q] = 1 / total.folded();
  }
  for (int64_t e = 0; e < SIZE; e += 2 * kLanes) {
    vf left[Q], right[Q];
    for (int64_t q = 0; q < Q; ++q) left[q] = right[q] = all(0);
    for (int64_t s = 0; s < num; ++s) {
      const vf low = load(&values[s * SIZE + e]), high = load(&values[s * SIZE + e + kLanes]);
      for (int64_t q = 0; q < Q; ++q) {
        left[q] += odds[q * padded + s] * low;
        right[q] += odds[q * padded + s] * high;
      }
    }
    for (int64_t q = 0; q < Q; ++q) {
      store(out + (first + q) * width + e, left[q] * share[q]);
      store(out + (first + q) * width + e + kLanes, right[q] * share[q]);
    }
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

extern "C" int64_t bert_panel() { return PANEL; }

// `rows` (num, width) are embedded tokens, not yet normed, and are overwritten by the last layer's states.
extern "C" void bert_states(float* rows, int64_t num, int64_t width, const Norm* first, const Layer* layers,
                            int64_t depth, float eps) {
  thread_local Rounded rounded;
  thread_local Floats wide, seen, keys, values, odds;
#if defined(__x86_64__)
  const unsigned before = _mm_getcsr();  // someone in this process may have had tiny numbers set to 0
  _mm_setcsr(0x1F80);
#endif
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
    for (int64_t i = 0; i < num * layer->up.outs; i += kLanes) store(&wide[i], gelu(load(&wide[i])));
    round_rows(wide.data(), num, layer->up.outs, rounded);
    multiply(rounded, layer->down, seen);
    add_and_norm(rows, seen.data(), num, width, layer->after_mlp, eps);
  }
#if defined(__x86_64__)
  _mm_setcsr(before);
#endif
}
