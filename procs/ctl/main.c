/* main.c - longlived-ctl: the command line's messages to the gateway, apart from it because it has
 * ZeroMQ.
 *
 *   longlived-ctl prompt --run DIR TEXT   a new prompt; prints the receipt once it is decided
 *   longlived-ctl feed --run DIR          the same for every line of standard input
 *   longlived-ctl preset --run DIR WINDOW STEPS   the same for other steps and another window
 *   longlived-ctl finish --run DIR JOB    the job finishes its block and file
 *   longlived-ctl messages                the table of messages in docs/PROTOCOL.md
 *
 * A request has a random number; it is sent again every second until it is answered, and the
 * gateway takes it once. No receipt for 60 s (the gateway hangs, or what was asked is not decided,
 * as a preset before a session's first prompt): exit 75.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/prompt.h"
#include "ipc/msg.h"
#include "ipc/sock.h"

#define AGAIN_NS ((int64_t)NS_PER_S)
#define GIVE_UP_NS ((int64_t)60 * NS_PER_S)
enum { FLIGHTS = 32, WAIT_MS = 100 };

/* A request on its way: unanswered while request != 0. */
struct flight {
    uint64_t request;
    int64_t first_ns, sent_ns;
    size_t n_bytes;
    uint8_t bytes[PROMPT_BYTES_MAX + 256];
};

struct ctl {
    struct client *client;
    struct flight flights[FLIGHTS];
    int32_t n_flights;
    bool is_feed;   /* a refused line is one line; the next may be taken */
    bool is_finish; /* its receipt names no block */
    char line[PROMPT_BYTES_MAX + 2];
    int32_t n_line;
    bool is_cut, is_eof;
};

static struct msg msg; /* 16 KiB, and one at a time */
static uint8_t reply[MSG_BYTES_MAX];

static err_t new_request(uint64_t *out)
{
    *out = 0;
    while (*out == 0)
        if (getrandom(out, sizeof *out, 0) != sizeof *out)
            return FAIL(ERR_AGAIN, "random number: %s", strerror(errno));
    *out >>= 1; /* fits an int64 of any reader's */
    if (*out == 0) *out = 1;
    return OK;
}

/* Puts it on its way: number is the window of a preset, whose steps text is, or a job to finish. */
static err_t request(struct ctl *c, enum msg_type type, const char *number, const char *text)
{
    err_t e = OK;
    struct flight *f = c->flights;
    while (f->request != 0) f++;
    MUST(f < c->flights + FLIGHTS);
    memset(&msg, 0, sizeof msg);
    msg.type = type;
    TRY(new_request(&msg.request));
    msg.job = type == MSG_FINISH ? strtoull(number, NULL, 10) : 0;
    msg.window = type == MSG_PRESET ? strtoll(number, NULL, 10) : 0;
    snprintf(msg.text, sizeof msg.text, "%s", text);
    f->n_bytes = msg_pack(&msg, f->bytes, sizeof f->bytes);
    if (f->n_bytes == 0) return FAIL(ERR_USAGE, "%s %s: out of bounds", number, text);
    f->first_ns = f->sent_ns = now_ns();
    TRY(client_send(c->client, f->bytes, f->n_bytes));
    f->request = msg.request;
    c->n_flights++;
out:
    return e;
}

static void done(struct ctl *c, struct flight *f)
{
    f->request = 0;
    c->n_flights--;
}

static err_t send_again(struct ctl *c)
{
    err_t e = OK;
    const int64_t at_ns = now_ns();
    for (struct flight *f = c->flights; f < c->flights + FLIGHTS; f++) {
        if (f->request == 0) continue;
        if (at_ns - f->first_ns > GIVE_UP_NS) {
            done(c, f);
            if (!c->is_feed)
                return FAIL(ERR_TIMEOUT, "no receipt within 60 s: it may still take effect");
            fprintf(stderr, "longlived: a prompt got no receipt within 60 s\n");
        } else if (at_ns - f->sent_ns > AGAIN_NS) {
            f->sent_ns = at_ns;
            TRY(client_send(c->client, f->bytes, f->n_bytes));
        }
    }
out:
    return e;
}

static err_t code_of(int64_t status)
{
    for (int c = ERR_USAGE; c < ERR_CODES; c++)
        if (err_exit_status((err_t)c) == status) return (err_t)c;
    return ERR_BUG;
}

/* An answer that is not ours, or a second one to the same request, is nobody's. */
static err_t take_reply(struct ctl *c, size_t n_bytes)
{
    struct flight *f = c->flights;
    if (msg_unpack(&msg, reply, n_bytes) != OK) return OK;
    if (msg.request == 0) return OK;
    while (f < c->flights + FLIGHTS && f->request != msg.request) f++;
    if (f == c->flights + FLIGHTS) return OK;
    if (msg.type == MSG_RECEIPT && c->is_finish) {
        done(c, f); /* a bare yes */
    } else if (msg.type == MSG_RECEIPT) {
        printf("block %" PRId64 "  latent %" PRId64 "  frame %" PRId64 "  at %.2f s\n", msg.block,
               msg.latent, msg.frame, (double)msg.time_ms / 1000);
        fflush(stdout);
        if (msg.tokens_full > msg.tokens)
            fprintf(stderr, "longlived: the prompt has %" PRId64 " tokens, %" PRId64 " are used\n",
                    msg.tokens_full, msg.tokens);
        done(c, f);
    } else if (msg.type == MSG_REFUSED) {
        done(c, f);
        if (!c->is_feed) return FAIL(code_of(msg.status), "%s", msg.text);
        fprintf(stderr, "longlived: %s\n", msg.text);
    }
    return OK;
}

/* Sends again, and waits for an answer or for input. *has_input: extra_fd woke us. */
static err_t turn(struct ctl *c, int extra_fd, bool *has_input)
{
    err_t e = OK;
    size_t n_bytes = 0;
    *has_input = false;
    TRY(send_again(c));
    e = client_wait(c->client, WAIT_MS, extra_fd, reply, sizeof reply, &n_bytes);
    if (e == ERR_TIMEOUT) return OK;
    TRY(e);
    if (n_bytes > 0) return take_reply(c, n_bytes);
    *has_input = true;
out:
    return e;
}

static err_t ask_once(struct ctl *c, enum msg_type type, const char *number, const char *text)
{
    err_t e = OK;
    bool has_input;
    c->is_finish = type == MSG_FINISH;
    TRY(request(c, type, number, text));
    while (c->n_flights > 0) TRY(turn(c, -1, &has_input));
out:
    return e;
}

/* --- feed ------------------------------------------------------------------------------------- */

static err_t end_line(struct ctl *c)
{
    err_t e = OK;
    const int32_t n = c->n_line;
    const bool was_cut = c->is_cut;
    c->n_line = 0;
    c->is_cut = false;
    if (was_cut) {
        fprintf(stderr, "longlived: a prompt of more than %d bytes was not taken\n",
                PROMPT_BYTES_MAX);
        return OK;
    }
    if (strspn(c->line, " \t\r") == (size_t)n) return OK; /* nothing said */
    if (prompt_check(c->line, (size_t)n) != OK) {
        fprintf(stderr, "longlived: %s\n", err_text());
        return OK;
    }
    TRY(request(c, MSG_PROMPT, "", c->line));
out:
    return e;
}

/* A line at most: what is behind it stays in the pipe, so that no more than FLIGHTS are out. */
static err_t take_input(struct ctl *c)
{
    char byte;
    err_t e = OK;
    const ssize_t n = read(STDIN_FILENO, &byte, 1);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return OK;
    if (n <= 0) c->is_eof = true;
    if (n == 1 && byte != '\n') {
        if (c->n_line < PROMPT_BYTES_MAX) c->line[c->n_line++] = byte;
        else c->is_cut = true;
        return OK;
    }
    c->line[c->n_line] = 0;
    TRY(end_line(c));
out:
    return e;
}

static err_t feed(struct ctl *c)
{
    err_t e = OK;
    bool has_input;
    c->is_feed = true;
    while (!c->is_eof || c->n_flights > 0) {
        const bool may_read = !c->is_eof && c->n_flights < FLIGHTS;
        TRY(turn(c, may_read ? STDIN_FILENO : -1, &has_input));
        if (has_input) TRY(take_input(c));
    }
out:
    return e;
}

/* --- the process ------------------------------------------------------------------------------ */

static const char usage[] =
    "usage: longlived-ctl prompt|feed|preset|finish --run DIR [TEXT|WINDOW STEPS|JOB],"
    " or longlived-ctl messages";

static err_t run(int argc, char **argv)
{
    static struct ctl c;
    err_t e = OK;
    const char *verb = argc > 1 ? argv[1] : "";
    const bool is_prompt = strcmp(verb, "prompt") == 0, is_feed = strcmp(verb, "feed") == 0;
    const bool is_preset = strcmp(verb, "preset") == 0;
    if (argc == 2 && strcmp(verb, "messages") == 0) {
        msg_print_help(stdout);
        return OK;
    }
    if (argc != (is_feed ? 4 : is_preset ? 6 : 5) || strcmp(argv[2], "--run") != 0)
        return FAIL(ERR_USAGE, "%s", usage);
    if (is_prompt) TRY(prompt_check(argv[4], strlen(argv[4])));
    TRY(client_open(&c.client, argv[3]));
    if (is_prompt) TRY(ask_once(&c, MSG_PROMPT, "", argv[4]));
    else if (is_feed) TRY(feed(&c));
    else if (is_preset) TRY(ask_once(&c, MSG_PRESET, argv[4], argv[5]));
    else if (strcmp(verb, "finish") == 0) TRY(ask_once(&c, MSG_FINISH, argv[4], ""));
    else e = FAIL(ERR_USAGE, "%s", usage);
out:
    client_close(&c.client);
    return e;
}

int main(int argc, char **argv)
{
    log_open("ctl");
    const err_t e = run(argc, argv);
    if (e != OK) fprintf(stderr, "longlived: %s\n", err_text());
    return err_exit_status(e);
}
