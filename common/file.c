/* file.c - see file.h. */
#include "common/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

err_t file_read(const char *path, size_t n_bytes_max, char **data, size_t *n_bytes)
{
    err_t e = OK;
    char *buf = NULL;
    size_t n = 0;
    struct stat st;
    /* O_NONBLOCK: opening a FIFO that nobody writes to must not wait. */
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) < 0) {
        e = FAIL(ERR_NOINPUT, "%s: %s", path, strerror(errno));
        goto out;
    }
    if (!S_ISREG(st.st_mode)) {
        e = FAIL(ERR_NOINPUT, "%s: %s", path,
                 S_ISDIR(st.st_mode) ? strerror(EISDIR) : "not a regular file");
        goto out;
    }
    /* One byte more than the size seen, so that a file still growing is noticed as too large. */
    const size_t cap = st.st_size < (off_t)n_bytes_max ? (size_t)st.st_size : n_bytes_max;
    buf = malloc(cap + 2);
    if (!buf) {
        e = FAIL(ERR_NOMEM, "%s: %zu bytes", path, cap);
        goto out;
    }
    while (n < cap + 1) {
        const ssize_t got = read(fd, buf + n, cap + 1 - n);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) {
            e = FAIL(ERR_NOINPUT, "%s: %s", path, strerror(errno));
            goto out;
        }
        if (got == 0) break;
        n += (size_t)got;
    }
    if (n > n_bytes_max) {
        e = FAIL(ERR_LIMIT, "%s: larger than %zu bytes", path, n_bytes_max);
        goto out;
    }
    if (n > cap) {
        e = FAIL(ERR_NOINPUT, "%s: grew while it was read", path);
        goto out;
    }
    buf[n] = '\0';
    *data = buf;
    *n_bytes = n;
    buf = NULL;
out:
    free(buf);
    if (fd >= 0) close(fd);
    return e;
}

static int write_all(int fd, const char *data, size_t n_bytes)
{
    for (size_t n = 0; n < n_bytes;) {
        const ssize_t put = write(fd, data + n, n_bytes - n);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return -1;
        n += (size_t)put;
    }
    return fsync(fd);
}

err_t file_check_replaceable(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0 || S_ISREG(st.st_mode)) return OK; /* what is amiss open will say */
    return FAIL(ERR_WRITE, "%s: %s", path,
                S_ISDIR(st.st_mode) ? strerror(EISDIR) : "not a regular file");
}

err_t file_write(const char *path, const char *data, size_t n_bytes)
{
    err_t e = OK;
    char *tmp = NULL;
    int fd = -1;
    TRY(file_check_replaceable(path));
    if (asprintf(&tmp, "%s.XXXXXX", path) < 0) return FAIL(ERR_NOMEM, "%s", path);
    fd = mkostemp(tmp, O_CLOEXEC); /* mode 0600: a job holds what a user typed */
    if (fd < 0) {
        e = FAIL(ERR_WRITE, "%s: %s", path, strerror(errno));
    } else if (write_all(fd, data, n_bytes) < 0 || rename(tmp, path) < 0) {
        e = FAIL(ERR_WRITE, "%s: %s", path, strerror(errno));
        unlink(tmp);
    }
    if (fd >= 0) close(fd);
    free(tmp);
out:
    return e;
}
