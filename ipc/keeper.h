/* keeper.h - how a stage reaches the keeper: leases, incarnations, regions.
 *
 * The keeper owns every byte that must outlive a stage. A stage connects to the UNIX seqpacket
 * socket RUN_DIR/keeper.sock; SO_PEERCRED names its pid. It takes a lease on its name; the keeper
 * gives a name to one pid, and to the next only when the first one's pidfd says that it is gone. So
 * a region has one writer under any supervisor. Then the stage asks for its regions and maps them.
 *
 * Messages are the fixed structs below, one a packet; a packet of another size, version or with an
 * unterminated name is refused and counted.
 */
#ifndef IPC_KEEPER_H
#define IPC_KEEPER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/dev.h"
#include "common/err.h"

enum { KEEPER_VERSION = 2, KEEPER_NAME_MAX = 32, KEEPER_REGIONS_MAX = 32, KEEPER_TEXT_MAX = 200 };

enum keeper_op { KEEPER_LEASE = 1, KEEPER_REGION, KEEPER_SEAL, KEEPER_FREE, KEEPER_LIST };

/* A region's life. FILLING by a dead incarnation begins again. */
enum region_state { REGION_EMPTY, REGION_FILLING, REGION_SEALED };

struct keeper_request {
    uint32_t version, op;         /* enum keeper_op */
    char name[KEEPER_NAME_MAX];   /* LEASE: the stage; else the region */
    char device[KEEPER_NAME_MAX]; /* REGION: "cpu" ... */
    uint64_t n_bytes;             /* REGION */
    uint64_t layout;              /* REGION: layout number of the content */
    uint8_t identity[32];         /* REGION: what the content is made of; zeros: just memory */
    uint32_t index;               /* LIST: which region, from 0 */
    uint32_t wait_ms;             /* LEASE: how long the keeper may defer its answer */
};

struct keeper_reply {
    uint32_t version;
    uint32_t status;              /* err_t */
    char text[KEEPER_TEXT_MAX];   /* the sentence, when status is not OK */
    char name[KEEPER_NAME_MAX];   /* LIST */
    char device[KEEPER_NAME_MAX]; /* LIST */
    uint64_t incarnation;         /* LEASE: counts from 1 for a name, over the run's life */
    uint64_t generation;          /* REGION: counts how often the memory was made anew */
    uint32_t state;               /* enum region_state */
    uint32_t is_new;              /* REGION: 1: made (zeroed) by this request */
    struct dev_share share;       /* REGION */
};

struct keeper;

struct region {
    char name[KEEPER_NAME_MAX];
    void *data; /* mapped on the device it was asked for */
    uint64_t n_bytes;
    uint64_t generation;
    enum region_state state;
    bool is_new;
    bool is_own; /* keeper_own: of this process, gone with it */
    struct dev_share share;
    struct dev *dev; /* borrowed */
};

/* Retries until wait_ms have passed: the keeper may be starting. ERR_AGAIN: nobody there. */
MUST_USE err_t keeper_connect(struct keeper **out, const char *run_dir, int32_t wait_ms);
void keeper_close(struct keeper **k); /* gives the lease back only when this process ends */

/* Waits up to wait_ms for the holder to end: ERR_RUNNING names its pid when it does not. */
MUST_USE err_t keeper_lease(struct keeper *k, const char *stage, int32_t wait_ms,
                            uint64_t *incarnation);

/* Finds or makes the region, and maps it on d, which may be another than `device` where it lies. A
 * region of another size, layout or identity is dropped and made anew; `identity` may be NULL for
 * plain memory. ERR_NOMEM names region and bytes. What is made and cannot be mapped is dropped. */
MUST_USE err_t keeper_region(struct keeper *k, struct dev *d, const char *name, const char *device,
                             uint64_t n_bytes, uint64_t layout, const uint8_t *identity,
                             struct region *out);
/* Memory of this process in the place of a region that this system lets no other process map
 * (ERR_REFUSED). What the keeper has made for it is dropped. The generation must be another at each
 * start: whoever compares it finds that the content has gone. */
MUST_USE err_t keeper_own(struct keeper *k, struct dev *d, const char *name, uint64_t n_bytes,
                          uint64_t generation, struct region *out);
/* The content is complete: EMPTY -> (first ask) FILLING -> SEALED. Only the filler may. */
MUST_USE err_t keeper_seal(struct keeper *k, struct region *r);
/* Unmaps the region, if it is mapped, and has the keeper drop what it holds of this name, which may
 * be a predecessor's, or nothing. Nobody else may have it mapped. Errors: those of asking the
 * keeper. */
MUST_USE err_t keeper_free(struct keeper *k, const char *name, struct region *r);
/* The n-th region, for status; ERR_NONE past the end. */
MUST_USE err_t keeper_list(struct keeper *k, uint32_t index, struct keeper_reply *out);
void region_unmap(struct region *r); /* NULL-safe; the keeper's memory stays */

/* Readable when the keeper is gone; for poll. */
int keeper_fd(const struct keeper *k);

#endif
