/* fake.h - stages for the supervisor's tests: shell scripts in scratch_dir, which stands for
 * BINDIR.
 *
 * Each writes its life to scratch_dir/trace. What is in NAME.before is run before it says that it
 * can serve, NAME.after after that. */
#ifndef TESTS_PROCS_SUPERVISOR_FAKE_H
#define TESTS_PROCS_SUPERVISOR_FAKE_H

#include <stdbool.h>
#include <sys/stat.h>

#include "common/clock.h"
#include "common/conf.h"
#include "common/file.h"
#include "procs/supervisor/super.h"
#include "tests/scratch.h"

static inline void fake_programs(void)
{
    static const char *const names[] = {"keeper", "text", "dit", "vae", "gateway", "ctl"};
    static const char script[] = "#!/bin/sh\n"
                                 "name=${0##*/longlived-}; dir=${0%/*}\n"
                                 "trap 'echo \"term $name\" >> $dir/trace; exit 0' TERM\n"
                                 "trap 'echo \"hup $name\" >> $dir/trace; exit 0' HUP\n"
                                 "echo \"start $name $$\" >> $dir/trace\n"
                                 "[ ! -e $dir/$name.before ] || . $dir/$name.before\n"
                                 "echo >&3; exec 3>&-\n"
                                 "[ ! -e $dir/$name.after ] || . $dir/$name.after\n"
                                 "while :; do sleep 0.05; done\n";
    char name[32];
    for (int i = 0; i < 6; i++) {
        snprintf(name, sizeof name, "longlived-%s", names[i]);
        assert_int_equal(chmod(scratch_put(name, script), 0700), 0);
    }
    scratch_put("trace", "");
}

/* What the fake processes have written, to be freed. One of them may write while it is read, which
 * file_read refuses: then again. */
static inline void fake_text(char **text)
{
    size_t n_text;
    err_t e = file_read(scratch_path("trace"), 1 << 20, text, &n_text);
    while (e != OK && strstr(err_text(), "grew while it was read"))
        e = file_read(scratch_path("trace"), 1 << 20, text, &n_text);
    check_ok(e);
}

/* The n-th (from 0) place of words in the trace; -1: fewer. */
static inline int32_t fake_trace(const char *words, int n)
{
    char *text;
    fake_text(&text);
    const char *at = strstr(text, words);
    for (int i = 0; at && i < n; i++) at = strstr(at + 1, words);
    const int32_t place = at ? (int32_t)(at - text) : -1;
    free(text);
    return place;
}

static inline int32_t fake_count(const char *words)
{
    int32_t n = 0;
    while (fake_trace(words, n) >= 0) n++;
    return n;
}

/* The pid of the n-th start of a process. */
static inline int fake_pid(const char *name, int n)
{
    char words[40];
    snprintf(words, sizeof words, "start %s ", name);
    const int32_t at = fake_trace(words, n);
    if (at < 0) return 0;
    char *text;
    fake_text(&text);
    const int pid = atoi(text + at + strlen(words));
    free(text);
    return pid;
}

static inline void fake_conf(struct conf *c)
{
    conf_default(c);
    c->supervisor.stop_s_max = 1;
    c->supervisor.ready_s_max = 20;
}

static inline void fake_open(struct super **s, struct rundir *dir, const struct conf *c)
{
    fake_programs();
    check_ok(rundir_open(dir, scratch_path("run")));
    const struct super_conf sc = {
        .bin_dir = scratch_dir, .dir = dir, .conf = c, .gateway_out_fd = -1};
    check_ok(super_open(s, &sc));
}

/* Steps until cond; false after 20 s. */
static inline bool fake_until(struct super *s, bool (*cond)(const struct super *s))
{
    const int64_t end_ns = now_ns() + (int64_t)20 * NS_PER_S;
    while (!cond(s) && now_ns() < end_ns) super_step(s, 20);
    return cond(s);
}

static inline void fake_close(struct super **s, struct rundir *dir)
{
    if (*s) super_stop(*s);
    if (*s) assert_true(fake_until(*s, super_is_gone));
    super_close(s);
    rundir_close(dir, false);
    assert_int_not_equal(access(scratch_path("run"), F_OK), 0);
}

#endif
