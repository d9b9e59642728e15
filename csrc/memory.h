/* memory.h: cutting a caller's workspace into aligned pieces. The same code counts bytes (base NULL) and cuts. */
#ifndef DALIGN_MEMORY_H
#define DALIGN_MEMORY_H
#include <stddef.h>
#include <stdint.h>

enum { DALIGN_ALIGNMENT = 64 };

typedef struct {
  char *base; /* NULL: only count */
  size_t used;
} dalign_arena;

static inline dalign_arena dalign_arena_over(void *memory) {
  dalign_arena a = {(char *)memory, 0};
  if (memory) a.used = (size_t)(-(intptr_t)memory & (DALIGN_ALIGNMENT - 1));
  return a;
}

static inline void *dalign_arena_take(dalign_arena *a, size_t bytes) {
  char *piece = a->base ? a->base + a->used : NULL;
  a->used += (bytes + DALIGN_ALIGNMENT - 1) & ~(size_t)(DALIGN_ALIGNMENT - 1);
  return piece;
}

/* What a caller must give for the pieces taken so far: any alignment of his will do. */
static inline size_t dalign_arena_bytes(const dalign_arena *a) { return a->used + DALIGN_ALIGNMENT; }

#endif
