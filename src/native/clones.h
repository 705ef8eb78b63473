// One binary, the widest vectors of the machine that it runs on. Knows no loops.

#pragma once

// A function that is compiled for several machines, of which the loader takes the widest that there is.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define SCRIMP_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define SCRIMP_CLONES
#endif

// Into each clone, with that clone's vectors.
#define SCRIMP_INTO_CLONES __attribute__((always_inline)) inline
