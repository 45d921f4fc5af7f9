/* vault.c - see vault.h. */
#include "procs/keeper/vault.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/fault.h"
#include "common/log.h"
#include "ipc/ledger.h"

enum { TABLE_VERSION = 2, DEVICES_MAX = 16, BOOT_ID_BYTES = 40 };

/* A name keeps its record for the life of the run, and with it its count of incarnations. */
struct lease {
    char name[KEEPER_NAME_MAX];
    counter incarnation;
    counter pid; /* 0: nobody; stored last */
    uint64_t start;
};

/* is_valid goes to 0 before, and to 1 after anything else but state changes. generation stays. */
struct record {
    char name[KEEPER_NAME_MAX];
    counter is_valid;
    counter generation;
    counter state; /* enum region_state */
    uint64_t filler_pid, filler_start;
    char device[KEEPER_NAME_MAX];
    uint64_t layout;
    uint8_t identity[32];
    struct dev_share share;
};

struct table {
    uint64_t version, n_bytes;
    char boot_id[BOOT_ID_BYTES];
    counter n_leases, n_records;
    struct lease leases[VAULT_LEASES_MAX];
    struct record records[KEEPER_REGIONS_MAX];
};

struct vault {
    char dir[DEV_PATH_MAX];
    struct device {
        char name[KEEPER_NAME_MAX];
        struct dev *dev;
    } devices[DEVICES_MAX]; /* opened when first asked for: a GPU costs half a gigabyte */
    struct table *table;
    int watch_fds[VAULT_LEASES_MAX]; /* of each lease's holder, or -1 */
};

/* --- processes ------------------------------------------------------------------------------- */

err_t process_of(pid_t pid, struct process *out)
{
    char path[64], line[1024];
    unsigned long long start = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "re");
    const bool has_line = f && fgets(line, sizeof line, f);
    if (f) fclose(f);
    if (!has_line) return FAIL(ERR_NONE, "process %d: gone", (int)pid);

    /* The name, second field, may hold anything: count fields from its closing bracket. */
    const char *at = strrchr(line, ')');
    if (!at || sscanf(at + 1,
                      " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d "
                      "%*d %llu",
                      &start) != 1)
        return FAIL(ERR_BUG, "%s: not as proc(5) says", path);
    *out = (struct process){.pid = pid, .start = start};
    return OK;
}

static bool has_ended(int watch_fd)
{
    struct pollfd p = {.fd = watch_fd, .events = POLLIN};
    return poll(&p, 1, 0) > 0;
}

int process_watch(const struct process *p)
{
    struct process now;
    const int fd = (int)syscall(SYS_pidfd_open, p->pid, 0);
    if (fd < 0) return -1;
    /* The start is read after the pidfd exists, so both are of one process. */
    if (process_of(p->pid, &now) == OK && now.start == p->start && !has_ended(fd)) return fd;
    close(fd);
    return -1;
}

static bool is_alive(const struct process *p)
{
    const int fd = p->pid > 0 ? process_watch(p) : -1;
    if (fd >= 0) close(fd);
    return fd >= 0;
}

static bool is_same(const struct process *a, const struct process *b)
{
    return a->pid == b->pid && a->start == b->start;
}

/* --- the table ------------------------------------------------------------------------------- */

static void read_boot_id(char out[BOOT_ID_BYTES])
{
    memset(out, 0, BOOT_ID_BYTES);
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (!f) return;
    if (!fgets(out, BOOT_ID_BYTES, f)) out[0] = '\0';
    fclose(f);
}

static bool is_terminated(const char s[KEEPER_NAME_MAX])
{
    return memchr(s, '\0', KEEPER_NAME_MAX) != NULL;
}

static bool is_sound(const struct table *t)
{
    char boot_id[BOOT_ID_BYTES];
    read_boot_id(boot_id);
    if (t->version != TABLE_VERSION || t->n_bytes != sizeof *t) return false;
    if (memcmp(t->boot_id, boot_id, sizeof boot_id) != 0) return false;
    const uint64_t n_leases = ledger_read(&t->n_leases), n_records = ledger_read(&t->n_records);
    if (n_leases > VAULT_LEASES_MAX || n_records > KEEPER_REGIONS_MAX) return false;
    for (uint64_t i = 0; i < n_leases; i++)
        if (!is_terminated(t->leases[i].name)) return false;
    for (uint64_t i = 0; i < n_records; i++)
        if (!is_terminated(t->records[i].name) || !is_terminated(t->records[i].device))
            return false;
    return true;
}

/* Maps the file, adopting what it holds if that is a table of this boot and version. */
static err_t table_map(const char *path, struct table **out)
{
    err_t e = OK;
    struct stat st;
    struct table *t = MAP_FAILED;
    const int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) return FAIL(ERR_WRITE, "%s: %s", path, strerror(errno));
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        e = FAIL(ERR_WRITE, "%s: not a file", path);
        goto out;
    }
    const bool had_size = st.st_size == (off_t)sizeof *t;
    if (!had_size && ftruncate(fd, 0) != 0) {
        e = FAIL(ERR_WRITE, "%s: %s", path, strerror(errno));
        goto out;
    }
    const int full = posix_fallocate(fd, 0, sizeof *t);
    if (full != 0) {
        e = FAIL(ERR_NOMEM, "%s: %zu bytes: %s", path, sizeof *t, strerror(full));
        goto out;
    }
    t = mmap(NULL, sizeof *t, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (t == MAP_FAILED) {
        e = FAIL(ERR_NOMEM, "%s: %s", path, strerror(errno));
        goto out;
    }
    if (!had_size || !is_sound(t)) {
        if (st.st_size > 0) log_warn("regions_anew", "why=\"not a table of this boot\"");
        memset(t, 0, sizeof *t);
        read_boot_id(t->boot_id);
        t->n_bytes = sizeof *t;
        atomic_signal_fence(memory_order_seq_cst); /* the version makes the rest count */
        t->version = TABLE_VERSION;
    }
    *out = t;
out:
    close(fd);
    return e;
}

static err_t device_of(struct vault *v, const char *name, struct dev **out)
{
    err_t e = OK;
    struct device *at = v->devices;
    while (at < v->devices + DEVICES_MAX && at->dev && strcmp(at->name, name) != 0) at++;
    if (at == v->devices + DEVICES_MAX) return FAIL(ERR_LIMIT, "%s: too many devices", name);
    if (!at->dev) TRY(dev_open(&at->dev, name, 1));
    snprintf(at->name, sizeof at->name, "%s", name);
    *out = at->dev;
out:
    return e;
}

/* Memory of a GPU is not there any more after the keeper that made it. */
static bool is_there(struct vault *v, const struct record *r)
{
    struct dev *d = NULL;
    for (struct device *at = v->devices; at < v->devices + DEVICES_MAX; at++)
        if (at->dev && strcmp(at->name, r->device) == 0)
            return dev_share_check(at->dev, &r->share) == OK;
    return strcmp(r->device, "cpu") == 0 && device_of(v, "cpu", &d) == OK &&
           dev_share_check(d, &r->share) == OK;
}

static void adopt(struct vault *v)
{
    struct table *t = v->table;
    for (uint64_t i = 0; i < ledger_read(&t->n_records); i++) {
        struct record *r = &t->records[i];
        if (!ledger_read(&r->is_valid)) continue;
        const bool is_kept = is_there(v, r);
        if (!is_kept) ledger_publish(&r->is_valid, 0);
        log_info("adopted", "region=%s bytes=%" PRIu64 " generation=%" PRIu64 " is_there=%d",
                 r->name, r->share.n_bytes, ledger_read(&r->generation), is_kept);
    }
    for (uint64_t i = 0; i < ledger_read(&t->n_leases); i++) {
        struct lease *l = &t->leases[i];
        const struct process holder = {.pid = (pid_t)ledger_read(&l->pid), .start = l->start};
        v->watch_fds[i] = holder.pid > 0 ? process_watch(&holder) : -1;
        if (v->watch_fds[i] >= 0) log_info("adopted", "lease=%s pid=%d", l->name, (int)holder.pid);
    }
}

err_t vault_open(struct vault **out, const char *run_dir)
{
    err_t e = OK;
    char path[DEV_PATH_MAX + 16];
    struct vault *v = calloc(1, sizeof *v);
    if (!v) return FAIL(ERR_NOMEM, "vault");
    for (int i = 0; i < VAULT_LEASES_MAX; i++) v->watch_fds[i] = -1;

    /* Room for "/region." and a name. */
    if (strlen(run_dir) + 8 + KEEPER_NAME_MAX > sizeof v->dir) {
        e = FAIL(ERR_CONFIG, "%s: name too long for a run directory", run_dir);
        goto out;
    }
    snprintf(v->dir, sizeof v->dir, "%s", run_dir);
    snprintf(path, sizeof path, "%s/regions", run_dir);
    TRY(table_map(path, &v->table));
    adopt(v);

    *out = v;
    v = NULL;
out:
    vault_close(&v);
    return e;
}

void vault_close(struct vault **v)
{
    if (!v || !*v) return;
    for (int i = 0; i < VAULT_LEASES_MAX; i++)
        if ((*v)->watch_fds[i] >= 0) close((*v)->watch_fds[i]);
    if ((*v)->table) munmap((*v)->table, sizeof *(*v)->table);
    for (int i = 0; i < DEVICES_MAX; i++) dev_close(&(*v)->devices[i].dev);
    free(*v);
    *v = NULL;
}

/* Names become file names. */
static err_t check_name(const char *name)
{
    const size_t n = strnlen(name, KEEPER_NAME_MAX);
    if (n == 0 || n == KEEPER_NAME_MAX ||
        strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789.") != n)
        return FAIL(ERR_DATA, "a name is 1 to %d of a-z, 0-9 and dot", KEEPER_NAME_MAX - 1);
    return OK;
}

/* --- leases ---------------------------------------------------------------------------------- */

static err_t find_lease(struct vault *v, const char *name, uint64_t *index)
{
    err_t e = OK;
    struct table *t = v->table;
    const uint64_t n = ledger_read(&t->n_leases);
    TRY(check_name(name));
    for (*index = 0; *index < n; (*index)++)
        if (strcmp(t->leases[*index].name, name) == 0) return OK;
    if (n == VAULT_LEASES_MAX)
        return FAIL(ERR_LIMIT, "%s: all %" PRIu64 " names are taken", name, n);
    memset(&t->leases[n], 0, sizeof t->leases[n]);
    memcpy(t->leases[n].name, name, strlen(name));
    ledger_publish(&t->n_leases, n + 1);
out:
    return e;
}

err_t vault_lease(struct vault *v, const char *name, const struct process *who,
                  uint64_t *incarnation, int *watch_fd)
{
    err_t e = OK;
    uint64_t at = 0;
    TRY(find_lease(v, name, &at));
    struct lease *l = &v->table->leases[at];
    int *fd = &v->watch_fds[at];
    const struct process holder = {.pid = (pid_t)ledger_read(&l->pid), .start = l->start};

    if (*fd >= 0 && !has_ended(*fd)) {
        *watch_fd = *fd;
        if (!is_same(&holder, who))
            return FAIL(ERR_RUNNING, "%s: process %d holds the lease", name, (int)holder.pid);
        *incarnation = ledger_read(&l->incarnation); /* asked again, after a keeper's death, say */
        return OK;
    }
    const int new_fd = process_watch(who);
    if (new_fd < 0) return FAIL(ERR_NONE, "%s: process %d: gone", name, (int)who->pid);
    if (*fd >= 0) close(*fd);
    *fd = new_fd;
    TRY(fault(FAULT_KEEPER_LEASE));
    ledger_publish(&l->pid, 0);
    TRY(fault(FAULT_KEEPER_LEASE_TAKEN));
    l->start = who->start;
    ledger_add(&l->incarnation, 1);
    ledger_publish(&l->pid, (uint64_t)who->pid);
    TRY(fault(FAULT_KEEPER_LEASED));
    *incarnation = ledger_read(&l->incarnation);
    log_info("lease", "name=%s pid=%d incarnation=%" PRIu64, name, (int)who->pid, *incarnation);
out:
    return e;
}

/* --- regions --------------------------------------------------------------------------------- */

static struct record *find_record(const struct vault *v, const char *name)
{
    const uint64_t n = ledger_read(&v->table->n_records);
    for (uint64_t i = 0; i < n; i++)
        if (strcmp(v->table->records[i].name, name) == 0) return &v->table->records[i];
    return NULL;
}

static err_t add_record(struct vault *v, const char *name, struct record **out)
{
    const uint64_t n = ledger_read(&v->table->n_records);
    struct record *r = &v->table->records[n];
    if (n == KEEPER_REGIONS_MAX)
        return FAIL(ERR_LIMIT, "region %s: all %" PRIu64 " names are taken", name, n);
    memset(r, 0, sizeof *r);
    memcpy(r->name, name, strlen(name));
    ledger_publish(&v->table->n_records, n + 1);
    *out = r;
    return OK;
}

static struct process filler_of(const struct record *r)
{
    return (struct process){.pid = (pid_t)r->filler_pid, .start = r->filler_start};
}

static bool has_identity(const uint8_t identity[32])
{
    static const uint8_t none[32];
    return memcmp(identity, none, sizeof none) != 0;
}

static bool is_as_asked(struct vault *v, const struct record *r, const struct keeper_request *req)
{
    return ledger_read(&r->is_valid) && strcmp(r->device, req->device) == 0 &&
           r->share.n_bytes == req->n_bytes && r->layout == req->layout &&
           memcmp(r->identity, req->identity, sizeof r->identity) == 0 && is_there(v, r);
}

static void drop(struct vault *v, struct record *r)
{
    if (!ledger_read(&r->is_valid)) return;
    struct dev *d = NULL;
    ledger_publish(&r->is_valid, 0);
    if (device_of(v, r->device, &d) == OK) dev_share_drop(d, &r->share);
    log_info("region_dropped", "region=%s generation=%" PRIu64, r->name,
             ledger_read(&r->generation));
}

static err_t make(struct vault *v, struct record *r, const struct process *who,
                  const struct keeper_request *req)
{
    err_t e = OK;
    struct dev *d = NULL;
    char path[DEV_PATH_MAX + 2 * KEEPER_NAME_MAX];
    const bool is_ledger = strcmp(r->name, "ledger") == 0;
    snprintf(path, sizeof path, "%s/%s%s", v->dir, is_ledger ? "" : "region.", r->name);

    drop(v, r); /* first, or both would have to fit */
    TRY(fault(FAULT_KEEPER_DROPPED));
    ledger_add(&r->generation, 1);
    TRY(device_of(v, req->device, &d));
    TRY(dev_share_make(d, path, req->n_bytes, &r->share));
    TRY(fault(FAULT_KEEPER_MADE));
    memcpy(r->device, req->device, sizeof r->device);
    memcpy(r->identity, req->identity, sizeof r->identity);
    r->layout = req->layout;
    r->filler_pid = (uint64_t)who->pid;
    r->filler_start = who->start;
    ledger_publish(&r->state, has_identity(req->identity) ? REGION_FILLING : REGION_SEALED);
    ledger_publish(&r->is_valid, 1);
    TRY(fault(FAULT_KEEPER_RECORDED));
    log_info("region_made", "region=%s bytes=%" PRIu64 " generation=%" PRIu64 " pid=%d", r->name,
             req->n_bytes, ledger_read(&r->generation), (int)who->pid);
out:
    return e == OK ? OK : err_prefix(e, "region %s of %" PRIu64 " bytes", req->name, req->n_bytes);
}

static void describe(const struct record *r, struct keeper_reply *rep)
{
    memcpy(rep->name, r->name, sizeof rep->name);
    memcpy(rep->device, r->device, sizeof rep->device);
    rep->generation = ledger_read(&r->generation);
    rep->state = (uint32_t)ledger_read(&r->state);
    rep->share = r->share;
}

err_t vault_region(struct vault *v, const struct process *who, const struct keeper_request *req,
                   struct keeper_reply *rep)
{
    err_t e = OK;
    TRY(check_name(req->name));
    TRY(dev_check(req->device));
    if (req->n_bytes == 0) return FAIL(ERR_DATA, "region %s: of 0 bytes", req->name);

    struct record *r = find_record(v, req->name);
    const bool is_as = r && is_as_asked(v, r, req);
    const bool is_filling =
        r && ledger_read(&r->is_valid) && ledger_read(&r->state) != REGION_SEALED;
    const struct process filler = r ? filler_of(r) : (struct process){0};
    const bool is_filled_by_other = is_filling && !is_same(&filler, who) && is_alive(&filler);
    if (is_filled_by_other && !is_as)
        return FAIL(ERR_RUNNING, "region %s: process %d fills it with something else", req->name,
                    (int)filler.pid);
    if (!r) TRY(add_record(v, req->name, &r));
    const bool has_lost_filler = is_filling && !is_same(&filler, who) && !is_filled_by_other;
    rep->is_new = !is_as || has_lost_filler;
    if (rep->is_new) TRY(make(v, r, who, req));
    describe(r, rep);
out:
    return e;
}

err_t vault_seal(struct vault *v, const struct process *who, const char *name,
                 struct keeper_reply *rep)
{
    struct record *r = find_record(v, name);
    if (!r || !ledger_read(&r->is_valid)) return FAIL(ERR_NONE, "region %s: there is none", name);
    const struct process filler = filler_of(r);
    if (!is_same(&filler, who))
        return FAIL(ERR_BUG, "region %s: process %d seals what %d fills", name, (int)who->pid,
                    (int)filler.pid);
    ledger_publish(&r->state, REGION_SEALED);
    const err_t e = fault(FAULT_KEEPER_SEALED);
    if (e != OK) return e;
    describe(r, rep);
    log_info("region_sealed", "region=%s pid=%d", name, (int)who->pid);
    return OK;
}

err_t vault_free(struct vault *v, const struct process *who, const char *name)
{
    struct record *r = find_record(v, name);
    if (!r || !ledger_read(&r->is_valid)) return FAIL(ERR_NONE, "region %s: there is none", name);
    const struct process filler = filler_of(r);
    if (ledger_read(&r->state) != REGION_SEALED && !is_same(&filler, who) && is_alive(&filler))
        return FAIL(ERR_RUNNING, "region %s: process %d fills it", name, (int)filler.pid);
    drop(v, r);
    return OK;
}

err_t vault_list(const struct vault *v, uint32_t index, struct keeper_reply *rep)
{
    const uint64_t n = ledger_read(&v->table->n_records);
    for (uint64_t i = 0; i < n; i++)
        if (ledger_read(&v->table->records[i].is_valid) && index-- == 0) {
            describe(&v->table->records[i], rep);
            return OK;
        }
    return FAIL(ERR_NONE, "no more regions");
}
