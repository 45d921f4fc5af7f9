/* logs.h - one process's log: a pipe that never blocks the writer, a file that is rotated, and the
 * last error kept for the user.
 *
 * The pipe lives as long as the supervisor, so a restart loses no line. A line gets the time in
 * front; over LOG_LINE_MAX it is cut. What cannot be written is dropped and counted. */
#ifndef SUPERVISOR_LOGS_H
#define SUPERVISOR_LOGS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

enum { LOG_LINE_MAX = 8192, LOG_FILE_BYTES = 8 << 20, LOG_FILES = 4, LOG_TEXT_MAX = 400 };

struct log_pipe {
    int read_fd, write_fd; /* write_fd goes to the child as its stderr */
    int dir_fd;            /* borrowed: RUN_DIR/log */
    int file_fd;
    int64_t n_file_bytes;
    uint64_t n_dropped;
    char name[32]; /* of the file: NAME.log */
    char line[LOG_LINE_MAX];
    int32_t n_line;
    bool is_cut;                /* the rest of this line is dropped */
    char error[LOG_TEXT_MAX];   /* msg of the last level=error line; "" none */
    char warning[LOG_TEXT_MAX]; /* msg of the last level=warn line that has one; "" none */
};

MUST_USE err_t log_pipe_open(struct log_pipe *p, int dir_fd, const char *name);
void log_pipe_close(struct log_pipe *p);

/* Takes what is in the pipe, at most 64 KiB. */
void log_pipe_read(struct log_pipe *p);

/* The writer is gone: takes everything that it left, a torn last line too. */
void log_pipe_flush(struct log_pipe *p);

/* A line of our own. */
void log_pipe_write(struct log_pipe *p, const char *line);

/* The sentence for people in a log line: msg="..." or what="...", else all behind the stage's name.
 * Writes at most cap bytes, NUL included. */
void log_sentence(const char *line, char *out, int32_t cap);

#endif
