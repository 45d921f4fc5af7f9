/* rundir.c - see rundir.h. */
#include "procs/supervisor/rundir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define MARKER "longlived.run"
#define LOCK "lock"
#define PREPARED "prepared"
#define KEEPER_LOCK "keeper.lock"
#define SHM "/dev/shm/longlived-"

enum { DEPTH_MAX = 4, ENTRIES_MAX = 100000 };

err_t rundir_path(char out[RUNDIR_PATH_MAX], const char *wish, const char *name)
{
    char cwd[4096] = "";
    int n;
    if (!wish || !*wish) n = snprintf(out, RUNDIR_PATH_MAX, SHM "%u/%s", (unsigned)getuid(), name);
    else if (*wish == '/') n = snprintf(out, RUNDIR_PATH_MAX, "%s", wish);
    else if (getcwd(cwd, sizeof cwd)) n = snprintf(out, RUNDIR_PATH_MAX, "%s/%s", cwd, wish);
    else return FAIL(ERR_CONFIG, "run directory %s: %s", wish, strerror(errno));
    if (n < 0 || n >= RUNDIR_PATH_MAX)
        return FAIL(ERR_CONFIG, "run directory %s: longer than %d bytes with its path",
                    wish && *wish ? wish : name, RUNDIR_PATH_MAX - 1);
    for (n--; n > 0 && out[n] == '/'; n--) out[n] = 0;
    return OK;
}

static err_t check_owned(const char *path, const struct stat *st)
{
    if (S_ISLNK(st->st_mode)) return FAIL(ERR_CONFIG, "run directory %s is a symbolic link", path);
    if (!S_ISDIR(st->st_mode)) return FAIL(ERR_CONFIG, "run directory %s: not a directory", path);
    if (st->st_uid != getuid())
        return FAIL(ERR_CONFIG, "run directory %s belongs to uid %u", path, (unsigned)st->st_uid);
    return OK;
}

/* mkdir, or what is there is a directory of ours. */
static err_t make_dir(const char *path)
{
    struct stat st;
    if (mkdir(path, 0700) == 0) return OK;
    if (errno == ENOENT && strncmp(path, SHM, strlen(SHM)) == 0) /* the parent went again */
        return FAIL(ERR_AGAIN, "run directory %s: %s", path, strerror(errno));
    if (errno != EEXIST) return FAIL(ERR_CONFIG, "run directory %s: %s", path, strerror(errno));
    if (lstat(path, &st) != 0)
        return FAIL(ERR_AGAIN, "run directory %s: %s", path, strerror(errno));
    return check_owned(path, &st);
}

/* The parent of the default run directories, which the last user of it may have just removed. */
static err_t make_parent(const char *path)
{
    char parent[RUNDIR_PATH_MAX];
    if (strncmp(path, SHM, strlen(SHM)) != 0) return OK;
    snprintf(parent, sizeof parent, "%s", path);
    *strrchr(parent, '/') = 0;
    return make_dir(parent);
}

static bool is_empty(int dir_fd)
{
    const int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    int n = 0;
    if (!d) {
        if (fd >= 0) close(fd);
        return false;
    }
    for (const struct dirent *e; (e = readdir(d));)
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    closedir(d);
    return n == 0;
}

static bool is_kept(const char *name, const char *const *keep)
{
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) return true;
    for (; keep && *keep; keep++)
        if (strcmp(name, *keep) == 0) return true;
    return false;
}

/* Everything in the directory but `keep`; follows no link, leaves the file system never, and ends:
 * at most DEPTH_MAX deep, *n_left entries. */
static void empty(int dir_fd, dev_t dev, int depth, int32_t *n_left, const char *const *keep)
{
    const int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    struct stat st;
    if (!d) {
        if (fd >= 0) close(fd);
        return;
    }
    for (const struct dirent *e; (e = readdir(d)) && (*n_left)-- > 0;) {
        if (is_kept(e->d_name, keep)) continue;
        if (fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 || st.st_dev != dev) continue;
        if (S_ISDIR(st.st_mode) && depth < DEPTH_MAX) {
            const int sub = openat(fd, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (sub >= 0) {
                empty(sub, dev, depth + 1, n_left, NULL);
                close(sub);
            }
            unlinkat(fd, e->d_name, AT_REMOVEDIR);
        } else if (!S_ISDIR(st.st_mode)) {
            unlinkat(fd, e->d_name, 0);
        }
    }
    closedir(d);
}

static void empty_all_but(int dir_fd, const char *const *keep)
{
    struct stat st;
    int32_t n_left = ENTRIES_MAX;
    if (fstat(dir_fd, &st) == 0) empty(dir_fd, st.st_dev, 0, &n_left, keep);
}

static int take_lock(int fd)
{
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return fcntl(fd, F_OFD_SETLK, &l);
}

/* An OFD lock does not name its holder, so the holder writes its pid into the file. */
static pid_t pid_in(int fd)
{
    char text[16] = "";
    if (pread(fd, text, sizeof text - 1, 0) <= 0) return 0;
    const long pid = strtol(text, NULL, 10);
    return pid > 0 && pid < INT32_MAX ? (pid_t)pid : 0;
}

/* Or has the last holder moved it away between our open and now? */
static bool is_at_its_path(const struct rundir *r)
{
    struct stat ours, there;
    return fstat(r->dir_fd, &ours) == 0 && lstat(r->path, &there) == 0 &&
           ours.st_ino == there.st_ino && ours.st_dev == there.st_dev;
}

static err_t lock(struct rundir *r)
{
    struct stat ours, there;
    char text[16];
    r->lock_fd = openat(r->dir_fd, LOCK, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (r->lock_fd < 0)
        return FAIL(errno == ENOENT ? ERR_AGAIN : ERR_CONFIG, "%s/" LOCK ": %s", r->path,
                    strerror(errno));
    if (take_lock(r->lock_fd) != 0) {
        if (errno != EAGAIN && errno != EACCES)
            return FAIL(ERR_CONFIG, "%s/" LOCK ": %s", r->path, strerror(errno));
        return FAIL(ERR_RUNNING, "already running in %s, pid %d", r->path, (int)pid_in(r->lock_fd));
    }
    if (fstat(r->lock_fd, &ours) != 0 || fstatat(r->dir_fd, LOCK, &there, 0) != 0 ||
        ours.st_ino != there.st_ino || !is_at_its_path(r))
        return FAIL(ERR_AGAIN, "%s is being removed", r->path);
    const int n = snprintf(text, sizeof text, "%d\n", (int)getpid());
    if (ftruncate(r->lock_fd, 0) != 0 || pwrite(r->lock_fd, text, (size_t)n, 0) != n)
        return FAIL(ERR_WRITE, "%s/" LOCK ": %s", r->path, strerror(errno));
    return OK;
}

static void close_fds(struct rundir *r)
{
    const int fds[] = {r->dir_fd, r->log_fd, r->lock_fd};
    for (int i = 0; i < 3; i++)
        if (fds[i] >= 0) close(fds[i]);
    r->dir_fd = r->log_fd = r->lock_fd = -1;
}

/* Prepared for another supervisor, whose keeper lives. */
static err_t check_unsupervised(const struct rundir *r)
{
    err_t e = OK;
    struct stat st;
    if (fstatat(r->dir_fd, PREPARED, &st, AT_SYMLINK_NOFOLLOW) != 0) return OK;
    const int fd = openat(r->dir_fd, KEEPER_LOCK, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) return OK;
    if (flock(fd, LOCK_EX | LOCK_NB) != 0)
        e = FAIL(ERR_RUNNING, "already running in %s under another supervisor, keeper %d", r->path,
                 (int)pid_in(fd));
    close(fd);
    return e;
}

static err_t open_once(struct rundir *r)
{
    static const char *const stay[] = {MARKER, LOCK, NULL};
    err_t e = OK;
    struct stat st;
    int marker = -1;
    TRY(make_parent(r->path));
    TRY(make_dir(r->path));
    r->dir_fd = open(r->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (r->dir_fd < 0 || fstat(r->dir_fd, &st) != 0) {
        e = FAIL(ERR_AGAIN, "run directory %s: %s", r->path, strerror(errno));
        goto out;
    }
    TRY(check_owned(r->path, &st));
    /* In this order: of what longlived makes in a new directory, the marker is first. */
    if (!is_empty(r->dir_fd) && fstatat(r->dir_fd, MARKER, &st, AT_SYMLINK_NOFOLLOW) != 0) {
        e = is_at_its_path(r)
                ? FAIL(ERR_CONFIG, "run directory %s exists and is not one of longlived's", r->path)
                : FAIL(ERR_AGAIN, "%s is being removed", r->path);
        goto out;
    }
    marker = openat(r->dir_fd, MARKER, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (marker < 0 || fchmod(r->dir_fd, 0700) != 0) {
        e = FAIL(errno == ENOENT ? ERR_AGAIN : ERR_CONFIG, "run directory %s: %s", r->path,
                 strerror(errno));
        goto out;
    }
    TRY(lock(r));
    TRY(check_unsupervised(r));
    empty_all_but(r->dir_fd, stay);
    if (mkdirat(r->dir_fd, "log", 0700) != 0 ||
        (r->log_fd = openat(r->dir_fd, "log", O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
        e = FAIL(ERR_CONFIG, "%s/log: %s", r->path, strerror(errno));
out:
    if (marker >= 0) close(marker);
    if (e != OK) close_fds(r);
    return e;
}

err_t rundir_open(struct rundir *out, const char *path)
{
    struct rundir r = {.dir_fd = -1, .lock_fd = -1, .log_fd = -1};
    err_t e = ERR_AGAIN;
    const int n = snprintf(r.path, sizeof r.path, "%s", path);
    MUST(n > 0 && n < RUNDIR_PATH_MAX);
    for (int i = 0; i < 20 && e == ERR_AGAIN; i++) { /* somebody removes it while we take it */
        if (i > 0) usleep(10000);
        e = open_once(&r);
    }
    if (e == OK) *out = r;
    return e;
}

/* Out of the way first, in one act: a newcomer finds the whole directory of ours, held, or none.
 * One who has opened this one may still put a marker and a lock into it, before it sees that it is
 * no longer at its path; hence several turns. */
static void remove_dir(struct rundir *r)
{
    char gone[RUNDIR_PATH_MAX + 32];
    snprintf(gone, sizeof gone, "%s.gone-%d", r->path, (int)getpid());
    const char *path = rename(r->path, gone) == 0 ? gone : r->path;
    for (int i = 0; i < 100; i++) {
        empty_all_but(r->dir_fd, NULL);
        if (rmdir(path) == 0 || errno != ENOTEMPTY) break;
        usleep(1000);
    }
    if (strncmp(r->path, SHM, strlen(SHM)) == 0) {
        *strrchr(r->path, '/') = 0;
        rmdir(r->path); /* goes only when it is empty */
    }
}

void rundir_close(struct rundir *r, bool is_log_kept)
{
    static const char *const log_stays[] = {"log", "ledger", "config.ini", MARKER, NULL};
    static const char *const lock_stays[] = {LOCK, MARKER, NULL};
    struct stat st;
    if (r->dir_fd < 0) return;
    const bool is_ours = fstatat(r->dir_fd, MARKER, &st, AT_SYMLINK_NOFOLLOW) == 0;
    if (is_ours && is_log_kept) empty_all_but(r->dir_fd, log_stays);
    if (is_ours && !is_log_kept) {
        empty_all_but(r->dir_fd,
                      lock_stays); /* the bulk: killed here, it is still found and ours */
        remove_dir(r);
    }
    close_fds(r);
}

err_t rundir_prepared(struct rundir *r)
{
    const int fd = openat(r->dir_fd, PREPARED, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) return FAIL(ERR_WRITE, "%s/" PREPARED ": %s", r->path, strerror(errno));
    close(fd);
    close_fds(r);
    return OK;
}

bool rundir_is_prepared(const char *path)
{
    char name[RUNDIR_PATH_MAX + 16];
    snprintf(name, sizeof name, "%s/" PREPARED, path);
    return access(name, F_OK) == 0;
}

pid_t rundir_holder(const char *path)
{
    char name[RUNDIR_PATH_MAX + 8];
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    snprintf(name, sizeof name, "%s/" LOCK, path);
    const int fd = open(name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    pid_t pid = 0;
    if (fd < 0) return 0;
    if (fcntl(fd, F_OFD_GETLK, &l) == 0 && l.l_type != F_UNLCK) pid = pid_in(fd);
    close(fd);
    return pid;
}

err_t rundir_lock_file(const char *path, const char *name, int *fd)
{
    char file[RUNDIR_PATH_MAX + 64];
    snprintf(file, sizeof file, "%s/%s", path, name);
    const int f = open(file, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (f < 0) return FAIL(ERR_NONE, "%s: %s", file, strerror(errno));
    if (take_lock(f) != 0) {
        close(f);
        return FAIL(ERR_AGAIN, "another command is at work in %s", path);
    }
    *fd = f;
    return OK;
}
