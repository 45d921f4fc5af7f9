/* watch.h - the one status line while a session runs, from the ledger alone. */
#ifndef SUPERVISOR_WATCH_H
#define SUPERVISOR_WATCH_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "common/conf.h"
#include "ipc/ledger.h"

enum watch_mode { WATCH_OFF, WATCH_TTY, WATCH_LINES, WATCH_JSON };
enum { WATCH_SAMPLES = 8, WATCH_LINE_MAX = 512 };

struct watch {
    enum watch_mode mode;
    int32_t fps, n_per_block; /* run.fps, dit.block */
    int64_t frames_before;    /* committed before this job */
    int64_t n_videos;         /* of the job */
    int64_t shown_ns, sampled_ns;
    bool is_shown; /* a line without its end is on the terminal */
    struct {
        int64_t at_ns, frames;
    } samples[WATCH_SAMPLES]; /* the speed is measured over these */
    int32_t n_samples;
};

/* What the line says. */
struct watch_view {
    int64_t video, n_videos; /* from 0 */
    int64_t block, n_blocks; /* of the session; n_blocks 0: endless */
    int64_t frames;          /* of the job, in the output */
    double fps;              /* made, over the last seconds */
    double ms[WRITERS];      /* last unit of each stage */
    double lead_s;           /* finished video before the viewer, or the file */
    int64_t queue;           /* latents that wait for the vae */
    uint64_t n_late;
    int32_t loaded[WRITERS]; /* percent of its weights; 0: none to be loaded, or done */
};

void watch_open(struct watch *w, enum watch_mode mode, const struct conf *c, int64_t frames_before,
                int64_t n_videos);

/* Pure but for the samples in w. */
void watch_look(struct watch *w, const struct ledger *l, int64_t at_ns, struct watch_view *out);
void watch_text(const struct watch_view *v, char *out, size_t cap);
void watch_json(const struct watch_view *v, char *out, size_t cap);

/* Shows it when it is time: a terminal 5 times a second, else every 2 s. Never waits for f. */
void watch_show(struct watch *w, const struct ledger *l, int64_t at_ns, FILE *f);
void watch_close(struct watch *w, FILE *f); /* ends the line */

#endif
