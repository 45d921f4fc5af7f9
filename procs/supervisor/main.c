/* main.c - longlived: the command line, which is also the supervisor. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/conf.h"
#include "common/fault.h"
#include "common/log.h"
#include "procs/supervisor/cmd.h"

static err_t help(const struct args *a)
{
    if (!a->word) {
        args_help(stdout);
        return OK;
    }
    if (strcmp(a->word, "config") == 0) {
        conf_print_help(stdout);
        return OK;
    }
    if (strcmp(a->word, "faults") == 0) {
        fault_print_help(stdout);
        return OK;
    }
    for (int c = 0; c < COMMANDS; c++)
        if (strcmp(a->word, args_name((enum command)c)) == 0) {
            args_help_command((enum command)c, stdout);
            return OK;
        }
    return FAIL(ERR_USAGE, "help: no such command %s", a->word);
}

/* The other programs are beside us. */
static err_t find_programs(char *bin_dir, size_t cap)
{
    const ssize_t n = readlink("/proc/self/exe", bin_dir, cap - 1);
    if (n <= 0 || (size_t)n >= cap - 1) return FAIL(ERR_BUG, "/proc/self/exe: path too long");
    bin_dir[n] = 0;
    *strrchr(bin_dir, '/') = 0;
    return OK;
}

static err_t run(const struct args *a)
{
    static err_t (*const commands[COMMANDS])(const struct args *, const char *) = {
        [CMD_UP] = cmd_up,           [CMD_DOWN] = cmd_down,         [CMD_STATUS] = cmd_status,
        [CMD_RESTART] = cmd_restart, [CMD_GENERATE] = cmd_generate, [CMD_SERVE] = cmd_serve,
        [CMD_REPLAY] = cmd_replay,   [CMD_PROMPT] = cmd_prompt,     [CMD_PREPARE] = cmd_prepare,
        [CMD_DOCTOR] = cmd_doctor,   [CMD_BENCH] = cmd_bench,       [CMD_TRACE] = cmd_trace,
        [CMD_COMPARE] = cmd_compare, [CMD_INSPECT] = cmd_inspect,   [CMD_CONVERT] = cmd_convert,
        [CMD_PRESET] = cmd_preset,
    };
    char bin_dir[256];
    err_t e = OK;
    if (a->wants_version) {
        printf("longlived 0.1.0 %s\n", BUILD_COMMIT);
        return OK;
    }
    if (a->wants_help) {
        args_help_command(a->cmd, stdout);
        return OK;
    }
    if (a->cmd == CMD_HELP) return help(a);
    TRY(args_check(a));
    TRY(find_programs(bin_dir, sizeof bin_dir));
    e = commands[a->cmd](a, bin_dir);
out:
    return e;
}

/* What any command printed has arrived, all of it. */
static err_t end_output(void)
{
    const bool is_torn = ferror(stdout);
    if (fflush(stdout) != 0)
        return FAIL(ERR_WRITE, "cannot write standard output: %s", strerror(errno));
    return is_torn ? FAIL(ERR_WRITE, "cannot write all of standard output") : OK;
}

int main(int argc, char **argv)
{
    struct args a;
    log_open("longlived");
    if (argc < 2) {
        args_usage(stderr);
        return err_exit_status(ERR_USAGE);
    }
    err_t e = args_parse(&a, argc, argv);
    a.commit = BUILD_COMMIT;
    if (e == OK) e = run(&a);
    if (e == OK) e = end_output();
    if (e != OK) fprintf(stderr, "longlived: %s\n", err_text());
    return err_exit_status(e);
}
