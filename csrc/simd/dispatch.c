/* dispatch.c: picks the instruction set at load time and forwards the public functions to that level's copies.
 * Compiled once, for the baseline machine. */
#include "dalign.h"

#include <stdlib.h>
#include <string.h>

/* Every public kernel: result, name, parameters, arguments; R is the element type, T its suffix. */
#define KERNELS(K, R, T)                                                                                               \
  K(size_t, dalign_cost_workspace, R, T, (const dalign_cost_args *args), (args))                                       \
  K(dalign_status, dalign_cost, R, T,                                                                                  \
    (const dalign_cost_args *args, R *cost, int64_t begin, int64_t end, void *workspace),                              \
    (args, cost, begin, end, workspace))                                                                               \
  K(dalign_status, dalign_cost_backward, R, T,                                                                         \
    (const dalign_cost_args *args, const R *grad_cost, R *grad_x, R *grad_y, int64_t begin, int64_t end,               \
     void *workspace),                                                                                                 \
    (args, grad_cost, grad_x, grad_y, begin, end, workspace))                                                          \
  K(size_t, dalign_softdtw_state, R, T, (const dalign_softdtw_args *args), (args))                                     \
  K(size_t, dalign_softdtw_shared, R, T, (const dalign_softdtw_args *args, dalign_pass pass), (args, pass))            \
  K(size_t, dalign_softdtw_worker, R, T, (const dalign_softdtw_args *args), (args))                                    \
  K(dalign_status, dalign_softdtw_forward, R, T,                                                                       \
    (const dalign_softdtw_args *args, int64_t begin, int64_t end, void *workspace), (args, begin, end, workspace))     \
  K(dalign_status, dalign_softdtw_backward, R, T,                                                                      \
    (const dalign_softdtw_args *args, int64_t begin, int64_t end, void *workspace), (args, begin, end, workspace))     \
  K(dalign_status, dalign_softdtw_gradient, R, T,                                                                      \
    (const dalign_softdtw_args *args, int64_t begin, int64_t end, void *workspace), (args, begin, end, workspace))     \
  K(dalign_status, dalign_softdtw_open, R, T,                                                                          \
    (const dalign_softdtw_args *args, dalign_pass pass, int64_t item, int retry, void *shared),                        \
    (args, pass, item, retry, shared))                                                                                 \
  K(dalign_status, dalign_softdtw_close, R, T, (void *shared), (shared))                                               \
  K(size_t, dalign_softdtw_hvp_workspace, R, T, (const dalign_softdtw_args *args), (args))                             \
  K(dalign_status, dalign_softdtw_hvp, R, T,                                                                           \
    (const dalign_softdtw_args *args, const R *tangent, R *product, int64_t begin, int64_t end, void *workspace),      \
    (args, tangent, product, begin, end, workspace))                                                                   \
  K(size_t, dalign_dtw_shared, R, T, (const dalign_dtw_args *args), (args))                                            \
  K(size_t, dalign_dtw_worker, R, T, (const dalign_dtw_args *args), (args))                                            \
  K(dalign_status, dalign_dtw, R, T, (const dalign_dtw_args *args, int64_t begin, int64_t end, void *workspace),       \
    (args, begin, end, workspace))                                                                                     \
  K(dalign_status, dalign_dtw_open, R, T, (const dalign_dtw_args *args, int64_t item, void *shared),                   \
    (args, item, shared))                                                                                              \
  K(size_t, dalign_ddtw_workspace, R, T, (const dalign_ddtw_args *args), (args))                                       \
  K(dalign_status, dalign_ddtw, R, T, (const dalign_ddtw_args *args, int64_t begin, int64_t end, void *workspace),     \
    (args, begin, end, workspace))                                                                                     \
  K(size_t, dalign_dilate_workspace, R, T, (const dalign_dilate_args *args), (args))                                   \
  K(dalign_status, dalign_dilate, R, T, (const dalign_dilate_args *args, int64_t begin, int64_t end, void *workspace), \
    (args, begin, end, workspace))                                                                                     \
  K(size_t, dalign_ddtw_hvp_workspace, R, T, (const dalign_ddtw_args *args), (args))                                   \
  K(dalign_status, dalign_ddtw_hvp, R, T,                                                                              \
    (const dalign_ddtw_args *args, const dalign_ddtw_direction *direction, int64_t begin, int64_t end,                 \
     void *workspace),                                                                                                 \
    (args, direction, begin, end, workspace))                                                                          \
  DECODE_KERNELS(K, R, T)                                                                                              \
  CTC_KERNELS(K, R, T)                                                                                                 \
  GDTW_KERNELS(K, R, T)                                                                                                \
  TAP_KERNELS(K, R, T)

#define TAP_KERNELS(K, R, T)                                                                                       \
  K(size_t, dalign_tap_prepared, R, T, (const dalign_tap_args *args), (args))                                      \
  K(dalign_status, dalign_tap_prepare, R, T, (const dalign_tap_args *args), (args))                                \
  K(size_t, dalign_tap_state, R, T, (const dalign_tap_args *args, size_t budget, int64_t *at), (args, budget, at)) \
  K(size_t, dalign_tap_workspace, R, T, (const dalign_tap_args *args), (args))                                     \
  K(dalign_status, dalign_tap, R, T, (const dalign_tap_args *args, int64_t begin, int64_t end, void *workspace),   \
    (args, begin, end, workspace))                                                                                 \
  K(int64_t, dalign_tap_groups, R, T, (const dalign_tap_args *args), (args))                                       \
  K(int64_t, dalign_tap_parameters, R, T, (const dalign_tap_args *args), (args))                                   \
  K(size_t, dalign_tap_backward_workspace, R, T, (const dalign_tap_args *args), (args))                            \
  K(dalign_status, dalign_tap_backward, R, T,                                                                      \
    (const dalign_tap_args *args, int64_t begin, int64_t end, void *workspace), (args, begin, end, workspace))     \
  K(dalign_status, dalign_tap_reduce, R, T, (const dalign_tap_args *args), (args))

#define GDTW_KERNELS(K, R, T)                                                                                      \
  K(size_t, dalign_gdtw_workspace, R, T, (const dalign_gdtw_args *args), (args))                                   \
  K(size_t, dalign_gdtw_backward_workspace, R, T, (const dalign_gdtw_args *args), (args))                          \
  K(dalign_status, dalign_gdtw, R, T, (const dalign_gdtw_args *args, int64_t begin, int64_t end, void *workspace), \
    (args, begin, end, workspace))                                                                                 \
  K(dalign_status, dalign_gdtw_backward, R, T,                                                                     \
    (const dalign_gdtw_args *args, int64_t begin, int64_t end, void *workspace), (args, begin, end, workspace))

#define CTC_KERNELS(K, R, T)                                                                                     \
  K(size_t, dalign_ctc_workspace, R, T, (const dalign_ctc_args *args), (args))                                   \
  K(dalign_status, dalign_ctc, R, T, (const dalign_ctc_args *args, int64_t begin, int64_t end, void *workspace), \
    (args, begin, end, workspace))                                                                               \
  K(size_t, dalign_ctc_hvp_workspace, R, T, (const dalign_ctc_args *args), (args))                               \
  K(dalign_status, dalign_ctc_hvp, R, T,                                                                         \
    (const dalign_ctc_args *args, const R *tangent, R *product, int64_t begin, int64_t end, void *workspace),    \
    (args, tangent, product, begin, end, workspace))                                                             \
  K(size_t, dalign_ctc_align_workspace, R, T, (const dalign_ctc_args *args), (args))                             \
  K(dalign_status, dalign_ctc_align, R, T,                                                                       \
    (const dalign_ctc_args *args, const dalign_ctc_path *path, int64_t begin, int64_t end, void *workspace),     \
    (args, path, begin, end, workspace))

#define DECODE_KERNELS(K, R, T)                                                                                       \
  K(dalign_status, dalign_decode_greedy, R, T, (const dalign_greedy_args *args, int64_t begin, int64_t end),          \
    (args, begin, end))                                                                                               \
  K(size_t, dalign_decode_beam_state, R, T, (const dalign_beam_args *args), (args))                                   \
  K(dalign_status, dalign_decode_beam, R, T, (const dalign_beam_args *args, int64_t begin, int64_t end, void *state), \
    (args, begin, end, state))                                                                                        \
  K(dalign_status, dalign_decode_beam_open, R, T, (const dalign_beam_args *args, void *state), (args, state))         \
  K(dalign_status, dalign_decode_beam_step, R, T,                                                                     \
    (const dalign_beam_args *args, int64_t item, void *state, dalign_questions *questions),                           \
    (args, item, state, questions))                                                                                   \
  K(dalign_status, dalign_decode_beam_answer, R, T,                                                                   \
    (const dalign_beam_args *args, void *state, const double *answer, int64_t count), (args, state, answer, count))   \
  K(dalign_status, dalign_decode_beam_prefix, R, T,                                                                   \
    (const dalign_beam_args *args, void *state, int64_t row, int64_t *labels, int64_t *length),                       \
    (args, state, row, labels, length))

/* Those whose numbers are always double. */
#define DOUBLES(K)                                                                        \
  K(dalign_status, dalign_ngram_check, double, f64, (const dalign_ngram *model), (model)) \
  K(dalign_status, dalign_ngram_log_probs, double, f64,                                   \
    (const dalign_ngram *model, const int64_t *labels, int64_t length, double *log_prob), \
    (model, labels, length, log_prob))

/* Those without a result stand apart, for the return statement. */
#define PROCEDURES(K, R, T)                                                    \
  K(dalign_softdtw_work, R, T, (void *shared, void *memory), (shared, memory)) \
  K(dalign_dtw_work, R, T, (void *shared, void *memory), (shared, memory))     \
  K(dalign_dtw_close, R, T, (void *shared), (shared))

#if defined __x86_64__
#define LEVELS(X) X(generic) X(avx2) X(avx512)
#else
#define LEVELS(X) X(generic)
#endif

#define DECLARE(result, name, R, T, parameters, arguments, isa) result name##_##T##_##isa parameters;
#define DECLARE_PROCEDURE(name, R, T, parameters, arguments, isa) void name##_##T##_##isa parameters;
#define FIELD(result, name, R, T, parameters, arguments) result(*name##_##T) parameters;
#define FIELD_PROCEDURE(name, R, T, parameters, arguments) void(*name##_##T) parameters;

#define generic_KERNEL(result, name, R, T, parameters, arguments) \
  DECLARE(result, name, R, T, parameters, arguments, generic)
#define avx2_KERNEL(result, name, R, T, parameters, arguments) DECLARE(result, name, R, T, parameters, arguments, avx2)
#define avx512_KERNEL(result, name, R, T, parameters, arguments) \
  DECLARE(result, name, R, T, parameters, arguments, avx512)
#define generic_PROCEDURE(name, R, T, parameters, arguments) \
  DECLARE_PROCEDURE(name, R, T, parameters, arguments, generic)
#define avx2_PROCEDURE(name, R, T, parameters, arguments) DECLARE_PROCEDURE(name, R, T, parameters, arguments, avx2)
#define avx512_PROCEDURE(name, R, T, parameters, arguments) DECLARE_PROCEDURE(name, R, T, parameters, arguments, avx512)
#define DECLARE_LEVEL(isa)           \
  KERNELS(isa##_KERNEL, float, f32)  \
  KERNELS(isa##_KERNEL, double, f64) \
  DOUBLES(isa##_KERNEL) PROCEDURES(isa##_PROCEDURE, float, f32) PROCEDURES(isa##_PROCEDURE, double, f64)
LEVELS(DECLARE_LEVEL)

typedef struct {
  const char *name;
  KERNELS(FIELD, float, f32)
  KERNELS(FIELD, double, f64)
  DOUBLES(FIELD)
  PROCEDURES(FIELD_PROCEDURE, float, f32)
  PROCEDURES(FIELD_PROCEDURE, double, f64)
} level;

#define generic_ENTRY(result, name, R, T, parameters, arguments) .name##_##T = name##_##T##_generic,
#define avx2_ENTRY(result, name, R, T, parameters, arguments) .name##_##T = name##_##T##_avx2,
#define avx512_ENTRY(result, name, R, T, parameters, arguments) .name##_##T = name##_##T##_avx512,
#define generic_PROCEDURE_ENTRY(name, R, T, parameters, arguments) .name##_##T = name##_##T##_generic,
#define avx2_PROCEDURE_ENTRY(name, R, T, parameters, arguments) .name##_##T = name##_##T##_avx2,
#define avx512_PROCEDURE_ENTRY(name, R, T, parameters, arguments) .name##_##T = name##_##T##_avx512,
#define LEVEL(isa)                                                                         \
  {.name = #isa,                                                                           \
   KERNELS(isa##_ENTRY, float, f32) KERNELS(isa##_ENTRY, double, f64) DOUBLES(isa##_ENTRY) \
       PROCEDURES(isa##_PROCEDURE_ENTRY, float, f32) PROCEDURES(isa##_PROCEDURE_ENTRY, double, f64)},
static const level levels[] = {LEVELS(LEVEL)};

static int best_level(void) {
#if defined __x86_64__
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    return 2;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;
#endif
  return 0;
}

static const level *chosen;

/* Before main, so that no kernel call needs a check. A level that the machine lacks, or an unknown name, is not taken. */
__attribute__((constructor)) static void choose_level(void) {
  const int best = best_level();
  const char *wanted = getenv("DALIGN_ISA");
  chosen = &levels[best];
  for (int i = 0; wanted && i <= best; i++)
    if (!strcmp(wanted, levels[i].name)) chosen = &levels[i];
}

const char *dalign_isa(void) { return chosen->name; }

#define FORWARD(result, name, R, T, parameters, arguments) \
  result name##_##T parameters { return chosen->name##_##T arguments; }
#define FORWARD_PROCEDURE(name, R, T, parameters, arguments) \
  void name##_##T parameters { chosen->name##_##T arguments; }
KERNELS(FORWARD, float, f32)
KERNELS(FORWARD, double, f64)
DOUBLES(FORWARD)
PROCEDURES(FORWARD_PROCEDURE, float, f32)
PROCEDURES(FORWARD_PROCEDURE, double, f64)
