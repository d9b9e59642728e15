// What the files of torch ops share: memory, threads, checked arguments. These files (NAME.cpp for each algorithm) are the
// only ones that include torch (stable ABI headers alone); every number is computed by the C library behind dalign.h.
//
// Python has already told the user about wrong shapes and values; what is checked again here keeps memory safe when an
// op is called directly or from a compiled graph.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#if defined __linux__
#include <sys/mman.h>
#endif

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "dalign.h"

namespace dalign_ops {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

// Calls body(Real{}) with the C++ type of a tensor.
template <class Body> void with_real(const Tensor &tensor, const char *name, Body body) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float: return body(float{});
    case ScalarType::Double: return body(double{});
    default: STD_TORCH_CHECK(false, name, " must be float32 or float64");
  }
}

inline void check_status(int status) {
  STD_TORCH_CHECK(status != DALIGN_BAD_ARGUMENT, "dalign: a kernel refused its arguments (is gamma positive?)");
  STD_TORCH_CHECK(status == DALIGN_OK, "dalign: a kernel failed with status ", status);
}

// ---------------------------------------------------------------- memory

inline constexpr size_t kAlignment = 64; // one cache line, one 512-bit vector
inline constexpr size_t kKeptBytes =
    64 << 20; // the largest state (32 MiB), kept tiles (4 MiB), and frames and rows beside them

inline constexpr size_t aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// Asks for large pages where the system gives them only when asked (Linux, transparent huge pages on "madvise"). To get
// fresh memory page by page costs about 2 ns a float, more than the sweep that fills it; in pages of 2 MiB .4 ns.
inline void prefer_large_pages(void *data, size_t bytes) {
#if defined __linux__ && defined MADV_HUGEPAGE
  constexpr size_t kLarge = 8 << 20, kPage = 4096;
  if (bytes < kLarge) return;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + kPage - 1) / kPage * kPage;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + bytes) / kPage * kPage;
  madvise(reinterpret_cast<void *>(begin), end - begin, MADV_HUGEPAGE); // a wish: what it answers does not matter
#else
  (void)data, (void)bytes;
#endif
}

inline void in_large_pages(const Tensor &tensor) {
  prefer_large_pages(tensor.mutable_data_ptr(), static_cast<size_t>(tensor.numel()) * tensor.element_size());
}

// A fresh tensor that a kernel fills.
inline Tensor fresh(const Tensor &like, torch::headeronly::IntHeaderOnlyArrayRef sizes) {
  Tensor result = torch::stable::new_empty(like, sizes);
  in_large_pages(result);
  return result;
}

struct FreeBlock {
  void operator()(std::byte *data) const { ::operator delete(data, std::align_val_t(kAlignment)); }
};

struct Block {
  std::unique_ptr<std::byte, FreeBlock> data;
  size_t bytes = 0;
};

// One aligned block per call. The calling thread keeps the last one up to kKeptBytes for its next call: a training loop
// asks for the same sizes again and again, and to get large blocks fresh from the system is 5 % of the time of a long pair.
class Workspace {
public:
  explicit Workspace(size_t bytes) {
    std::swap(block_, kept());
    if (block_.bytes > bytes && block_.data) return;
    block_.data.reset();
    block_.bytes = aligned(bytes + 1);
    block_.data.reset(
        static_cast<std::byte *>(::operator new(block_.bytes, std::align_val_t(kAlignment), std::nothrow)));
    STD_TORCH_CHECK(block_.data, "dalign: out of memory, could not allocate a workspace of ", bytes, " bytes");
    prefer_large_pages(block_.data.get(), block_.bytes);
  }
  ~Workspace() {
    if (block_.bytes <= kKeptBytes) std::swap(block_, kept());
  }
  Workspace(const Workspace &) = delete;
  Workspace &operator=(const Workspace &) = delete;
  std::byte *at(size_t offset) const { return block_.data.get() + offset; }

private:
  static Block &kept() {
    static thread_local Block block;
    return block;
  }

  Block block_;
};

// ---------------------------------------------------------------- threads

inline constexpr int64_t kCellsPerThread = 16384; // a lattice cell takes about 1 ns, waking a thread some microseconds
inline constexpr int64_t kPipelinedCells = 1 << 17; // from here several threads on one pair are faster than one
inline constexpr int64_t kItemsTogether = 16; // the most small items that dalign_dtw takes at once, if a range has them
static_assert(kPipelinedCells >= DALIGN_DTW_LANES_CELLS, "bits would depend on the number of threads");

inline int64_t useful_threads(int64_t cells) {
  const int64_t threads = torch::stable::get_num_threads();
  return std::clamp<int64_t>(cells / kCellsPerThread, 1, threads);
}

// kernel(begin, end, workspace) -> status over all items of [0, batch), every thread with a workspace of its own. Items
// go out by a counter: they differ in length. Nothing may throw inside parallel_for.
template <class Kernel>
int for_each_item(int64_t batch, int64_t threads, const Workspace &workspace, size_t bytes, Kernel kernel) {
  if (batch == 0) return DALIGN_OK;
  if (threads == 1) return kernel(0, batch, workspace.at(0));
  const int64_t share = std::max<int64_t>(1, batch / (threads * 8));
  const int64_t chunk = share < kItemsTogether ? share : share / kItemsTogether * kItemsTogether;
  std::atomic<int64_t> next{0};
  std::atomic<int> status{DALIGN_OK};
  torch::stable::parallel_for(0, threads, 1, [&](int64_t worker, int64_t) {
    for (int64_t begin; (begin = next.fetch_add(chunk)) < batch;) {
      const int result = kernel(begin, std::min(begin + chunk, batch), workspace.at(worker * bytes));
      if (result != DALIGN_OK) status = result;
    }
  });
  return status;
}
// A sweep over a batch of lattices gives its args, bytes of memory (shared_bytes, worker_bytes), a range of items on one
// thread (run), and one item on several threads (open, work, close).

// All threads on one item: open, work, close, and once more where the kernel asks for it.
template <class Sweep> int pipeline(const Sweep &sweep, int64_t item, int64_t threads, const Workspace &workspace) {
  const size_t worker_bytes = aligned(sweep.worker_bytes());
  std::byte *const shared = workspace.at(0);
  std::byte *const workers = workspace.at(aligned(sweep.shared_bytes()));
  for (int retry = 0;; retry = 1) {
    const int opened = sweep.open(item, retry, shared);
    if (opened != DALIGN_OK) return opened;
    int closed = DALIGN_AGAIN;
    while (closed == DALIGN_AGAIN) {
      torch::stable::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) Sweep::work(shared, workers + i * worker_bytes);
      });
      closed = Sweep::close(shared);
    }
    if (closed != DALIGN_RETRY) return closed;
  }
}

// A sweep over the whole batch: as many rounds of one item per thread as fill every thread, then long items one by one
// with all threads on each.
template <class Sweep> void sweep_batch(const Sweep &sweep) {
  const int64_t batch = sweep.args.batch, cells = sweep.args.n * sweep.args.m;
  const int64_t threads = useful_threads(batch * cells);
  const bool pipelined = threads > 1 && cells >= kPipelinedCells;
  const int64_t by_item = pipelined ? batch - batch % threads : batch;
  const size_t bytes = aligned(sweep.shared_bytes()) + aligned(sweep.worker_bytes());
  const int64_t workers = pipelined ? threads : std::min(threads, std::max<int64_t>(batch, 1));
  const Workspace workspace(workers * bytes);
  check_status(for_each_item(by_item, workers, workspace, bytes,
                             [&](int64_t begin, int64_t end, void *memory) { return sweep.run(begin, end, memory); }));
  for (int64_t item = by_item; item < batch; ++item) check_status(pipeline(sweep, item, threads, workspace));
}
// ---------------------------------------------------------------- arguments

// Holds contiguous copies alive while C structs point into them.
class Arguments {
public:
  const Tensor &keep(const Tensor &tensor) {
    tensors_.push_back(tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor)); // the latter is a dispatch
    return tensors_.back();
  }
  const void *pointer(const Tensor &tensor) { return keep(tensor).const_data_ptr(); }

private:
  std::vector<Tensor> tensors_;
};

inline dalign_metric metric_of(const std::string &name) {
  static const std::pair<const char *, dalign_metric> metrics[] = {{"sqeuclidean", DALIGN_SQEUCLIDEAN},
                                                                   {"euclidean", DALIGN_EUCLIDEAN},
                                                                   {"manhattan", DALIGN_MANHATTAN},
                                                                   {"cosine", DALIGN_COSINE},
                                                                   {"nll", DALIGN_NLL},
                                                                   {"bce", DALIGN_BCE}};
  for (const auto &[known, metric] : metrics) {
    if (name == known) return metric;
  }
  STD_TORCH_CHECK(false, "metric '", name, "' is unknown");
}

inline double gamma_of(const Tensor &gamma) {
  STD_TORCH_CHECK(gamma.dim() == 0 && gamma.scalar_type() == ScalarType::Double && gamma.is_cpu(),
                  "gamma must be a 0-dim float64 tensor on the CPU");
  const double value = *gamma.const_data_ptr<double>();
  STD_TORCH_CHECK(value > 0, "gamma must be positive, got ", value);
  return value;
}

inline const int64_t *lengths_of(Arguments &arguments, const OptionalTensor &lengths, int64_t batch, int64_t longest,
                                 const char *name) {
  if (!lengths) return nullptr;
  STD_TORCH_CHECK(lengths->dim() == 1 && lengths->size(0) == batch && lengths->scalar_type() == ScalarType::Long &&
                      lengths->is_cpu(),
                  name, " must be an int64 CPU tensor of shape (", batch, ",)");
  const int64_t *values = static_cast<const int64_t *>(arguments.pointer(*lengths));
  for (int64_t b = 0; b < batch; ++b) {
    STD_TORCH_CHECK(values[b] >= 1 && values[b] <= longest, name, "[", b, "] = ", values[b], " is outside [1, ",
                    longest, "]");
  }
  return values;
}

// Class indices that will be read: the first lengths[b] of a row.
inline void check_labels(const int64_t *labels, const int64_t *lengths, int64_t batch, int64_t m, int64_t classes) {
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t j = 0; j < (lengths ? lengths[b] : m); ++j) {
      const int64_t label = labels[b * m + j];
      STD_TORCH_CHECK(label >= 0 && label < classes, "y[", b, ", ", j, "] = ", label, " is not a class in [0, ",
                      classes, ")");
    }
  }
}

inline void check_features(const Tensor &x, const Tensor &y, dalign_metric metric) {
  const bool labels = metric == DALIGN_NLL;
  STD_TORCH_CHECK(x.dim() == 3, "x must have shape (B, N, D)");
  STD_TORCH_CHECK(y.dim() == (labels ? 2 : 3), "y must have shape ", labels ? "(B, M)" : "(B, M, D)");
  STD_TORCH_CHECK(x.size(0) == y.size(0), "x and y must have the same batch size, got ", x.size(0), " and ", y.size(0));
  STD_TORCH_CHECK(x.size(1) > 0 && x.size(2) > 0 && y.size(1) > 0, "x and y need at least one frame and one feature");
  STD_TORCH_CHECK(labels || x.size(2) == y.size(2), "x and y must have the same number of features");
  STD_TORCH_CHECK(y.scalar_type() == (labels ? ScalarType::Long : x.scalar_type()),
                  labels ? "y must hold int64 class indices" : "x and y must have the same dtype");
}
// ---------------------------------------------------------------- results

// A result of the shape of like, or an empty tensor when it is not wanted.
inline Tensor wanted(const Tensor &like, bool need) {
  return need ? fresh(like, like.sizes()) : torch::stable::new_empty(like, {0});
}

inline void *pointer_if(const Tensor &tensor, bool need) { return need ? tensor.mutable_data_ptr() : nullptr; }
} // namespace dalign_ops
