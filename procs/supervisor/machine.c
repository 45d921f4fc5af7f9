/* machine.c - see machine.h. */
#include "procs/supervisor/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/dev.h"
#include "procs/supervisor/child.h"

enum { TRY_MS = 60000, LINE_MAX_BYTES = 512, OUTPUT_BYTES = 8192 };

/* The last line of a text, without its newline. */
static void take_last_line(char *text, char line[LINE_MAX_BYTES])
{
    size_t n = strlen(text);
    while (n > 0 && text[n - 1] == '\n') text[--n] = 0;
    const char *at = strrchr(text, '\n');
    snprintf(line, LINE_MAX_BYTES, "%.*s", LINE_MAX_BYTES - 1, at ? at + 1 : text);
}

/* All that it says until it ends; what goes beyond the buffer is read and dropped. false: it says
 * nothing more, and does not end. */
static bool read_all(int fd, char text[OUTPUT_BYTES])
{
    const int64_t until_ns = now_ns() + (int64_t)TRY_MS * NS_PER_MS;
    char more[256];
    size_t n = 0;
    for (;;) {
        const int64_t left_ms = (until_ns - now_ns()) / NS_PER_MS;
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (left_ms <= 0 || (poll(&p, 1, (int)left_ms) <= 0 && errno != EINTR)) return false;
        const ssize_t one = read(fd, more, sizeof more);
        if (one == 0) return true;
        for (ssize_t i = 0; i < one && n < OUTPUT_BYTES - 1; i++) text[n++] = more[i];
        text[n] = 0;
    }
}

/* argv[0] names the program in bin_dir; line: its last. ERR_NONE with that line if it fails. */
static err_t ask(const char *bin_dir, const char *const argv[], int in_fd,
                 char line[LINE_MAX_BYTES])
{
    char path[340], text[OUTPUT_BYTES] = "";
    int fds[2], status = 0;
    struct child child = {.pidfd = -1};
    line[0] = 0;
    snprintf(path, sizeof path, "%s/%s", bin_dir, argv[0]);
    if (pipe2(fds, O_CLOEXEC) != 0) return FAIL(ERR_AGAIN, "pipe: %s", strerror(errno));
    const struct child_conf c = {.path = path,
                                 .argv = argv,
                                 .in_fd = in_fd,
                                 .out_fd = fds[1],
                                 .err_fd = fds[1],
                                 .ready_fd = -1};
    const err_t e = child_spawn(&child, &c);
    close(fds[1]);
    bool has_ended = false;
    if (e == OK) {
        struct pollfd end = {.fd = child.pidfd, .events = POLLIN};
        if (read_all(fds[0], text)) poll(&end, 1, TRY_MS);
        has_ended = child_has_ended(&child, &status);
        child_kill(&child);
    }
    close(fds[0]);
    if (e != OK) return e;
    take_last_line(text, line);
    if (has_ended && WIFEXITED(status) && WEXITSTATUS(status) == 0) return OK;
    if (line[0]) return FAIL(ERR_NONE, "%s", line);
    return FAIL(ERR_NONE, "%s %s does not answer", argv[0], argv[1]);
}

err_t machine_device(const char *bin_dir, const char *name, struct machine_device *out)
{
    char line[LINE_MAX_BYTES];
    const char *const argv[] = {"longlived-keeper", "--device", name, NULL};
    struct machine_device found = {.text = "cpu"};
    err_t e = dev_check(name);
    if (e == ERR_NONE) { /* neither the CPU nor a wrong name */
        e = ask(bin_dir, argv, -1, line);
        if (e == OK && sscanf(line, "%" SCNu64 " %" SCNu64 " %199[^\n]", &found.free_mib,
                              &found.all_mib, found.text) != 3)
            e = FAIL(ERR_BUG, "longlived-keeper says of %s: %s", name, line);
    }
    if (e == OK && out) *out = found;
    return e;
}

err_t machine_share(const char *bin_dir, const char *name, const char *peer)
{
    char line[LINE_MAX_BYTES];
    const char *const argv[] = {"longlived-keeper", "--device", name, "--peer", peer, NULL};
    return ask(bin_dir, argv, -1, line);
}

err_t machine_conf(const struct conf *c, int *out)
{
    const int fd = memfd_create("config.ini", MFD_CLOEXEC);
    FILE *f = fd >= 0 ? fdopen(dup(fd), "w") : NULL;
    if (!f) return FAIL(ERR_AGAIN, "configuration: %s", strerror(errno));
    conf_write(c, f);
    if (fclose(f) != 0 || lseek(fd, 0, SEEK_SET) != 0) {
        close(fd);
        return FAIL(ERR_NOMEM, "configuration: %s", strerror(errno));
    }
    *out = fd;
    return OK;
}

err_t machine_need(const char *bin_dir, const char *stage, const struct conf *c,
                   struct machine_need *out)
{
    err_t e = OK;
    char program[64], line[LINE_MAX_BYTES];
    const char *const argv[] = {program, "--need", NULL};
    int fd = -1;
    snprintf(program, sizeof program, "longlived-%s", stage);
    TRY(machine_conf(c, &fd));
    TRY(ask(bin_dir, argv, fd, line));
    if (sscanf(line, "%" SCNu64 " %" SCNu64 " %" SCNu64, &out->weights, &out->state,
               &out->scratch) != 3)
        e = FAIL(ERR_BUG, "longlived-%s says of its memory: %s", stage, line);
out:
    if (fd >= 0) close(fd);
    return e;
}
