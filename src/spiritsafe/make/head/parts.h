// How rows are cut for sums that several threads add up: by their number alone, never by that of the threads, so that
// the same parts are added in the same order, and equal inputs give equal bits on any number of threads.
#pragma once
#include <algorithm>
#include <cstdint>

namespace {
// More threads than parts have nothing to do; each part costs a sum of its own (an M x D matrix for `products`).
constexpr int64_t MOST_PARTS = 32;

struct Parts {
  int64_t rows, block, blocks, num;
  Parts(int64_t rows, int64_t block)
      : rows(rows), block(block), blocks((rows + block - 1) / block), num(std::min(MOST_PARTS, blocks)) {}
  // The first row of a part, a multiple of `block`; of the part after the last one, the number of rows.
  int64_t begin(int64_t part) const { return part == num ? rows : part * blocks / num * block; }
};
}  // namespace
