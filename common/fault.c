/* fault.c - see fault.h. */
#include "common/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/conf.h"

enum { STAGES = 4, GATEWAY = 3 };
static const char *const stages[STAGES] = {"text", "dit", "vae", "gateway"};

static const struct place {
    const char *name;
    bool can_fail;
} places[FAULT_POINTS] = {
#define PLACE(id, name, can_fail) [FAULT_##id] = {name, can_fail},
    FAULT_SHELL(PLACE) FAULT_OWN(PLACE)
#undef PLACE
};

const char *const fault_action_names[FAULT_ACTIONS] = {
    [FAULT_COUNT] = "count", [FAULT_KILL] = "kill",   [FAULT_STOP] = "stop",
    [FAULT_ABORT] = "abort", [FAULT_DELAY] = "delay", [FAULT_ENOSPC] = "enospc",
    [FAULT_NOMEM] = "nomem",
};

struct fault_page *fault_page;
static int32_t own_stage = -1; /* index in stages */

/* Names: those of the shell, stage by stage, then the others. */
static enum fault_point point_of(int32_t i)
{
    const int32_t shells = STAGES * FAULT_SHELLS;
    return (enum fault_point)(i < shells ? i % FAULT_SHELLS : i - shells + FAULT_SHELLS);
}

static int32_t index_of(enum fault_point p)
{
    if (p >= FAULT_SHELLS) return (int32_t)p - FAULT_SHELLS + STAGES * FAULT_SHELLS;
    return own_stage < 0 ? -1 : own_stage * FAULT_SHELLS + (int32_t)p;
}

const char *fault_name(int32_t i, char name[FAULT_NAME_MAX])
{
    MUST(i >= 0 && i < FAULT_NAMES);
    const enum fault_point p = point_of(i);
    if (p >= FAULT_SHELLS) return places[p].name;
    if (i / FAULT_SHELLS == GATEWAY && p >= FAULT_WEIGHTS_FILLING) return NULL; /* has none */
    snprintf(name, FAULT_NAME_MAX, "%s.%s", stages[i / FAULT_SHELLS], places[p].name);
    return name;
}

int32_t fault_find(const char *name)
{
    char buf[FAULT_NAME_MAX];
    for (int32_t i = 0; i < FAULT_NAMES; i++) {
        const char *known = fault_name(i, buf);
        if (known && strcmp(known, name) == 0) return i;
    }
    return -1;
}

void fault_print_help(FILE *f)
{
    fprintf(f, "| place | enospc, nomem |\n| --- | --- |\n");
    for (int32_t p = 0; p < FAULT_POINTS; p++)
        fprintf(f, "| `%s%s` | %s |\n", p < FAULT_SHELLS ? "STAGE." : "", places[p].name,
                places[p].can_fail ? "yes" : "no");
}

err_t fault_check(const struct conf *c)
{
    const bool is_error = c->fault.action == FAULT_ENOSPC || c->fault.action == FAULT_NOMEM;
    if (!c->fault.point[0]) return OK;
    const int32_t i = fault_find(c->fault.point);
    if (i < 0)
        return FAIL(ERR_CONFIG, "fault.point = %s: no such place (longlived help faults)",
                    c->fault.point);
    if (is_error && !places[point_of(i)].can_fail)
        return FAIL(ERR_CONFIG, "fault.action = %s: %s cannot fail that way",
                    fault_action_names[c->fault.action], c->fault.point);
    return OK;
}

static err_t path_of(char path[PATH_MAX], const char *run_dir)
{
    const int n = snprintf(path, PATH_MAX, "%s/faults", run_dir);
    return n < PATH_MAX ? OK : FAIL(ERR_CONFIG, "run directory: name too long");
}

err_t fault_make(const char *run_dir, const struct conf *c)
{
    err_t e = OK;
    char path[PATH_MAX], buf[FAULT_NAME_MAX];
    struct fault_page *page = NULL;
    int fd = -1;
    if (!c->fault.point[0]) return OK;
    TRY(path_of(path, run_dir));
    page = calloc(1, sizeof *page);
    if (!page) return FAIL(ERR_NOMEM, "faults");
    page->version = FAULT_VERSION;
    page->n_names = FAULT_NAMES;
    for (int32_t i = 0; i < FAULT_NAMES; i++) {
        const char *name = fault_name(i, buf);
        if (name) snprintf(page->names[i], FAULT_NAME_MAX, "%s", name);
    }
    page->armed = (uint64_t)fault_find(c->fault.point) + 1;
    page->action = (uint64_t)c->fault.action;
    page->at = (uint64_t)c->fault.at;
    page->repeat = c->fault.repeat;
    page->delay_ms = (uint64_t)c->fault.delay_ms;
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, page, sizeof *page) != (ssize_t)sizeof *page)
        e = FAIL(ERR_WRITE, "%s: %s", path, strerror(errno));
out:
    if (fd >= 0) close(fd);
    free(page);
    return e;
}

err_t fault_open(const char *run_dir, const char *process)
{
    err_t e = OK;
    char path[PATH_MAX];
    struct stat st;
    TRY(path_of(path, run_dir));
    const int fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return OK;
    struct fault_page *page = MAP_FAILED;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == (off_t)sizeof *page)
        page = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (page == MAP_FAILED || page->version != FAULT_VERSION || page->n_names != FAULT_NAMES)
        return FAIL(ERR_CONFIG, "%s: not a page of faults of this version", path);
    for (int32_t i = 0; i < STAGES; i++)
        if (strcmp(stages[i], process) == 0) own_stage = i;
    fault_page = page;
out:
    return e;
}

static void end_by(int sig)
{
    kill(getpid(), sig);
    for (;;) pause();
}

static err_t fire(int32_t i)
{
    char buf[FAULT_NAME_MAX];
    const char *name = fault_name(i, buf);
    atomic_fetch_add(&fault_page->n_fired, 1);
    switch ((enum fault_action)atomic_load(&fault_page->action)) {
    case FAULT_KILL:
        end_by(SIGKILL);
        break;
    case FAULT_STOP:
        kill(getpid(), SIGSTOP);
        break;
    case FAULT_ABORT:
        abort();
    case FAULT_DELAY:
        sleep_ns((int64_t)atomic_load(&fault_page->delay_ms) * NS_PER_MS);
        break;
    case FAULT_ENOSPC:
        return FAIL(ERR_WRITE, "fault at %s: %s", name, strerror(ENOSPC));
    case FAULT_NOMEM:
        return FAIL(ERR_NOMEM, "fault at %s: no memory", name);
    default:
        break;
    }
    return OK;
}

err_t fault_pass(enum fault_point p)
{
    const int32_t i = index_of(p);
    if (i < 0) return OK; /* a test's process */
    const uint64_t n = atomic_load(&fault_page->n_passed[i]) + 1;
    atomic_store(&fault_page->n_passed[i], n);
    uint64_t armed = (uint64_t)i + 1;
    if (atomic_load(&fault_page->armed) != armed || n < atomic_load(&fault_page->at)) return OK;
    /* Disarmed first: the successor of who dies here passes on. */
    if (!atomic_load(&fault_page->repeat) &&
        !atomic_compare_exchange_strong(&fault_page->armed, &armed, 0))
        return OK;
    return fire(i);
}
