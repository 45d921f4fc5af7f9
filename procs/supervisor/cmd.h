/* cmd.h - the commands. Each returns a code whose sentence main prints, once. */
#ifndef SUPERVISOR_CMD_H
#define SUPERVISOR_CMD_H

#include "common/err.h"
#include "common/job.h"
#include "procs/supervisor/args.h"

MUST_USE err_t cmd_up(const struct args *a, const char *bin_dir);
MUST_USE err_t cmd_prepare(const struct args *a, const char *bin_dir);
MUST_USE err_t cmd_down(const struct args *a, const char *bin_dir);
MUST_USE err_t cmd_status(const struct args *a, const char *bin_dir);
MUST_USE err_t cmd_restart(const struct args *a, const char *bin_dir);
MUST_USE err_t cmd_generate(const struct args *a, const char *bin_dir);
MUST_USE err_t cmd_serve(const struct args *a, const char *bin_dir);
MUST_USE err_t cmd_replay(const struct args *a, const char *bin_dir);
MUST_USE err_t cmd_prompt(const struct args *a, const char *bin_dir);
MUST_USE err_t cmd_preset(const struct args *a, const char *bin_dir);
MUST_USE err_t cmd_doctor(const struct args *a, const char *bin_dir);
MUST_USE err_t cmd_bench(const struct args *a, const char *bin_dir);
MUST_USE err_t cmd_trace(const struct args *a, const char *bin_dir);
MUST_USE err_t cmd_compare(const struct args *a, const char *bin_dir);
MUST_USE err_t cmd_inspect(const struct args *a, const char *bin_dir);
MUST_USE err_t cmd_convert(const struct args *a, const char *bin_dir);

#endif
