/* err.h - the one error idiom: a code to act on, a sentence for people, one label to leave by.
 *
 * A function that can fail returns err_t. It calls others through TRY, which leaves the code in the
 * local `e` and goes to the local label `out`, where everything that was opened is closed. FAIL
 * writes the sentence once, where the fault is known; main logs it once; nobody logs in between.
 */
#ifndef COMMON_ERR_H
#define COMMON_ERR_H

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    OK = 0,
    ERR_USAGE,   /* command line */
    ERR_GAVE_UP, /* the supervisor stopped restarting a stage */
    ERR_DATA,    /* input that is not what it must be: prompt, script, message */
    ERR_NOINPUT, /* a file that is missing or cannot be read */
    ERR_NONE,    /* no such device, no session, nobody there */
    ERR_BUG,     /* our own fault, found at run time */
    ERR_SHAPE,   /* tensors that break an op's contract */
    ERR_DEVICE,  /* a device fault; the process must exit */
    ERR_WRITE,   /* output that cannot be written */
    ERR_FULL,    /* nor that, for lack of room on its disk: there may be some later */
    ERR_NOMEM,   /* memory, host or device */
    ERR_LIMIT,   /* a documented bound was reached */
    ERR_TIMEOUT, /* a deadline passed */
    ERR_AGAIN,   /* works if tried again later */
    ERR_CONFIG,  /* configuration */
    ERR_RUNNING, /* another instance holds the run directory */
    ERR_REFUSED, /* this system shares no memory of a device between processes */
    ERR_CODES
} err_t;

#define MUST_USE __attribute__((warn_unused_result))

/* Records the sentence and returns code, so that `return FAIL(...)` reads as one act. */
#define FAIL(code, ...) err_set((code), __FILE__, __LINE__, __VA_ARGS__)

#define TRY(call)                                                                                  \
    do {                                                                                           \
        if ((e = (call)) != OK) goto out;                                                          \
    } while (0)

/* A promise between two pieces of our own code. Checked in release builds too. */
#define MUST(cond)                                                                                 \
    do {                                                                                           \
        if (!(cond)) err_abort(#cond, __FILE__, __LINE__);                                         \
    } while (0)

/* Keeps the sentence (cut at 511 bytes; control characters become ?); returns code. */
err_t err_set(err_t code, const char *file, int line, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* Puts "context: " before the sentence kept; returns code. For the caller who knows the file. */
err_t err_prefix(err_t code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The last sentence of this process, never NULL. */
const char *err_text(void);

/* The exit status that main returns for a code: the table in docs/PROTOCOL.md. */
int err_exit_status(err_t code);

void err_abort(const char *cond, const char *file, int line) __attribute__((noreturn));

#ifdef __cplusplus
}
#endif
#endif
