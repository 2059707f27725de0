// One layer of a Llama-family model over a packed row, forward and backward, for training.
//
// Weights, activations and gradients that enter a product are T (bfloat16 or float); sums, norms, rotation,
// softmax, the residual stream and its gradient are float, and weight gradients are added up in float. Each
// sum has one order, so equal rows give equal bits whatever the number of threads. Axes: t tokens of the row,
// n outputs, k inner, d head dimension. `layers.py` says how it is called.

#include "attention.h"

#include <vector>

namespace {

// Gradient of x * scale * weight with scale = rms_scale(x); returns into `slopes`, which held the result's.
inline void rms_back(const float* x, float scale, const float* weight, long count, float* slopes) {
  float dot = 0;
  for (long i = 0; i < count; ++i) slopes[i] *= weight[i], dot += slopes[i] * x[i];
  const float share = dot * scale * scale * scale / (float)count;
  for (long i = 0; i < count; ++i) slopes[i] = slopes[i] * scale - x[i] * share;
}

// Pointers as Python lists them, null where the architecture has none.
enum { Q, K, V, O, GATE, UP, DOWN, Q_BIAS, NORM = Q_BIAS + DOWN + 1, NORM2, Q_NORM, K_NORM, WEIGHTS };

template <class T>
struct Scratch {
  Room<T> input, slopes, inside, dgate_up, dmixed, dqkv, turned;
  Room<float> wide, dinput, dmiddle, scales;
  Operand<T> right;
  void fit(long tokens, const Shape& s, long width) {
    const long mixed = s.heads * s.dim;
    input.make(tokens * s.hidden), slopes.make(tokens * s.hidden), inside.make(tokens * s.inner);
    dgate_up.make(tokens * 2 * s.inner), dmixed.make(tokens * mixed), dqkv.make(tokens * width);
    wide.make(tokens * width), dinput.make(tokens * s.hidden), dmiddle.make(tokens * s.hidden), scales.make(tokens);
    turned.make(kTokens * std::max({s.hidden, 2 * s.inner, width}));
    right.make(std::min(tokens, kTokens), std::max({s.hidden, s.inner, mixed}));
  }
  static Scratch& own() {
    static thread_local Scratch scratch;
    return scratch;
  }
};

struct Layer {
  virtual ~Layer() = default;
  virtual void load(const void* const* given, bool learns, int threads) = 0;
  virtual void forward(const Row& row, float* y, void* const* kept, int threads) = 0;
  virtual void backward(const Row& row, const float* dy, float* dx, void* const* kept, float* const* grads,
                        int threads) = 0;
};

template <class T>
struct Llama final : Layer, Attention<T> {
  using Attention<T>::s, Attention<T>::all, Attention<T>::some, Attention<T>::width;
  Operand<T> qkv, out, gate_up, down, qkv_back, out_back, gate_up_back, down_back;
  std::vector<float> weights[WEIGHTS];  // biases and norms

  explicit Llama(const Shape& shape) : Attention<T>(shape) {}

  // Rows of the fused matrices: queries, keys, values; gates and ups in turn, `kSide` of each.
  template <class X>
  std::vector<X*> qkv_rows(X* const* given) const {
    std::vector<X*> rows(width, nullptr);
    for (long n = 0; n < all; ++n) rows[n] = given[Q] ? given[Q] + n * s.hidden : nullptr;
    for (long n = 0; n < some; ++n) {
      rows[all + n] = given[K] ? given[K] + n * s.hidden : nullptr;
      rows[all + some + n] = given[V] ? given[V] + n * s.hidden : nullptr;
    }
    return rows;
  }
  static int side(long n) { return n % kPanel < kSide ? GATE : UP; }
  static long place_in_side(long n) { return n / kPanel * kSide + n % kSide; }
  template <class X>
  std::vector<X*> gate_up_rows(X* const* given) const {
    std::vector<X*> rows(2 * s.inner, nullptr);
    for (long n = 0; n < 2 * s.inner; ++n)
      if (X* from = given[side(n)]) rows[n] = from + place_in_side(n) * s.hidden;
    return rows;
  }
  template <class X>
  std::vector<X*> plain_rows(X* from, long count, long inner) const {
    std::vector<X*> rows(count, nullptr);
    for (long n = 0; n < count && from; ++n) rows[n] = from + n * inner;
    return rows;
  }

  void load(const void* const* given, bool learns, int threads) override {
    const long sizes[] = {all, some, some, s.hidden, s.inner, s.inner, s.hidden};
    for (int i = 0; i < WEIGHTS; ++i) {
      const long size = i < Q_BIAS ? 0 : i < NORM ? sizes[i - Q_BIAS] : i < Q_NORM ? s.hidden : s.dim;
      if (i >= Q_BIAS && given[i]) weights[i].assign((const float*)given[i], (const float*)given[i] + size);
    }
    const T* const* matrices = (const T* const*)given;
    load(qkv, learns ? &qkv_back : nullptr, qkv_rows(matrices), s.hidden, threads);
    load(out, learns ? &out_back : nullptr, plain_rows(matrices[O], s.hidden, all), all, threads);
    load(gate_up, learns ? &gate_up_back : nullptr, gate_up_rows(matrices), s.hidden, threads);
    load(down, learns ? &down_back : nullptr, plain_rows(matrices[DOWN], s.hidden, s.inner), s.inner, threads);
  }
  void load(Operand<T>& to, Operand<T>* back, const std::vector<const T*>& rows, long inner, int threads) {
    const long count = (long)rows.size();
    to.make(inner, count);
    if (back) back->make(count, inner);
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static) nowait
      for (long p = 0; p < to.panels; ++p) turn_panel(to, p, count, [&](long n) { return rows[n]; });
#pragma omp for schedule(static)
      for (long p = 0; p < (back ? back->panels : 0); ++p)
        pack_panel(*back, p, count, inner, [&](long k) { return rows[k]; });
    }
  }

  Kept<T> unpacked(void* const* kept) const {
    return {(const float*)kept[0], (T*)kept[1],     (float*)kept[2], (T*)kept[3],
            (float*)kept[4],       (float*)kept[5], (T*)kept[6]};
  }
  void add_bias(int which, long count, float* x) const {
    const std::vector<float>& bias = weights[which];
    for (long n = 0; n < count && !bias.empty(); ++n) x[n] += bias[n];
  }

  void forward(const Row& row, float* y, void* const* given, int threads) override {
    const Kept<T> kept = unpacked(given);
    Scratch<T>& own = Scratch<T>::own();
    own.fit(row.tokens, s, width);
    const long rows = row.tokens, inner = s.inner, hidden = s.hidden;
    const auto add = [&](const float* before, float* after, int which) {
      return [=](long m, long p, const float* values) {
        const long n = p * kPanel, at = m * hidden + n;
        const long count = std::min(kPanel, hidden - n);
        for (long j = 0; j < count; ++j) after[at + j] = before[at + j] + values[j];
        if (!weights[which].empty())
          for (long j = 0; j < count; ++j) after[at + j] += weights[which][n + j];
      };
    };
#pragma omp parallel num_threads(threads)
    {
      norm_rows(kept.x, NORM, rows, own);
      multiply(own.input + 0, hidden, rows, qkv, [&](long m, long p, const float* values) {
        std::memcpy(own.wide + m * width + p * kPanel, values, kPanel * sizeof(float));
      });
      place(row, own, kept);
      this->attend(row, kept);
      multiply(kept.mixed, all, rows, out, add(kept.x, kept.middle, Q_BIAS + O));
      norm_rows(kept.middle, NORM2, rows, own);
      multiply(own.input + 0, hidden, rows, gate_up, [&](long m, long p, const float* values) {
        for (long j = 0; j < kSide; j += kLanes) {
          const long n = p * kSide + j;
          vf gate = widen(values + j), up = widen(values + j + kSide);
          if (const float* from = weights[Q_BIAS + GATE].data()) gate += widen(from + n);
          if (const float* from = weights[Q_BIAS + UP].data()) up += widen(from + n);
          T* to = kept.gate_up + m * 2 * inner + p * kPanel + j;
          narrow(gate, to), narrow(up, to + kSide);
          narrow(gate / (1.0f + exponential(-gate)) * up, own.inside + m * inner + n);
        }
      });
      multiply(own.inside + 0, inner, rows, down, add(kept.middle, y, Q_BIAS + DOWN));
    }
  }

  void backward(const Row& row, const float* dy, float* dx, void* const* given, float* const* grads,
                int threads) override {
    const Kept<T> kept = unpacked(given);
    Scratch<T>& own = Scratch<T>::own();
    own.fit(row.tokens, s, width);
    const long rows = row.tokens, inner = s.inner, hidden = s.hidden;
    const auto to_dinput = [&](long m, long p, const float* values) {
      const long n = p * kPanel;
      std::memcpy(own.dinput + m * hidden + n, values, std::min(kPanel, hidden - n) * sizeof(float));
    };
    const auto o_rows = plain_rows(grads[O], hidden, all), down_rows = plain_rows(grads[DOWN], hidden, inner);
    const auto in_rows = qkv_rows(grads), up_rows = gate_up_rows(grads);
#pragma omp parallel num_threads(threads)
    {
      narrow_rows(dy, rows, own);
      multiply(own.slopes + 0, hidden, rows, down_back, [&](long m, long p, const float* values) {
        through_gates(values, std::min(kPanel, inner - p * kPanel), kept.gate_up + m * 2 * inner + p * 2 * kPanel,
                      own.dgate_up + m * 2 * inner + p * 2 * kPanel, own.inside + m * inner + p * kPanel);
      });
      learn(own.slopes + 0, hidden, own.inside + 0, inner, rows, down_rows, own);
      learn_bias(own.slopes + 0, hidden, rows, plain_rows(grads[Q_BIAS + DOWN], hidden, 1));
      multiply(own.dgate_up + 0, 2 * inner, rows, gate_up_back, to_dinput);
      norm_rows(kept.middle, NORM2, rows, own);
      learn(own.dgate_up + 0, 2 * inner, own.input + 0, hidden, rows, up_rows, own);
      learn_bias(own.dgate_up + 0, 2 * inner, rows, gate_up_biases(grads));
      norm_back(kept.middle, NORM2, rows, dy, own.dmiddle + 0, grads[NORM2], own);

      narrow_rows(own.dmiddle + 0, rows, own);
      multiply(own.slopes + 0, hidden, rows, out_back, [&](long m, long p, const float* values) {
        for (long n = p * kPanel; n < std::min(all, (p + 1) * kPanel); ++n)
          narrow(values[n - p * kPanel], own.dmixed + m * all + n);
      });
      learn(own.slopes + 0, hidden, kept.mixed, all, rows, o_rows, own);
      learn_bias(own.slopes + 0, hidden, rows, plain_rows(grads[Q_BIAS + O], hidden, 1));
      this->attend_back(row, Back<T>{own.dmixed + 0, own.wide + 0}, kept);
      place_back(row, own, kept, grads);
      multiply(own.dqkv + 0, width, rows, qkv_back, to_dinput);
      norm_rows(kept.x, NORM, rows, own);
      learn(own.dqkv + 0, width, own.input + 0, hidden, rows, in_rows, own);
      learn_bias(own.dqkv + 0, width, rows, qkv_biases(grads));
      norm_back(kept.x, NORM, rows, own.dmiddle + 0, dx, grads[NORM], own);
    }
  }

  std::vector<float*> qkv_biases(float* const* grads) const {
    std::vector<float*> to(width, nullptr);
    const long counts[] = {all, some, some};
    for (long i = Q, n = 0; i <= V; n += counts[i++])
      for (long j = 0; j < counts[i] && grads[Q_BIAS + i]; ++j) to[n + j] = grads[Q_BIAS + i] + j;
    return to;
  }
  std::vector<float*> gate_up_biases(float* const* grads) const {
    std::vector<float*> to(2 * s.inner, nullptr);
    for (long n = 0; n < 2 * s.inner; ++n)
      if (float* from = grads[Q_BIAS + side(n)]) to[n] = from + place_in_side(n);
    return to;
  }

  // All below: by all threads of a team.
  void narrow_rows(const float* x, long rows, Scratch<T>& own) const {
#pragma omp for schedule(static)
    for (long m = 0; m < rows; ++m)
      for (long i = 0; i < s.hidden; ++i) narrow(x[m * s.hidden + i], own.slopes + m * s.hidden + i);
  }

  void norm_rows(const float* x, int which, long rows, Scratch<T>& own) const {
    const float* weight = weights[which].data();
#pragma omp for schedule(static)
    for (long m = 0; m < rows; ++m) {
      const float* from = x + m * s.hidden;
      const float scale = rms_scale(from, s.hidden, s.eps);
      for (long i = 0; i < s.hidden; ++i) narrow(from[i] * scale * weight[i], own.input + m * s.hidden + i);
    }
  }

  // `dx` becomes `beside` plus the gradient through the norm, whose result's gradient is in `own.dinput`.
  void norm_back(const float* x, int which, long rows, const float* beside, float* dx, float* grad,
                 Scratch<T>& own) const {
    const float* weight = weights[which].data();
    const long size = s.hidden;
#pragma omp for schedule(static)
    for (long m = 0; m < rows; ++m) {
      const float *from = x + m * size, *slopes = own.dinput + m * size;
      own.scales[m] = rms_scale(from, size, s.eps);
      std::memcpy(dx + m * size, slopes, size * sizeof(float));
      rms_back(from, own.scales[m], weight, size, dx + m * size);
      for (long i = 0; i < size; ++i) dx[m * size + i] += beside[m * size + i];
    }
    if (!grad) return;
#pragma omp for schedule(static)
    for (long n = 0; n < size; n += 16) {
      const long count = std::min(16L, size - n);
      float total[16] = {};
      for (long m = 0; m < rows; ++m)
        for (long j = 0; j < count; ++j)
          total[j] += own.dinput[m * size + n + j] * x[m * size + n + j] * own.scales[m];
      for (long j = 0; j < count; ++j) grad[n + j] += total[j];
    }
  }

  static void through_gates(const float* dact, long count, const T* gate_up, T* dgate_up, T* act) {
    for (long j = 0; j < count; j += kLanes) {
      const long at = j / kSide * kPanel + j % kSide;
      const vf d = widen(dact + j), gate = widen(gate_up + at), up = widen(gate_up + at + kSide);
      const vf open = 1.0f / (1.0f + exponential(-gate)), made = gate * open;
      narrow(made * up, act + j);
      narrow(d * up * (open + made * (1.0f - open)), dgate_up + at);
      narrow(d * made, dgate_up + at + kSide);
    }
  }

  // Adds the gradient of a weight: the sum over the row's tokens of slope times input.
  void learn(const T* slopes, long outputs, const T* input, long inner, long rows, const std::vector<float*>& grads,
             Scratch<T>& own) const {
    if (std::all_of(grads.begin(), grads.end(), [](float* to) { return !to; })) return;
    for (long begin = 0; begin < rows; begin += kTokens) {
      const long count = std::min(kTokens, rows - begin);
      pack(own.right, count, inner, [=](long t) { return input + (begin + t) * inner; });
      turn(own.turned + 0, own.right.inner, slopes + begin * outputs, count, outputs);
      multiply(own.turned + 0, own.right.inner, outputs, own.right, [&](long n, long p, const float* values) {
        if (grads[n]) add_to(grads[n] + p * kPanel, values, std::min(kPanel, inner - p * kPanel));
      });
    }
  }

  void learn_bias(const T* slopes, long outputs, long rows, const std::vector<float*>& grads) const {
    if (std::all_of(grads.begin(), grads.end(), [](float* to) { return !to; })) return;
#pragma omp for schedule(static)
    for (long n = 0; n < outputs; ++n) {
      if (!grads[n]) continue;
      float total = 0;
      for (long t = 0; t < rows; ++t) total += wide(slopes[t * outputs + n]);
      *grads[n] += total;
    }
  }

  // Biases, head norms and rotation of queries and keys, into what is kept.
  void place(const Row& row, Scratch<T>& own, const Kept<T>& kept) const {
#pragma omp for schedule(static)
    for (long m = 0; m < row.tokens; ++m) {
      float* x = own.wide + m * width;
      add_bias(Q_BIAS + Q, all, x), add_bias(Q_BIAS + K, some, x + all), add_bias(Q_BIAS + V, some, x + all + some);
      if (kept.raw) std::memcpy(kept.raw + m * (all + some), x, (all + some) * sizeof(float));
      const float *cosine = row.cosines + m * s.dim / 2, *sine = row.sines + m * s.dim / 2;
      for (long h = 0; h < s.heads + s.kv_heads; ++h) {
        float* head = x + h * s.dim;
        if (kept.raw) {
          const float scale = rms_scale(head, s.dim, s.eps), *weight = head_norm(h);
          for (long d = 0; d < s.dim; ++d) head[d] *= scale * weight[d];
        }
        for (long d = 0; d < s.dim / 2; ++d) {
          const float low = head[d], high = head[d + s.dim / 2];
          head[d] = low * cosine[d] - high * sine[d], head[d + s.dim / 2] = high * cosine[d] + low * sine[d];
        }
      }
      for (long n = 0; n < width; ++n) narrow(x[n], kept.qkv + m * width + n);
    }
  }
  const float* head_norm(long h) const { return weights[h < s.heads ? Q_NORM : K_NORM].data(); }

  void place_back(const Row& row, Scratch<T>& own, const Kept<T>& kept, float* const* grads) const {
#pragma omp for schedule(static)
    for (long m = 0; m < row.tokens; ++m) {
      float* x = own.wide + m * width;
      const float *cosine = row.cosines + m * s.dim / 2, *sine = row.sines + m * s.dim / 2;
      std::vector<float> ahead(kept.raw ? s.dim : 0);
      for (long h = 0; h < s.heads + s.kv_heads; ++h) {
        float* head = x + h * s.dim;
        for (long d = 0; d < s.dim / 2; ++d) {
          const float low = head[d], high = head[d + s.dim / 2];
          head[d] = low * cosine[d] + high * sine[d], head[d + s.dim / 2] = high * cosine[d] - low * sine[d];
        }
        if (!kept.raw) continue;
        const float* before = kept.raw + m * (all + some) + h * s.dim;
        const float scale = rms_scale(before, s.dim, s.eps);
        std::copy(head, head + s.dim, ahead.begin());
        rms_back(before, scale, head_norm(h), s.dim, ahead.data());
        for (long d = 0; d < s.dim; ++d) {
          narrow(ahead[d], own.dqkv + m * width + h * s.dim + d);
          head[d] *= before[d] * scale;  // what the norm's weight learns from this token
        }
      }
      std::fill(x + all + 2 * some, x + width, 0.0f);
      for (long n = kept.raw ? all + some : 0; n < width; ++n) narrow(x[n], own.dqkv + m * width + n);
    }
    if (!kept.raw) return;
#pragma omp for schedule(static)
    for (long d = 0; d < s.dim; ++d)
      for (const int which : {Q_NORM, K_NORM}) {
        float total = 0;
        for (long m = 0; m < row.tokens; ++m)
          for (long h = which == Q_NORM ? 0 : s.heads; h < (which == Q_NORM ? s.heads : s.heads + s.kv_heads); ++h)
            total += own.wide[m * width + h * s.dim + d];
        if (grads[which]) grads[which][d] += total;
      }
  }
};

}  // namespace

extern "C" {

Layer* layer_new(const int64_t* sizes, double eps, int half) {
  const Shape shape{sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], eps};
  return half ? (Layer*)new Llama<bf16>(shape) : (Layer*)new Llama<float>(shape);
}
void layer_free(Layer* layer) { delete layer; }
void layer_load(Layer* layer, const void* const* given, int learns, int threads) {
  layer->load(given, learns, threads);
}
void layer_forward(Layer* layer, const int64_t* counts, const Span* spans, const int64_t* first, const float* cosines,
                   const float* sines, float* y, void* const* kept, int threads) {
  layer->forward({counts[0], counts[1], counts[2], spans, first, cosines, sines}, y, kept, threads);
}
void layer_backward(Layer* layer, const int64_t* counts, const Span* spans, const int64_t* first,
                    const float* cosines, const float* sines, const float* dy, float* dx, void* const* kept,
                    float* const* grads, int threads) {
  layer->backward({counts[0], counts[1], counts[2], spans, first, cosines, sines}, dy, dx, kept, grads, threads);
}
}
