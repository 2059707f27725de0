// One layer of a Llama-family model over a packed row, forward and backward, for training.
//
// Weights, activations and gradients that enter a product are T (bfloat16 or float); sums, norms, rotation,
// softmax, the residual stream and its gradient are float, and weight gradients are added up in float. Each
// sum has one order, so equal rows give equal bits whatever the number of threads. Axes: t tokens of the row,
// n outputs, k inner, d head dimension. `layers.py` says how it is called.

#include "../products.h"

#include <vector>

namespace {

constexpr long kNear = 1 << 18, kTokens = 512;  // bytes of rows, tokens of a sum, that stay near a core

// An operand (inner x columns) of a product, in panels of 32 columns, rows in pairs for bf16.
template <class T>
struct Operand {
  long inner = 0, panels = 0, room = 0;
  Array<T> at;
  void shape(long inner_, long columns) {
    inner = (inner_ + kPair<T> - 1) / kPair<T> * kPair<T>, panels = (columns + kPanel - 1) / kPanel;
  }
  void make(long inner_, long columns) {
    shape(inner_, columns);
    if (room < inner * panels * kPanel) at.make(room = inner * panels * kPanel);
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
      for (long j = 0; j < kPanel; j += 16)
        *(u16*)(out + 2 * j) = (u16)widen(parts[0] + j) >> 16 | (u16)widen(parts[1] + j);
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

// `done(row, panel, values)` gets each row's 32 outputs of a panel; by all threads of a team. A task's rows fit
// the second-level cache, where they stay while the panels pass by.
template <class T, class Done>
void multiply(const T* a, long stride, long rows, const Operand<T>& b, Done done) {
  const long most = std::max(1L, kNear / (b.inner * (long)sizeof(T)) / kTile) * kTile;
  const long chunks = (rows + most - 1) / most;
#pragma omp for schedule(dynamic, 1)
  for (long task = 0; task < b.panels * chunks; ++task) {
    const long p = task % b.panels, chunk = task / b.panels;
    const long begin = rows * chunk / chunks, end = rows * (chunk + 1) / chunks, blocks = (end - begin + kTile - 1) / kTile;
    alignas(64) float out[kTile * kPanel];
    for (long block = 0; block < blocks; ++block) {
      const long first = begin + (end - begin) * block / blocks, last = begin + (end - begin) * (block + 1) / blocks;
      any_tile(last - first, a + first * stride, stride, b.panel(p), b.inner, out);
      for (long m = first; m < last; ++m) done(m, p, out + (m - first) * kPanel);
    }
  }
}

// The sum over the inner rows of both operands, for some columns of `a` against one panel of `b`.
template <class T, class Done>
void across(const Operand<T>& a, long pa, const Operand<T>& b, long pb, Done done) {
  for (long first = 0; first < kPanel; first += 11) {
    const long count = std::min(11L, kPanel - first);
    alignas(64) float out[11 * kPanel];
    any_tile<T, true>(count, a.panel(pa) + first * kPair<T>, 0, b.panel(pb), a.inner, out);
    for (long m = 0; m < count; ++m) done(pa * kPanel + first + m, out + m * kPanel);
  }
}

inline void add_to(float* sums, const float* values, long count) {
  if (count == kPanel)
    for (long j = 0; j < kPanel; j += 16) *(v16*)(sums + j) += *(const v16*)(values + j);
  else
    for (long j = 0; j < count; ++j) sums[j] += values[j];
}

inline float rms_scale(const float* x, long count, double eps) {
  v16 squares = {};
  float rest = 0;
  long i = 0;
  for (; i + 16 <= count; i += 16) squares += widen(x + i) * widen(x + i);
  for (; i < count; ++i) rest += x[i] * x[i];
  return 1.0f / std::sqrt((sum(squares) + rest) / (float)count + (float)eps);
}

// Gradient of x * scale * weight with scale = rms_scale(x); returns into `slopes`, which held the result's.
inline void rms_back(const float* x, float scale, const float* weight, long count, float* slopes) {
  float dot = 0;
  for (long i = 0; i < count; ++i) slopes[i] *= weight[i], dot += slopes[i] * x[i];
  const float share = dot * scale * scale * scale / (float)count;
  for (long i = 0; i < count; ++i) slopes[i] = slopes[i] * scale - x[i] * share;
}

struct Shape {
  long hidden, inner, heads, kv_heads, dim;
  double eps;
};

// Pointers as Python lists them, null where the architecture has none.
enum { Q, K, V, O, GATE, UP, DOWN, Q_BIAS, NORM = Q_BIAS + DOWN + 1, NORM2, Q_NORM, K_NORM, WEIGHTS };

// A sample's own tokens lie from `begin` to `end`; before them it sees `shared` tokens of another's, from `prefix`.
struct Span {
  int64_t prefix, shared, begin, end;
  long at(long t) const { return t < shared ? prefix + t : begin + t - shared; }
  long size() const { return shared + end - begin; }
};

struct Row {
  long tokens, samples, families;
  const Span* spans;
  const int64_t* first;  // sample of each family, which is those that share tokens with their first one
  const float *cosines, *sines;  // tokens x dim / 2
};

template <class T>
struct Kept {  // what the backward pass needs of the forward pass
  const float* x;
  T* qkv;
  float* raw;  // queries and keys before their norms, where there are such
  T* mixed;
  float* mass;  // log-sum-exp of each head's scores
  float* middle;  // the residual stream between attention and the perceptron
  T* gate_up;
};

template <class T>
struct Scratch {
  Array<T> input, slopes, inside, dgate_up, dmixed, dqkv;
  Array<float> wide, dinput, dmiddle, scales;
  Operand<T> left, right;
  long room = 0;
  void fit(long tokens, const Shape& s, long width) {
    const long need = tokens * (s.hidden + s.inner + width);
    left.make(std::min(tokens, kTokens), std::max({s.hidden, 2 * s.inner, width}));
    right.make(std::min(tokens, kTokens), std::max({s.hidden, s.inner, s.heads * s.dim}));
    if (need <= room) return;
    room = need;
    input.make(need), slopes.make(need), inside.make(need), dgate_up.make(2 * need), dmixed.make(need);
    dqkv.make(need), wide.make(need), dinput.make(need), dmiddle.make(need), scales.make(need);
  }
  static Scratch& own() {
    static thread_local Scratch scratch;
    return scratch;
  }
};

struct Layer {
  virtual ~Layer() = default;
  virtual void load(const void* const* given, int threads) = 0;
  virtual void forward(const Row& row, float* y, void* const* kept, int threads) = 0;
  virtual void backward(const Row& row, const float* dy, float* dx, void* const* kept, float* const* grads,
                        int threads) = 0;
};

template <class T>
struct Llama final : Layer {
  Shape s;
  long group, all, some, width;
  Operand<T> qkv, out, gate_up, down, qkv_back, out_back, gate_up_back, down_back;
  std::vector<float> weights[WEIGHTS];  // biases and norms

  explicit Llama(const Shape& shape) : s(shape) {
    group = s.heads / s.kv_heads, all = s.heads * s.dim, some = s.kv_heads * s.dim;
    width = (all + 2 * some + kPanel - 1) / kPanel * kPanel;
  }

  // Rows of the fused matrices: queries, keys, values; gates and ups in turn, 16 of each.
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
  template <class X>
  std::vector<X*> gate_up_rows(X* const* given) const {
    std::vector<X*> rows(2 * s.inner, nullptr);
    for (long n = 0; n < 2 * s.inner; ++n)
      if (X* from = given[n % 32 < 16 ? GATE : UP]) rows[n] = from + (n / 32 * 16 + n % 16) * s.hidden;
    return rows;
  }
  template <class X>
  std::vector<X*> plain_rows(X* from, long count, long inner) const {
    std::vector<X*> rows(count, nullptr);
    for (long n = 0; n < count && from; ++n) rows[n] = from + n * inner;
    return rows;
  }

  void load(const void* const* given, int threads) override {
    const long sizes[] = {all, some, some, s.hidden, s.inner, s.inner, s.hidden};
    for (int i = 0; i < WEIGHTS; ++i) {
      const long size = i < Q_BIAS ? 0 : i < NORM ? sizes[i - Q_BIAS] : i < Q_NORM ? s.hidden : s.dim;
      if (i >= Q_BIAS && given[i]) weights[i].assign((const float*)given[i], (const float*)given[i] + size);
    }
    const T* const* matrices = (const T* const*)given;
    load(qkv, qkv_back, qkv_rows(matrices), s.hidden, threads);
    load(out, out_back, plain_rows(matrices[O], s.hidden, all), all, threads);
    load(gate_up, gate_up_back, gate_up_rows(matrices), s.hidden, threads);
    load(down, down_back, plain_rows(matrices[DOWN], s.hidden, s.inner), s.inner, threads);
  }
  void load(Operand<T>& to, Operand<T>& back, const std::vector<const T*>& rows, long inner, int threads) {
    const long count = (long)rows.size();
    to.make(inner, count), back.make(count, inner);
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static) nowait
      for (long p = 0; p < to.panels; ++p) turn_panel(to, p, count, [&](long n) { return rows[n]; });
#pragma omp for schedule(static)
      for (long p = 0; p < back.panels; ++p) pack_panel(back, p, count, inner, [&](long k) { return rows[k]; });
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
      attend(row, kept);
      multiply(kept.mixed, all, rows, out, add(kept.x, kept.middle, Q_BIAS + O));
      norm_rows(kept.middle, NORM2, rows, own);
      multiply(own.input + 0, hidden, rows, gate_up, [&](long m, long p, const float* values) {
        const long n = p * 16;
        v16 gate = widen(values), up = widen(values + 16);
        if (const float* from = weights[Q_BIAS + GATE].data()) gate += widen(from + n);
        if (const float* from = weights[Q_BIAS + UP].data()) up += widen(from + n);
        T* to = kept.gate_up + m * 2 * inner + p * kPanel;
        narrow(gate, to), narrow(up, to + 16);
        narrow(gate / (1.0f + exponential(-gate)) * up, own.inside + m * inner + n);
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
      attend_back(row, own, kept);
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
      if (float* from = grads[Q_BIAS + (n % 32 < 16 ? GATE : UP)]) to[n] = from + n / 32 * 16 + n % 16;
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
    for (long j = 0; j < count; j += 16) {
      const v16 d = widen(dact + j), gate = widen(gate_up + 2 * j), up = widen(gate_up + 2 * j + 16);
      const v16 open = 1.0f / (1.0f + exponential(-gate)), made = gate * open;
      narrow(made * up, act + j);
      narrow(d * up * (open + made * (1.0f - open)), dgate_up + 2 * j);
      narrow(d * made, dgate_up + 2 * j + 16);
    }
  }

  // Adds the gradient of a weight: the sum over the row's tokens of slope times input.
  void learn(const T* slopes, long outputs, const T* input, long inner, long rows, const std::vector<float*>& grads,
             Scratch<T>& own) const {
    if (std::all_of(grads.begin(), grads.end(), [](float* to) { return !to; })) return;
    for (long begin = 0; begin < rows; begin += kTokens) {
      const long count = std::min(kTokens, rows - begin);
      pack(own.left, count, outputs, [=](long t) { return slopes + (begin + t) * outputs; });
      pack(own.right, count, inner, [=](long t) { return input + (begin + t) * inner; });
#pragma omp for schedule(dynamic, 4)
      for (long task = 0; task < own.left.panels * own.right.panels; ++task) {
        const long p = task % own.right.panels, first = p * kPanel, columns = std::min(kPanel, inner - first);
        across(own.left, task / own.right.panels, own.right, p, [&](long n, const float* values) {
          if (n >= outputs || !grads[n]) return;
          add_to(grads[n] + first, values, columns);
        });
      }
    }
  }

  void learn_bias(const T* slopes, long outputs, long rows, const std::vector<float*>& grads) const {
    if (std::all_of(grads.begin(), grads.end(), [](float* to) { return !to; })) return;
#pragma omp for schedule(static)
    for (long n = 0; n < outputs; ++n) {
      if (!grads[n]) continue;
      float total = 0, value = 0;
      for (long t = 0; t < rows; ++t) put(slopes[t * outputs + n], value), total += value;
      *grads[n] += total;
    }
  }
  static void put(float from, float& to) { to = from; }
  static void put(bf16 from, float& to) {
    const uint32_t bits = (uint32_t)from << 16;
    std::memcpy(&to, &bits, 4);
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

  // One sample's queries against one head's keys and values.
  struct Heads {
    Operand<T> keys, values, keys_back, values_back, shares, slopes, queries, douts;
    std::vector<float> scores, dscores, dkeys, dvalues;
    std::vector<T> narrow_scores, narrow_dscores;
    static Heads& own() {
      static thread_local Heads heads;
      return heads;
    }
  };
  static constexpr long kBlock = 8 * kTile;  // queries of a block in the backward pass

  static long whole(long count, long of) { return (count + of - 1) / of * of; }

  void attend(const Row& row, const Kept<T>& kept) const {
#pragma omp for schedule(dynamic, 1)
    for (long task = 0; task < row.samples * s.kv_heads; ++task) {
      const long h = task % s.kv_heads;
      const Span span = row.spans[task / s.kv_heads];
      const long size = span.size(), wide = whole(size, kPanel);
      const T* keys = kept.qkv + all + h * s.dim;
      Heads& own = Heads::own();
      own.keys.make(s.dim, size), own.values.make(size, s.dim);
      for (long p = 0; p < own.keys.panels; ++p)
        turn_panel(own.keys, p, size, [&](long t) { return keys + span.at(t) * width; });
      for (long p = 0; p < own.values.panels; ++p)
        pack_panel(own.values, p, size, s.dim, [&](long t) { return keys + some + span.at(t) * width; });
      own.scores.resize(kTile * wide), own.narrow_scores.resize(kTile * wide);
      for (long head = h * group; head < (h + 1) * group; ++head)
        for (long first = span.shared; first < size; first += kTile)
          attend_tile(kept, own, span.at(first), first, std::min(kTile, size - first), wide, head);
    }
  }

  // `rows` queries from token `at` of the row on, the first of which sees `first` keys beside its own.
  void attend_tile(const Kept<T>& kept, Heads& own, long at, long first, long rows, long wide, long head) const {
    const long seen = whole(first + rows, kPanel);
    for (long p = 0; p < seen / kPanel; ++p)
      any_tile(rows, kept.qkv + at * width + head * s.dim, width, own.keys.panel(p), s.dim,
               own.scores.data() + p * kPanel, wide);
    float totals[kTile];
    for (long m = 0; m < rows; ++m) {
      float* scores = own.scores.data() + m * wide;
      const float most = soften(scores, first + m + 1, seen, totals[m]);
      kept.mass[(at + m) * s.heads + head] = most + std::log(totals[m]);
      for (long t = 0; t < seen; t += 16) narrow(widen(scores + t), own.narrow_scores.data() + m * wide + t);
    }
    for (long p = 0; p < own.values.panels; ++p) {
      float mixed[kTile * kPanel];
      any_tile(rows, own.narrow_scores.data(), wide, own.values.panel(p), std::min(seen, own.values.inner), mixed);
      for (long m = 0; m < rows; ++m)
        for (long d = p * kPanel; d < std::min(s.dim, (p + 1) * kPanel); ++d)
          narrow(mixed[m * kPanel + d - p * kPanel] / totals[m],
                 kept.mixed + (at + m) * all + head * s.dim + d);
    }
  }

  // Scores become their exponentials, 0 behind `length`; returns the largest scaled score.
  float soften(float* scores, long length, long seen, float& total) const {
    const float scale = 1.0f / std::sqrt((float)s.dim);
    std::fill(scores + length, scores + seen, -INFINITY);
    v16 tops = widen(scores);
    for (long t = 16; t < seen; t += 16) tops = widen(scores + t) > tops ? widen(scores + t) : tops;
    float most = tops[0];
    for (int i = 1; i < 16; ++i) most = std::max(most, tops[i]);
    most *= scale;
    for (long t = 0; t < seen; t += 16) *(v16*)(scores + t) = exponential(widen(scores + t) * scale - most);
    std::fill(scores + length, scores + seen, 0.0f);
    v16 sums = {};
    for (long t = 0; t < seen; t += 16) sums += widen(scores + t);
    total = sum(sums);
    return most;
  }

  // Gradients of rotated queries, keys and values into `wide`; a family is one task, since its samples add to
  // the gradients of the same keys.
  void attend_back(const Row& row, Scratch<T>& scratch, const Kept<T>& kept) const {
#pragma omp for schedule(dynamic, 1)
    for (long task = 0; task < row.families * s.kv_heads; ++task) {
      const long family = task / s.kv_heads;
      for (long i = row.first[family]; i < row.first[family + 1]; ++i)
        sample_back(row.spans[i], task % s.kv_heads, scratch, kept);
    }
  }

  void sample_back(const Span& span, long h, Scratch<T>& scratch, const Kept<T>& kept) const {
    const long size = span.size(), wide = whole(size, kPanel), out = whole(s.dim, kPanel);
    const auto key = [&](long t) { return kept.qkv + span.at(t) * width + all + h * s.dim; };
    Heads& own = Heads::own();
    own.keys.make(s.dim, size), own.values_back.make(s.dim, size), own.keys_back.make(size, s.dim);
    for (long p = 0; p < own.keys.panels; ++p) {
      turn_panel(own.keys, p, size, key);
      turn_panel(own.values_back, p, size, [&](long t) { return key(t) + some; });
    }
    for (long p = 0; p < own.keys_back.panels; ++p) pack_panel(own.keys_back, p, size, s.dim, key);
    own.scores.resize(kBlock * wide), own.narrow_scores.resize(kBlock * wide);
    own.dscores.resize(kBlock * wide), own.narrow_dscores.resize(kBlock * wide);
    own.dkeys.assign(wide * out, 0.0f), own.dvalues.assign(wide * out, 0.0f);
    for (long head = h * group; head < (h + 1) * group; ++head)
      for (long first = span.shared; first < size; first += kBlock)
        block_back(scratch, kept, own, span.at(first), first, std::min(kBlock, size - first), wide, head);
    for (long t = 0; t < size; ++t) {
      float* to = scratch.wide + span.at(t) * width + all + h * s.dim;
      for (long d = 0; d < s.dim; ++d) {
        to[d] = (t < span.shared ? to[d] : 0.0f) + own.dkeys[t * out + d];
        to[some + d] = (t < span.shared ? to[some + d] : 0.0f) + own.dvalues[t * out + d];
      }
    }
  }

  // As `attend_tile`, for a block of queries.
  void block_back(Scratch<T>& scratch, const Kept<T>& kept, Heads& own, long begin, long first, long rows, long wide,
                  long head) const {
    const T* queries = kept.qkv + begin * width + head * s.dim;
    const T* douts = scratch.dmixed + begin * all + head * s.dim;
    const long seen = whole(first + rows, kPanel), out = whole(s.dim, kPanel);
    for (long m = 0; m < rows; m += kTile) {
      const long some_rows = std::min(kTile, rows - m), until = whole(first + m + some_rows, kPanel);
      for (long p = 0; p < until / kPanel; ++p) {
        const long at = m * wide + p * kPanel;
        any_tile(some_rows, queries + m * width, width, own.keys.panel(p), s.dim, own.scores.data() + at, wide);
        any_tile(some_rows, douts + m * all, all, own.values_back.panel(p), s.dim, own.dscores.data() + at, wide);
      }
      for (long i = m; i < m + some_rows; ++i)
        soften_back(kept, own, douts + i * all, begin + i, head, first + i + 1, seen, i * wide);
      for (long p = 0; p < own.keys_back.panels; ++p) {
        float values[kTile * kPanel];
        any_tile(some_rows, own.narrow_dscores.data() + m * wide, wide, own.keys_back.panel(p),
                 std::min(until, own.keys_back.inner), values);
        const long count = std::min(kPanel, s.dim - p * kPanel);
        for (long i = 0; i < some_rows; ++i)
          std::memcpy(scratch.wide + (begin + m + i) * width + head * s.dim + p * kPanel, values + i * kPanel,
                      count * sizeof(float));
      }
    }
    own.shares.make(rows, seen), own.slopes.make(rows, seen), own.queries.make(rows, s.dim), own.douts.make(rows, s.dim);
    for (long p = 0; p < own.queries.panels; ++p) {
      pack_panel(own.queries, p, rows, s.dim, [&](long i) { return queries + i * width; });
      pack_panel(own.douts, p, rows, s.dim, [&](long i) { return douts + i * all; });
    }
    for (long p = 0; p < seen / kPanel; ++p) {
      pack_panel(own.shares, p, rows, seen, [&](long i) { return own.narrow_scores.data() + i * wide; });
      pack_panel(own.slopes, p, rows, seen, [&](long i) { return own.narrow_dscores.data() + i * wide; });
      for (long q = 0; q < own.queries.panels; ++q) {
        const auto into = [&](std::vector<float>& sums) {
          return [&, q](long t, const float* values) {
            add_to(sums.data() + t * out + q * kPanel, values, kPanel);
          };
        };
        across(own.shares, p, own.douts, q, into(own.dvalues));
        across(own.slopes, p, own.queries, q, into(own.dkeys));
      }
    }
  }

  // A query's scores and their gradients' products -> shares of attention and slopes by the plain scores.
  void soften_back(const Kept<T>& kept, Heads& own, const T* dout, long t, long head, long length, long seen,
                   long at) const {
    const float scale = 1.0f / std::sqrt((float)s.dim), mass = kept.mass[t * s.heads + head];
    float *scores = own.scores.data() + at, *slopes = own.dscores.data() + at, mean = 0;
    for (long d = 0; d < s.dim; ++d) {
      float mine, theirs;
      put(dout[d], mine), put(kept.mixed[t * all + head * s.dim + d], theirs);
      mean += mine * theirs;
    }
    std::fill(scores + length, scores + seen, -INFINITY), std::fill(slopes + length, slopes + seen, mean);
    for (long i = 0; i < seen; i += 16) {
      const v16 share = exponential(widen(scores + i) * scale - mass);
      narrow(share, own.narrow_scores.data() + at + i);
      narrow(share * (widen(slopes + i) - mean) * scale, own.narrow_dscores.data() + at + i);
    }
    std::fill(own.narrow_scores.data() + at + length, own.narrow_scores.data() + at + seen, T{});
  }
};

}  // namespace

extern "C" {

Layer* layer_new(const int64_t* sizes, double eps, int half) {
  const Shape shape{sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], eps};
  return half ? (Layer*)new Llama<bf16>(shape) : (Layer*)new Llama<float>(shape);
}
void layer_free(Layer* layer) { delete layer; }
void layer_load(Layer* layer, const void* const* given, int threads) { layer->load(given, threads); }
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
