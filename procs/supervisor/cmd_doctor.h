/* cmd_doctor.h - what the checks of doctor share. */
#ifndef SUPERVISOR_CMD_DOCTOR_H
#define SUPERVISOR_CMD_DOCTOR_H

#include "common/conf.h"
#include "procs/supervisor/cmd.h"

enum doctor_verdict { GOOD, NOTE, BAD };

struct doctor {
    const struct args *args;
    const char *bin_dir;
    const struct conf *conf; /* NULL: none given */
    int32_t n_bad;
};

/* A line; the remedy is printed unless all is well, and may be empty. */
void doctor_say(struct doctor *d, enum doctor_verdict v, const char *what, const char *found,
                const char *remedy);

/* The devices that the configuration names, or else cuda:0: can each be used, is its memory shared
 * between processes, is there enough of it. */
void doctor_devices(struct doctor *d);

#endif
