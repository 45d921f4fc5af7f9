/* file.c - see file.h. */
#include "procs/gateway/file.h"
#include "common/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

err_t file_open(int *fd, const char *path, bool resume, int64_t *n_bytes)
{
    struct stat st;
    /* O_NONBLOCK is for a pipe without a reader, which is refused below rather than waited for. */
    const int f = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0666);
    if (f < 0) return FAIL(ERR_WRITE, "cannot write %s: %s", path, strerror(errno));

    err_t e = OK;
    if (fstat(f, &st) != 0) e = FAIL(ERR_WRITE, "cannot write %s: %s", path, strerror(errno));
    else if (!S_ISREG(st.st_mode) && !S_ISCHR(st.st_mode))
        e = FAIL(ERR_WRITE, "cannot write %s: it is not a file", path);
    else if (!resume) e = file_cut(f, path, 0);
    if (e != OK) {
        close(f);
        return e;
    }
    *fd = f;
    *n_bytes = resume && S_ISREG(st.st_mode) ? st.st_size : 0;
    return OK;
}

err_t file_read_at(int fd, const char *path, int64_t at_bytes, void *to, size_t n_bytes)
{
    uint8_t *p = to;
    while (n_bytes > 0) {
        const ssize_t n = pread(fd, p, n_bytes, at_bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return FAIL(ERR_NOINPUT, "cannot read %s: %s", path, strerror(errno));
        if (n == 0) return FAIL(ERR_NOINPUT, "cannot read %s: it became shorter", path);
        p += n;
        at_bytes += n;
        n_bytes -= (size_t)n;
    }
    return OK;
}

/* 0, or the errno of the write that failed. */
static int write_all(int fd, int64_t at_bytes, const uint8_t *p, size_t n_bytes)
{
    while (n_bytes > 0) {
        const ssize_t n = pwrite(fd, p, n_bytes, at_bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return n < 0 ? errno : EIO;
        p += n;
        at_bytes += n;
        n_bytes -= (size_t)n;
    }
    return 0;
}

static err_t take_back(int fd, const char *path, int64_t at_bytes, int why)
{
    while (ftruncate(fd, at_bytes) != 0 && errno == EINTR) continue;
    return FAIL(why == ENOSPC || why == EDQUOT ? ERR_FULL : ERR_WRITE, "cannot write %s: %s", path,
                strerror(why));
}

err_t file_write_at(int fd, const char *path, int64_t at_bytes, const void *from, size_t n_bytes)
{
    const int why = write_all(fd, at_bytes, from, n_bytes);
    return why == 0 ? OK : take_back(fd, path, at_bytes, why);
}

err_t file_commit_at(int fd, const char *path, int64_t at_bytes, const void *from, size_t n_bytes,
                     size_t n_head)
{
    const uint8_t *p = from;
    MUST(n_head <= n_bytes);
    int why = write_all(fd, at_bytes + (int64_t)n_head, p + n_head, n_bytes - n_head);
    if (why == 0 && fault(FAULT_GATEWAY_BODY) != OK) why = ENOSPC;
    if (why == 0) why = write_all(fd, at_bytes, p, n_head);
    return why == 0 ? OK : take_back(fd, path, at_bytes, why);
}

err_t file_cut(int fd, const char *path, int64_t n_bytes)
{
    struct stat st;
    if (fstat(fd, &st) == 0 && !S_ISREG(st.st_mode)) return OK;
    while (ftruncate(fd, n_bytes) != 0)
        if (errno != EINTR)
            return FAIL(ERR_WRITE, "cannot cut %s to %lld bytes: %s", path, (long long)n_bytes,
                        strerror(errno));
    return OK;
}
