/* main.c - longlived-keeper: owns every byte that must outlive a stage. See ipc/keeper.h. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/dev.h"
#include "common/fault.h"
#include "common/log.h"
#include "procs/keeper/keeperd.h"
#include "procs/keeper/probe.h"

enum { BEAT_MS = 1000 };

static const char usage[] =
    "usage: longlived-keeper --run DIR [--ready-fd N]\n"
    "       longlived-keeper --device NAME [--peer NAME]\n"
    "\n"
    "Holds the memory of the pipeline in DIR (mode 700), and gives every name to one process at a\n"
    "time. Ends on SIGTERM; what it holds stays in DIR for the next keeper.\n"
    "\n"
    "  --run DIR      run directory\n"
    "  --ready-fd N   write a newline there when the socket listens, then a dot each second\n"
    "  --device NAME  only try to use that device (cpu, cuda:N), and say in a line what it is, or\n"
    "                 why it cannot be used\n"
    "  --peer NAME    only try whether another process can map memory of --device on this one\n"
    "\n"
    "exit: 0 stopped, 2 usage, 66 no DIR, 73 cannot write, 75 no memory, 78 DIR is not private,\n"
    "      100 another keeper runs there\n";

static volatile sig_atomic_t is_stopping;

static void on_stop(int signo)
{
    (void)signo;
    is_stopping = 1;
}

struct options {
    const char *run_dir, *device, *peer, *map;
    int ready_fd;
    bool is_help;
};

static err_t parse(int argc, char **argv, struct options *o)
{
    static const struct option known[] = {
        {"run", required_argument, NULL, 'r'},
        {"ready-fd", required_argument, NULL, 'f'},
        {"device", required_argument, NULL, 'd'},
        {"peer", required_argument, NULL, 'p'},
        {"map", required_argument, NULL, 'm'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    char *end = NULL;
    long fd = 0;
    opterr = 0;
    for (int c; (c = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        switch (c) {
        case 'r':
            o->run_dir = optarg;
            break;
        case 'f':
            fd = strtol(optarg, &end, 10);
            if (end == optarg || *end != '\0' || fd < 0 || fd > 65535)
                return FAIL(ERR_USAGE, "--ready-fd %s: not a file descriptor", optarg);
            o->ready_fd = (int)fd;
            break;
        case 'd':
            o->device = optarg;
            break;
        case 'p':
            o->peer = optarg;
            break;
        case 'm':
            o->map = optarg;
            break;
        case 'h':
            o->is_help = true;
            return OK;
        default:
            return FAIL(ERR_USAGE, "%s: unknown option, or one without its value; see --help",
                        argv[optind - 1]);
        }
    }
    if (optind < argc) return FAIL(ERR_USAGE, "%s: unknown argument; see --help", argv[optind]);
    if (!o->run_dir && !o->device && !o->map)
        return FAIL(ERR_USAGE, "--run DIR is missing; see --help");
    return OK;
}

/* Stop signals are blocked but for the wait, so that none slips in between test and wait. */
static void take_signals(void)
{
    struct sigaction on = {.sa_handler = on_stop};
    sigset_t stop;
    sigemptyset(&stop);
    sigaddset(&stop, SIGTERM);
    sigaddset(&stop, SIGINT);
    sigprocmask(SIG_BLOCK, &stop, NULL);
    sigaction(SIGTERM, &on, NULL);
    sigaction(SIGINT, &on, NULL);
}

static err_t run(const struct options *o)
{
    err_t e = OK;
    struct keeperd *k = NULL;
    int64_t beat_ns = now_ns();
    take_signals();
    TRY(fault_open(o->run_dir, "keeper"));
    TRY(keeperd_open(&k, o->run_dir));
    if (o->ready_fd >= 0 && write(o->ready_fd, "\n", 1) != 1) {
        e = FAIL(ERR_USAGE, "--ready-fd %d: %s", o->ready_fd, strerror(errno));
        goto out;
    }
    log_info("ready", "run=\"%s\"", o->run_dir);
    if (o->ready_fd >= 0) fcntl(o->ready_fd, F_SETFL, O_NONBLOCK);
    while (!is_stopping) {
        TRY(keeperd_step(k, o->ready_fd >= 0 ? BEAT_MS : -1));
        if (o->ready_fd >= 0 && now_ns() - beat_ns >= (int64_t)BEAT_MS * NS_PER_MS) {
            beat_ns = now_ns();
            if (write(o->ready_fd, ".", 1) != 1) continue; /* nobody reads just now */
        }
    }
out:
    keeperd_close(&k);
    return e;
}

/* For the command line, which has no CUDA of its own: a line on standard output. */
static err_t probe(const struct options *o)
{
    char line[512] = "";
    const err_t e = o->map    ? probe_map(o->map)
                    : o->peer ? probe_share(o->device, o->peer)
                              : probe_device(o->device, line, sizeof line);
    printf("%s\n", e == OK ? line : err_text());
    return e;
}

int main(int argc, char **argv)
{
    err_t e = OK;
    struct options o = {.ready_fd = -1};
    log_open("keeper");
    signal(SIGPIPE, SIG_IGN);
    TRY(parse(argc, argv, &o));
    if (o.device || o.map) return err_exit_status(probe(&o));
    if (o.is_help) fputs(usage, stdout);
    else TRY(run(&o));
out:
    if (e != OK) log_error("exit", "status=%d msg=\"%s\"", err_exit_status(e), err_text());
    else if (!o.is_help) log_info("exit", "status=0");
    return err_exit_status(e);
}
