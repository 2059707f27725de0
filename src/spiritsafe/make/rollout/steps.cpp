// One decoding step of a Llama-family model over any rows (token, slot, position), on a static cache.
//
// A row's result depends on its own token and its slot's earlier positions alone: every sum runs over its
// inner axis in one order whatever the other rows are, so a draw is bit for bit the same in any batch.
// Weights are T (bfloat16 or float), laid out in panels of 32 outputs; sums, norms, rotation, softmax and
// the residual stream are float. Axes: M rows, K inner, N outputs, D head dimension, t position.

#include "../products.h"

#include <vector>

namespace {

constexpr long kKeys = kLanes;

template <class T>
struct Matrix {
  long inner = 0, panels = 0;
  Array<T> packed;
  std::vector<float> bias;

  // `rows[n]` is the n-th output's weights, null where there is none; called by all threads of a team.
  void pack(const std::vector<const float*>& rows) {
    constexpr long block = 16, words = block / kPair<T>;  // of 4 bytes: one float or a pair of bf16
    alignas(64) T narrowed[kPanel][block] = {};
#pragma omp for schedule(static)
    for (long panel = 0; panel < panels; ++panel)
      for (long k = 0; k < inner; k += block) {
        const long some = std::min(block, inner - k);
        for (long j = 0; j < kPanel; ++j)
          if (const float* row = rows[panel * kPanel + j])
            for (long i = 0; i < some; ++i) narrow(row[k + i], &narrowed[j][i]);
          else
            std::fill_n(narrowed[j], block, T{});
        uint32_t* out = (uint32_t*)(packed + (panel * inner + k) * kPanel);
        const uint32_t* in = (const uint32_t*)narrowed;
        for (long w = 0; w < some / kPair<T>; ++w)
          for (long j = 0; j < kPanel; ++j) out[w * kPanel + j] = in[j * words + w];
      }
  }

  const T* panel(long p) const { return packed + p * inner * kPanel; }

  void make(long outputs, long inner_) {
    inner = inner_, panels = (outputs + kPanel - 1) / kPanel;
    packed.make(panels * inner * kPanel), bias.assign(panels * kPanel, 0);
  }
};

// `done(row, panel, values)` gets each row's 32 outputs of a panel, bias added; called by all threads of a team.
template <class T, class Done>
void multiply(const Matrix<T>& w, const T* a, long stride, long rows, Done done) {
  const long blocks = (rows + kTile - 1) / kTile;
#pragma omp for schedule(static)
  for (long task = 0; task < w.panels * blocks; ++task) {
    const long panel = task / blocks, block = task % blocks;
    const long first = rows * block / blocks, last = rows * (block + 1) / blocks;
    alignas(64) float out[kTile * kPanel];
    any_tile(last - first, a + first * stride, stride, w.panel(panel), w.inner, out, kPanel,
             following(w.panel(panel + 1), w.inner, block, blocks));
    for (long m = first; m < last; ++m) {
      float* values = out + (m - first) * kPanel;
      for (long j = 0; j < kPanel; ++j) values[j] += w.bias[panel * kPanel + j];
      done(m, panel, values);
    }
  }
}

struct Shape {
  long layers, hidden, inner, heads, kv_heads, dim, vocab, slots, capacity, max_rows, norms_heads;
  double eps;
};

// A layer's pointers, then the model's, as Python lists them; null where the architecture has none;
// the biases follow Q_BIAS in the order of their weights.
enum { Q, K, V, O, GATE, UP, DOWN, Q_BIAS, NORM = Q_BIAS + DOWN + 1, NORM2, Q_NORM, K_NORM, LAYER };
enum { EMBEDDING, LAST_NORM, HEAD };

// Weights in panels, which any number of models may read at once.
struct Packed {
  virtual ~Packed() = default;
  virtual void load(const float* const* given, int threads) = 0;
};

struct Model {
  virtual ~Model() = default;
  virtual void step(long rows, const int64_t* tokens, const int64_t* slots, const int64_t* positions, long picks,
                    const int64_t* picked, float* logits, int threads) = 0;
  virtual void copy(long from, long to, long length) = 0;
  virtual void resize(long capacity, const float* cosines, const float* sines) = 0;
};

template <class T>
struct Weights final : Packed {
  struct Layer {
    Matrix<T> qkv, out, gate_up, down;
    std::vector<float> norm, norm2, q_norm, k_norm;
  };
  Shape s;
  std::vector<Layer> layers;
  Matrix<T> head;
  std::vector<float> last_norm;
  const float* embedding = nullptr;

  explicit Weights(const Shape& shape) : s(shape), layers(shape.layers) {
    for (Layer& layer : layers) {
      layer.qkv.make((s.heads + 2 * s.kv_heads) * s.dim, s.hidden), layer.out.make(s.hidden, s.heads * s.dim);
      layer.gate_up.make(2 * s.inner, s.hidden), layer.down.make(s.hidden, s.inner);
    }
    head.make(s.vocab, s.hidden);
  }

  void load(const float* const* given, int threads) override {
#pragma omp parallel num_threads(threads)
    {
      for (long l = 0; l < s.layers; ++l) load_layer(layers[l], given + l * LAYER);
      const float* const* own = given + s.layers * LAYER;
      std::vector<const float*> rows(head.panels * kPanel, nullptr);
      for (long n = 0; n < s.vocab; ++n) rows[n] = own[HEAD] + n * s.hidden;
      head.pack(rows);
#pragma omp single
      {
        embedding = own[EMBEDDING];
        last_norm.assign(own[LAST_NORM], own[LAST_NORM] + s.hidden);
      }
    }
  }

  void load_layer(Layer& to, const float* const* given) {
    const auto part = [&](Matrix<T>& matrix, std::initializer_list<std::pair<int, long>> parts, long each) {
      std::vector<const float*> rows(matrix.panels * kPanel, nullptr);
      std::vector<float> bias(rows.size(), 0);
      long n = 0;
      for (long first = 0; first < parts.begin()->second; first += each)  // `each` rows of every part in turn
        for (const auto& [which, count] : parts)
          for (long i = first; i < std::min(count, first + each); ++i, ++n) {
            rows[n] = given[which] + i * matrix.inner;
            if (given[which + Q_BIAS]) bias[n] = given[which + Q_BIAS][i];
          }
      matrix.pack(rows);
#pragma omp single
      matrix.bias = bias;
    };
    const long all = s.heads * s.dim, some = s.kv_heads * s.dim;
    part(to.qkv, {{Q, all}, {K, some}, {V, some}}, all);
    part(to.out, {{O, s.hidden}}, s.hidden);
    part(to.gate_up, {{GATE, s.inner}, {UP, s.inner}}, kSide);
    part(to.down, {{DOWN, s.hidden}}, s.hidden);
#pragma omp single
    {
      to.norm.assign(given[NORM], given[NORM] + s.hidden), to.norm2.assign(given[NORM2], given[NORM2] + s.hidden);
      if (given[Q_NORM]) to.q_norm.assign(given[Q_NORM], given[Q_NORM] + s.dim);
      if (given[K_NORM]) to.k_norm.assign(given[K_NORM], given[K_NORM] + s.dim);
    }
  }
};

template <class T>
struct Llama final : Model {
  using Layer = typename Weights<T>::Layer;
  Shape s;
  const Weights<T>& w;
  long group, padded, width, lead;
  const float *cosines = nullptr, *sines = nullptr;
  std::vector<Array<T>> keys, values;  // one a layer, so that a larger cache takes a layer's room beside the old one
  Array<T> input, inside;
  Array<float> stream, qkv;

  Llama(const Shape& shape, const Weights<T>& weights) : s(shape), w(weights), keys(s.layers), values(s.layers) {
    group = s.heads / s.kv_heads, padded = (s.dim + kLanes - 1) / kLanes * kLanes;
    width = ((s.heads + 2 * s.kv_heads) * s.dim + kPanel - 1) / kPanel * kPanel;
    lead = std::max(s.hidden, s.heads * s.dim);
    input.make(s.max_rows * lead), inside.make(s.max_rows * s.inner);
    stream.make(s.max_rows * s.hidden), qkv.make(s.max_rows * width);
  }

  // Room for `capacity` tokens a slot; what is there stays.
  void resize(long capacity, const float* cosines_, const float* sines_) override {
    const long old = s.capacity, kept = std::min(old, capacity), runs = s.slots * s.kv_heads;
    const auto moved = [&](Array<T>& held, long each) {
      Array<T> made;
      made.reserve(runs * capacity * each);
      for (long run = 0; run < runs && kept; ++run)
        std::memcpy(made + run * capacity * each, held + run * old * each, kept * each * sizeof(T));
      held = std::move(made);
    };
    for (long l = 0; l < s.layers; ++l) moved(keys[l], s.dim), moved(values[l], padded);
    s.capacity = capacity, cosines = cosines_, sines = sines_;
  }

  T* keys_of(long layer, long slot, long h) const {
    return keys[layer] + (slot * s.kv_heads + h) * s.capacity * s.dim;
  }
  T* values_of(long layer, long slot, long h) const {
    return values[layer] + (slot * s.kv_heads + h) * s.capacity * padded;
  }

  void copy(long from, long to, long length) override {
    const long whole = (length + kKeys - 1) / kKeys * kKeys;
    for (long l = 0; l < s.layers; ++l)
      for (long h = 0; h < s.kv_heads; ++h) {
        std::memcpy(keys_of(l, to, h), keys_of(l, from, h), whole * s.dim * sizeof(T));
        std::memcpy(values_of(l, to, h), values_of(l, from, h), length * padded * sizeof(T));
      }
  }

  void step(long rows, const int64_t* tokens, const int64_t* slots, const int64_t* positions, long picks,
            const int64_t* picked, float* logits, int threads) override {
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
      for (long m = 0; m < rows; ++m)
        std::memcpy(stream + m * s.hidden, w.embedding + tokens[m] * s.hidden, s.hidden * sizeof(float));
      const auto add = [&](long m, long panel, const float* out) {
        const long n = panel * kPanel;
        for (long j = 0; j < std::min(kPanel, s.hidden - n); ++j) stream[m * s.hidden + n + j] += out[j];
      };
      for (long l = 0; l < s.layers; ++l) {
        const Layer& layer = w.layers[l];
        norm_rows(layer.norm, rows, nullptr);
        multiply(layer.qkv, input + 0, lead, rows, [&](long m, long panel, const float* out) {
          std::memcpy(qkv + m * width + panel * kPanel, out, kPanel * sizeof(float));
        });
        store(l, rows, slots, positions);
        attend(l, rows, slots, positions);
        multiply(layer.out, input + 0, lead, rows, add);
        norm_rows(layer.norm2, rows, nullptr);
        multiply(layer.gate_up, input + 0, lead, rows, [&](long m, long panel, const float* out) {
          const long n = panel * kSide;
          for (long i = 0; i < kSide; i += kLanes) {
            const vf gate = widen(out + i), made = gate / (1.0f + exponential(-gate)) * widen(out + i + kSide);
            for (long j = 0; j < std::min(kLanes, s.inner - n - i); ++j)
              narrow(made[j], inside + m * s.inner + n + i + j);
          }
        });
        multiply(layer.down, inside + 0, s.inner, rows, add);
      }
      norm_rows(w.last_norm, picks, picked);
      multiply(w.head, input + 0, lead, picks, [&](long m, long panel, const float* out) {
        const long n = panel * kPanel;
        std::memcpy(logits + m * s.vocab + n, out, std::min(kPanel, s.vocab - n) * sizeof(float));
      });
    }
  }

  // RMS norm of the residual rows (or of the picked ones) into `input`.
  void norm_rows(const std::vector<float>& weight, long rows, const int64_t* picked) {
#pragma omp for schedule(static)
    for (long m = 0; m < rows; ++m) {
      const float* x = stream + (picked ? picked[m] : m) * s.hidden;
      const float scale = rms_scale(x, s.hidden, s.eps);
      for (long i = 0; i < s.hidden; ++i) narrow(x[i] * scale * weight[i], input + m * lead + i);
    }
  }

  // Rotates queries and keys in place and writes keys and values to the cache.
  void store(long l, long rows, const int64_t* slots, const int64_t* positions) {
    const Layer& layer = w.layers[l];
#pragma omp for schedule(static)
    for (long m = 0; m < rows; ++m) {
      float* own = qkv + m * width;
      const long t = positions[m];
      for (long h = 0; h < s.heads + s.kv_heads; ++h)
        turn(own + h * s.dim, s.norms_heads ? (h < s.heads ? layer.q_norm : layer.k_norm).data() : nullptr, t);
      for (long h = 0; h < s.kv_heads; ++h) {
        T* key = keys_of(l, slots[m], h) + t / kKeys * kKeys * s.dim + t % kKeys;
        T* value = values_of(l, slots[m], h) + t * padded;
        const float* k = own + (s.heads + h) * s.dim;
        for (long d = 0; d < s.dim; ++d) narrow(k[d], key + d * kKeys), narrow(k[d + s.kv_heads * s.dim], value + d);
      }
    }
  }

  void turn(float* x, const float* weight, long t) const {
    if (weight) {
      const float scale = rms_scale(x, s.dim, s.eps);
      for (long d = 0; d < s.dim; ++d) x[d] *= scale * weight[d];
    }
    const float *cosine = cosines + t * s.dim / 2, *sine = sines + t * s.dim / 2;
    for (long d = 0; d < s.dim / 2; ++d) {
      const float low = x[d], high = x[d + s.dim / 2];
      x[d] = low * cosine[d] - high * sine[d], x[d + s.dim / 2] = high * cosine[d] + low * sine[d];
    }
  }

  void attend(long l, long rows, const int64_t* slots, const int64_t* positions) {
    std::vector<float> scores(4 * s.capacity);
#pragma omp for schedule(static)
    for (long task = 0; task < rows * s.kv_heads; ++task) {
      const long m = task / s.kv_heads, h = task % s.kv_heads, length = positions[m] + 1;
      const T *key = keys_of(l, slots[m], h), *value = values_of(l, slots[m], h);
      for (long g = 0; g < group; g += 4) {
        const float* query = qkv + m * width + (h * group + g) * s.dim;
        T* out = input + m * lead + (h * group + g) * s.dim;
        switch (std::min(4L, group - g)) {
          case 1: heads_attend<1>(query, key, value, length, scores.data(), out); break;
          case 2: heads_attend<2>(query, key, value, length, scores.data(), out); break;
          case 3: heads_attend<3>(query, key, value, length, scores.data(), out); break;
          default: heads_attend<4>(query, key, value, length, scores.data(), out);
        }
      }
    }
  }

  template <int G>  // heads that share keys and values
  void heads_attend(const float* query, const T* key, const T* value, long length, float* scores, T* out) const {
    const float scale = 1.0f / std::sqrt((float)s.dim);
    const long whole = (length + kKeys - 1) / kKeys * kKeys;
    for (long t = 0; t < whole; t += kKeys) {
      vf dot[G] = {};
      for (long d = 0; d < s.dim; ++d) {
        __builtin_prefetch(key + (t + 2 * kKeys) * s.dim + d * kKeys);
        const vf k = widen(key + t * s.dim + d * kKeys);
        for (int g = 0; g < G; ++g) dot[g] += query[g * s.dim + d] * k;
      }
      for (int g = 0; g < G; ++g) ::store(scores + g * s.capacity + t, dot[g] * scale);
    }
    float total[G];
    for (int g = 0; g < G; ++g) total[g] = soften(scores + g * s.capacity, length, whole);
    long d = 0;
    for (; d + 4 * kLanes <= padded; d += 4 * kLanes) mix<G, 4>(scores, total, value, length, d, out);
    for (; d < padded; d += kLanes) mix<G, 1>(scores, total, value, length, d, out);
  }

  float soften(float* scores, long length, long whole) const {
    std::fill(scores + length, scores + whole, -INFINITY);
    const float most = *std::max_element(scores, scores + length);
    vf total = {};
    for (long t = 0; t < whole; t += kKeys) ::store(scores + t, exponential(widen(scores + t) - most));
    std::fill(scores + length, scores + whole, 0.0f);
    for (long t = 0; t < whole; t += kKeys) total += widen(scores + t);
    return sum(total);
  }

  template <int G, int L>  // L vectors of values from `first`
  void mix(const float* weights, const float* total, const T* value, long length, long first, T* out) const {
    vf acc[G][L] = {};
    for (long t = 0; t < length; ++t)
      for (int i = 0; i < L; ++i) {
        __builtin_prefetch(value + (t + 32) * padded + first + kLanes * i);
        const vf v = widen(value + t * padded + first + kLanes * i);
        for (int g = 0; g < G; ++g) acc[g][i] += weights[g * s.capacity + t] * v;
      }
    for (int g = 0; g < G; ++g)
      for (long d = first; d < std::min(s.dim, first + kLanes * L); ++d)
        narrow(acc[g][(d - first) / kLanes][(d - first) % kLanes] / total[g], out + g * s.dim + d);
  }
};

Shape shape_of(const int64_t* sizes, double eps) {
  Shape shape;
  std::memcpy(&shape, sizes, 11 * sizeof(int64_t));
  shape.eps = eps;
  return shape;
}

}  // namespace

extern "C" {

// Null where there is no memory for them.
Packed* weights_new(const int64_t* sizes, double eps, int half) {
  try {
    const Shape shape = shape_of(sizes, eps);
    return half ? (Packed*)new Weights<bf16>(shape) : (Packed*)new Weights<float>(shape);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
void weights_free(Packed* weights) { delete weights; }
void weights_load(Packed* weights, const float* const* given, int threads) { weights->load(given, threads); }

// A model on weights of the same sizes and type, which must outlive it; null where there is no memory for it.
Model* model_new(const int64_t* sizes, double eps, int half, const Packed* weights) {
  Shape shape = shape_of(sizes, eps);
  shape.capacity = 0;  // until it is resized
  try {
    return half ? (Model*)new Llama<bf16>(shape, *static_cast<const Weights<bf16>*>(weights))
                : (Model*)new Llama<float>(shape, *static_cast<const Weights<float>*>(weights));
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
void model_free(Model* model) { delete model; }
// Tables of cosines and sines of `capacity` positions stay with the caller. 0 where there is no memory.
int model_resize(Model* model, long capacity, const float* cosines, const float* sines) {
  try {
    model->resize(capacity, cosines, sines);
    return 1;
  } catch (const std::bad_alloc&) {
    return 0;
  }
}
void model_copy(Model* model, long from, long to, long length) { model->copy(from, to, length); }
void model_step(Model* model, long rows, const int64_t* tokens, const int64_t* slots, const int64_t* positions,
                long picks, const int64_t* picked, float* logits, int threads) {
  model->step(rows, tokens, slots, positions, picks, picked, logits, threads);
}
}
