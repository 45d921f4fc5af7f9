/* cpu.h - what a machine is called in results. */
#ifndef COMMON_CPU_H
#define COMMON_CPU_H

#include <stddef.h>

/* "model name" of /proc/cpuinfo, without what JSON would have to escape; "unknown". */
void cpu_name(char *out, size_t cap);

#endif
