/* dev.h - the device seam: allocate, copy, order, share. One contract, one backend a device kind.
 *
 * A device is opened by name, "cpu" or "cuda:N". Work on a device (dev_copy, dev_upload, every op
 * of kernels/ops.h) is ordered: each call sees the results of the calls before it. It is complete
 * for the host only after dev_sync. Device memory is allocated while a model is opened; dev_seal
 * ends that time, and an allocation after it is a counted ERR_LIMIT.
 *
 * Shared memory outlives the process that maps it: the keeper makes it (dev_share_make), a stage
 * maps it (dev_share_map). On the CPU it is a file in the run directory, mode 0600, whose blocks
 * are allocated before use, so that a full /dev/shm is an error and not a SIGBUS. On a GPU it is an
 * allocation of the keeper's, passed as a CUDA IPC memory handle, and it goes when the keeper does.
 *
 * Errors: ERR_NONE no such device; ERR_NOMEM; ERR_DEVICE a device fault: the process must exit.
 */
#ifndef COMMON_DEV_H
#define COMMON_DEV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

#ifdef __cplusplus
extern "C" {
#endif

enum dev_kind { DEV_CPU, DEV_CUDA, DEV_KINDS };
struct dev;

/* name: "cpu" or "cuda:N". n_threads: threads of a CPU op, 1 to 256; other devices ignore it.
 * Results never depend on it. */
MUST_USE err_t dev_open(struct dev **out, const char *name, int32_t n_threads);
void dev_close(struct dev **d); /* NULL-safe; MUST find no live allocation */

/* OK if a device of this name can be opened here; else the error that dev_open would give.
 * Allocates nothing, so the supervisor and the command line may ask. */
MUST_USE err_t dev_check(const char *name);

/* What a device says of itself, for people. */
struct dev_info {
    char text[160];                 /* CUDA: the GPU's name, and what the driver is for */
    uint64_t free_bytes, all_bytes; /* its memory; CPU: 0 0 */
};
MUST_USE err_t dev_info(struct dev *d, struct dev_info *out);

/* For the log of a start: what has begun at began_ns and ends now is counted under a name, a
 * literal; dev_took_text says " NAME_ms=T" for each, "" for none. */
void dev_took(struct dev *d, const char *name, int64_t began_ns);
void dev_took_text(const struct dev *d, char *text, size_t bytes);

enum dev_kind dev_kind(const struct dev *d);
const char *dev_name(const struct dev *d); /* as it was opened */
int32_t dev_threads(const struct dev *d);

/* At least 64-byte aligned, zeroed. bytes > 0. */
MUST_USE err_t dev_alloc(struct dev *d, size_t bytes, void **out);
void dev_free(struct dev *d, void **p); /* NULL-safe, nulls the pointer */

void dev_seal(struct dev *d);
void dev_unseal(struct dev *d); /* for what is loaded again later, and then sealed again */
size_t dev_live_bytes(const struct dev *d);
uint64_t dev_allocs_sealed(const struct dev *d); /* allocations asked for after dev_seal */

/* The n-th dev_alloc from now (0 = the next) fails with ERR_NOMEM; negative: none does. */
void dev_fail_at(struct dev *d, int n);

/* host_src may be written again at once, unless it is pinned: then after dev_sync. */
MUST_USE err_t dev_upload(struct dev *d, void *dst, const void *host_src, size_t bytes);
MUST_USE err_t dev_download(struct dev *d, void *host_dst, const void *src, size_t bytes);
MUST_USE err_t dev_copy(struct dev *d, void *dst, const void *src, size_t bytes); /* no overlap */
MUST_USE err_t dev_zero(struct dev *d, void *dst, size_t bytes);
MUST_USE err_t dev_sync(struct dev *d);

/* What is queued on `after` from now on begins when what was queued on `before` up to now is done;
 * the host does not wait. Devices of one kind and of this process, with whose end such a wait ends,
 * too; one GPU that was opened twice is two. */
MUST_USE err_t dev_order(struct dev *after, struct dev *before);
/* For the front of ops: this thread's next calls into a GPU's libraries are about this device. */
MUST_USE err_t dev_enter(struct dev *d);

/* Mapped host memory, made fast to copy from and to; a CPU needs nothing. Refused for memory that
 * cannot be pinned, as a file on some disks is: then copies are slower, that is all. */
MUST_USE err_t dev_pin(struct dev *d, void *host, size_t bytes);
void dev_unpin(struct dev *d, void *host);

/* --- recorded work ---------------------------------------------------------------------------
 * A sequence of ops and copies on the device that is queued many times: with a GPU a CUDA graph,
 * made once, so that queueing it costs one call; on the CPU the call of `work`. What changes from
 * one time to the next is read from device memory, so `work` may neither upload nor sync. */
struct dev_graph;

/* Off: nothing is recorded on this device, `work` is called at each replay. On after dev_open; not
 * to be changed while there is a graph. */
void dev_set_graphs(struct dev *d, bool is_on);
bool dev_has_graphs(const struct dev *d);

/* Records what work(self) queues; it does not run. self must live as long as the graph. */
MUST_USE err_t dev_record(struct dev *d, struct dev_graph **out, err_t (*work)(void *self),
                          void *self);
MUST_USE err_t dev_replay(struct dev *d, struct dev_graph *g);
void dev_graph_close(struct dev *d, struct dev_graph **g); /* NULL-safe */

/* --- marks -----------------------------------------------------------------------------------
 * When the device came to a place in its work: for benches. A mark is queued like work, and costs
 * the device next to nothing. */
struct dev_marks;

/* n > 0 marks, counted from 0. */
MUST_USE err_t dev_marks_open(struct dev *d, struct dev_marks **out, int32_t n);
void dev_marks_close(struct dev *d, struct dev_marks **m); /* NULL-safe */
MUST_USE err_t dev_mark(struct dev *d, struct dev_marks *m, int32_t i);
/* Nanoseconds from mark 0 to each of the first n, all of which have been set: after dev_sync. */
MUST_USE err_t dev_marks_read(struct dev *d, struct dev_marks *m, int32_t n, int64_t *ns);

/* --- sharing ------------------------------------------------------------------------------- */

enum { DEV_PATH_MAX = 200 };

/* Names shared memory to another process. Plain bytes: it travels in a message. */
struct dev_share {
    char path[DEV_PATH_MAX]; /* CPU: the file; else a name for people */
    uint64_t n_bytes;
    unsigned char handle[64]; /* CUDA: the IPC memory handle */
    unsigned char uuid[16];   /* CUDA: the GPU whose memory it is */
    unsigned char nonce[16];  /* CUDA: what its end must hold */
};

/* Makes shared memory of n_bytes, zeroed, named by path. An existing file is replaced. */
MUST_USE err_t dev_share_make(struct dev *d, const char *path, uint64_t n_bytes,
                              struct dev_share *out);
/* OK if what the share names still exists with its size. */
MUST_USE err_t dev_share_check(struct dev *d, const struct dev_share *s);
/* ERR_REFUSED: this system lets d map no such memory; ERR_NONE: it is gone. */
MUST_USE err_t dev_share_map(struct dev *d, const struct dev_share *s, void **out);
void dev_share_unmap(struct dev *d, const struct dev_share *s, void **p); /* NULL-safe */
void dev_share_drop(struct dev *d, const struct dev_share *s); /* the memory goes with its maps */
/* OK: d and the device of this name are one GPU, or two of which each can reach the other's memory,
 * as the driver says: that it can be mapped only dev_share_map shows. Else ERR_REFUSED. */
MUST_USE err_t dev_check_peer(struct dev *d, const char *name);

#ifdef __cplusplus
}
#endif
#endif
