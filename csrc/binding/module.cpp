// Python module torch_dalign._C: facts about the build and the CPU; no tensors here. Loading the module also loads
// the other files, which register the torch ops. The DALIGN_* texts come from setup.py.
#include <pybind11/pybind11.h>

#include "dalign.h"

namespace {

#ifdef DALIGN_CUDA
constexpr bool has_cuda = true;
#else
constexpr bool has_cuda = false;
#endif

#ifdef __clang__
constexpr const char *compiler = __VERSION__; // "Clang 14.0.6 ..."
#else
constexpr const char *compiler = "GCC " __VERSION__;
#endif

// What this binary is made of. The instruction set in use is not among it: the CPU decides, see isa().
pybind11::dict build_facts() {
  using pybind11::literals::operator""_a;
  const pybind11::str levels(DALIGN_ISA_LEVELS), archs(DALIGN_CUDA_ARCHS);
  return pybind11::dict("version"_a = DALIGN_VERSION, "compiler"_a = compiler, "torch"_a = DALIGN_TORCH_VERSION,
                        "isa_levels"_a = pybind11::tuple(levels.attr("split")()), "cuda"_a = has_cuda,
                        "cuda_archs"_a = pybind11::tuple(archs.attr("split")()));
}

// Bytes of a row of the state tensor, as softdtw.cpp allocates it: whole cache lines.
size_t softdtw_state_bytes(int64_t n, int64_t m, double band, bool is_double) {
  dalign_softdtw_args args{};
  args.batch = 1;
  args.n = n;
  args.m = m;
  args.gamma = 1;
  args.band = band;
  const size_t bytes = is_double ? dalign_softdtw_state_f64(&args) : dalign_softdtw_state_f32(&args);
  return (bytes + 63) / 64 * 64;
}

} // namespace

PYBIND11_MODULE(_C, module) {
  module.doc() = "Facts about the build and the CPU. Loading this module registers the torch ops dalign::*.";
  module.def("isa", &dalign_isa, "Instruction set in use: 'generic', 'avx2' or 'avx512'.");
  module.def("build_facts", &build_facts, "What this binary was made of, as a dict.");
  module.def("softdtw_state_bytes", &softdtw_state_bytes, "Bytes that soft-DTW keeps per item for its backward pass.");
}
