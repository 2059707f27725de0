// One pass of dual coordinate descent for a linear classifier with squared hinge loss; `dual.py` says what it solves.
#include <algorithm>
#include <cstdint>

extern "C" void dual_pass(const float* values, const int32_t* columns, const int64_t* starts, const int64_t* order,
                          int64_t rows, const double* signs, const double* slack, const double* norms, double* alpha,
                          double* weights, int64_t offset) {
  for (int64_t k = 0; k < rows; ++k) {
    const int64_t i = order[k];
    double margin = weights[offset];
    for (int64_t j = starts[i]; j < starts[i + 1]; ++j) margin += values[j] * weights[columns[j]];
    const double pull = signs[i] * margin - 1 + slack[i] * alpha[i];
    const double next = std::max(alpha[i] - pull / (norms[i] + slack[i]), 0.0);
    const double step = (next - alpha[i]) * signs[i];
    if (step == 0) continue;
    alpha[i] = next;
    for (int64_t j = starts[i]; j < starts[i + 1]; ++j) weights[columns[j]] += step * values[j];
    weights[offset] += step;
  }
}
