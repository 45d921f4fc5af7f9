/* logs.c - see logs.h. */
#include "procs/supervisor/logs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void open_file(struct log_pipe *p)
{
    char name[64];
    snprintf(name, sizeof name, "%s.log", p->name);
    p->file_fd = openat(p->dir_fd, name,
                        O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    const off_t end = p->file_fd >= 0 ? lseek(p->file_fd, 0, SEEK_END) : 0;
    p->n_file_bytes = end > 0 ? (int64_t)end : 0;
}

err_t log_pipe_open(struct log_pipe *p, int dir_fd, const char *name)
{
    int fds[2];
    memset(p, 0, sizeof *p);
    p->read_fd = p->write_fd = p->file_fd = -1;
    p->dir_fd = dir_fd;
    snprintf(p->name, sizeof p->name, "%s", name);
    if (pipe2(fds, O_CLOEXEC) != 0) return FAIL(ERR_AGAIN, "pipe for logs: %s", strerror(errno));
    /* Our end alone: the child's writes stay blocking, one line one write. */
    fcntl(fds[0], F_SETFL, O_NONBLOCK);
    p->read_fd = fds[0];
    p->write_fd = fds[1];
    open_file(p);
    return OK;
}

void log_pipe_close(struct log_pipe *p)
{
    const int fds[] = {p->read_fd, p->write_fd, p->file_fd};
    for (int i = 0; i < 3; i++)
        if (fds[i] >= 0) close(fds[i]);
    p->read_fd = p->write_fd = p->file_fd = -1;
}

/* NAME.log.2 -> NAME.log.3, NAME.log.1 -> NAME.log.2, NAME.log -> NAME.log.1 */
static void rotate(struct log_pipe *p)
{
    char from[80], to[80];
    close(p->file_fd);
    for (int i = LOG_FILES - 1; i > 0; i--) {
        snprintf(to, sizeof to, "%s.log.%d", p->name, i);
        if (i == 1) snprintf(from, sizeof from, "%s.log", p->name);
        else snprintf(from, sizeof from, "%s.log.%d", p->name, i - 1);
        renameat(p->dir_fd, from, p->dir_fd, to);
    }
    open_file(p);
}

static void append(struct log_pipe *p, const char *line, int32_t n_line)
{
    char whole[LOG_LINE_MAX + 64];
    struct timespec now;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &now); /* for people; no decision reads it */
    gmtime_r(&now.tv_sec, &tm);
    const size_t n_time = strftime(whole, 32, "%Y-%m-%dT%H:%M:%S", &tm);
    const int n = snprintf(whole + n_time, sizeof whole - n_time, ".%03dZ %.*s\n",
                           (int)(now.tv_nsec / 1000000), (int)n_line, line);
    if (n < 0) return;
    const ssize_t n_whole = (ssize_t)n_time + n;
    if (p->file_fd < 0) open_file(p);
    if (p->file_fd < 0 || write(p->file_fd, whole, (size_t)n_whole) != n_whole) {
        p->n_dropped++;
        return;
    }
    p->n_file_bytes += n_whole;
    if (p->n_file_bytes >= LOG_FILE_BYTES) rotate(p);
}

void log_sentence(const char *line, char *out, int32_t cap)
{
    static const char *const keys[] = {" msg=\"", " what=\""};
    const char *at = NULL;
    for (int i = 0; i < 2 && !at; i++)
        if ((at = strstr(line, keys[i]))) at += strlen(keys[i]);
    const bool is_quoted = at != NULL;
    if (!at && (at = strstr(line, " ev="))) at++;
    if (!at) at = line;
    size_t n = strlen(at);
    /* The last quote ends it: the sentence may quote something itself. */
    for (size_t i = n; is_quoted && i > 0; i--)
        if (at[i - 1] == '"') {
            n = i - 1;
            break;
        }
    snprintf(out, (size_t)cap, "%.*s", (int)(n < (size_t)cap ? n : (size_t)cap), at);
}

static void end_line(struct log_pipe *p)
{
    p->line[p->n_line] = 0;
    for (int32_t i = 0; i < p->n_line; i++) /* a log is looked at on a terminal */
        if ((unsigned char)p->line[i] < 32 || p->line[i] == 127) p->line[i] = ' ';
    if (p->n_line > 0) append(p, p->line, p->n_line);
    if (strncmp(p->line, "level=error ", 12) == 0) log_sentence(p->line, p->error, sizeof p->error);
    /* Why a job failed is said once, by the command that gave it. */
    if (strncmp(p->line, "level=warn ", 11) == 0 && strstr(p->line, " msg=\"") &&
        !strstr(p->line, " ev=job_failed "))
        log_sentence(p->line, p->warning, sizeof p->warning);
    p->n_line = 0;
    p->is_cut = false;
}

static void take(struct log_pipe *p, const char *bytes, ssize_t n)
{
    for (ssize_t i = 0; i < n; i++) {
        if (bytes[i] == '\n') end_line(p);
        else if (p->n_line < LOG_LINE_MAX - 1) p->line[p->n_line++] = bytes[i];
        else if (!p->is_cut) {
            p->is_cut = true;
            p->n_dropped++;
        }
    }
}

void log_pipe_read(struct log_pipe *p)
{
    char buf[16384];
    for (int i = 0; i < 4; i++) {
        const ssize_t n = read(p->read_fd, buf, sizeof buf);
        if (n <= 0) return;
        take(p, buf, n);
    }
}

void log_pipe_flush(struct log_pipe *p)
{
    char buf[16384];
    ssize_t n;
    /* Bounded by the pipe: nobody writes any more, or a grandchild would hold us here. */
    for (int i = 0; i < 64 && (n = read(p->read_fd, buf, sizeof buf)) > 0; i++) take(p, buf, n);
    if (p->n_line > 0) end_line(p);
}

void log_pipe_write(struct log_pipe *p, const char *line)
{
    append(p, line, (int32_t)strnlen(line, LOG_LINE_MAX - 1));
}
