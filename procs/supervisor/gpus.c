/* gpus.c - see gpus.h. The names and numbers of NVML are those of its public header. */
#include "procs/supervisor/gpus.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"

enum { GPUS_MAX = 4, FIGURES = 4, WHY_BYTES = 160 };
enum { NVML_CLOCK_SM = 1, NVML_CLOCK_MEM = 2, NVML_TEMPERATURE_GPU = 0 };
static const int64_t EVERY_NS = NS_PER_S / 2;
static const char own_name[] = "libnvidia-ml.so.1";
static const char *const figure_names[FIGURES] = {"sm_mhz", "memory_mhz", "power_w",
                                                  "temperature_c"};

struct gpu {
    char name[CONF_TEXT_MAX]; /* cuda:N */
    void *handle;
    char why[WHY_BYTES]; /* it is not looked at; "" it is */
    int64_t n;
    double sum[FIGURES], min[FIGURES], max[FIGURES];
};

struct gpus {
    void *library;
    int (*init)(void), (*shutdown)(void);
    int (*by_index)(unsigned index, void **handle);
    int (*clock)(void *handle, int type, unsigned *mhz);
    int (*power)(void *handle, unsigned *mw);
    int (*temperature)(void *handle, int sensor, unsigned *celsius);
    bool has_begun;
    int64_t looked_ns;
    int32_t n;
    struct gpu gpu[GPUS_MAX];
};

/* CUDA's N as NVML counts: the N-th number of the list. -1: the list is none of numbers. */
static int32_t index_of(int32_t n, const char *visible)
{
    if (!visible) return n;
    for (const char *s = visible;; s++) {
        char *end;
        const long v = strtol(s, &end, 10);
        if (end == s || v < 0 || (*end && *end != ',')) return -1;
        if (n-- == 0) return (int32_t)v;
        if (!*end) return -1;
        s = end;
    }
}

static const char *load(struct gpus *g, const char *name)
{
    const struct {
        const char *name;
        void *at;
    } calls[] = {
        {"nvmlInit_v2", &g->init},
        {"nvmlShutdown", &g->shutdown},
        {"nvmlDeviceGetHandleByIndex_v2", &g->by_index},
        {"nvmlDeviceGetClockInfo", &g->clock},
        {"nvmlDeviceGetPowerUsage", &g->power},
        {"nvmlDeviceGetTemperature", &g->temperature},
    };
    g->library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!g->library) return dlerror();
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        void *at = dlsym(g->library, calls[i].name);
        if (!at) return dlerror();
        memcpy(calls[i].at, &at, sizeof at); /* an object to a function: POSIX's way */
    }
    if (g->init() != 0) return "NVML does not begin";
    g->has_begun = true;
    return NULL;
}

static void add_place(struct gpus *g, const char *place)
{
    if (strncmp(place, "cuda:", 5) != 0) return;
    for (int32_t i = 0; i < g->n; i++)
        if (strcmp(g->gpu[i].name, place) == 0) return;
    snprintf(g->gpu[g->n++].name, sizeof g->gpu[0].name, "%s", place);
}

static void find(struct gpus *g, struct gpu *p, const char *visible)
{
    const int32_t at = index_of(atoi(p->name + 5), visible);
    if (at < 0) snprintf(p->why, sizeof p->why, "CUDA_VISIBLE_DEVICES=%.100s", visible);
    else if (g->by_index((unsigned)at, &p->handle) != 0)
        snprintf(p->why, sizeof p->why, "NVML has no GPU %d", at);
}

err_t gpus_open(struct gpus **out, const struct conf *c, const char *library, const char *visible)
{
    struct gpus *g = calloc(1, sizeof *g);
    if (!g) return FAIL(ERR_NOMEM, "gpus");
    add_place(g, c->place.text);
    add_place(g, c->place.dit);
    add_place(g, c->place.vae);
    add_place(g, c->place.clean);
    const char *why = g->n ? load(g, library ? library : own_name) : NULL;
    for (int32_t i = 0; i < g->n; i++) {
        if (why) snprintf(g->gpu[i].why, sizeof g->gpu[i].why, "%.150s", why);
        else find(g, &g->gpu[i], visible);
    }
    *out = g;
    return OK;
}

void gpus_close(struct gpus **g)
{
    if (!*g) return;
    if ((*g)->has_begun) (*g)->shutdown();
    if ((*g)->library) dlclose((*g)->library);
    free(*g);
    *g = NULL;
}

static void look_at(const struct gpus *g, struct gpu *p)
{
    unsigned v[FIGURES];
    if (g->clock(p->handle, NVML_CLOCK_SM, &v[0]) != 0 ||
        g->clock(p->handle, NVML_CLOCK_MEM, &v[1]) != 0 || g->power(p->handle, &v[2]) != 0 ||
        g->temperature(p->handle, NVML_TEMPERATURE_GPU, &v[3]) != 0) {
        snprintf(p->why, sizeof p->why, "NVML says nothing of it");
        return;
    }
    for (int i = 0; i < FIGURES; i++) {
        const double x = i == 2 ? v[i] / 1e3 : v[i];
        p->min[i] = p->n == 0 || x < p->min[i] ? x : p->min[i];
        p->max[i] = p->n == 0 || x > p->max[i] ? x : p->max[i];
        p->sum[i] = (p->n == 0 ? 0 : p->sum[i]) + x;
    }
    p->n++;
}

void gpus_look(struct gpus *g, int64_t now)
{
    if (g->looked_ns && now - g->looked_ns < EVERY_NS) return;
    g->looked_ns = now;
    for (int32_t i = 0; i < g->n; i++)
        if (!g->gpu[i].why[0]) look_at(g, &g->gpu[i]);
}

static void put(json_t *o, const char *name, const char *suffix, double v)
{
    char key[32];
    snprintf(key, sizeof key, "%s%s", name, suffix);
    json_object_set_new(o, key, json_real(v));
}

json_t *gpus_take(struct gpus *g)
{
    json_t *o = json_object();
    for (int32_t i = 0; i < g->n; i++) {
        struct gpu *p = &g->gpu[i];
        json_t *one = json_object();
        json_object_set_new(o, p->name, one);
        if (p->why[0]) json_object_set_new(one, "absent", json_string(p->why));
        else json_object_set_new(one, "samples", json_integer((json_int_t)p->n));
        for (int k = 0; k < FIGURES && p->n > 0; k++) {
            put(one, figure_names[k], "", p->sum[k] / (double)p->n);
            put(one, figure_names[k], "_min", p->min[k]);
            put(one, figure_names[k], "_max", p->max[k]);
        }
        p->n = 0;
    }
    g->looked_ns = 0;
    return o;
}
