/* Prints the instruction set in use, so that the Makefile knows which levels this CPU has. */
#include "dalign.h"
#include <stdio.h>

int main(void) { return puts(dalign_isa()) < 0; }
