/* cpu.c - see cpu.h. */
#include "common/cpu.h"

#include <stdio.h>
#include <string.h>

void cpu_name(char *out, size_t cap)
{
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "r");
    snprintf(out, cap, "unknown");
    while (f && fgets(line, sizeof line, f)) {
        const char *at = strstr(line, ": ");
        if (strncmp(line, "model name", 10) != 0 || !at) continue;
        snprintf(out, cap, "%.*s", (int)strcspn(at + 2, "\n\"\\"), at + 2);
        break;
    }
    if (f) fclose(f);
}
