// Draws tokens by the same exponential race, over the same Philox numbers, as models/decoding/sampling.py.
//
// The stream of a (seed, step) is numpy's Philox 4x64-10 (Salmon et al., SC 2011) read by the 256-layer
// ziggurat of Marsaglia and Tsang (J. Stat. Softw. 5(8), 2000): how many numbers one exponential takes
// depends on the numbers, so a stream is read in order, and rows run in parallel.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

#ifdef __AVX2__
#include <immintrin.h>
#endif

#include "../../vectors.h"

namespace {

constexpr int kWords = kLanes / 2;  // numbers of 8 bytes in a vector
typedef uint64_t vw __attribute__((vector_size(8 * kWords), aligned(8)));
typedef double vd __attribute__((vector_size(8 * kWords), aligned(8)));
typedef float half_vf __attribute__((vector_size(4 * kWords), aligned(4)));

constexpr uint64_t kLow = 0xFFFFFFFF;

inline vw product_of_low_halves(vw x, vw y) {
#if defined(__AVX512F__)
  return (vw)_mm512_mul_epu32((__m512i)x, (__m512i)y);
#elif defined(__AVX2__)
  return (vw)_mm256_mul_epu32((__m256i)x, (__m256i)y);
#else
  return (x & kLow) * (y & kLow);
#endif
}

struct Wide {
  vw high, low;
};

inline Wide product(vw x, uint64_t factor) {
  const vw f = vw{} + (factor & kLow), g = vw{} + (factor >> 32), low = product_of_low_halves(x, f);
  const vw one = product_of_low_halves(x >> 32, f) + (low >> 32), two = product_of_low_halves(x, g) + (one & kLow);
  return {product_of_low_halves(x >> 32, g) + (one >> 32) + (two >> 32), (two << 32) | (low & kLow)};
}

struct Ziggurat {
  static constexpr long double kEdge = 7.69711747013104972L, kScale = 9007199254740992.0L;  // 2^53
  uint64_t accept[256];
  double width[256], height[256];
  Ziggurat() {
    const long double area = (kEdge + 1) * expl(-kEdge), base = area / expl(-kEdge);
    long double x = kEdge, above = kEdge;
    accept[0] = (uint64_t)(kEdge / base * kScale), accept[1] = 0;
    width[0] = (double)(base / kScale), width[255] = (double)(kEdge / kScale);
    height[0] = 1, height[255] = (double)expl(-kEdge);
    for (int i = 254; i >= 1; --i, above = x) {
      x = -logl(area / x + expl(-x));
      accept[i + 1] = (uint64_t)(x / above * kScale);
      width[i] = (double)(x / kScale), height[i] = (double)expl(-x);
    }
  }
};
const Ziggurat zig;

class Stream {
 public:
  Stream(uint64_t seed, uint64_t step) : seed_(seed), step_(step) {}

  // Most numbers give an exponential each; the loop leaves only for the about 1 % that do not.
  void exponentials(double* out, long count) {
    for (long done = 0; done < count;) {
      if (used_ == kReady) fill();
      const uint64_t* ready = ready_ + used_;
      const long some = std::min(count - done, (long)kReady - used_);
      long i = 0;
      for (; i < some; ++i) {
        const uint64_t bits = ready[i] >> 11, layer = ready[i] >> 3 & 255;
        if (__builtin_expect(bits >= zig.accept[layer], 0)) break;
        out[done + i] = (double)(int64_t)bits * zig.width[layer];
      }
      used_ += (int)i, done += i;
      if (i < some) out[done++] = one();
    }
  }

 private:
  static constexpr int kReady = 256;

  double one() {
    for (;;) {
      const uint64_t drawn = next(), bits = drawn >> 11, layer = drawn >> 3 & 255;
      const double x = (double)(int64_t)bits * zig.width[layer];
      if (bits < zig.accept[layer]) return x;
      const double u = (double)(next() >> 11) / 9007199254740992.0;
      if (layer == 0) return (double)Ziggurat::kEdge - log1p(-u);
      if ((zig.height[layer - 1] - zig.height[layer]) * u + zig.height[layer] < exp(-x)) return x;
    }
  }

  uint64_t next() {
    if (used_ == kReady) fill();
    return ready_[used_++];
  }

  // Blocks of four numbers, one in each lane.
  void fill() {
    for (int done = 0; done < kReady; done += 4 * kWords, counter_ += kWords) {
      vw a = firsts() + counter_, b = {}, c = vw{} + step_, d = {};
      uint64_t key = seed_, other = 0;
#pragma GCC unroll 10
      for (int round = 0; round < 10; ++round) {
        const Wide p = product(a, 0xD2E7470EE14C6C93u), q = product(c, 0xCA5A826395121157u);
        a = q.high ^ b ^ key, b = q.low, c = p.high ^ d ^ other, d = p.low;
        key += 0x9E3779B97F4A7C15u, other += 0xBB67AE8584CAA73Bu;
      }
      for (int lane = 0; lane < kWords; ++lane) {
        uint64_t* out = ready_ + done + 4 * lane;
        out[0] = a[lane], out[1] = b[lane], out[2] = c[lane], out[3] = d[lane];
      }
    }
    used_ = 0;
  }

  static vw firsts() {
    vw found;
    for (int lane = 0; lane < kWords; ++lane) found[lane] = lane + 1;
    return found;
  }

  uint64_t seed_, step_, counter_ = 0, ready_[kReady];
  int used_ = kReady;
};

// exp((logits - most) / heat) into `out`; returns their sum.
double weigh(const float* logits, long vocab, float most, float heat, float* out) {
  double sum = 0;
  long v = 0;
  while (v + kLanes <= vocab) {
    vf part = {};
    for (const long end = std::min(vocab - kLanes + 1, v + 1024); v < end; v += kLanes) {
      const vf p = exponential((load(logits + v) - most) / heat);
      store(out + v, p), part += p;
    }
    for (int i = 0; i < kLanes; ++i) sum += part[i];
  }
  for (; v < vocab; ++v) sum += out[v] = std::exp((logits[v] - most) / heat);
  return sum;
}

// Sets to 0 what stands behind the smallest nucleus of mass `top_p`, ties in order of their index.
void cut_to_nucleus(float* weights, long vocab, double sum, double top_p) {
  std::vector<long> order(vocab);
  std::iota(order.begin(), order.end(), 0);
  const auto heavier = [&](long i, long j) { return weights[i] > weights[j] || (weights[i] == weights[j] && i < j); };
  double before = 0;
  long kept = 0, sorted = 0;
  while (kept < vocab && (kept == 0 || before < top_p * sum)) {
    if (kept == sorted) {
      sorted = std::min(vocab, std::max(64L, 4 * sorted));
      std::partial_sort(order.begin() + kept, order.begin() + sorted, order.end(), heavier);
    }
    before += weights[order[kept++]];
  }
  for (long i = kept; i < vocab; ++i) weights[order[i]] = 0;
}

long race(Stream& stream, const float* weights, long vocab) {
  double best = INFINITY, drawn[512];
  long winner = 0;
  for (long first = 0; first < vocab; first += 512) {
    const long count = std::min(512L, vocab - first);
    const float* own = weights + first;
    stream.exponentials(drawn, count);
    bool faster = count < 512 || first == 0;
    if (!faster) {
      vw any = {};
      for (int i = 0; i < 512; i += kWords)
        any |= (vw)(*(const vd*)(drawn + i) < best * __builtin_convertvector(*(const half_vf*)(own + i), vd));
      for (int lane = 0; lane < kWords; ++lane) faster |= any[lane] != 0;
    }
    for (long i = 0; faster && i < count; ++i)
      if (drawn[i] < best * own[i]) best = drawn[i] / own[i], winner = first + i;
  }
  return winner;
}

// NaN where a single logit is: comparisons would pass it by.
float most_of(const float* logits, long vocab) {
  vf most = all(-INFINITY);
  vi nan = {};
  long v = 0;
  for (; v + kLanes <= vocab; v += kLanes) {
    const vf x = load(logits + v);
    most = larger(most, x), nan |= x != x;
  }
  float found = largest(most);
  bool broken = false;
  for (int lane = 0; lane < kLanes; ++lane) broken |= nan[lane] != 0;
  for (; v < vocab; ++v) found = std::max(found, logits[v]), broken |= std::isnan(logits[v]);
  return broken ? NAN : found;
}

}  // namespace

extern "C" {

// `count` standard exponentials of the stream (seed, step).
void race_exponentials(uint64_t seed, uint64_t step, long count, double* out) {
  Stream stream(seed, step);
  stream.exponentials(out, count);
}

// One token for each of `rows` rows of logits, and its log-probability at temperature 1.
void race_draw(const float* logits, long rows, long vocab, const uint64_t* seeds, const int64_t* steps,
               double temperature, double top_p, int64_t* tokens, float* logprobs, int threads) {
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (long row = 0; row < rows; ++row) {
    const float* own = logits + row * vocab;
    std::vector<float> weights(vocab);
    const float most = most_of(own, vocab);
    if (std::isnan(most)) {
      tokens[row] = 0, logprobs[row] = NAN;
      continue;
    }
    double sum = weigh(own, vocab, most, 1.0f, weights.data());
    const double whole = sum;
    if (temperature > 0) {
      if (temperature != 1) sum = weigh(own, vocab, most, (float)temperature, weights.data());
      if (top_p < 1) cut_to_nucleus(weights.data(), vocab, sum, top_p);
      Stream stream(seeds[row], (uint64_t)steps[row]);
      tokens[row] = race(stream, weights.data(), vocab);
    } else {
      tokens[row] = std::find(own, own + vocab, most) - own;
    }
    logprobs[row] = (float)((double)own[tokens[row]] - most - std::log(whole));
  }
}

// Log-probabilities of given tokens, one for each row of logits.
void race_score(const float* logits, long rows, long vocab, const int64_t* tokens, float* logprobs, int threads) {
#pragma omp parallel num_threads(threads)
  {
    std::vector<float> weights(vocab);
#pragma omp for schedule(dynamic)
    for (long row = 0; row < rows; ++row) {
      const float* own = logits + row * vocab;
      const float most = most_of(own, vocab);  // NaN is handed on
      const double whole = weigh(own, vocab, most, 1.0f, weights.data());
      logprobs[row] = (float)((double)own[tokens[row]] - most - std::log(whole));
    }
  }
}
}
