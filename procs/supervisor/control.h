/* control.h - the supervisor's own socket, RUN_DIR/super.sock: one request line, an answer until
 * EOF.
 *
 *   status              one line of JSON
 *   down                stops the pipeline; EOF when the supervisor is gone
 *   restart NAME [kill] ends one process; "ok" when its successor serves
 *
 * An answer that is not JSON begins with "ok" or with "error STATUS sentence". The directory's mode
 * is the guard. Nothing here waits: a request has CONTROL_NS to arrive, or is dropped. */
#ifndef SUPERVISOR_CONTROL_H
#define SUPERVISOR_CONTROL_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/err.h"

enum { CONTROL_CONNS = 8, CONTROL_LINE_MAX = 128, CONTROL_ANSWER_MAX = 8192 };

struct control {
    int listen_fd;
    struct {
        int fd; /* -1: free */
        int32_t n_line;
        bool has_asked;
        int64_t since_ns;
        char line[CONTROL_LINE_MAX];
    } conns[CONTROL_CONNS];
    uint64_t n_refused; /* connections: too many, without a whole line, or with no request in it */
};

struct control_request {
    int32_t conn;
    int32_t n_words;
    char words[3][32]; /* unused ones are "" */
};

MUST_USE err_t control_open(struct control *c, const char *run_dir);
void control_close(struct control *c);

/* Fills at most CONTROL_CONNS + 1 entries for poll; returns how many. */
int32_t control_polls(const struct control *c, struct pollfd *out);

/* The next whole request; false when there is none. */
bool control_next(struct control *c, int64_t at_ns, struct control_request *out);

/* Sends the text and ends the connection. */
void control_answer(struct control *c, int32_t conn, const char *text);

/* The same for what is no request, which is counted. */
void control_refuse(struct control *c, int32_t conn, const char *text);

/* --- the other end ---------------------------------------------------------------------------- */

/* Sends line, reads the answer until EOF, cut at cap - 1. *pid (may be NULL): who listens.
 * ERR_NONE: nobody; ERR_TIMEOUT. An "error STATUS sentence" answer is returned as that error. */
MUST_USE err_t control_ask(const char *run_dir, const char *line, int32_t wait_ms, char *out,
                           size_t cap, pid_t *pid);

#endif
