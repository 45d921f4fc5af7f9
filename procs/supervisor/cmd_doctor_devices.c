/* cmd_doctor_devices.c - the part of doctor about devices. Everything is tried, not asked. */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

#include "common/err.h"
#include "procs/supervisor/cmd_doctor.h"
#include "procs/supervisor/machine.h"
#include "procs/supervisor/rundir.h"

enum { PLACES = 4, TEXT_BYTES = 700 };
#define GIB ((double)(1 << 30))
/* Of one process, on the GPU, before it has asked for anything: measured on an H100. */
#define CONTEXT_GIB 0.5

/* What needs memory there: place.clean is for a second model of dit's. */
static const char *const stages[PLACES] = {"text", "dit", "vae", "dit"};

static const char *place_of(const struct conf *c, int i)
{
    const char *const places[PLACES] = {c->place.text, c->place.dit, c->place.vae, c->place.clean};
    return places[i];
}

/* The i-th device, if there is one and none before it is the same. */
static const char *new_place(const struct conf *c, int i)
{
    if (place_of(c, i)[0] == '\0') return NULL;
    for (int j = 0; j < i; j++)
        if (strcmp(place_of(c, j), place_of(c, i)) == 0) return NULL;
    return place_of(c, i);
}

static void check_share(struct doctor *d, const char *name)
{
    char found[TEXT_BYTES];
    if (machine_share(d->bin_dir, name, name) == OK) {
        snprintf(found, sizeof found, "%s: one process maps the memory of another", name);
        doctor_say(d, GOOD, "cuda ipc", found, "");
        return;
    }
    snprintf(found, sizeof found, "%s: %s", name, err_text());
    doctor_say(d, NOTE, "cuda ipc", found,
               "a restart will load weights again and not be exact; containers must share the IPC "
               "and PID namespaces (--ipc=host --pid=host)");
}

/* The sum of what the stages there need, and how many they are; 0: one cannot say, or none is. */
static int sum_needs(struct doctor *d, const char *name, struct machine_need *all)
{
    char found[TEXT_BYTES];
    struct machine_need one;
    int n = 0;
    bool is_known = true;
    *all = (struct machine_need){0};
    for (int i = 0; i < PLACES; i++) {
        if (strcmp(place_of(d->conf, i), name) != 0) continue;
        if (machine_need(d->bin_dir, stages[i], d->conf, &one) != OK) {
            snprintf(found, sizeof found, "%s on %s: %s", stages[i], name, err_text());
            doctor_say(d, BAD, "stage", found, "");
            is_known = false;
            continue;
        }
        all->weights += one.weights;
        all->state += one.state;
        all->scratch += one.scratch;
        n++;
    }
    return is_known ? n : 0;
}

/* On the CPU regions are files in the run directory; where one is in use they have their room. */
static void check_room(struct doctor *d)
{
    char found[TEXT_BYTES], path[RUNDIR_PATH_MAX];
    struct machine_need all;
    struct statvfs s;
    if (rundir_path(path, d->args->run ? d->args->run : d->conf->run.dir, "main") != OK) return;
    if (rundir_holder(path) != 0 || sum_needs(d, "cpu", &all) == 0) return;
    char *end = path + strlen(path);
    while (statvfs(path, &s) != 0 && end > path + 1) { /* it is not there yet: its parent */
        while (end > path + 1 && *end != '/') end--;
        *end = 0;
    }
    const double need = (double)(all.weights + all.state) / GIB;
    const double free_gib = (double)s.f_bavail * (double)s.f_frsize / GIB;
    snprintf(found, sizeof found,
             "cpu: regions need %.2f GiB at least (weights %.2f, state %.2f), %.2f are free in %s",
             need, (double)all.weights / GIB, (double)all.state / GIB, free_gib, path);
    doctor_say(d, need <= free_gib ? GOOD : BAD, "memory", found,
               "choose a smaller model, a GPU, or another place by --run DIR");
}

/* Memory that the plan needs on a device, by class, against what is free. */
static void check_memory(struct doctor *d, const char *name, const struct machine_device *m)
{
    char found[TEXT_BYTES];
    struct machine_need all;
    const int n_stages = sum_needs(d, name, &all);
    if (n_stages == 0) return;
    const double contexts = (n_stages + 1) * CONTEXT_GIB; /* and the keeper's */
    const double free_gib = (double)m->free_mib / 1024;
    const double need = (double)(all.weights + all.state + all.scratch) / GIB + contexts;
    snprintf(found, sizeof found,
             "%s: needs %.1f GiB (weights %.2f, state %.2f, scratch %.2f, contexts %.1f), %.1f of "
             "%.1f are free",
             name, need, (double)all.weights / GIB, (double)all.state / GIB,
             (double)all.scratch / GIB, contexts, free_gib, (double)m->all_mib / 1024);
    doctor_say(d, need <= free_gib ? GOOD : BAD, "memory", found,
               "end what else runs there, or change [place]");
}

/* Clean passes elsewhere write into the DiT's KV cache: through a map of it, unless no process can
 * map another's. */
static void check_clean(struct doctor *d)
{
    char found[TEXT_BYTES];
    const char *clean = d->conf->place.clean, *dit = d->conf->place.dit;
    if (clean[0] == '\0' || strcmp(clean, dit) == 0) return;
    if (machine_share(d->bin_dir, dit, dit) != OK) return;
    if (machine_share(d->bin_dir, dit, clean) == OK) return;
    snprintf(found, sizeof found, "place.clean = %s, place.dit = %s: %s", clean, dit, err_text());
    doctor_say(d, BAD, "peer access", found, "leave place.clean empty");
}

/* Without it latents go from one device to another through the host: this is news, not a need. */
static void check_peers(struct doctor *d)
{
    char found[TEXT_BYTES];
    for (int i = 0; i < PLACES; i++) {
        for (int j = i + 1; j < PLACES; j++) {
            const char *a = new_place(d->conf, i), *b = new_place(d->conf, j);
            if (!a || !b || strcmp(a, "cpu") == 0 || strcmp(b, "cpu") == 0) continue;
            const err_t e = machine_share(d->bin_dir, a, b);
            snprintf(found, sizeof found, "%s and %s: %s", a, b, e == OK ? "mapped" : err_text());
            doctor_say(d, e == OK ? GOOD : NOTE, "peer access", found,
                       "not needed, latents between them then go through the host");
        }
    }
}

static bool check_device(struct doctor *d, const char *name, struct machine_device *m)
{
    char found[TEXT_BYTES];
    if (machine_device(d->bin_dir, name, m) != OK) {
        doctor_say(d, d->conf ? BAD : NOTE, "device", err_text(),
                   d->conf ? "mend that, or change [place]" : "use cpu");
        return false;
    }
    if (m->all_mib > 0) snprintf(found, sizeof found, "%s: %s", name, m->text);
    else snprintf(found, sizeof found, "%s", name);
    doctor_say(d, GOOD, "device", found, "");
    return m->all_mib > 0;
}

void doctor_devices(struct doctor *d)
{
    struct machine_device m;
    if (!d->conf) {
        doctor_say(d, GOOD, "device", "cpu", "");
        if (check_device(d, "cuda:0", &m)) check_share(d, "cuda:0");
        return;
    }
    bool has_all = true;
    for (int i = 0; i < PLACES; i++) {
        const char *name = new_place(d->conf, i);
        if (!name) continue;
        if (check_device(d, name, &m)) {
            check_share(d, name);
            check_memory(d, name, &m);
        } else if (strcmp(name, "cpu") != 0) {
            has_all = false;
        } else {
            check_room(d);
        }
    }
    if (has_all) {
        check_peers(d);
        check_clean(d);
    }
}
