# What the C library is made of and how it is compiled: the one list that the Makefile includes and setup.py reads.
# Plain "NAME = words" lines only. A kernel named here is csrc/NAME.c, compiled once per ISA level with -DDALIGN_ISA=LEVEL.

KERNELS = cost softdtw dtw ddtw decode ctc dilate gdtw tap

C_FLAGS = -std=gnu11 -O3 -fPIC -fno-math-errno -ffp-contract=fast -fvisibility=hidden -Wall -Wextra -Icsrc

# Levels on x86-64; elsewhere generic alone.
ISA_LEVELS = generic avx2 avx512
ISA_generic =
ISA_avx2 = -mavx2 -mfma
ISA_avx512 = -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mprefer-vector-width=512

NVCC_FLAGS = -O3 -std=c++17 -Xcompiler=-fPIC -Icsrc
CUDA_ARCHS = 8.0 9.0+PTX
