/* cmd_doctor.c - doctor: what a pipeline needs here, one line a check, and what to do about it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "procs/supervisor/cmd_doctor.h"
#include "procs/supervisor/pipeline.h"

enum { SHM_MIB_MIN = 256 };

void doctor_say(struct doctor *d, enum doctor_verdict v, const char *what, const char *found,
                const char *remedy)
{
    static const char *const names[] = {"ok", "note", "BAD"};
    printf("%-5s%-14s%s%s%s\n", names[v], what, found, v != GOOD && *remedy ? ": " : "",
           v != GOOD ? remedy : "");
    d->n_bad += v == BAD;
}

static void check_shm(struct doctor *d)
{
    char found[64];
    struct statvfs s;
    if (statvfs("/dev/shm", &s) != 0) {
        doctor_say(d, BAD, "/dev/shm", strerror(errno), "mount a tmpfs there, or set run.dir");
        return;
    }
    const unsigned long long mib = (unsigned long long)s.f_bavail * s.f_frsize >> 20;
    snprintf(found, sizeof found, "%llu MiB free", mib);
    doctor_say(d, mib >= SHM_MIB_MIN ? GOOD : NOTE, "/dev/shm", found,
               "regions live there; mount -o remount,size=2G /dev/shm");
}

static void check_run(struct doctor *d)
{
    char run[RUNDIR_PATH_MAX], found[RUNDIR_PATH_MAX + 64];
    struct rundir r;
    const char *wish = d->args->run ? d->args->run : d->conf ? d->conf->run.dir : "";
    err_t e = rundir_path(run, wish, "main");
    if (e == OK && rundir_holder(run) != 0) {
        snprintf(found, sizeof found, "%s is in use by pid %d", run, (int)rundir_holder(run));
        doctor_say(d, GOOD, "run directory", found, "");
        return;
    }
    if (e == OK) e = rundir_open(&r, run);
    if (e != OK) {
        doctor_say(d, BAD, "run directory", err_text(), "choose another one by --run DIR");
        return;
    }
    rundir_close(&r, false);
    doctor_say(d, GOOD, "run directory", run, "");
}

static void check_programs(struct doctor *d)
{
    static const char *const names[] = {"keeper", "text", "dit", "vae", "gateway", "ctl"};
    char path[320], missing[128] = "missing:";
    bool is_missing = false;
    for (int i = 0; i < 6; i++) {
        snprintf(path, sizeof path, "%s/longlived-%s", d->bin_dir, names[i]);
        if (access(path, X_OK) == 0) continue;
        is_missing = true;
        strcat(strcat(missing, " longlived-"), names[i]);
    }
    if (is_missing) doctor_say(d, BAD, "programs", missing, "run make");
    else doctor_say(d, GOOD, "programs", d->bin_dir, "");
}

static void check_mp4(struct doctor *d)
{
    if (pipeline_check_mp4(d->bin_dir) == OK) doctor_say(d, GOOD, "mp4", "can be written", "");
    else doctor_say(d, NOTE, "mp4", "cannot be written", err_text());
}

static void check_ffmpeg(struct doctor *d)
{
    char path[512];
    const char *dirs = getenv("PATH");
    while (dirs && *dirs) {
        const size_t n = strcspn(dirs, ":");
        snprintf(path, sizeof path, "%.*s/ffmpeg", (int)(n < 400 ? n : 400), dirs);
        if (access(path, X_OK) == 0) {
            doctor_say(d, GOOD, "ffmpeg", path, "");
            return;
        }
        dirs += n + (dirs[n] == ':');
    }
    doctor_say(d, NOTE, "ffmpeg", "not found", "not needed; install ffmpeg to look at .y4m files");
}

static void check_cpu(struct doctor *d)
{
    char found[64];
    const long n = sysconf(_SC_NPROCESSORS_ONLN);
#if defined __x86_64__
    const bool is_wide = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    snprintf(found, sizeof found, "%ld cores, %s AVX2 and FMA", n, is_wide ? "with" : "without");
#else
    const bool is_wide = true;
    snprintf(found, sizeof found, "%ld cores", n);
#endif
    doctor_say(d, is_wide ? GOOD : NOTE, "cpu", found, "slow: expect less than real time");
}

err_t cmd_doctor(const struct args *a, const char *bin_dir)
{
    err_t e = OK;
    struct doctor d = {.args = a, .bin_dir = bin_dir};
    struct conf *c = calloc(1, sizeof *c);
    if (!c) return FAIL(ERR_NOMEM, "configuration");
    if (a->conf || a->n_sets) {
        TRY(pipeline_conf(c, a, bin_dir));
        d.conf = c;
    }
    check_programs(&d);
    check_shm(&d);
    check_run(&d);
    check_cpu(&d);
    doctor_devices(&d);
    check_mp4(&d);
    check_ffmpeg(&d);
    if (d.n_bad > 0) e = FAIL(ERR_NONE, "doctor: %d of the checks above stand in the way", d.n_bad);
out:
    free(c);
    return e;
}
